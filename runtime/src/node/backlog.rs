//! Back-pressure on what the nodes of a hop requeue.
//!
//! The server limits what waits in front of a hop, but not what was put back: a node must be able to put back what it holds,
//! or nothing would go on. So the nodes themselves take nothing new while four times as much was put back as the queue may hold.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub mod watch;

use tokio::sync::Notify;

/// How many times what its queue holds may be put back by a hop. Most of it waits for its back-off and delays nothing.
const QUEUES: u64 = 4;
/// The most messages that may be put back, however much the queue holds: fewer than the consumer has room for, or what waits
/// would be in the way of what need not.
const MESSAGES_MAX: u64 = 900_000;

/// How much was put back, as far as this node knows.
#[derive(Debug)]
pub struct Backlog {
    limit: u64,
    messages: AtomicU64,
    has_room: Notify,
}

impl Backlog {
    /// Nothing put back yet, by a hop whose queue holds so many messages.
    #[must_use]
    pub fn new(queue_limit: u64) -> Self {
        let limit = queue_limit.saturating_mul(QUEUES).min(MESSAGES_MAX);
        Self { limit, messages: AtomicU64::new(0), has_room: Notify::new() }
    }

    /// This node has put back so many messages more.
    pub fn requeue(&self, messages: usize) {
        self.messages.fetch_add(messages as u64, Relaxed);
    }

    /// How many new messages may be taken at once.
    #[must_use]
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
    async fn a_hop_takes_nothing_new_while_four_times_as_much_is_put_back_as_its_queue_may_hold() {
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
