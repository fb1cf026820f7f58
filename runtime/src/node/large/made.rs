//! What was made for frames that are not acknowledged yet.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::lock::lock;

/// The most frames that are remembered. The sweep removes what was made for others.
const FRAMES: usize = 10_000;

/// What was made for a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MadeFor {
    /// The names of the objects.
    pub(crate) names: Vec<String>,
    /// `true` if messages may be stored that refer to objects and have no records.
    pub(crate) is_doubtful: bool,
}

/// Doubts a frame if dropped before [`Storing::done`]: messages may be stored whose records are not.
#[derive(Debug)]
pub(crate) struct Storing<'a> {
    made: &'a Made,
    sequence: u64,
    is_done: bool,
}

impl Storing<'_> {
    /// Takes note that the messages are stored with their records.
    pub(crate) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.made.change(self.sequence, |frame| frame.is_doubtful = true);
        }
    }
}

/// The objects made for each frame, by its place in the work stream.
///
/// A frame that is left to other nodes stays here, until this node acknowledges it or many others have come.
#[derive(Debug, Default)]
pub(crate) struct Made {
    count: AtomicUsize,
    frames: Mutex<BTreeMap<u64, MadeFor>>,
}

impl Made {
    /// Returns `true` if nothing was made.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Adds an object.
    pub(crate) fn add(&self, sequence: u64, name: String) {
        self.change(sequence, |frame| frame.names.push(name));
    }

    /// Begins to store messages of a frame that refer to objects.
    pub(crate) fn storing(&self, sequence: u64) -> Storing<'_> {
        Storing { made: self, sequence, is_done: false }
    }

    /// Returns what was made for a frame, and forgets it.
    pub(crate) fn take(&self, sequence: u64) -> MadeFor {
        if self.is_empty() {
            return MadeFor::default();
        }
        let mut frames = lock(&self.frames);
        let taken = frames.remove(&sequence).unwrap_or_default();
        self.count.store(frames.len(), Relaxed);
        taken
    }

    /// Returns what was made for a frame whose messages so far are all stored with their records. The frame stays in hand.
    pub(crate) fn take_stored(&self, sequence: u64) -> Vec<String> {
        if self.is_empty() {
            return Vec::new();
        }
        match lock(&self.frames).get_mut(&sequence) {
            Some(frame) if !frame.is_doubtful => std::mem::take(&mut frame.names),
            _ => Vec::new(),
        }
    }

    fn change(&self, sequence: u64, change: impl FnOnce(&mut MadeFor)) {
        let mut frames = lock(&self.frames);
        change(frames.entry(sequence).or_default());
        if frames.len() > FRAMES {
            frames.pop_first();
        }
        self.count.store(frames.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_taken_once_and_old_frames_are_forgotten() {
        let made = Made::default();
        let take = |sequence| made.take(sequence).names;
        assert!(made.is_empty() && take(1).is_empty());
        made.add(2, "a".to_owned());
        made.add(2, "b".to_owned());
        assert_eq!((take(2), take(2), made.is_empty()), (vec!["a".to_owned(), "b".to_owned()], vec![], true));
        (0..FRAMES as u64 + 5).for_each(|sequence| made.add(sequence, "c".to_owned()));
        assert_eq!((take(4), take(5)), (vec![], vec!["c".to_owned()]));
    }

    #[test]
    fn what_is_stored_is_taken_before_the_frame_ends_unless_it_is_doubtful() {
        let made = Made::default();
        made.add(1, "a".to_owned());
        assert_eq!(
            (made.take_stored(1), made.take_stored(1), made.take_stored(2)),
            (vec!["a".to_owned()], vec![], vec![])
        );
        made.add(1, "b".to_owned());
        drop(made.storing(1));
        assert_eq!((made.take_stored(1), made.take(1).names), (vec![], vec!["b".to_owned()]));
    }

    #[test]
    fn a_frame_is_doubtful_whose_messages_were_not_stored_to_the_end() {
        let made = Made::default();
        made.storing(1).done();
        assert!(made.is_empty());
        drop(made.storing(1));
        assert!(made.take(1).is_doubtful && !made.take(1).is_doubtful);
    }
}
