//! What is kept of a chain on the server, as JSON that a person can read with `nats kv get pcluster_chains <key>`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::name::{ChainName, Digest, Revision, Version};
use crate::wire;

/// The most versions that a state names before a deploy gives them entries of their own.
const VERSIONS_MAX: usize = 64;

/// A manifest as it was deployed. Never changed once written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// The chain.
    pub chain: ChainName,
    /// The author's label.
    pub version: Version,
    /// The number that deploying gave it.
    pub revision: Revision,
    /// The sha-256 of the manifest's content: equal if and only if the manifests and their plugins are.
    pub digest: Digest,
    /// When, as RFC 3339.
    #[expect(clippy::struct_field_names, reason = "as it is stored")]
    pub deployed: String,
    /// Who deployed it: user, host and process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The manifest, its plugins named by their digests.
    pub manifest: Manifest,
}

impl Deployed {
    /// The digest of a manifest whose plugins are named by their digests. Does not depend on the wire.
    ///
    /// # Errors
    ///
    /// If its config cannot be written as JSON.
    pub fn digest_of(manifest: &Manifest) -> Result<Digest, serde_json::Error> {
        serde_json::to_vec(&Manifest { wire: None, ..manifest.clone() }).map(|json| Digest::of(&json))
    }

    /// The wire that the revision speaks.
    #[must_use]
    pub fn wire(&self) -> u32 {
        self.manifest.wire.unwrap_or(wire::OLDEST_WIRE)
    }
}

/// Which revisions of a chain take part. Changed only by comparing and swapping, so that of two who change it at once one
/// starts over; the streams are then made to agree with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The revision that newly fed items belong to.
    pub active: Revision,
    /// Those whose items may run: the active one, and older ones that still had items when last looked at.
    ///
    /// Whoever puts an item into the queues of an older revision writes the state afterwards, even where that changes nothing.
    /// Whoever retires one reads the state, then sees that the queues are empty, and then swaps. So one of the two starts
    /// over, and no item is left in queues that nobody serves.
    pub live: BTreeSet<Revision>,
    /// The revision that the last reset began with, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Revision>,
    /// Whether items may be fed.
    pub open: bool,
    /// The newest versions that were deployed, with the digests of their content. Those before have entries of their own: the
    /// state is one message, and must not grow with each deploy.
    pub versions: BTreeMap<Version, Digest>,
    /// Revisions that are being deployed: the streams have their subjects, and nothing is fed to them yet.
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
    /// The digest of its content.
    pub digest: Digest,
    /// Who deploys it: user, host and process.
    pub by: String,
    /// Since when, as RFC 3339.
    pub since: String,
    /// A subject on which its deployer answers as long as it lives. It is drawn anew for each deploy, and so tells one from
    /// another.
    pub answers: String,
    /// The streams that were not there before the first of the deploys that are pending together: whoever of them is the last
    /// to fail removes these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<String>,
    /// Whether the deploy has failed, and its deployer is removing the streams of a chain that has no other revision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
}

impl State {
    /// While a revision is being deployed. Of a chain without a state, nothing is live yet.
    #[must_use]
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

    /// After a deploy: the items of the revisions before go on.
    #[must_use]
    pub fn deployed(&self, new: &Deployed) -> Self {
        let mut state = self.left(new.revision);
        state.active = new.revision;
        state.live.insert(new.revision);
        state.versions.insert(new.version.clone(), new.digest.clone());
        state.wire = Some(wire::WIRE);
        state
    }

    /// After a deploy has failed or was taken away.
    #[must_use]
    pub fn left(&self, revision: Revision) -> Self {
        let mut state = self.clone();
        state.pending.remove(&revision);
        state
    }

    /// Whether so many versions were deployed that they should have entries of their own.
    #[must_use]
    pub fn has_many_versions(&self) -> bool {
        self.versions.len() > VERSIONS_MAX
    }

    /// After its versions were given entries of their own.
    #[must_use]
    pub fn without_versions(&self) -> Self {
        Self { versions: BTreeMap::new(), ..self.clone() }
    }

    /// Whether a deploy of the chain has ever succeeded.
    #[must_use]
    pub fn is_deployed(&self) -> bool {
        self.live.contains(&self.active)
    }

    /// Whether the pending revision is still there and the deployer's own.
    #[must_use]
    pub fn awaits(&self, revision: Revision, own: &Pending) -> bool {
        self.pending.get(&revision).is_some_and(|pending| pending.answers == own.answers)
    }

    /// The revisions whose subjects the streams have.
    #[must_use]
    pub fn held(&self) -> BTreeSet<Revision> {
        self.live.iter().chain(self.pending.keys()).copied().collect()
    }

    /// Whether the streams look the same for another state.
    #[must_use]
    pub fn has_streams_of(&self, other: &Self) -> bool {
        let all = |state: &Self| (state.active, state.live.clone(), state.open, state.held());
        all(self) == all(other)
    }

    /// After a reset: nothing of the revisions before may run.
    #[must_use]
    pub fn reset(&self, new: Revision) -> Self {
        let wire = Some(wire::WIRE);
        Self { active: new, live: BTreeSet::from([new]), reset: Some(new), wire, ..self.clone() }
    }

    /// After something was put back into the queues of a revision, which may have retired before.
    #[must_use]
    pub fn revived(&self, revision: Revision) -> Self {
        let mut state = self.clone();
        state.live.insert(revision);
        state
    }

    /// After an older revision has run empty.
    #[must_use]
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
