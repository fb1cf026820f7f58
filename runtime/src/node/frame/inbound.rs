//! A frame that the queue handed out: its items, and the record of earlier attempts.

use std::sync::Arc;

use crate::dead::calls::CallRecord;
use crate::dead::{self, Attempt};
use crate::frame::format::Format;
use crate::frame::id::{FrameId, Index};
use crate::frame::large::{Positions, Reference};
use crate::frame::steps::Steps;
use crate::frame::{Frame, Headers, from_header_line, header};
use crate::held::HeldSince;
use crate::name::{Topic, TopicError};
use crate::node::frame::holders::{Holder, Holders};
use crate::node::frame::sent::Sent;
use crate::node::frame::source::Source;
use crate::run::failure::{Failure, FailureKind};
use crate::subject::Lane;

/// A message as the queue hands it out.
pub(crate) trait QueuedMessage {
    /// Returns the first value of a header.
    fn header(&self, name: &str) -> Option<&str>;
    /// Returns the idempotency key that it was stored under.
    fn message_id(&self) -> Option<&str>;
    /// Returns the headers that its outputs inherit.
    fn inherited(&self) -> Headers;
    /// Returns the payload.
    fn payload(&self) -> &bytes::Bytes;
    /// Returns its place in the stream.
    fn sequence(&self) -> u64;
    /// Returns how often it was handed out, this delivery included.
    fn delivered(&self) -> u64;
    /// Returns when it was stored, in milliseconds since the Unix epoch.
    fn stored_millis(&self) -> u64;
    /// Returns since when the server waits for an acknowledgement.
    fn held(&self) -> &Arc<HeldSince>;
}

/// A frame that the queue handed out.
#[derive(Debug, Clone)]
pub struct InboundFrame {
    /// The items, their ids and inherited headers.
    pub frame: Frame,
    /// The topic of all items. `None` if they have none.
    pub(crate) topic: Option<Topic>,
    /// The payload as a client wrote it. `None` if that was CBOR.
    pub written: Option<(Format, bytes::Bytes)>,
    /// The lane that it came by.
    pub lane: Lane,
    /// Its place in the stream.
    pub sequence: u64,
    /// The items' positions in the frame that got the id.
    pub part: Index,
    /// The place in the stream of that frame.
    pub origin: u64,
    /// The number of this attempt, from 1.
    pub attempt: u64,
    /// Earlier attempts that ended without an outcome, because their nodes died or were cut off.
    pub lost_attempts: u64,
    /// Deliveries that were no attempts: to a node that still runs, to no node, or to an unknown one.
    pub cleared: u64,
    /// Of [`Self::cleared`], the deliveries of this message whose holder is unknown.
    pub unknown: u64,
    /// How often it was handed out, this delivery included.
    pub delivered: u64,
    /// Since when the server waits for an acknowledgement.
    pub held: Arc<HeldSince>,
    /// The nodes of earlier deliveries.
    pub holders: Holders,
    /// The record of earlier attempts.
    pub history: Vec<Attempt>,
    /// What the last attempt on the item has sent under its keys. Empty if it is unknown.
    pub sent: Sent,
    /// The steps that the items have gone through. `None` if the chain keeps no records.
    pub(crate) steps: Option<Box<Steps>>,
    /// The failure for which an earlier node gave the frame up. Only its dead letters are left to write.
    pub given_up: Option<Failure>,
}

/// What a message turns out to be.
pub enum Read {
    /// A frame to run.
    Frame(Box<InboundFrame>),
    /// No frame, with the reason and the number of the attempt.
    Undecodable(String, u64),
}

impl InboundFrame {
    /// Reads a message of this lane. `fed` is the format of fed items without a content type; `None` behind the first hop.
    pub(crate) fn read(message: &impl QueuedMessage, lane: Lane, fed: Option<Format>) -> Read {
        // Only nodes publish to the other lanes. In the work lane these headers come from the feeder and mean nothing.
        let own = |name: &str| message.header(name).filter(|_| lane != Lane::Work);
        let number = |name: &str| own(name).and_then(|text| text.parse::<u64>().ok());
        let failure = own(header::FAILURE).and_then(FailureKind::from_name);
        // A delayed message was delivered once to begin its wait. A frame that is given up does not run, so no node dies of it.
        let before = message.delivered().saturating_sub(1 + u64::from(number(header::DELAY).is_some()));
        let lost_attempts = if failure.is_some() { 0 } else { before };
        let attempt = number(header::ATTEMPT).unwrap_or(0).saturating_add(lost_attempts).saturating_add(1);
        let format = fed.filter(|_| lane == Lane::Work);
        let Decoded { format: written, items, index, large } = match decode(message, lane, format) {
            Ok(decoded) => decoded,
            Err(reason) => return Read::Undecodable(reason, attempt),
        };
        let topic = match message.header(header::TOPIC).map(str::parse) {
            None => None,
            Some(Ok(topic)) => Some(topic),
            Some(Err(error)) => return Read::Undecodable(TopicError::to_string(&error), attempt),
        };
        let id = frame_id(message, format.is_some());
        let part = match own(header::PART).and_then(|text| Index::parse(text, items.len()).ok()) {
            Some(part) => part,
            // A feeder may tell its items apart by their numbers.
            None if id.is_fed() => index.clone(),
            None => Index::in_order(items.len()),
        };
        let given_up = failure.map(|kind| Failure {
            backtrace: own(header::BACKTRACE).map(from_header_line),
            calls: own(header::CALLS).and_then(CallRecord::from_header).map(Arc::new),
            ..Failure::fatal(kind, reason(own(header::REASON)))
        });
        Read::Frame(Box::new(Self {
            frame: Frame { id, items, index, large, inherited: message.inherited() },
            topic,
            written: (written != Format::Cbor).then(|| (written, message.payload().clone())),
            lane,
            sequence: message.sequence(),
            part,
            origin: number(header::ORIGIN).unwrap_or(message.sequence()),
            attempt,
            lost_attempts,
            cleared: number(header::SUSPICIONS).unwrap_or(0),
            unknown: 0,
            delivered: message.delivered(),
            held: Arc::clone(message.held()),
            holders: Holders::default(),
            history: own(header::HISTORY).map(dead::from_header).unwrap_or_default(),
            sent: own(header::SENT).map(Sent::from_header).unwrap_or_default(),
            steps: None,
            given_up,
        }))
    }

    /// Sets the place of the fed message in the world. What a feeder has written there means nothing.
    pub(crate) fn stamp(&mut self, fed: Option<String>) {
        let inherited = &mut self.frame.inherited;
        if inherited.get(header::FED).is_some() {
            *inherited = inherited.without(&[header::FED]);
        }
        if let Some(fed) = fed {
            inherited.push(header::FED, fed);
        }
    }

    /// Returns the place in the world of the fed message. `None` if it is unknown.
    pub(crate) fn fed(&self) -> Option<&str> {
        self.frame.inherited.get(header::FED)
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.frame.items.len()
    }

    /// Returns the id of the item at this position. It is the same at each attempt.
    pub fn item_id(&self, position: usize) -> String {
        self.frame.id.item(self.part.get(position))
    }

    /// Returns `true` if the frame descends from the message fed under this id, or an item of it from the item with this id.
    pub fn holds(&self, fed: &str) -> bool {
        self.frame.id.root() == fed || (0..self.len()).any(|position| self.frame.fed_id(position) == fed)
    }

    /// Returns the header that names the items' positions in the original frame. `None` if they are all, in order.
    pub(crate) fn part_header(&self, positions: &[usize]) -> Option<(&'static str, String)> {
        let part = self.part.pick(positions);
        let is_plain = part.is_in_order() || self.frame.id.is_fed() && part == self.frame.index.pick(positions);
        (!is_plain).then(|| (header::PART, part.to_string()))
    }

    /// Returns the holder of a lost attempt, if it is known.
    pub fn holder(&self, attempt: u64) -> Option<&Holder> {
        // Each attempt since the frame was queued here is one delivery.
        self.holders.by_delivery.get(&(self.delivered + attempt).checked_sub(self.attempt)?)
    }

    /// Returns the payload of some of the items, and its content type if that is not CBOR.
    ///
    /// A single item of more than `max` bytes stays as it was written, if that is shorter.
    pub fn payload(&self, positions: &[usize], max: usize) -> (bytes::Bytes, Option<&'static str>) {
        if let (&[position], Some((format, payload))) = (positions, &self.written) {
            let item = &self.frame.items[position];
            if item.len() > max
                && let Some((content_type, written)) = format.written(payload, position)
                && written.len() < item.len()
            {
                return (written, Some(content_type));
            }
        }
        (self.frame.part(positions).payload(), None)
    }

    /// Returns the large item at this position. `None` if its bytes are in the message.
    pub(crate) fn reference(&self, position: usize) -> Option<Reference> {
        self.frame.reference(position)
    }

    /// Returns the bytes of all items.
    pub(crate) fn bytes(&self) -> usize {
        self.frame.items.iter().map(bytes::Bytes::len).sum()
    }

    /// Returns the bytes of each item.
    pub fn sizes(&self) -> Vec<usize> {
        self.frame.items.iter().map(bytes::Bytes::len).collect()
    }

    /// Returns the queued message that this frame is.
    pub(crate) fn source(&self) -> Source<'_> {
        Source { sequence: self.sequence, held: &self.held, lane: self.lane }
    }

    /// Returns the positions of all items.
    pub fn positions(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }
}

fn reason(text: Option<&str>) -> String {
    text.map(from_header_line).unwrap_or_default()
}

/// The items of a message.
struct Decoded {
    format: Format,
    items: Vec<bytes::Bytes>,
    index: Index,
    large: Positions,
}

fn decode(message: &impl QueuedMessage, lane: Lane, fed: Option<Format>) -> Result<Decoded, String> {
    let format = match (fed, message.header(header::CONTENT_TYPE)) {
        // Nodes publish CBOR to the next stage.
        (None, _) if lane == Lane::Work => Format::Cbor,
        (_, Some(text)) => Format::from_content_type(text).map_err(|error| error.to_string())?,
        (format, None) => format.unwrap_or_default(),
    };
    let items = format.items(message.payload()).map_err(|error| error.to_string())?;
    let index = match message.header(header::INDEX) {
        Some(text) => Index::parse(text, items.len()).map_err(|error| error.to_string())?,
        None => Index::in_order(items.len()),
    };
    let large = match message.header(header::LARGE) {
        Some(text) => references(text, format, &items)?,
        None => Positions::NONE,
    };
    Ok(Decoded { format, items, index, large })
}

/// Returns the positions of the references in a message. All of them can be read.
fn references(text: &str, format: Format, items: &[bytes::Bytes]) -> Result<Positions, String> {
    if format != Format::Cbor {
        return Err(format!("the header `{}` is for messages of CBOR", header::LARGE));
    }
    let large = Positions::parse(text, items.len())
        .ok_or_else(|| format!("the header `{}` names no rising positions of {} items", header::LARGE, items.len()))?;
    for position in large.iter() {
        Reference::parse(&items[position]).map_err(|error| format!("item {position}: {error}"))?;
    }
    Ok(large)
}

/// Returns the id of a message: its header, or one made of its place in the stream.
pub(crate) fn frame_id(message: &impl QueuedMessage, is_fed: bool) -> FrameId {
    let id = message.header(header::ID).or_else(|| message.message_id());
    frame_id_of(id, message.stored_millis(), message.sequence(), is_fed)
}

/// Returns the id of a message with this header, or stored at this place.
pub fn frame_id_of(id: Option<&str>, stored_millis: u64, sequence: u64, is_fed: bool) -> FrameId {
    match id {
        Some(text) if is_fed => FrameId::from_fed(text),
        Some(text) => FrameId::from_header(text),
        None => FrameId::from_stored(stored_millis, sequence),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    struct Message {
        headers: &'static [(&'static str, &'static str)],
        delivered: u64,
        payload: bytes::Bytes,
        held: Arc<HeldSince>,
    }

    impl QueuedMessage for Message {
        fn header(&self, name: &str) -> Option<&str> {
            self.headers.iter().find(|(each, _)| *each == name).map(|(_, value)| *value)
        }
        fn message_id(&self) -> Option<&str> {
            None
        }
        fn inherited(&self) -> Headers {
            Headers::new()
        }
        fn payload(&self) -> &bytes::Bytes {
            &self.payload
        }
        fn sequence(&self) -> u64 {
            70
        }
        fn delivered(&self) -> u64 {
            self.delivered
        }
        fn stored_millis(&self) -> u64 {
            0
        }
        fn held(&self) -> &Arc<HeldSince> {
            &self.held
        }
    }

    fn read(headers: &'static [(&'static str, &'static str)], delivered: u64, lane: Lane) -> Read {
        let (payload, held) = (bytes::Bytes::from_static(&[1, 2, 3]), Arc::new(HeldSince::new(Instant::now())));
        InboundFrame::read(&Message { headers, delivered, payload, held }, lane, None)
    }

    #[test]
    fn attempts_come_from_the_delivery_and_only_nodes_may_add_to_them() {
        const TOLD: &[(&str, &str)] = &[(header::ATTEMPT, "2"), (header::ORIGIN, "7"), (header::SUSPICIONS, "4")];
        const WAITED: &[(&str, &str)] = &[(header::ATTEMPT, "1"), (header::DELAY, "10")];
        const GIVEN_UP: &[(&str, &str)] = &[(header::ATTEMPT, "5"), (header::FAILURE, "error")];
        // Headers, deliveries, lane: attempt, of these lost, origin, cleared, given up.
        let table = [
            (&[][..], 1, Lane::Work, (1, 0, 70, 0, false)),
            (&[], 3, Lane::Work, (3, 2, 70, 0, false)),
            // The feeder wrote these.
            (TOLD, 1, Lane::Work, (1, 0, 70, 0, false)),
            (TOLD, 1, Lane::Retry, (3, 0, 7, 4, false)),
            (TOLD, 2, Lane::Quarantine, (4, 1, 7, 4, false)),
            // The first delivery began the wait.
            (WAITED, 2, Lane::Retry, (2, 0, 70, 0, false)),
            // No node dies of what does not run.
            (GIVEN_UP, 9, Lane::Retry, (6, 0, 70, 0, true)),
        ];
        for (headers, delivered, lane, expected) in table {
            let Read::Frame(frame) = read(headers, delivered, lane) else { panic!("a frame of three items") };
            let found = (frame.attempt, frame.lost_attempts, frame.origin, frame.cleared, frame.given_up.is_some());
            assert_eq!((found, frame.len()), (expected, 3), "{headers:?} {delivered} {lane:?}");
        }
    }

    #[test]
    fn an_undecodable_message_says_why_and_at_which_attempt() {
        const BROKEN: &[(&str, &str)] = &[(header::INDEX, "0,x"), (header::ATTEMPT, "1")];
        let Read::Undecodable(reason, attempt) = read(BROKEN, 2, Lane::Retry) else { panic!("no index") };
        assert_eq!(attempt, 3);
        assert!(!reason.is_empty());
    }
}
