//! Back-pressure for what a hop's nodes put back.
//!
//! The server limits what waits in front of a hop, but not what was put back: a node must be able to put back what it holds,
//! or nothing would go on. So the nodes themselves take nothing new while four times as much was put back as the queue may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

use super::outcome::Hop;
use crate::broker::backlog::Backlog as Lanes;
use crate::subject::Lane;

/// How often to ask how much is put back, while anything is.
const LOOK: Duration = Duration::from_millis(250);

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
    pub fn put_back(&self, messages: usize) {
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

/// Keeps a hop's backlog up to date, for ever.
pub async fn watch(hop: Arc<Hop>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if hop.is_limited() && !hop.moved.is_empty() {
            let line = hop.broker.backlog(&hop.chain.name, hop.revision, &hop.stage().name, Lane::Work).await;
            hop.moved.seen(line.ok().map(|line| line.queued));
        }
        if hop.backlog.messages.load(Relaxed) == 0 {
            continue;
        }
        let mut answers = Vec::new();
        for &lane in Lane::served(hop.is_limited()).iter().filter(|lane| **lane != Lane::Work) {
            let answer = hop.broker.backlog(&hop.chain.name, hop.revision, &hop.stage().name, lane).await;
            if let Err(error) = &answer {
                tracing::debug!(%error, "how much is put back is not known; what was known stays");
            }
            answers.push(answer);
        }
        if let Some(messages) = total(&answers) {
            hop.backlog.seen(messages);
        }
    }
}

/// How much all lanes hold together; `None` unless each has answered.
fn total<E>(answers: &[Result<Lanes, E>]) -> Option<u64> {
    answers.iter().map(|answer| answer.as_ref().ok().map(|lane| lane.queued + lane.running)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lane_does_not_tell_is_not_taken_for_nothing() {
        let holds = |queued, running| Ok(Lanes { queued, running });
        assert_eq!(total::<()>(&[holds(3, 1), holds(2, 0)]), Some(6));
        assert_eq!(total::<()>(&[]), Some(0));
        for answers in [[Err(()), holds(2, 0)], [holds(2, 0), Err(())], [Err(()), Err(())]] {
            assert_eq!(total(&answers), None);
        }
    }

    #[tokio::test]
    async fn a_hop_takes_nothing_new_while_four_times_as_much_is_put_back_as_its_queue_may_hold() {
        let backlog = Backlog::new(3);
        backlog.put_back(11);
        assert_eq!(backlog.room(), 1);
        backlog.put_back(4);
        assert_eq!(backlog.room(), 0);
        backlog.seen(11);
        assert_eq!(backlog.room(), 1);
        backlog.has_room().await;
    }
}
