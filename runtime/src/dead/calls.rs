//! The calls of an attempt, as a dead letter keeps them.

use serde::{Deserialize, Serialize};

use crate::frame::{from_header_line, to_header_line};

/// The most bytes of a record, in a header.
pub const RECORD_MAX: usize = 64 << 10;
/// The most bytes of what a call was made to. Longer targets are cut.
const TARGET_MAX: usize = 1 << 10;

/// The outcome of a call whose attempt ended before it.
pub(crate) const OPEN: &str = "open";

/// What a call may do if it is made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Safety {
    /// Nothing, or the same once more.
    Safe,
    /// Nothing where the other side honors the key.
    Keyed,
    /// More than once.
    Unsafe,
}

/// A call that a task has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Called {
    /// The name of the call, as in `kv.get`.
    pub call: String,
    /// What it was made to, as in `POST https://api.example.com/rows` or `cache/key`.
    pub target: String,
    /// The status of an HTTP response, `ok`, or the kind of failure. `open` if the attempt ended before the call.
    pub outcome: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What it may do if it is made twice.
    pub safety: Safety,
    /// The idempotency key that it carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A digest of the request, to tell whether another one is the same.
    pub request: String,
    /// A digest of the body that was sent under the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The answer in CBOR, as Base64. `None` if it is not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// `true` if the stage records answers, and the letter has no room for this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answer_cut: bool,
    /// `true` if the answer is a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// The id of the item for which an inline stage has made the call. `None` for calls of the stage that the letter names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
}

impl Called {
    /// Returns `true` if the attempt ended before the call.
    pub(crate) fn is_open(&self) -> bool {
        self.outcome == OPEN
    }

    /// Returns the call as it is kept.
    pub(crate) fn cut(mut self) -> Self {
        if self.target.len() > TARGET_MAX {
            self.target.truncate(self.target.floor_char_boundary(TARGET_MAX));
            self.target.push('…');
        }
        self
    }

    /// Returns about how many bytes the call takes in a header.
    fn size(&self) -> usize {
        let texts = [&self.call, &self.target, &self.outcome, &self.request];
        let more = [&self.key, &self.body, &self.answer, &self.item];
        200 + texts.map(String::len).iter().sum::<usize>()
            + more.iter().filter_map(|text| text.as_ref()).map(String::len).sum::<usize>()
    }
}

/// The calls of an attempt in order, as many as there is room for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CallRecord {
    /// The first calls.
    pub calls: Vec<Called>,
    /// How many more there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_off: u64,
    /// How many of those were not safe to make twice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_off_unsafe: u64,
    /// The bytes that the calls take.
    #[serde(skip)]
    size: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl CallRecord {
    /// Creates a record of all these calls.
    pub(crate) fn of(calls: Vec<Called>) -> Self {
        Self { calls, ..Self::default() }
    }

    /// Adds a call. The answer is left out if it has no room. Returns its place. `None` if there is no room for the call.
    pub(crate) fn add(&mut self, called: Called) -> Option<usize> {
        let called = called.cut();
        let size = called.size();
        if self.left_off > 0 || self.size + size > RECORD_MAX {
            self.left_off += 1;
            self.left_off_unsafe += u64::from(called.safety != Safety::Safe);
            return None;
        }
        self.size += size;
        self.calls.push(called);
        Some(self.calls.len() - 1)
    }

    /// Sets how a call ended. An empty `answer` stands for one that is too large for any record.
    pub(crate) fn end(&mut self, place: usize, outcome: String, ms: u64, failed: bool, answer: Option<String>) {
        let room = RECORD_MAX.saturating_sub(self.size);
        let Some(called) = self.calls.get_mut(place) else { return };
        (called.outcome, called.ms, called.failed) = (outcome, ms, failed);
        called.answer_cut = answer.as_ref().is_some_and(|answer| answer.is_empty() || answer.len() > room);
        called.answer = answer.filter(|answer| (1..=room).contains(&answer.len()));
        self.size += called.answer.as_ref().map_or(0, String::len);
    }

    /// Returns the record without answers.
    pub(crate) fn brief(&self) -> Self {
        let mut brief = self.clone();
        for called in &mut brief.calls {
            called.answer_cut |= called.answer.take().is_some();
        }
        brief
    }

    /// Writes the record as the value of a header.
    pub(crate) fn to_header(&self) -> String {
        to_header_line(&serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads the value of a header. `None` if it cannot be read, for example because it was cut to make room.
    pub(crate) fn from_header(header: &str) -> Option<Self> {
        serde_json::from_str(&from_header_line(header)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(target: String, safety: Safety) -> Called {
        Called {
            call: "http".to_owned(),
            target,
            outcome: "open".to_owned(),
            ms: 0,
            safety,
            key: None,
            request: "00".to_owned(),
            body: None,
            answer: None,
            answer_cut: false,
            failed: false,
            item: None,
        }
    }

    #[test]
    fn a_record_survives_its_header_and_is_bounded() {
        let mut record = CallRecord::default();
        let place = record.add(called("GET http://a/\n\"é".to_owned(), Safety::Safe)).expect("room");
        record.end(place, "200".to_owned(), 7, false, Some("AAAA".to_owned()));
        let read = CallRecord::from_header(&record.to_header()).expect("a record");
        assert_eq!(read.calls, record.calls);
        assert!(!record.to_header().contains('\n'));
        let place = record.add(called("x".repeat(5_000), Safety::Unsafe)).expect("room");
        record.end(place, "200".to_owned(), 7, false, Some("A".repeat(RECORD_MAX)));
        assert_eq!(record.calls[place].answer, None, "an answer without room is left out");
        assert!(record.calls[place].answer_cut && !record.calls[0].answer_cut);
        for _ in 0..1_000 {
            record.add(called("x".repeat(5_000), Safety::Unsafe));
        }
        assert!(record.to_header().len() < RECORD_MAX + 100 && record.left_off > 900);
        assert_eq!(record.left_off, record.left_off_unsafe);
        assert!(record.brief().calls[0].answer.is_none() && record.brief().calls[0].answer_cut);
        assert_eq!(CallRecord::from_header("{\"calls\":["), None);
    }
}
