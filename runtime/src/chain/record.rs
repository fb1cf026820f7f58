//! The entries of a chain on the server. They are JSON, which a person can read with `nats kv get pcluster_chains <key>`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::name::{ChainName, Digest, Revision, Version};
use crate::wire;

/// The most versions in a state. A deploy then moves them to entries of their own.
const VERSIONS_MAX: usize = 64;

/// A deployed manifest. Never changed once written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// The chain.
    pub chain: ChainName,
    /// The author's label.
    pub version: Version,
    /// The number that the deploy gave it.
    pub revision: Revision,
    /// The sha-256 of the content. Equal if and only if the manifests and their plugins are equal.
    pub digest: Digest,
    /// The time of the deploy, as RFC 3339.
    #[expect(clippy::struct_field_names, reason = "as it is stored")]
    pub deployed: String,
    /// The deployer: user, host and process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The manifest. Its plugins are named by their digests.
    pub manifest: Manifest,
}

impl Deployed {
    /// Returns the digest of a manifest with digests for plugins. Does not depend on the wire.
    pub fn digest_of(manifest: &Manifest) -> Result<Digest, serde_json::Error> {
        serde_json::to_vec(&Manifest { wire: None, ..manifest.clone() }).map(|json| Digest::of(&json))
    }

    /// Returns the wire of the revision.
    pub fn wire(&self) -> u32 {
        self.manifest.wire.unwrap_or(wire::OLDEST_WIRE)
    }
}

/// What the initializer of a stage read, when the state of a revision was first made. Never changed once written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The digest of the stored answers.
    pub answers: Digest,
    /// What was read.
    pub read: Vec<String>,
    /// The node that read it.
    pub node: String,
    /// When, as RFC 3339.
    pub time: String,
}

/// The state of a chain: which revisions take part. It is changed only by compare-and-swap, so of two clients that change it at
/// once, one starts over. The streams are changed afterward to agree with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The revision of newly fed items.
    pub active: Revision,
    /// The revisions whose items may run: the active one, and older ones that had items when last checked.
    ///
    /// A client that puts an item into the queues of an older revision writes the state afterward, even without a change. A node
    /// that retires a revision reads the state, then checks that its queues are empty, and then swaps the state. So one of the
    /// two starts over, and no item is left in queues without a node.
    pub live: BTreeSet<Revision>,
    /// The first revision after the last reset. `None` if there was no reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Revision>,
    /// `true` if items may be fed.
    pub open: bool,
    /// The newest deployed versions, with the digests of their content. Older versions have entries of their own, because the
    /// state is one message and must not grow with each deploy.
    pub versions: BTreeMap<Version, Digest>,
    /// Revisions that are being deployed. The streams have their subjects, but no item is fed to them yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pending: BTreeMap<Revision, Pending>,
    /// The wire of the newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<u32>,
}

/// A revision that is being deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The author's label.
    pub version: Version,
    /// The digest of the content.
    pub digest: Digest,
    /// The deployer: user, host and process.
    pub by: String,
    /// The time at which the deploy began, as RFC 3339.
    pub since: String,
    /// A subject on which the deployer answers while it lives. Each deploy uses a new one, so it also identifies the deploy.
    pub answers: String,
    /// The streams that were missing before the first pending deploy. If all of them fail, the last one removes these streams.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<String>,
    /// `true` if the failed deploy removes the chain's streams. The chain then has no other revision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
}

impl State {
    /// Returns the state of a chain with one revision, which is live.
    #[cfg(test)]
    pub(crate) fn of(active: Revision) -> Self {
        let (live, versions, pending) = ([active].into(), BTreeMap::new(), BTreeMap::new());
        Self { active, live, reset: None, open: true, versions, pending, wire: None }
    }

    /// Returns the state with a revision that is being deployed. If the chain had no state, no revision is live yet.
    pub fn entered(before: Option<&Self>, revision: Revision, pending: Pending) -> Self {
        let mut state = before.cloned().unwrap_or_else(|| Self {
            active: revision,
            live: BTreeSet::new(),
            reset: None,
            open: true,
            versions: BTreeMap::new(),
            pending: BTreeMap::new(),
            wire: None,
        });
        state.pending.insert(revision, pending);
        state
    }

    /// Returns the state after a deploy. The items of earlier revisions go on.
    pub fn deployed(&self, new: &Deployed) -> Self {
        let mut state = self.left(new.revision);
        state.active = new.revision;
        state.live.insert(new.revision);
        state.versions.insert(new.version.clone(), new.digest.clone());
        state.wire = Some(wire::WIRE);
        state
    }

    /// Returns the state after a deploy has failed or was canceled.
    pub fn left(&self, revision: Revision) -> Self {
        let mut state = self.clone();
        state.pending.remove(&revision);
        state
    }

    /// Returns `true` if a deploy should move the versions. They get entries of their own.
    pub fn has_many_versions(&self) -> bool {
        self.versions.len() > VERSIONS_MAX
    }

    /// Returns the state after its versions were moved elsewhere.
    pub fn without_versions(&self) -> Self {
        Self { versions: BTreeMap::new(), ..self.clone() }
    }

    /// Returns `true` if a deploy of the chain has ever succeeded.
    pub fn is_deployed(&self) -> bool {
        self.live.contains(&self.active)
    }

    /// Returns `true` if this deploy's revision is still pending.
    pub fn awaits(&self, revision: Revision, own: &Pending) -> bool {
        self.pending.get(&revision).is_some_and(|pending| pending.answers == own.answers)
    }

    /// Returns the revisions whose subjects the streams have.
    pub fn held(&self) -> BTreeSet<Revision> {
        self.live.iter().chain(self.pending.keys()).copied().collect()
    }

    /// Returns `true` if the streams are the same for both states.
    pub fn has_streams_of(&self, other: &Self) -> bool {
        let all = |state: &Self| (state.active, state.live.clone(), state.open, state.held());
        all(self) == all(other)
    }

    /// Returns the state after a reset. No item of an earlier revision may run.
    pub fn reset(&self, new: Revision) -> Self {
        let wire = Some(wire::WIRE);
        Self { active: new, live: BTreeSet::from([new]), reset: Some(new), wire, ..self.clone() }
    }

    /// Returns the state after an item of a revision was requeued. The revision may have been retired before.
    pub fn revived(&self, revision: Revision) -> Self {
        let mut state = self.clone();
        state.live.insert(revision);
        state
    }

    /// Returns the state after an older revision has run empty.
    pub fn retired(&self, revision: Revision) -> Self {
        let mut state = self.clone();
        if revision != state.active {
            state.live.remove(&revision);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployed(revision: u64, version: &str) -> Deployed {
        Deployed {
            chain: "a".parse().expect("valid"),
            version: version.parse().expect("valid"),
            revision: Revision::new(revision),
            digest: Digest::of(version.as_bytes()),
            deployed: "2026-01-01T00:00:00Z".to_owned(),
            by: None,
            manifest: Manifest::from_toml("name = \"a\"\nversion = \"1\"").expect("the right shape"),
        }
    }

    fn pending(answers: &str) -> Pending {
        Pending {
            version: "1.1".parse().expect("valid"),
            digest: Digest::of(b"1.1"),
            by: "ada@home (process 7)".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            answers: answers.to_owned(),
            missing: BTreeSet::new(),
            ending: false,
        }
    }

    fn first() -> State {
        State::entered(None, Revision::new(1), pending("a")).deployed(&deployed(1, "1.0"))
    }

    #[test]
    fn a_deploy_keeps_the_revisions_before_and_a_reset_does_not() {
        let second = first().deployed(&deployed(2, "1.1"));
        assert_eq!(second.active, Revision::new(2));
        assert_eq!(second.live, BTreeSet::from([Revision::new(1), Revision::new(2)]));
        assert_eq!(second.versions.len(), 2);
        assert_eq!(second.reset(Revision::new(3)).live, BTreeSet::from([Revision::new(3)]));
    }

    #[test]
    fn versions_leave_the_state_when_they_are_many_and_nothing_else_changes() {
        let mut state = first();
        while !state.has_many_versions() {
            let revision = state.active.number() + 1;
            state = state.deployed(&deployed(revision, &format!("1.{revision}")));
        }
        assert_eq!(state.versions.len(), VERSIONS_MAX + 1);
        let without = state.without_versions();
        assert!(without.versions.is_empty() && without.has_streams_of(&state) && without.wire == state.wire);
    }

    #[test]
    fn a_pending_revision_has_subjects_and_is_not_deployed() {
        let new = State::entered(None, Revision::new(1), pending("a"));
        assert!(!new.is_deployed() && new.versions.is_empty() && new.live.is_empty());
        assert_eq!(new.held(), BTreeSet::from([Revision::new(1)]));
        let state = first();
        let beside = State::entered(Some(&state), Revision::new(2), pending("b"));
        assert_eq!((beside.active, &beside.live), (state.active, &state.live));
        assert!(!beside.has_streams_of(&state) && beside.left(Revision::new(2)).has_streams_of(&state));
        assert!(beside.awaits(Revision::new(2), &pending("b")));
        assert!(!beside.awaits(Revision::new(2), &pending("c")), "another deploy took its place");
        assert_eq!(beside.deployed(&deployed(2, "1.1")).pending, BTreeMap::new());
    }

    #[test]
    fn a_revived_revision_is_live_and_not_active_and_opens_nothing() {
        let mut closed = first().deployed(&deployed(2, "1.1")).retired(Revision::new(1));
        closed.open = false;
        let revived = closed.revived(Revision::new(1));
        assert_eq!((revived.active, revived.open), (Revision::new(2), false));
        assert_eq!(revived.live, BTreeSet::from([Revision::new(1), Revision::new(2)]));
        assert_eq!(revived.retired(Revision::new(1)), closed);
    }

    #[test]
    fn the_active_revision_never_retires() {
        assert_eq!(first().retired(Revision::new(1)), first());
    }
}
