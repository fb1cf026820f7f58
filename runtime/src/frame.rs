//! The frame: one JetStream message with one or more items, which travel together.
//!
//! The payload is a CBOR sequence (RFC 8742): the items back to back. So a frame of one item is a plain CBOR document.
//! [`mod@block`] reads header blocks, [`cbor`] finds the items of a payload, [`mod@format`] converts payloads of other formats,
//! and [`id`] names frames and items. [`json`] converts items from and to JSON, and [`outgoing`] is a message to publish.
//! [`mod@steps`] is what a message tells of the way of its items, and [`record`] that of one item.
//! [`large`] are items that are too large for a message. [`text`] reads text, and [`disguise`] detects payloads that are not text.

pub mod block;
pub mod cbor;
pub mod disguise;
pub mod format;
pub mod id;
pub mod json;
pub mod large;
pub mod outgoing;
pub mod record;
pub(crate) mod steps;
pub mod text;

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use id::{FrameId, Index};
use large::{Positions, Reference};

/// The names of a frame's headers. Results inherit every other header of a fed message.
pub mod header {
    /// On messages of a chain that reaches the world: the place of the fed message that the items descend from, unique in the
    /// world. Outputs inherit it. Idempotency keys of calls are made of it.
    pub const FED: &str = "Pcluster-Fed";
    /// The topic of the items; see [`crate::name::Topic`]. Outputs inherit it.
    pub const TOPIC: &str = "Pcluster-Topic";
    /// On requeued messages of one item: the keys of the calls of its last attempt, each with a digest of what was sent.
    pub const SENT: &str = "Pcluster-Sent";
    /// On dead letters: the calls of the last attempt, as JSON; see [`crate::dead::calls::CallRecord`].
    pub const CALLS: &str = "Pcluster-Calls";
    /// The positions of items that are references to large items, in the form of [`INDEX`]. Absent if none is.
    pub const LARGE: &str = "Pcluster-Large";
    /// The steps that the items have gone through, and when; see [`super::steps`]. Absent unless the chain records them.
    pub const STEPS: &str = "Pcluster-Steps";
    /// The idempotency key: the server drops a message whose key it has seen within the chain's duplicate window.
    pub const MESSAGE_ID: &str = "Nats-Msg-Id";
    /// The format of the payload; see [`super::format::Format`].
    pub const CONTENT_TYPE: &str = "Content-Type";
    /// The frame's id.
    pub const ID: &str = "Pcluster-Id";
    /// For each item, the root item that it descends from.
    pub const INDEX: &str = "Pcluster-Index";
    /// Failed attempts so far that the delivery count does not include.
    pub const ATTEMPT: &str = "Pcluster-Attempt";
    /// On requeued messages: how often the frame was delivered to nodes without an outcome.
    pub const SUSPICIONS: &str = "Pcluster-Suspicions";
    /// On requeued messages and dead letters: the positions of these items in the frame, in the form of [`INDEX`]. If it is
    /// absent, they are 0..n in order, or those of [`INDEX`] if no hop has handled the frame yet.
    pub const PART: &str = "Pcluster-Part";
    /// On requeued messages: the stream sequence of the frame in which these items were first delivered.
    pub const ORIGIN: &str = "Pcluster-Origin";
    /// On requeued messages: the milliseconds to wait before the next attempt.
    pub const DELAY: &str = "Pcluster-Delay";
    /// On the last message that the last hop makes of a frame: the positions of the frame's items that its messages cover, in the
    /// form of [`INDEX`]. Absent if they cover all, [`COVERS_NONE`] if none.
    pub const COVERS: &str = "Pcluster-Covers";
    /// On the last of several messages that a frame leaves behind, if any of them holds references: what the keys of those before
    /// it are made of, and their number.
    pub const COMMIT: &str = "Pcluster-Commit";
    /// The value of [`COVERS`] for no item.
    pub const COVERS_NONE: &str = "none";
    /// How long the server keeps a message, in seconds. Without it, the message is kept as long as the stream keeps messages.
    pub const TTL: &str = "Nats-TTL";
    /// On results that a puller has put back. The puller took only other results of their message. They are not new results.
    pub const AGAIN: &str = "Pcluster-Again";
    /// On results and dead letters: the version of the chain.
    pub const VERSION: &str = "Pcluster-Version";
    /// On results and dead letters: the number of the revision.
    pub const REVISION: &str = "Pcluster-Revision";
    /// On results and dead letters: the node that finished the item.
    pub const NODE: &str = "Pcluster-Node";
    /// On dead letters: the stage in which the item failed.
    pub const STAGE: &str = "Pcluster-Stage";
    /// On dead letters: the chain.
    pub const CHAIN: &str = "Pcluster-Chain";
    /// On dead letters: the number of attempts.
    pub const ATTEMPTS: &str = "Pcluster-Attempts";
    /// On dead letters: the kind of failure in one word.
    pub const FAILURE: &str = "Pcluster-Failure";
    /// On dead letters: the reason in words. A line break is written as `\n`, a backslash as `\\`.
    pub const REASON: &str = "Pcluster-Reason";
    /// On dead letters: the task that the stage runs.
    pub const TASK: &str = "Pcluster-Task";
    /// On dead letters: the digest of the task's plugin, as `sha256:…`.
    pub const PLUGIN: &str = "Pcluster-Plugin";
    /// On dead letters: the time of the failure, as RFC 3339 in UTC.
    pub const TIME: &str = "Pcluster-Time";
    /// On dead letters: the attempts, as JSON; see [`crate::dead::Attempt`].
    pub const HISTORY: &str = "Pcluster-History";
    /// On a dead letter without a payload: the number of messages that hold its item. They come right before it in the stream.
    pub const ITEM_PARTS: &str = "Pcluster-Item-Parts";
    /// On a message with a part of an item: the number of the part, from 1.
    pub const ITEM_PART: &str = "Pcluster-Item-Part";
    /// On dead letters: the functions that the guest was in, one a line, escaped like the reason.
    pub const BACKTRACE: &str = "Pcluster-Backtrace";

    /// Returns `true` if a header describes this message only. Outputs do not inherit such headers.
    pub fn is_own(name: &str) -> bool {
        let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let is_inherited = [FED, TOPIC].iter().any(|each| name.eq_ignore_ascii_case(each));
        let is_ours = starts("Pcluster-") && !is_inherited;
        starts("Nats-") || is_ours || name.eq_ignore_ascii_case(CONTENT_TYPE)
    }
}

/// The headers of a message, in order. A name may occur more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// Creates an empty list of headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the first value under this name, in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the first value under this name in exactly this case. The server reads its own headers in this way.
    pub(crate) fn get_exact(&self, name: &str) -> Option<&str> {
        self.iter().find(|(each, _)| *each == name).map(|(_, value)| value)
    }

    /// Adds a header.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Adds headers.
    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = (&'static str, String)>) {
        self.0.extend(more.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)));
    }

    /// Returns all headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// Returns all headers. Names that are known at compile time need no check.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &(Cow<'static, str>, String)> {
        self.0.iter()
    }

    /// Returns all headers except those with these names.
    pub(crate) fn without(&self, names: &[&str]) -> Self {
        let stays = |name: &str| !names.iter().any(|each| each.eq_ignore_ascii_case(name));
        Self(self.0.iter().filter(|(name, _)| stays(name)).cloned().collect())
    }

    /// Returns the headers that outputs do not inherit.
    pub(crate) fn own(&self) -> Self {
        Self(self.0.iter().filter(|(name, _)| header::is_own(name)).cloned().collect())
    }

    /// Returns the headers with their values cut to this many bytes. The reason is not cut.
    pub(crate) fn cut(mut self, max: usize) -> Self {
        for (name, value) in &mut self.0 {
            if name != header::REASON {
                value.truncate(value.floor_char_boundary(max));
            }
        }
        self
    }

    /// Returns the headers that outputs inherit.
    pub(crate) fn inherited(&self) -> Self {
        Self(self.0.iter().filter(|(name, _)| !header::is_own(name)).cloned().collect())
    }
}

/// Serializes as a map of names to values. A name that occurs several times has a list of values.
impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (position, (name, _)) in self.iter().enumerate() {
            if self.iter().take(position).any(|(before, _)| before == name) {
                continue;
            }
            let values: Vec<&str> = self.iter().filter(|(each, _)| *each == name).map(|(_, value)| value).collect();
            match values.as_slice() {
                [value] => map.serialize_entry(name, value)?,
                several => map.serialize_entry(name, several)?,
            }
        }
        map.end()
    }
}

/// A frame in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The id of the frame.
    pub id: FrameId,
    /// The items. Each is one CBOR data item.
    pub items: Vec<Bytes>,
    /// For each item, the root item that it descends from.
    pub index: Index,
    /// The positions of items that are references; see [`large`].
    pub large: Positions,
    /// The headers that outputs inherit.
    pub inherited: Headers,
}

impl Frame {
    /// Returns a frame of these items, with the same id.
    pub fn part(&self, positions: &[usize]) -> Self {
        Self {
            id: self.id.clone(),
            items: positions.iter().map(|position| self.items[*position].clone()).collect(),
            index: self.index.pick(positions),
            large: self.large.pick(positions),
            inherited: self.inherited.clone(),
        }
    }

    /// Returns the items back to back. For a frame of one item, nothing is copied.
    pub fn payload(&self) -> Bytes {
        match self.items.as_slice() {
            [item] => item.clone(),
            items => {
                let mut payload = BytesMut::with_capacity(items.iter().map(Bytes::len).sum());
                for item in items {
                    payload.extend_from_slice(item);
                }
                payload.freeze()
            }
        }
    }

    /// Returns the large item at this position. `None` if its bytes are in the frame.
    pub fn reference(&self, position: usize) -> Option<Reference> {
        self.large.contains(position).then(|| Reference::parse(&self.items[position]).ok()).flatten()
    }

    /// Returns all large items of the frame, with their positions.
    pub fn references(&self) -> impl Iterator<Item = (usize, Reference)> {
        self.large.iter().filter_map(|position| Some((position, self.reference(position)?)))
    }

    /// Returns the frame's own headers and the inherited ones.
    pub fn headers(&self) -> Headers {
        headers_of(&self.id, &self.index, &self.large, &self.inherited)
    }

    /// Returns the id under which this item's root was fed.
    pub fn fed_id(&self, position: usize) -> String {
        id::fed_id(&self.id.root(), self.index.get(position))
    }
}

/// Returns the headers of a frame.
pub fn headers_of(id: &FrameId, index: &Index, large: &Positions, inherited: &Headers) -> Headers {
    let mut headers = inherited.clone();
    headers.push(header::ID, id.as_str());
    if !index.is_in_order() {
        headers.push(header::INDEX, index.to_string());
    }
    headers.extend(large.to_header().map(|large| (header::LARGE, large)));
    headers
}

/// Returns a text as one line, because a header holds only one. Line breaks become `\n`, backslashes `\\`, and other control
/// characters are dropped.
pub fn to_header_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            other if other.is_control() => {}
            other => line.push(other),
        }
    }
    line
}

/// Returns the text that [`to_header_line`] has escaped. Any other backslash stays, for example at the end of a cut line.
pub fn from_header_line(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        let escaped = if character == '\\' { rest.as_str().chars().next() } else { None };
        match escaped {
            Some('n') => text.push('\n'),
            Some('\\') => text.push('\\'),
            _ => {
                text.push(character);
                continue;
            }
        }
        rest.next();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_one_item_is_the_item() {
        let item = Bytes::from_static(b"\x01");
        let frame = Frame {
            id: FrameId::from_fed("a"),
            items: vec![item.clone()],
            index: Index::in_order(1),
            large: Positions::NONE,
            inherited: Headers::new(),
        };
        assert_eq!(frame.payload(), item);
        assert_eq!(frame.headers().get("pcluster-id"), Some("a"));
        assert_eq!(frame.headers().get(header::INDEX), None);
    }

    #[test]
    fn only_foreign_headers_are_inherited() {
        let mut headers = Headers::new();
        for name in ["Nats-Msg-Id", "pcluster-id", "content-type", "traceparent", "X-Customer"] {
            headers.push(name, "x");
        }
        let inherited = headers.inherited();
        assert_eq!(inherited.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["traceparent", "X-Customer"]);
    }

    #[test]
    fn several_values_of_a_header_are_a_list() {
        let mut headers = Headers::new();
        for (name, value) in [("X-Tag", "a"), ("X-One", "1"), ("X-Tag", "b"), ("x-tag", "c")] {
            headers.push(name, value);
        }
        let json = serde_json::to_string(&headers).expect("plain");
        assert_eq!(json, r#"{"X-Tag":["a","b"],"X-One":"1","x-tag":"c"}"#);
    }

    #[test]
    fn a_reason_of_many_lines_fits_a_header() {
        assert_eq!(to_header_line("a\\b\r\nc"), "a\\\\b\\nc");
    }

    #[test]
    fn a_reason_survives_its_header() {
        for text in ["", "a\\b\nc", "\\n", "\\\\n\n", "C:\\new", "ä\n\nö\\"] {
            assert_eq!(from_header_line(&to_header_line(text)), text);
        }
    }

    #[test]
    fn a_line_that_was_not_written_so_is_read_as_it_is() {
        assert_eq!(from_header_line("cut \\"), "cut \\");
        assert_eq!(from_header_line("a\\tb\\…"), "a\\tb\\…");
    }
}
