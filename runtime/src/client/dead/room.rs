//! Room in the queues for requeued items.
//!
//! The server limits a stage's queue, but not its requeued messages. A retry of dead letters keeps to the same limit. Two retries
//! at the same time may together exceed it, by as many messages as one of them publishes at once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::broker::streams::ChainStreams;
use crate::broker::{Broker, BrokerError};
use crate::chain::Chain;
use crate::frame::outgoing::Outgoing;
use crate::name::{Revision, StageName};
use crate::subject::{self, Lane};

/// How often to check for room.
const LOOK: Duration = Duration::from_millis(100);

/// The queues of a revision.
pub(super) struct Rooms<'a> {
    pub(super) broker: &'a Broker,
    pub(super) chain: &'a Chain,
    pub(super) revision: Revision,
    pub(super) stop: &'a AtomicBool,
}

impl Rooms<'_> {
    /// Takes out the messages for which there is room. Waits until there is some, or `stop` is set.
    pub(super) async fn take(
        &self,
        waiting: &mut BTreeMap<u64, Outgoing>,
    ) -> Result<BTreeMap<u64, Outgoing>, BrokerError> {
        loop {
            let mut rooms = BTreeMap::new();
            for hop in waiting.values().filter_map(hop_of) {
                if let Entry::Vacant(unknown) = rooms.entry(hop) {
                    let room = self.room(unknown.key()).await?;
                    unknown.insert(room);
                }
            }
            let taken = take(waiting, rooms);
            if !taken.is_empty() || self.stop.load(Relaxed) {
                return Ok(taken);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn room(&self, hop: &StageName) -> Result<u64, BrokerError> {
        let limited = self.chain.stage(hop).is_some_and(|(_, stage)| stage.max_in_flight.is_some());
        match ChainStreams::of(self.broker, &self.chain.name).requeued(self.revision, hop, limited).await {
            Ok(messages) => Ok(self.chain.queue.limit.saturating_sub(messages)),
            // The first requeued message creates the streams of the revision.
            Err(BrokerError::Gone { .. }) => Ok(1),
            Err(error) => Err(error),
        }
    }
}

/// Returns the hop of a message that the server does not limit.
fn hop_of(message: &Outgoing) -> Option<StageName> {
    if Lane::of(&message.subject) != Some(Lane::Retry) {
        return None;
    }
    subject::parse_queued(&message.subject).map(|queued| queued.hop)
}

/// Takes out as many messages of each hop as its room allows.
fn take(waiting: &mut BTreeMap<u64, Outgoing>, mut rooms: BTreeMap<StageName, u64>) -> BTreeMap<u64, Outgoing> {
    let all = std::mem::take(waiting);
    let (taken, left) = all.into_iter().partition(|(_, message)| {
        let Some(room) = hop_of(message).and_then(|hop| rooms.get_mut(&hop)) else { return true };
        let has_room = *room > 0;
        *room -= u64::from(has_room);
        has_room
    });
    *waiting = left;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Headers;

    #[test]
    fn no_more_is_put_back_than_there_is_room_for() {
        let message = |subject: &str| Outgoing {
            subject: subject.to_owned(),
            message_id: String::new(),
            headers: Headers::new(),
            payload: bytes::Bytes::new(),
        };
        let subjects =
            ["retry.1.a.dead-0", "retry.1.b.dead-1", "retry.1.a.dead-2", "work.1.a", "retry.1.b.dead-4", "work.1.a"];
        let mut waiting: BTreeMap<u64, Outgoing> =
            (0..).zip(subjects.map(|subject| message(&format!("pcluster.c.{subject}")))).collect();
        let rooms = [("a", 1), ("b", 0)].map(|(hop, room)| (hop.parse().expect("valid"), room));
        let taken = take(&mut waiting, BTreeMap::from(rooms));
        assert_eq!(taken.into_keys().collect::<Vec<_>>(), [0, 3, 5], "the server limits what is not retried");
        assert_eq!(waiting.into_keys().collect::<Vec<_>>(), [1, 2, 4]);
    }
}
