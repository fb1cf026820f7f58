//! A frame that was handed out: what it holds, and what is known of the attempts before.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::queue::Delivery;
use crate::dead;
use crate::dead::Attempt;
use crate::engine::failure::{Failure, FailureKind};
use crate::frame::format::Format;
use crate::frame::id::{FrameId, Index};
use crate::frame::{Frame, Headers, from_header_line, header, to_header_line};
use crate::held::HeldSince;
use crate::node::failpoint;
use crate::node::failpoint::Point;
use crate::node::frame::holders::{Holder, Holders};
use crate::node::frame::reason::reason_line;
use crate::node::frame::source::Source;
use crate::subject::Lane;

/// A frame that was handed out.
#[derive(Clone)]
pub struct InboundFrame {
    /// What it holds.
    pub frame: Frame,
    /// What the items were made of, if not of CBOR.
    pub written: Option<(Format, bytes::Bytes)>,
    /// Where it was queued.
    pub lane: Lane,
    /// Its place in the stream.
    pub sequence: u64,
    /// Which items these are of the frame that they were part of when it got its id.
    pub part: Index,
    /// That frame's place in the stream.
    pub origin: u64,
    /// Which attempt this is; 1 is the first.
    pub attempt: u64,
    /// How many of the attempts before ended without a word: their nodes died, or were cut off. See `suspicion`.
    pub lost_attempts: u64,
    /// How often it was handed out to a node that is known to live, to none, or to nobody knows whom. None of these was an attempt.
    pub cleared: u64,
    /// Of these, the times since it was put here of which nobody can know who had it in hand.
    pub unknown: u64,
    /// How often it was handed out, this time included.
    pub delivered: u64,
    /// Since when the server waits for an answer.
    pub held: Arc<HeldSince>,
    /// Who had it in hand the times before.
    pub holders: Holders,
    /// What is known of the attempts before.
    pub history: Vec<Attempt>,
    /// Why it is given up, if a node has found so and left the rest to the next.
    pub given_up: Option<Failure>,
}

/// What a delivery is.
pub enum Read {
    /// A frame to run.
    Frame(Box<InboundFrame>),
    /// No frame, for this reason, at this attempt.
    Undecodable(String, u64),
}

impl InboundFrame {
    /// Reads a delivery of this lane. `fed` is how the payload is written if it has no content type and is what a client fed.
    #[must_use]
    pub fn read(delivery: &Delivery, lane: Lane, fed: Option<Format>) -> Read {
        // Only nodes publish to the other lanes; on what came along the chain these headers are the feeder's and mean nothing.
        let own = |name: &str| delivery.header(name).filter(|_| lane != Lane::Work);
        let number = |name: &str| own(name).and_then(|text| text.parse::<u64>().ok());
        let failure = own(header::FAILURE).and_then(FailureKind::from_name);
        // One delivery has only begun the wait. Of what is given up nothing runs any more that a node could die of.
        let before = delivery.delivered.saturating_sub(1 + u64::from(number(header::DELAY).is_some()));
        let lost_attempts = if failure.is_some() { 0 } else { before };
        let attempt = number(header::ATTEMPT).unwrap_or(0).saturating_add(lost_attempts).saturating_add(1);
        let format = fed.filter(|_| lane == Lane::Work);
        let (written, items, index) = match decode(delivery, lane, format) {
            Ok(decoded) => decoded,
            Err(reason) => return Read::Undecodable(reason, attempt),
        };
        let id = frame_id(delivery, format.is_some());
        let part = match own(header::PART).and_then(|text| Index::parse(text, items.len()).ok()) {
            Some(part) => part,
            // A feeder may tell its items apart by their numbers.
            None if id.is_fed() => index.clone(),
            None => Index::in_order(items.len()),
        };
        let given_up = failure.map(|kind| Failure {
            backtrace: own(header::BACKTRACE).map(from_header_line),
            ..Failure::fatal(kind, reason(own(header::REASON)))
        });
        Read::Frame(Box::new(Self {
            frame: Frame { id, items, index, inherited: delivery.inherited() },
            written: (written != Format::Cbor).then(|| (written, delivery.payload.clone())),
            lane,
            sequence: delivery.sequence,
            part,
            origin: number(header::ORIGIN).unwrap_or(delivery.sequence),
            attempt,
            lost_attempts,
            cleared: number(header::SUSPICIONS).unwrap_or(0),
            unknown: 0,
            delivered: delivery.delivered,
            held: Arc::clone(&delivery.held),
            holders: Holders::default(),
            history: own(header::HISTORY).map(dead::from_header).unwrap_or_default(),
            given_up,
        }))
    }

    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frame.items.len()
    }

    /// The id of the item at this position, the same at each attempt.
    #[must_use]
    pub fn item_id(&self, position: usize) -> String {
        self.frame.id.item(self.part.get(position))
    }

    /// Whether it descends from the message that was fed under this id, or one of its items from the item with this id.
    #[must_use]
    pub fn holds(&self, fed: &str) -> bool {
        self.frame.id.root() == fed || (0..self.len()).any(|position| self.frame.fed_id(position) == fed)
    }

    /// The header that tells which items of the frame these are, as long as it does not go without saying.
    pub(crate) fn part_header(&self, positions: &[usize]) -> Option<(&'static str, String)> {
        let part = self.part.pick(positions);
        let is_plain = part.is_in_order() || self.frame.id.is_fed() && part == self.frame.index.pick(positions);
        (!is_plain).then(|| (header::PART, part.to_string()))
    }

    /// Who made an attempt which ended without a word, if it is known.
    #[must_use]
    pub fn holder(&self, attempt: u64) -> Option<&Holder> {
        // Each attempt since the frame was put here is a time that it was handed out.
        self.holders.at((self.delivered + attempt).checked_sub(self.attempt)?)
    }

    /// The payload of some of its items. A single item that is larger than `max` and was written in fewer bytes is as it was
    /// written, with the content type of that.
    #[must_use]
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

    /// The bytes of each item.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        self.frame.items.iter().map(bytes::Bytes::len).collect()
    }

    /// The queued message that it is.
    pub(crate) fn source(&self) -> Source<'_> {
        Source { sequence: self.sequence, held: &self.held, lane: self.lane }
    }

    /// Dies here if a test asks for that.
    pub(crate) fn reach(&self, point: Point) {
        failpoint::point(point, |id| self.holds(id));
    }

    /// All positions.
    #[must_use]
    pub fn positions(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }
}

fn reason(text: Option<&str>) -> String {
    text.map(from_header_line).unwrap_or_default()
}

fn decode(delivery: &Delivery, lane: Lane, fed: Option<Format>) -> Result<(Format, Vec<bytes::Bytes>, Index), String> {
    let format = match (fed, delivery.header(header::CONTENT_TYPE)) {
        // What nodes give to the next stage is CBOR.
        (None, _) if lane == Lane::Work => Format::Cbor,
        (_, Some(text)) => Format::from_content_type(text).map_err(|error| error.to_string())?,
        (format, None) => format.unwrap_or_default(),
    };
    let items = format.items(&delivery.payload).map_err(|error| error.to_string())?;
    let index = match delivery.header(header::INDEX) {
        Some(text) => Index::parse(text, items.len()).map_err(|error| error.to_string())?,
        None => Index::in_order(items.len()),
    };
    Ok((format, items, index))
}

/// The id that a message carries, or one made of where it is stored.
pub fn frame_id(delivery: &Delivery, is_fed: bool) -> FrameId {
    let id = delivery.header(header::ID).or_else(|| delivery.server_header(header::MESSAGE_ID));
    frame_id_of(id, delivery.stored_millis, delivery.sequence, is_fed)
}

/// The id of a message that carries this one, or is stored there.
#[must_use]
pub fn frame_id_of(id: Option<&str>, stored_millis: u64, sequence: u64, is_fed: bool) -> FrameId {
    match id {
        Some(text) if is_fed => FrameId::from_fed(text),
        Some(text) => FrameId::from_header(text),
        None => FrameId::from_stored(stored_millis, sequence),
    }
}

/// The headers by which what is put back is known again, besides those of its frame.
#[derive(Clone, Copy)]
pub struct RequeueTerms<'a> {
    /// Where it goes.
    pub lane: Lane,
    /// Failed attempts so far.
    pub failed: u64,
    /// How long it waits.
    pub delay: Option<Duration>,
    /// What is known of the attempts before.
    pub history: &'a [Attempt],
    /// Why it is given up, if it is.
    pub given_up: Option<&'a Failure>,
}

impl RequeueTerms<'_> {
    /// Some items of a frame, to be put back as one: the headers and the payload, which has no more than `max` bytes if it can.
    #[must_use]
    pub fn message(&self, inbound: &InboundFrame, positions: &[usize], max: usize) -> (Headers, bytes::Bytes) {
        let (payload, content_type) = inbound.payload(positions, max);
        let mut headers = inbound.frame.part(positions).headers();
        headers.extend(content_type.map(|content_type| (header::CONTENT_TYPE, content_type.to_owned())));
        headers.extend(inbound.part_header(positions));
        headers.push(header::ORIGIN, inbound.origin.to_string());
        if self.failed > 0 {
            headers.push(header::ATTEMPT, self.failed.to_string());
        }
        if inbound.cleared > 0 {
            headers.push(header::SUSPICIONS, inbound.cleared.to_string());
        }
        if let Some(delay) = self.delay {
            headers.push(header::DELAY, delay.as_millis().to_string());
        }
        if !self.history.is_empty() {
            headers.push(header::HISTORY, dead::to_header(self.history));
        }
        if let Some(failure) = self.given_up {
            headers.push(header::FAILURE, failure.kind.name());
            headers.push(header::REASON, reason_line(&failure.reason));
            if let Some(backtrace) = &failure.backtrace {
                headers.push(header::BACKTRACE, to_header_line(backtrace));
            }
        }
        (headers, payload)
    }
}
