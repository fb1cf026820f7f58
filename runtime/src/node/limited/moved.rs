//! How many parked messages a node moves back into the queue of a limited stage.
//!
//! One consumer hands out all messages of such a stage, first come first served. If every message moved as soon as its wait is
//! over, newly fed items would stand behind all of them. So a node moves what keeps the stage busy, and the rest stays parked. It
//! moves more only while other messages stand in the queue, so that neither kind waits for all of the other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The least and the most messages that a node moves ahead. Moving one takes a few milliseconds.
const AHEAD: [u64; 2] = [16, 256];

/// The messages that a node has moved into the queue.
#[derive(Debug)]
pub(crate) struct Moved {
    ahead: u64,
    /// Messages that this node has moved and that are still in the queue. The length of the queue tells what other nodes took.
    own: AtomicU64,
    /// The length of the queue, as far as this node knows.
    line: AtomicU64,
}

impl Moved {
    /// Creates the count of a stage with this limit.
    pub(crate) fn new(max_in_flight: Option<u32>) -> Self {
        let ahead = max_in_flight.map_or(0, u64::from).clamp(AHEAD[0], AHEAD[1]);
        Self { ahead, own: AtomicU64::new(0), line: AtomicU64::new(0) }
    }

    /// Counts messages that this node has moved.
    pub(crate) fn add(&self, messages: u64) {
        self.own.fetch_add(messages, Relaxed);
    }

    /// Takes note of a message from the queue. `was_put`: a node had moved it. `line` messages stand behind it.
    pub(crate) fn came(&self, was_put: bool, line: u64) {
        self.line.store(line, Relaxed);
        let left = |own: u64| Some(own.saturating_sub(was_put.into()).min(line));
        let _ = self.own.fetch_update(Relaxed, Relaxed, left);
    }

    /// Takes note of the length of the queue. `None` if it is not known: then this node must not wait for what others may have
    /// taken.
    pub(crate) fn seen(&self, line: Option<u64>) {
        self.line.store(line.unwrap_or(0), Relaxed);
        self.own.fetch_min(line.unwrap_or(0), Relaxed);
    }

    /// Returns `true` if this node has no message in the queue, as far as it knows.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.load(Relaxed) == 0
    }

    /// Returns the most messages that this node may have in the queue.
    pub(crate) fn reach(&self) -> u64 {
        self.ahead.max(self.line.load(Relaxed).saturating_sub(self.own.load(Relaxed)))
    }

    /// Returns how many more messages this node may move.
    pub(crate) fn room(&self) -> u64 {
        self.reach().saturating_sub(self.own.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_messages_move_as_they_run_and_beside_as_many_fed_ones() {
        let moved = Moved::new(Some(20));
        assert_eq!(moved.room(), 20);
        moved.add(20);
        assert_eq!(moved.room(), 0);
        moved.came(true, 19);
        assert_eq!(moved.room(), 1, "one runs");
        moved.came(false, 19);
        assert_eq!(moved.room(), 1, "a fed item is none of them");
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
        assert_eq!(moved.room(), 20, "it does not wait for messages that no node may have");
        assert!(moved.is_empty());
    }

    #[test]
    fn few_messages_move_ahead_whatever_the_limit() {
        let ahead = |limit| Moved::new(Some(limit)).room();
        assert_eq!([ahead(1), ahead(64), ahead(1_000_000)], [16, 64, 256]);
    }
}
