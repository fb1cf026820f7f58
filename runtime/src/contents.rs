//! A set of the contents of revisions that may grow while a node runs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::lock::lock;
use crate::name::Digest;

/// Digests of contents, which all clones share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents(Arc<Mutex<BTreeSet<Digest>>>);

impl Contents {
    /// Adds a content.
    pub(crate) fn add(&self, content: Digest) {
        lock(&self.0).insert(content);
    }

    /// Returns `true` if a content is in the set.
    pub(crate) fn has(&self, content: &Digest) -> bool {
        lock(&self.0).contains(content)
    }
}

impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        // Two locks at once could wait for each other.
        let own = lock(&self.0).clone();
        own == *lock(&other.0)
    }
}

impl Eq for Contents {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_clone_adds_all_have() {
        let (contents, content) = (Contents::default(), Digest::of(b"a"));
        let clone = contents.clone();
        assert!(!clone.has(&content));
        contents.add(content.clone());
        assert!(clone.has(&content) && clone == contents && clone != Contents::default());
        assert!(!clone.has(&Digest::of(b"b")));
    }
}
