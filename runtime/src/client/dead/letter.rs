//! A dead letter as clients see it.

use bytes::Bytes;
use ciborium::Value;
use serde::{Serialize, Serializer};

use crate::broker::message::StreamMessage;
use crate::dead::calls::CallRecord;
use crate::dead::{self, Attempt, FailureKind};
use crate::frame::cbor;
use crate::frame::format::Format;
use crate::frame::id::{self, FrameId, Index};
use crate::frame::json::AsJson;
use crate::frame::large::{Positions, Reference};
use crate::frame::record::Record;
use crate::frame::{Headers, from_header_line, header};

/// An item that failed for good, with everything known about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The number of the letter in the chain's stream of dead letters. It is never used again.
    pub number: u64,
    /// When the item failed for good, as RFC 3339 in UTC.
    pub time: String,
    /// The id under which the original item was fed.
    pub id: String,
    /// The chain.
    pub chain: String,
    /// The version of the chain that the item failed in.
    pub version: String,
    /// The number of that revision.
    pub revision: u64,
    /// The stage that the item failed in.
    pub stage: String,
    /// The task of the stage.
    pub task: Option<String>,
    /// The digest of the task's plugin.
    pub plugin: Option<String>,
    /// The node that the item failed on.
    pub node: String,
    /// The kind of failure in one word. See [`FailureKind`].
    pub failure: String,
    /// The reason in words.
    pub reason: String,
    /// How many attempts were made.
    pub attempts: u64,
    /// The known attempts, oldest first.
    pub history: Vec<Attempt>,
    /// The stack frames of the guest when it was stopped, innermost first.
    pub backtrace: Vec<String>,
    /// The calls of the last attempt. `None` if it made none, or they are unknown: its node died, or they left no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<CallRecord>,
    /// The topic of the item. `None` if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The steps that the item went through, the failed one last. `None` unless the chain records them, with `[results] records`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// The headers of the fed message.
    pub headers: Headers,
    /// The format of the payload. Only set if the payload is stored as it was fed: it could not be read, or is too large as CBOR.
    pub content_type: Option<String>,
    /// What names the item in the chain's object store. `None` unless it is a large one; see
    /// [`Client::fetch_large`](crate::client::Client::fetch_large).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large: Option<Reference>,
    /// The item as the stage received it. The payload as it was fed if it could not be read. `None` if it is not stored, or
    /// [`large`](Self::large).
    #[serde(serialize_with = "as_json")]
    pub item: Option<Value>,
    /// The message of the letter.
    #[serde(skip)]
    pub(crate) raw: Raw,
}

/// The parts of a letter's message that a retry needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Raw {
    pub(crate) id: String,
    pub(crate) index: Option<String>,
    pub(crate) part: Option<String>,
    pub(crate) fed: Option<String>,
    /// The header that says that the payload is a reference.
    pub(crate) large: Option<String>,
    pub(crate) steps: Option<String>,
    pub(crate) payload: Bytes,
}

impl DeadLetter {
    pub(crate) fn read(kept: StreamMessage) -> Self {
        let StreamMessage { sequence: number, stored, headers, payload } = kept;
        let optional = |name: &str| headers.get(name).map(str::to_owned);
        let get = |name: &str| optional(name).unwrap_or_default();
        let count = |name: &str| headers.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let raw = Raw {
            id: get(header::ID),
            index: optional(header::INDEX),
            part: optional(header::PART),
            fed: optional(header::FED),
            large: optional(header::LARGE),
            steps: optional(header::STEPS),
            payload,
        };
        // The queue in which it failed is one more.
        let hops = FrameId::from_header(&raw.id).hops() + 1;
        let failure = get(header::FAILURE);
        let large = raw.reference();
        Self {
            number,
            record: raw.steps.as_ref().and_then(|steps| Record::of_letter(steps, hops, &stored)),
            time: optional(header::TIME).unwrap_or(stored),
            id: id::fed_id(&FrameId::from_header(&raw.id).root(), raw.fed_position()),
            chain: get(header::CHAIN),
            version: get(header::VERSION),
            revision: count(header::REVISION),
            stage: get(header::STAGE),
            task: optional(header::TASK),
            plugin: optional(header::PLUGIN),
            node: get(header::NODE),
            reason: from_header_line(&get(header::REASON)),
            attempts: count(header::ATTEMPTS),
            history: headers.get(header::HISTORY).map(dead::from_header).unwrap_or_default(),
            backtrace: from_header_line(&get(header::BACKTRACE)).lines().map(str::to_owned).collect(),
            headers: headers.inherited().without(&[header::FED, header::TOPIC]),
            topic: optional(header::TOPIC),
            calls: headers.get(header::CALLS).and_then(CallRecord::from_header),
            item: match &large {
                Some(_) => None,
                None => raw.item(is_undecodable(&failure), headers.get(header::CONTENT_TYPE)),
            },
            large,
            content_type: optional(header::CONTENT_TYPE),
            failure,
            raw,
        }
    }

    /// Returns `true` if the item was fed under this id. Other items may have been in the same message.
    pub fn was_fed_as(&self, id: &str) -> bool {
        self.id == id || FrameId::from_header(&self.raw.id).root() == id
    }

    /// Returns `true` if the payload could not be read as an item.
    pub fn is_undecodable(&self) -> bool {
        is_undecodable(&self.failure)
    }

    /// Returns the item in CBOR. `None` if the letter has none, or a reference.
    pub(crate) fn cbor(&self) -> Option<Bytes> {
        if self.is_undecodable() || self.raw.payload.is_empty() || self.large.is_some() {
            return None;
        }
        match self.content_type.as_deref().map(Format::from_content_type) {
            None => Some(self.raw.payload.clone()),
            Some(format) => format.ok()?.items(&self.raw.payload).ok()?.into_iter().next(),
        }
    }

    /// Returns the id of the item. Its context and its log lines have the same id.
    pub(crate) fn item_id(&self) -> String {
        let id = FrameId::from_header(&self.raw.id);
        if self.is_undecodable() { self.raw.id.clone() } else { id.item(self.raw.position(&id)) }
    }
}

fn is_undecodable(failure: &str) -> bool {
    failure == FailureKind::Undecodable.name()
}

impl Raw {
    /// Returns the position of the original item in the fed message.
    fn fed_position(&self) -> usize {
        first(self.index.as_ref()).unwrap_or(0)
    }

    /// Returns the position of the item in its message.
    fn position(&self, id: &FrameId) -> usize {
        first(self.part.as_ref()).unwrap_or_else(|| if id.is_fed() { self.fed_position() } else { 0 })
    }

    /// Returns the reference that the payload is.
    fn reference(&self) -> Option<Reference> {
        let is_large = Positions::parse(self.large.as_ref()?, 1).is_some();
        is_large.then(|| Reference::parse(&self.payload).ok()).flatten()
    }

    fn item(&self, undecodable: bool, content_type: Option<&str>) -> Option<Value> {
        // No item is empty: an empty payload means that the letter has no item.
        if self.payload.is_empty() {
            return None;
        }
        let bytes = || Value::Bytes(self.payload.to_vec());
        if let Some(Ok(format)) = content_type.filter(|_| !undecodable).map(Format::from_content_type) {
            let item = format.items(&self.payload).ok().and_then(|items| cbor::value(items.first()?));
            return Some(item.unwrap_or_else(bytes));
        }
        Some(if undecodable {
            std::str::from_utf8(&self.payload).map_or_else(|_| bytes(), Value::from)
        } else {
            cbor::value(&self.payload).unwrap_or_else(bytes)
        })
    }
}

/// Returns the position in the header of a single item.
fn first(header: Option<&String>) -> Option<usize> {
    Some(Index::parse(header?, 1).ok()?.get(0))
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn as_json<S: Serializer>(item: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    item.as_ref().map(AsJson).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(more: &[(&'static str, &str)], payload: &'static [u8]) -> DeadLetter {
        let mut headers = Headers::new();
        for (name, value) in [(header::ID, "batch%2E7.0"), (header::STAGE, "split")].iter().chain(more) {
            headers.push(*name, *value);
        }
        let payload = Bytes::from_static(payload);
        let stored = "2026-01-01T00:00:00Z".to_owned();
        DeadLetter::read(StreamMessage { sequence: 7, stored, headers, payload })
    }

    #[test]
    fn what_a_letter_does_not_tell_is_left_open() {
        let letter = letter(&[], b"\x05");
        assert_eq!((letter.number, letter.id.as_str(), letter.item.as_ref()), (7, "batch.7", Some(&Value::from(5))));
        assert_eq!(letter.time, "2026-01-01T00:00:00Z");
        assert_eq!((letter.task, letter.history.len(), letter.backtrace.len()), (None, 0, 0));
    }

    #[test]
    fn what_it_tells_is_read() {
        let history = r#"[{"attempt":1,"node":null,"time":"t","failure":"node","reason":"r"}]"#;
        let letter = letter(
            &[
                (header::TIME, "2026-01-01T00:00:01Z"),
                (header::TASK, "words"),
                (header::FAILURE, "trap"),
                (header::REASON, "two\\nlines"),
                (header::HISTORY, history),
                (header::BACKTRACE, "f\\ng"),
                ("X-Customer", "ada"),
            ],
            b"\x05",
        );
        assert_eq!((letter.time.as_str(), letter.task.as_deref()), ("2026-01-01T00:00:01Z", Some("words")));
        assert_eq!((letter.reason.as_str(), letter.backtrace), ("two\nlines", vec!["f".to_owned(), "g".to_owned()]));
        assert_eq!(letter.history[0].attempt, 1);
        assert_eq!(letter.headers.iter().collect::<Vec<_>>(), [("X-Customer", "ada")]);
    }

    #[test]
    fn a_letter_is_found_by_the_id_of_its_message_and_by_its_own() {
        let letter = letter(&[(header::INDEX, "2")], b"\x05");
        assert_eq!(letter.id, "batch.7#2");
        assert!(letter.was_fed_as("batch.7#2") && letter.was_fed_as("batch.7"));
        assert!(!letter.was_fed_as("batch.7#1") && !letter.was_fed_as("batch"));
    }

    #[test]
    fn an_item_is_called_by_its_place_in_the_message_that_its_stage_got() {
        assert_eq!(letter(&[(header::INDEX, "2")], b"\x05").item_id(), "batch%2E7.0");
        assert_eq!(letter(&[(header::INDEX, "2"), (header::PART, "5")], b"\x05").item_id(), "batch%2E7.0#5");
        let fed = |more: &[(&'static str, &str)]| {
            let raw = letter(more, b"\x05").raw;
            DeadLetter { raw: Raw { id: "batch%2E7".to_owned(), ..raw }, ..letter(more, b"\x05") }.item_id()
        };
        assert_eq!((fed(&[]), fed(&[(header::INDEX, "2")])), ("batch%2E7".to_owned(), "batch%2E7#2".to_owned()));
        assert_eq!(fed(&[(header::FAILURE, "undecodable")]), "batch%2E7");
    }

    #[test]
    fn a_payload_that_could_not_be_read_is_shown_as_it_was_fed() {
        let failure = [(header::FAILURE, "undecodable")];
        assert_eq!(letter(&failure, b"{\"a\": ").item, Some(Value::from("{\"a\": ")));
        assert_eq!(letter(&failure, b"\xff").item, Some(Value::Bytes(vec![0xff])));
        assert_eq!(letter(&failure, b"").item, None);
        let large = [(header::FAILURE, "output"), (header::CONTENT_TYPE, "application/json")];
        assert_eq!(letter(&large, b" [0.5] ").item, Some(Value::Array(vec![Value::from(0.5)])));
    }
}
