//! Dead letters: what is kept of an item that failed for good, and the record of its attempts.

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::outcome::Hop;
use super::taken::Taken;
use crate::broker::publish::Outgoing;
use crate::chain::Plugin;
use crate::dead::{self, Attempt};
use crate::engine::task::{Failure, FailureKind};
use crate::frame::{Headers, header, to_header_line};
use crate::subject;

/// The most bytes of a dead letter's reason: with the other headers, less than the room that an item leaves.
const REASON_MAX: usize = 4 << 10;
/// The most bytes of a dead letter's id and content type, which a feeder may have made as long as a message's headers.
const HEADER_MAX: usize = 1 << 10;
/// The most bytes of the reason of an attempt before the last.
const ATTEMPT_REASON_MAX: usize = 120;
/// The most attempts that are told of; of more, the first and the newest.
const ATTEMPTS_MAX: usize = 8;

/// What a letter is made of.
pub(super) struct Letter<'a> {
    /// Its idempotency key.
    pub(super) message_id: String,
    /// The headers of what failed.
    pub(super) headers: Headers,
    /// What failed.
    pub(super) payload: Bytes,
    /// The attempt that was the last.
    pub(super) attempt: u64,
    /// All attempts.
    pub(super) history: &'a [Attempt],
    /// Why.
    pub(super) failure: &'a Failure,
}

impl Hop {
    /// The letter of one item of a frame, as [`Hop::letter`] makes it.
    pub(super) fn letter_of(&self, taken: &Taken, position: usize, failure: &Failure) -> Vec<Outgoing> {
        let history = self.history(taken, failure);
        let (payload, content_type) = taken.payload(&[position], self.broker.max_item());
        let mut headers = taken.frame.part(&[position]).headers();
        headers.extend(content_type.map(|content_type| (header::CONTENT_TYPE, content_type.to_owned())));
        headers.extend(taken.part_header(&[position]));
        self.letter(Letter {
            message_id: self.message_id(taken.sequence, position),
            headers,
            payload,
            attempt: taken.attempt,
            history: &history,
            failure,
        })
    }

    /// A letter that the server takes, to be stored as a whole. It comes last: where its item leaves no room for it, the parts of
    /// the item come before it.
    pub(super) fn letter(&self, letter: Letter<'_>) -> Vec<Outgoing> {
        let Letter { message_id, mut headers, payload, attempt, history, failure } = letter;
        let stage = self.stage();
        self.sign(&mut headers);
        headers.push(header::CHAIN, self.chain.name.as_str());
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
        let subject = subject::dead(&self.chain.name, &stage.name);
        let mut letter = Outgoing { subject, message_id, headers, payload };
        // A letter that cannot be stored would keep its item in the queue for ever.
        if self.broker.fits(&letter) {
            return vec![letter];
        }
        let short = letter.headers.own().cut(HEADER_MAX);
        let one = Outgoing { headers: short.clone(), ..letter.clone() };
        if self.broker.fits(&one) {
            return vec![one];
        }
        let item = std::mem::take(&mut letter.payload);
        let mut letters = self.item_parts(&letter.message_id, &item);
        letter.headers.push(header::ITEM_PARTS, letters.len().to_string());
        if !self.broker.fits_a_batch(&letter) {
            letter.headers = short;
            letter.headers.push(header::ITEM_PARTS, letters.len().to_string());
        }
        letters.push(letter);
        letters
    }

    /// The parts of an item that leaves no room in the letter under this key.
    fn item_parts(&self, message_id: &str, item: &Bytes) -> Vec<Outgoing> {
        let size = self.broker.max_item().max(self.broker.max_payload() / 2).max(1);
        let part = |(start, number): (usize, usize)| Outgoing {
            subject: subject::dead_item(&self.chain.name),
            message_id: format!("{message_id}.item.{number}"),
            headers: part_header(number),
            payload: item.slice(start..item.len().min(start + size)),
        };
        (0..item.len()).step_by(size).zip(1..).map(part).collect()
    }

    /// The attempts of a frame's items, this one included.
    pub(super) fn history(&self, taken: &Taken, failure: &Failure) -> Vec<Attempt> {
        let mut history = with_deaths(taken, taken.attempt - 1);
        if taken.given_up.is_none() && failure.kind != FailureKind::Node {
            history.push(Attempt {
                attempt: taken.attempt,
                node: Some(self.node.clone()),
                incarnation: None,
                time: now(),
                failure: failure.kind.name().to_owned(),
                reason: cut(&failure.reason, ATTEMPT_REASON_MAX),
            });
        }
        if history.len() > ATTEMPTS_MAX {
            history.drain(1..=history.len() - ATTEMPTS_MAX);
        }
        history
    }
}

fn part_header(number: usize) -> Headers {
    let mut headers = Headers::new();
    headers.push(header::ITEM_PART, number.to_string());
    headers
}

/// The attempts up to this one; those that ended without a word are told of as deaths.
pub(super) fn with_deaths(taken: &Taken, last: u64) -> Vec<Attempt> {
    let mut history = taken.history.clone();
    let known = history.last().map_or(0, |attempt| attempt.attempt);
    // Of many, only the newest are kept anyway.
    let first = (known + 1).max(last.saturating_sub(ATTEMPTS_MAX as u64));
    history.extend((first..=last).map(|attempt| Attempt {
        attempt,
        node: None,
        incarnation: None,
        time: now(),
        failure: FailureKind::Node.name().to_owned(),
        reason: "its node died or was cut off; this is when that was noticed".to_owned(),
    }));
    history
}

pub(super) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

/// A reason as a header can have it.
pub(super) fn reason_line(reason: &str) -> String {
    cut(&to_header_line(reason), REASON_MAX)
}

fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}
