//! What is kept of a chain on the server, as JSON that a person can read with `nats kv get pcluster_chains <key>`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::name::{ChainName, Digest, Revision, Version};

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
    pub deployed: String,
    /// The manifest, its plugins named by their digests.
    pub manifest: Manifest,
}

impl Deployed {
    /// The digest of a manifest whose plugins are named by their digests.
    ///
    /// # Errors
    ///
    /// If its config cannot be written as JSON.
    pub fn digest_of(manifest: &Manifest) -> Result<Digest, serde_json::Error> {
        serde_json::to_vec(manifest).map(|json| Digest::of(&json))
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
    /// Every version that was ever deployed, with the digest of its content.
    pub versions: BTreeMap<Version, Digest>,
}

impl State {
    /// After a deploy: the items of the revisions before go on.
    #[must_use]
    pub fn deployed(before: Option<&Self>, new: &Deployed) -> Self {
        let mut state = before.cloned().unwrap_or_else(|| Self {
            active: new.revision,
            live: BTreeSet::new(),
            reset: None,
            open: true,
            versions: BTreeMap::new(),
        });
        state.active = new.revision;
        state.live.insert(new.revision);
        state.versions.insert(new.version.clone(), new.digest.clone());
        state
    }

    /// After a reset: nothing of the revisions before may run.
    #[must_use]
    pub fn reset(&self, new: Revision) -> Self {
        Self { active: new, live: BTreeSet::from([new]), reset: Some(new), ..self.clone() }
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
            manifest: Manifest::from_toml("name = \"a\"\nversion = \"1\"").expect("the right shape"),
        }
    }

    #[test]
    fn a_deploy_keeps_the_revisions_before_and_a_reset_does_not() {
        let first = State::deployed(None, &deployed(1, "1.0"));
        let second = State::deployed(Some(&first), &deployed(2, "1.1"));
        assert_eq!(second.active, Revision::new(2));
        assert_eq!(second.live, BTreeSet::from([Revision::new(1), Revision::new(2)]));
        assert_eq!(second.versions.len(), 2);
        assert_eq!(second.reset(Revision::new(3)).live, BTreeSet::from([Revision::new(3)]));
    }

    #[test]
    fn a_revived_revision_is_live_and_not_active_and_opens_nothing() {
        let first = State::deployed(None, &deployed(1, "1.0"));
        let mut closed = State::deployed(Some(&first), &deployed(2, "1.1")).retired(Revision::new(1));
        closed.open = false;
        let revived = closed.revived(Revision::new(1));
        assert_eq!((revived.active, revived.open), (Revision::new(2), false));
        assert_eq!(revived.live, BTreeSet::from([Revision::new(1), Revision::new(2)]));
        assert_eq!(revived.retired(Revision::new(1)), closed);
    }

    #[test]
    fn the_active_revision_never_retires() {
        let state = State::deployed(None, &deployed(1, "1.0"));
        assert_eq!(state.retired(Revision::new(1)), state);
    }
}
