//! Dead letters: what is kept of an item that failed for good, and the record of its attempts.

use bytes::Bytes;

use crate::chain::Plugin;
use crate::dead::Attempt;
use crate::engine::failure::Failure;
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header, to_header_line};
use crate::node::frame::attempts;
use crate::node::frame::attempts::now;
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::reason::reason_line;
use crate::node::hop::Hop;
use crate::{dead, subject};

/// The most bytes of a dead letter's id and content type, which a feeder may have made as long as a message's headers.
const HEADER_MAX: usize = 1 << 10;

/// What a letter is made of.
pub(crate) struct DeadLetter<'a> {
    /// Its idempotency key.
    pub(crate) message_id: String,
    /// The headers of what failed.
    pub(crate) headers: Headers,
    /// What failed.
    pub(crate) payload: Bytes,
    /// The attempt that was the last.
    pub(crate) attempt: u64,
    /// All attempts.
    pub(crate) history: &'a [Attempt],
    /// Why.
    pub(crate) failure: &'a Failure,
}

/// The letter of one item of a frame, as [`letter`] makes it.
pub(crate) fn dead_letter_of(hop: &Hop, inbound: &InboundFrame, position: usize, failure: &Failure) -> Vec<Outgoing> {
    let history = attempts::history(hop, inbound, failure);
    let (payload, content_type) = inbound.payload(&[position], hop.broker.limits().max_item());
    let mut headers = inbound.frame.part(&[position]).headers();
    headers.extend(content_type.map(|content_type| (header::CONTENT_TYPE, content_type.to_owned())));
    headers.extend(inbound.part_header(&[position]));
    letter(
        hop,
        DeadLetter {
            message_id: hop.route.message_id(inbound.sequence, position),
            headers,
            payload,
            attempt: inbound.attempt,
            history: &history,
            failure,
        },
    )
}

/// A letter that the server takes, to be stored as a whole. It comes last: where its item leaves no room for it, the parts of
/// the item come before it.
pub(crate) fn letter(hop: &Hop, letter: DeadLetter<'_>) -> Vec<Outgoing> {
    let DeadLetter { message_id, mut headers, payload, attempt, history, failure } = letter;
    let stage = hop.stage();
    hop.route.sign(&mut headers);
    headers.push(header::CHAIN, hop.route.chain.name.as_str());
    headers.push(header::STAGE, stage.name.as_str());
    headers.push(header::TASK, stage.task.as_str());
    if let Plugin::Stored(digest) = &stage.plugin {
        headers.push(header::PLUGIN, digest.to_string());
    }
    headers.push(header::TIME, now());
    headers.push(header::ATTEMPTS, attempt.min(u64::from(stage.retry.attempts)).to_string());
    headers.push(header::FAILURE, failure.kind.name());
    headers.push(header::REASON, reason_line(&failure.reason));
    headers.push(header::HISTORY, dead::to_header(history));
    if let Some(backtrace) = &failure.backtrace {
        headers.push(header::BACKTRACE, to_header_line(backtrace));
    }
    let subject = subject::dead(&hop.route.chain.name, &stage.name);
    let mut letter = Outgoing { subject, message_id, headers, payload };
    // A letter that cannot be stored would keep its item in the queue for ever.
    if hop.broker.limits().fits(&letter) {
        return vec![letter];
    }
    let short = letter.headers.own().cut(HEADER_MAX);
    let one = Outgoing { headers: short.clone(), ..letter.clone() };
    if hop.broker.limits().fits(&one) {
        return vec![one];
    }
    let item = std::mem::take(&mut letter.payload);
    let mut letters = item_parts(hop, &letter.message_id, &item);
    letter.headers.push(header::ITEM_PARTS, letters.len().to_string());
    if !hop.broker.limits().fits_a_batch(&letter) {
        letter.headers = short;
        letter.headers.push(header::ITEM_PARTS, letters.len().to_string());
    }
    letters.push(letter);
    letters
}

/// The parts of an item that leaves no room in the letter under this key.
fn item_parts(hop: &Hop, message_id: &str, item: &Bytes) -> Vec<Outgoing> {
    let size = hop.broker.limits().max_item().max(hop.broker.max_payload() / 2).max(1);
    let part = |(start, number): (usize, usize)| Outgoing {
        subject: subject::dead_item(&hop.route.chain.name),
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
