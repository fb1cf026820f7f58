//! Back-pressure on requeued messages: `backlog` throttles a hop whose retry queue is full.
//!
//! The server limits a hop's queue, but not its requeued messages: a node must always be able to requeue what it holds, or
//! nothing would go on. So the nodes take no new messages while four times the limit is requeued.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub mod watch;

use tokio::sync::Notify;

/// Requeued messages may be this many times the limit of the queue. Most of them wait for their back-off and delay nothing.
const QUEUES: u64 = 4;
/// The most requeued messages, whatever the limit of the queue. The consumer has room for more, so that waiting messages do not
/// block others.
const MESSAGES_MAX: u64 = 900_000;

/// The requeued messages of a hop, as far as this node knows.
#[derive(Debug)]
pub struct Backlog {
    limit: u64,
    messages: AtomicU64,
    has_room: Notify,
}

impl Backlog {
    /// Creates the backlog of a hop with this queue limit.
    pub fn new(queue_limit: u64) -> Self {
        let limit = queue_limit.saturating_mul(QUEUES).min(MESSAGES_MAX);
        Self { limit, messages: AtomicU64::new(0), has_room: Notify::new() }
    }

    /// Counts messages that this node has requeued.
    pub fn requeue(&self, messages: usize) {
        self.messages.fetch_add(messages as u64, Relaxed);
    }

    /// Returns how many new messages may be taken at once.
    pub fn room(&self) -> u64 {
        self.limit.saturating_sub(self.messages.load(Relaxed))
    }

    /// Waits until there is more room than before.
    pub async fn has_room(&self) {
        self.has_room.notified().await;
    }

    fn seen(&self, messages: u64) {
        let before = self.messages.swap(messages, Relaxed);
        if messages < before.min(self.limit) {
            self.has_room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hop_takes_nothing_new_while_four_times_its_queue_limit_is_requeued() {
        let backlog = Backlog::new(3);
        backlog.requeue(11);
        assert_eq!(backlog.room(), 1);
        backlog.requeue(4);
        assert_eq!(backlog.room(), 0);
        backlog.seen(11);
        assert_eq!(backlog.room(), 1);
        backlog.has_room().await;
    }
}
