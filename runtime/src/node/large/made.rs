//! What was made for frames that are not acknowledged yet.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::lock::lock;

/// The most frames that are remembered. The sweep removes what was made for others.
const FRAMES: usize = 10_000;

/// The objects made for each frame, by its place in the work stream.
///
/// A frame that is left to other nodes stays here, until this node acknowledges it or many others have come.
#[derive(Debug, Default)]
pub(super) struct Made {
    frames: AtomicUsize,
    names: Mutex<BTreeMap<u64, Vec<String>>>,
}

impl Made {
    /// Returns `true` if nothing was made.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.load(Relaxed) == 0
    }

    /// Adds an object.
    pub(super) fn add(&self, sequence: u64, name: String) {
        let mut names = lock(&self.names);
        names.entry(sequence).or_default().push(name);
        if names.len() > FRAMES {
            names.pop_first();
        }
        self.frames.store(names.len(), Relaxed);
    }

    /// Returns the objects of a frame, and forgets them.
    pub(super) fn take(&self, sequence: u64) -> Vec<String> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut names = lock(&self.names);
        let taken = names.remove(&sequence).unwrap_or_default();
        self.frames.store(names.len(), Relaxed);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_taken_once_and_old_frames_are_forgotten() {
        let made = Made::default();
        assert!(made.is_empty() && made.take(1).is_empty());
        made.add(2, "a".to_owned());
        made.add(2, "b".to_owned());
        assert_eq!((made.take(2), made.take(2), made.is_empty()), (vec!["a".to_owned(), "b".to_owned()], vec![], true));
        (0..FRAMES as u64 + 5).for_each(|sequence| made.add(sequence, "c".to_owned()));
        assert_eq!((made.take(4), made.take(5)), (vec![], vec!["c".to_owned()]));
    }
}
