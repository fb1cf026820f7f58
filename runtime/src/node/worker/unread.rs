//! Finds messages of foreign clients that the client library cannot read, and makes each a dead letter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::broker::BrokerError;
use crate::broker::info::Progress;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::broker::unread::{self, Look, Unread};
use crate::frame::header;
use crate::held::HeldSince;
use crate::node::commit::outbox::{Outbox, ServerOutbox};
use crate::node::frame::dead_letter::{Undecodable, dead_letter_of_undecodable};
use crate::node::frame::inbound::frame_id_of;
use crate::node::frame::source::Source;
use crate::node::hop::{self, Hop};
use crate::subject::{self, Lane};

/// The longest look at delivered messages at a time. Thousands may be in hand or wait for their back-off.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long to wait after a look that the server did not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How many of the messages to be delivered next are looked at: other nodes may take some before this node's request.
const AHEAD: usize = 64;
/// How many of the delivered messages are looked at before each request. Other nodes have most of them and look for themselves, but
/// a node may be gone, and then the server redelivers what it could not read.
const HANDED_OUT: usize = 16;

/// The result of a look. Of several looks, the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    /// All messages can be read.
    Sound,
    /// A message could not be read. It is a dead letter now.
    Unread,
}

/// Messages of a lane that are known to be readable.
///
/// If several nodes serve a hop, the message that the server delivers next does not follow the last one that this node has seen.
/// Other nodes have taken those in between, and may have to give them back. So two stretches are known to be readable: one from
/// the start, and one from where the server is.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// When the consumer was created, and how often the connection was lost: after that, sequences may mean other messages.
    consumer: (String, u64),
    handed_out: u64,
    /// All messages up to this sequence are readable.
    low: u64,
    /// So are those after this sequence, up to `to`.
    from: u64,
    /// The sequences in this stretch that are not delivered yet.
    ahead: VecDeque<u64>,
    to: u64,
}

impl Known {
    /// Notes how far the consumer is.
    fn meet(&mut self, progress: &Progress, losses: u64) {
        // A server that was restored from a backup is behind its earlier state.
        if (progress.created.as_str(), losses) != (self.consumer.0.as_str(), self.consumer.1)
            || progress.delivered < self.handed_out
        {
            *self = Self { consumer: (progress.created.clone(), losses), ..Self::default() };
        }
        self.handed_out = progress.delivered;
        self.low = self.low.max(progress.acknowledged);
        self.join();
        while self.ahead.front().is_some_and(|place| *place <= self.handed_out) {
            self.ahead.pop_front();
        }
    }

    /// Returns the sequence after which a delivered message may be unknown. `None` if all are known.
    fn behind(&self) -> Option<u64> {
        (self.low < self.handed_out).then_some(self.low)
    }

    /// Returns the sequence after which the messages to be delivered next are unknown.
    fn next(&self) -> u64 {
        match self.handed_out {
            place if place <= self.low => self.low,
            place if (self.from..=self.to).contains(&place) => self.to,
            place => place,
        }
    }

    /// Notes that all messages after one sequence are readable, up to another one.
    fn saw(&mut self, behind: u64, place: u64) {
        if behind <= self.low {
            self.low = self.low.max(place);
        } else {
            if !(self.from..=self.to).contains(&behind) {
                (self.from, self.to) = (behind, behind);
                self.ahead.clear();
            }
            self.to = self.to.max(place);
        }
        self.join();
    }

    /// Notes a readable message, the first after a sequence.
    fn read(&mut self, behind: u64, place: u64) {
        self.saw(behind, place);
        if place > self.handed_out && self.ahead.back().is_none_or(|last| *last < place) {
            self.ahead.push_back(place);
        }
    }

    fn join(&mut self) {
        if self.low >= self.from {
            self.low = self.low.max(self.to);
            (self.from, self.to) = (self.low, self.low);
        }
    }
}

/// Looks at the messages that were delivered when the connection broke, until the server answers.
pub(crate) async fn look_until_answered(hop: &Hop, lane: Lane, known: &mut Known) -> Found {
    loop {
        match look_at_handed_out(hop, lane, known).await {
            Ok(found) => return found,
            // The next attempt to open the queue finds that out too, and mends it.
            Err(BrokerError::Gone { .. }) => return Found::Sound,
            Err(error) if error.is_not_found() => return Found::Sound,
            Err(error) => tracing::debug!(?lane, %error, "cannot look at what was handed out"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Looks at the messages of a lane that were delivered when the connection broke, and makes dead letters of the unreadable.
/// Waits until the server is reachable.
async fn look_at_handed_out(hop: &Hop, lane: Lane, known: &mut Known) -> Result<Found, BrokerError> {
    hop.broker.stands().await;
    // The new connection may lead to another stream.
    hop::read_key(&hop.broker, &hop.route).await?;
    look_how_far(hop, lane, known).await?;
    let (begun, mut found) = (Instant::now(), Found::Sound);
    while let Some(behind) = known.behind()
        && begun.elapsed() < LOOK_MAX
    {
        found = found.max(look_behind(hop, lane, behind, known).await?.unwrap_or(found));
    }
    Ok(found)
}

/// Looks at the messages of a lane that the server is likely to deliver next, and makes dead letters of the unreadable. If
/// this fails or is dropped, the next call looks at the same messages again.
pub(crate) async fn look_ahead(hop: &Hop, lane: Lane, known: &mut Known) -> Result<Found, BrokerError> {
    let mut found = Found::Sound;
    look_how_far(hop, lane, known).await?;
    for _ in 0..HANDED_OUT {
        let Some(behind) = known.behind() else { break };
        found = found.max(look_behind(hop, lane, behind, known).await?.unwrap_or(found));
    }
    while known.ahead.len() < AHEAD
        && let Some(looked) = look_behind(hop, lane, known.next(), known).await?
    {
        found = found.max(looked);
    }
    Ok(found)
}

async fn look_how_far(hop: &Hop, lane: Lane, known: &mut Known) -> Result<(), BrokerError> {
    let losses = hop.broker.losses();
    let streams = ChainStreams::of(&hop.broker, &hop.route.chain.name);
    known.meet(&streams.progress(hop.route.revision, &hop.stage().name, lane).await?, losses);
    Ok(())
}

/// Looks at the next message of a lane after a sequence, and makes a dead letter of it if it cannot be read. `None` if there is none.
async fn look_behind(hop: &Hop, lane: Lane, behind: u64, known: &mut Known) -> Result<Option<Found>, BrokerError> {
    let stream = subject::work_stream(&hop.route.chain.name);
    let patterns = lane.filters(hop.is_limited(), &hop.route.chain.name, hop.route.revision, &hop.stage().name);
    match unread::look(Stream::of(&hop.broker, &stream), &patterns, behind).await? {
        Look::Nothing => {
            // Messages that are stored from now on come after those that were delivered.
            known.saw(behind, known.handed_out.max(behind));
            Ok(None)
        }
        Look::Readable(place) => {
            known.read(behind, place);
            Ok(Some(Found::Sound))
        }
        Look::Unread(unread) => {
            let place = unread.sequence;
            dead_letter_unread(hop, *unread, &stream).await?;
            // The message itself is deleted.
            known.saw(behind, place - 1);
            Ok(Some(Found::Unread))
        }
    }
}

/// Makes a dead letter of an unreadable message. The letter is stored first: by its key the server drops the copy of another node, or of this
/// one after a crash.
async fn dead_letter_unread(hop: &Hop, unread: Unread, stream: &str) -> Result<(), BrokerError> {
    let Unread { sequence, stored_millis, fault: reason, headers, payload } = unread;
    let id = headers.get(header::ID).or_else(|| headers.get_exact(header::MESSAGE_ID));
    let id = frame_id_of(id, stored_millis, sequence, hop.route.position == 0);
    let message = Undecodable { sequence, id, headers: &headers, payload, attempt: 1, reason: &reason };
    let letter = dead_letter_of_undecodable(&hop.route, hop.broker.limits(), message);
    let (chain, stage) = (&hop.route.chain.name, &hop.stage().name);
    let held = HeldSince::new(Instant::now());
    if let Err(error) = ServerOutbox(hop).store(Source { sequence, held: &held, lane: Lane::Work }, &letter).await {
        tracing::error!(%chain, %stage, sequence, %error, "a dead letter cannot be stored; the item stays in its queue");
        return Err(BrokerError::other(format!("store the dead letter of message {sequence}"), &error));
    }
    if Stream::of(&hop.broker, stream).remove_message(sequence).await? {
        hop.count_failed(1);
        tracing::debug!(%chain, %stage, sequence, reason, "a message that no node can take is a dead letter");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(created: &str, acknowledged: u64, delivered: u64) -> Progress {
        Progress { created: created.to_owned(), acknowledged, delivered }
    }

    /// Returns where to look next: at delivered messages, and at those to come.
    fn places(known: &Known) -> (Option<u64>, u64) {
        (known.behind(), known.next())
    }

    #[test]
    fn delivered_messages_and_the_next_ones_are_looked_at_separately() {
        let mut known = Known::default();
        known.meet(&progress("a", 2, 9), 0);
        assert_eq!(places(&known), (Some(2), 9));
        // What comes: 10 and 14.
        known.read(9, 10);
        known.read(10, 14);
        assert_eq!((places(&known), known.ahead.len()), ((Some(2), 14), 2));
        // Another node has taken them and more meanwhile.
        known.meet(&progress("a", 3, 10), 0);
        assert_eq!((places(&known), known.ahead.len()), ((Some(3), 14), 1));
        known.meet(&progress("a", 3, 20), 0);
        assert_eq!((places(&known), known.ahead.len()), ((Some(3), 20), 0));
        known.read(20, 21);
        // The stretches meet.
        known.read(3, 12);
        known.saw(12, 20);
        assert_eq!((places(&known), known.ahead.len()), ((None, 21), 1));
        known.meet(&progress("a", 3, 21), 0);
        assert_eq!(places(&known), (None, 21));
    }

    #[test]
    fn acknowledged_messages_are_not_looked_at_and_no_message_twice() {
        let mut known = Known::default();
        known.meet(&progress("a", 0, 5), 0);
        known.read(0, 3);
        assert_eq!(places(&known), (Some(3), 5));
        known.read(3, 8);
        assert_eq!((places(&known), known.ahead.len()), ((None, 8), 1));
        known.meet(&progress("a", 30, 40), 0);
        assert_eq!((places(&known), known.ahead.len()), ((Some(30), 40), 0));
    }

    #[test]
    fn nothing_is_known_of_another_stream() {
        // The consumer is another one, the connection was lost, the server is behind where it was.
        for (created, losses, handed_out) in [("b", 0, 9), ("a", 1, 9), ("a", 0, 1)] {
            let mut known = Known::default();
            known.meet(&progress("a", 5, 6), 0);
            known.read(6, 7);
            assert_eq!(places(&known), (Some(5), 7));
            known.meet(&progress(created, 0, handed_out), losses);
            assert_eq!((places(&known), known.ahead.len()), ((Some(0), handed_out), 0), "{created}");
        }
    }
}
