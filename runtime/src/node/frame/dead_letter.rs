//! Dead letters: an item that failed for good, with the record of its attempts.

use bytes::Bytes;

use crate::chain::{Plugin, Work};
use crate::dead::Attempt;
use crate::frame::id::FrameId;
use crate::frame::large::names_in;
use crate::frame::outgoing::{MessageLimits, Outgoing};
use crate::frame::{Headers, header, to_header_line};
use crate::node::frame::FrameContext;
use crate::node::frame::attempts::{self, now};
use crate::node::frame::reason::reason_line;
use crate::node::frame::steps::of_letter;
use crate::node::route::Route;
use crate::run::failure::{Failure, FailureKind};
use crate::{dead, subject};

/// The most bytes of the id and the content type in a shortened dead letter. A feeder may make them as long as headers can be.
const HEADER_MAX: usize = 1 << 10;

/// The parts of a dead letter.
struct DeadLetter<'a> {
    /// The idempotency key.
    message_id: String,
    /// The headers of the item.
    headers: Headers,
    /// The item.
    payload: Bytes,
    /// The number of the last attempt.
    attempt: u64,
    /// The record of all attempts.
    history: &'a [Attempt],
    /// Why the item failed.
    failure: &'a Failure,
}

/// A message that is no frame.
pub(crate) struct Undecodable<'a> {
    /// Its place in the stream.
    pub(crate) sequence: u64,
    /// Its id.
    pub(crate) id: FrameId,
    /// Its headers.
    pub(crate) headers: &'a Headers,
    /// Its payload.
    pub(crate) payload: Bytes,
    /// The number of the attempt.
    pub(crate) attempt: u64,
    /// Why it is no frame.
    pub(crate) reason: &'a str,
}

/// Makes the dead letter of one item of a frame. See [`dead_letter`].
pub(crate) fn dead_letter_of(frame: FrameContext<'_>, position: usize, failure: &Failure) -> Vec<Outgoing> {
    let FrameContext { inbound, route, limits } = frame;
    let history = attempts::history(frame, failure);
    let (payload, content_type) = inbound.payload(&[position], limits.max_item());
    let mut headers = inbound.frame.part(&[position]).headers();
    headers.extend(content_type.map(|content_type| (header::CONTENT_TYPE, content_type.to_owned())));
    headers.extend(inbound.part_header(&[position]));
    headers.extend(of_letter(inbound, position, failure).map(|steps| (header::STEPS, steps)));
    let message_id = route.message_id(inbound.sequence, position);
    let attempt = inbound.attempt;
    dead_letter(route, limits, DeadLetter { message_id, headers, payload, attempt, history: &history, failure })
}

/// Makes the dead letter of a message that is no frame. It holds the message as it came. See [`dead_letter`].
pub(crate) fn dead_letter_of_undecodable(
    route: &Route,
    limits: MessageLimits,
    message: Undecodable<'_>,
) -> Vec<Outgoing> {
    let Undecodable { sequence, id, headers: all, payload, attempt, reason } = message;
    let mut headers = all.inherited();
    headers.push(header::ID, id.as_str());
    if let Some(text) = all.get(header::CONTENT_TYPE) {
        headers.push(header::CONTENT_TYPE, text);
    }
    // References that can be read keep their objects.
    if !names_in(all, &payload).is_empty() {
        headers.extend(all.get(header::LARGE).map(|large| (header::LARGE, large.to_owned())));
    }
    let failure = Failure::fatal(FailureKind::Undecodable, reason);
    let message_id = route.message_id(sequence, 0);
    dead_letter(route, limits, DeadLetter { message_id, headers, payload, attempt, history: &[], failure: &failure })
}

/// Makes a dead letter that the server takes, as messages to store together.
///
/// The letter is the last of them. Where the item leaves no room for it, parts of the item come before it.
fn dead_letter(route: &Route, limits: MessageLimits, letter: DeadLetter<'_>) -> Vec<Outgoing> {
    let DeadLetter { message_id, mut headers, payload, attempt, history, failure } = letter;
    let stage = route.stage();
    route.sign(&mut headers);
    headers.push(header::CHAIN, route.chain.name.as_str());
    headers.push(header::STAGE, stage.name.as_str());
    match &stage.work {
        Work::Task { plugin, task } => {
            headers.push(header::TASK, task.as_str());
            if let Plugin::Stored(digest) = plugin {
                headers.push(header::PLUGIN, digest.to_string());
            }
        }
        Work::Program(program) => headers.push(header::TASK, program.name.as_str()),
    }
    headers.push(header::TIME, now());
    headers.push(header::ATTEMPTS, attempt.min(u64::from(stage.retry.attempts)).to_string());
    headers.push(header::FAILURE, failure.kind.name());
    headers.push(header::REASON, reason_line(&failure.reason));
    headers.push(header::HISTORY, dead::to_header(history));
    if let Some(backtrace) = &failure.backtrace {
        headers.push(header::BACKTRACE, to_header_line(backtrace));
    }
    if let Some(calls) = &failure.calls {
        headers.push(header::CALLS, calls.to_header());
    }
    let subject = subject::dead(&route.chain.name, &stage.name);
    let mut letter = Outgoing { subject, message_id, headers, payload };
    // A letter that cannot be stored would keep its item in the queue forever.
    if limits.fits(&letter) {
        return vec![letter];
    }
    if letter.headers.get(header::STEPS).is_some() {
        letter.headers = letter.headers.without(&[header::STEPS]);
        if limits.fits(&letter) {
            return vec![letter];
        }
    }
    if let Some(calls) = &failure.calls {
        letter.headers = letter.headers.without(&[header::CALLS]);
        let mut brief = letter.headers.clone();
        brief.push(header::CALLS, calls.brief().to_header());
        let brief = Outgoing { headers: brief, ..letter.clone() };
        if limits.fits(&brief) {
            return vec![brief];
        }
    }
    let mut short = letter.headers.own().cut(HEADER_MAX);
    // Calls that are made again must carry the keys that they had.
    for name in [header::FED, header::TOPIC] {
        short.extend(
            letter.headers.get(name).map(|value| (name, value[..value.floor_char_boundary(HEADER_MAX)].to_owned())),
        );
    }
    let one = Outgoing { headers: short.clone(), ..letter.clone() };
    if limits.fits(&one) {
        return vec![one];
    }
    let item = std::mem::take(&mut letter.payload);
    let mut letters = item_parts(route, limits, &letter.message_id, &item);
    letter.headers.push(header::ITEM_PARTS, letters.len().to_string());
    if !limits.fits_a_batch(&letter) {
        letter.headers = short;
        letter.headers.push(header::ITEM_PARTS, letters.len().to_string());
    }
    letters.push(letter);
    letters
}

/// Cuts an item that leaves no room in its dead letter into parts.
fn item_parts(route: &Route, limits: MessageLimits, message_id: &str, item: &Bytes) -> Vec<Outgoing> {
    let size = limits.max_item().max(limits.max_payload / 2).max(1);
    let part = |(start, number): (usize, usize)| Outgoing {
        subject: subject::dead_item(&route.chain.name),
        message_id: format!("{message_id}.item.{number}"),
        headers: part_header(number),
        payload: item.slice(start..item.len().min(start + size)),
    };
    (0..item.len()).step_by(size).zip(1..).map(part).collect()
}

fn part_header(number: usize) -> Headers {
    let mut headers = Headers::new();
    headers.push(header::ITEM_PART, number.to_string());
    headers
}
