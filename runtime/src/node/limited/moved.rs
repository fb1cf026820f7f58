//! How much of what has waited a node moves into the line of a stage that limits what is in flight.
//!
//! All that runs there comes by one consumer, first come first served. If all were moved as soon as it has waited, what is fed
//! then would come after all of it, however much that is. So a node moves what keeps the stage busy, and the rest stays parked;
//! it moves more only while more stands in line that it has not put there, so that neither has to wait for all of the other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The least and the most that a node may move ahead. Moving one takes a few milliseconds.
const AHEAD: [u64; 2] = [16, 256];

/// What a node has put into the line.
#[derive(Debug)]
pub(crate) struct Moved {
    ahead: u64,
    /// Messages that this node has put there, but for as many as it has taken out: what another has taken is told by the length
    /// of the line.
    own: AtomicU64,
    /// How many stand there, as far as this node knows.
    line: AtomicU64,
}

impl Moved {
    /// Nothing yet, of a stage that has so many messages in flight.
    pub(crate) fn new(max_in_flight: Option<u32>) -> Self {
        let ahead = max_in_flight.map_or(0, u64::from).clamp(AHEAD[0], AHEAD[1]);
        Self { ahead, own: AtomicU64::new(0), line: AtomicU64::new(0) }
    }

    /// This node has put so many messages more into the line.
    pub(crate) fn add(&self, messages: u64) {
        self.own.fetch_add(messages, Relaxed);
    }

    /// A message has come out of the line, one that a node had put there or not, and left so many behind it.
    pub(crate) fn came(&self, was_put: bool, line: u64) {
        self.line.store(line, Relaxed);
        let left = |own: u64| Some(own.saturating_sub(was_put.into()).min(line));
        let _ = self.own.fetch_update(Relaxed, Relaxed, left);
    }

    /// So many stand in line; `None`: nobody knows. Then this node must not wait for what others may have taken long since.
    pub(crate) fn seen(&self, line: Option<u64>) {
        self.line.store(line.unwrap_or(0), Relaxed);
        self.own.fetch_min(line.unwrap_or(0), Relaxed);
    }

    /// Whether this node has nothing in the line, as far as it knows.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.load(Relaxed) == 0
    }

    /// The most of its own that the node may have in the line.
    pub(crate) fn reach(&self) -> u64 {
        self.ahead.max(self.line.load(Relaxed).saturating_sub(self.own.load(Relaxed)))
    }

    /// How many more it may move.
    pub(crate) fn room(&self) -> u64 {
        self.reach().saturating_sub(self.own.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_waited_is_moved_as_it_runs_and_beside_as_much_that_was_never_tried() {
        let moved = Moved::new(Some(20));
        assert_eq!(moved.room(), 20);
        moved.add(20);
        assert_eq!(moved.room(), 0);
        moved.came(true, 19);
        assert_eq!(moved.room(), 1, "one runs");
        moved.came(false, 19);
        assert_eq!(moved.room(), 1, "what was fed is none of them");
        moved.came(false, 100);
        assert_eq!(moved.room(), 62, "81 others are in line");
        moved.add(62);
        moved.came(true, 161);
        assert_eq!(moved.room(), 1);
        moved.came(true, 30);
        assert_eq!(moved.room(), 0, "others have taken most");
        moved.seen(Some(3));
        assert_eq!(moved.room(), 17);
        moved.add(17);
        moved.seen(None);
        assert_eq!(moved.room(), 20, "it does not wait for what nobody may have");
        assert!(moved.is_empty());
    }

    #[test]
    fn few_are_moved_ahead_though_many_or_hardly_any_may_run() {
        let ahead = |limit| Moved::new(Some(limit)).room();
        assert_eq!([ahead(1), ahead(64), ahead(1_000_000)], [16, 64, 256]);
    }
}
