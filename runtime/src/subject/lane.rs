//! The queues of a hop.

use super::work;
use crate::name::{ChainName, Revision, StageName};

/// One of the queues of a hop.
///
/// Each lane has a consumer of its own. One consumer for two subjects costs the server half as much again for every message
/// (measured with nats-server 2.15.1: 47 µs with a list of two subjects, 41 µs with one pattern for both, 31 µs with one
/// subject). Only a limited stage has one consumer for all running messages, because `max_in_flight` is a limit of the consumer.
/// Its messages that wait for their back-off are parked in another lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Fed items, and outputs of the hop before. In a limited stage, the consumer of this lane delivers all messages to run.
    Work,
    /// Requeued items: items that failed, and items that waited too long to run or would have.
    Retry,
    /// Items whose nodes died several times. A node runs one of them at a time, so that a death is attributed to the right item.
    Quarantine,
    /// Items of a limited stage that wait for their back-off. Afterward a node moves them to the lane that runs them.
    Parked,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 4] = [Self::Work, Self::Retry, Self::Quarantine, Self::Parked];

    /// Returns the lanes that have consumers. `limited`: the stage has `max_in_flight`.
    pub const fn served(limited: bool) -> &'static [Self] {
        if limited { &[Self::Work, Self::Parked] } else { &[Self::Work, Self::Retry, Self::Quarantine] }
    }

    /// Returns the lane to which nodes requeue items of this lane.
    pub fn requeue_lane(self) -> Self {
        if self == Self::Quarantine { Self::Quarantine } else { Self::Retry }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Retry => "retry",
            Self::Quarantine => "alone",
            Self::Parked => "parked",
        }
    }

    /// Returns the lane of a message with this subject.
    pub fn of(subject: &str) -> Option<Self> {
        let name = subject.split('.').nth(2)?;
        Self::ALL.into_iter().find(|lane| lane.name() == name)
    }

    /// Returns the subject or the pattern of the lane's queue.
    pub fn queue(self, chain: &ChainName, revision: Revision, hop: &StageName) -> String {
        match self {
            Self::Work => work(chain, revision, hop),
            _ => format!("pcluster.{chain}.{}.{}.{hop}.*", self.name(), revision.number()),
        }
    }

    /// Returns the subjects that the lane's consumer delivers. `limited`: the stage has `max_in_flight`.
    pub fn filters(self, limited: bool, chain: &ChainName, revision: Revision, hop: &StageName) -> Vec<String> {
        let lanes: &[Self] =
            if limited && self == Self::Work { &[Self::Work, Self::Retry, Self::Quarantine] } else { &[self] };
        lanes.iter().map(|lane| lane.queue(chain, revision, hop)).collect()
    }

    /// Returns the subject of a requeued message. It is the `number`th from the frame with this stream sequence.
    pub fn requeue(
        self,
        chain: &ChainName,
        revision: Revision,
        hop: &StageName,
        sequence: u64,
        number: usize,
    ) -> String {
        format!("pcluster.{chain}.{}.{}.{hop}.{sequence}-{number}", self.name(), revision.number())
    }

    /// Returns the subject of such a message while it is parked.
    pub fn park(self, chain: &ChainName, revision: Revision, hop: &StageName, sequence: u64, number: usize) -> String {
        format!("pcluster.{chain}.parked.{}.{hop}.{}-{sequence}-{number}", revision.number(), self.name())
    }

    /// Returns the subject to which a parked message moves after its wait.
    pub fn unpark(subject: &str) -> Option<String> {
        let (queue, place) = subject.rsplit_once('.')?;
        let (lane, place) = [Self::Retry, Self::Quarantine]
            .into_iter()
            .find_map(|lane| Some((lane, place.strip_prefix(lane.name())?.strip_prefix('-')?)))
            // A client that does not know the lanes has put it there.
            .unwrap_or((Self::Retry, place));
        let mut tokens: Vec<&str> = queue.split('.').collect();
        *tokens.get_mut(2)? = lane.name();
        Some(format!("{}.{place}", tokens.join(".")))
    }

    /// Returns the subject of a dead letter's requeued item.
    pub fn requeue_dead_letter(self, chain: &ChainName, revision: Revision, hop: &StageName, number: u64) -> String {
        format!("pcluster.{chain}.{}.{}.{hop}.dead-{number}", self.name(), revision.number())
    }

    /// Returns the name of the lane's durable consumer: `r1_split`, `r1-retry_split`, `r1-alone_split` or `r1-parked_split`.
    pub fn consumer(self, revision: Revision, hop: &StageName) -> String {
        match self {
            Self::Work => format!("{revision}_{hop}"),
            _ => format!("{revision}-{}_{hop}", self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_parked_goes_where_it_would_have_gone_without_a_wait() {
        let (chain, hop) = ("orders".parse().expect("valid"), "split".parse().expect("valid"));
        for lane in [Lane::Retry, Lane::Quarantine] {
            let (parked, due) =
                (lane.park(&chain, Revision::new(7), &hop, 8, 1), lane.requeue(&chain, Revision::new(7), &hop, 8, 1));
            assert_eq!((Lane::of(&parked), Lane::of(&due)), (Some(Lane::Parked), Some(lane)));
            assert_eq!(Lane::unpark(&parked), Some(due));
        }
        assert_eq!(Lane::unpark("pcluster.a.parked.1.b.x").as_deref(), Some("pcluster.a.retry.1.b.x"));
        assert_eq!(Lane::unpark("a.b"), None);
    }

    #[test]
    fn no_two_consumers_of_a_stage_take_the_same() {
        let (chain, hop) = ("orders".parse().expect("valid"), "split".parse().expect("valid"));
        for limited in [false, true] {
            let lanes = Lane::served(limited).iter();
            let mut all: Vec<String> =
                lanes.flat_map(|lane| lane.filters(limited, &chain, Revision::new(1), &hop)).collect();
            let wanted = if limited { 4 } else { 3 };
            all.sort();
            all.dedup();
            assert_eq!(all.len(), wanted);
        }
    }
}
