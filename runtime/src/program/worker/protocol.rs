//! The messages between a node and a worker: a line of JSON each.
//!
//! The page `WORKERS.md` describes them for authors of workers, and changes with this file.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pcluster_abi::Level;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Item;
use crate::frame::cbor::value_or_reason;
use crate::frame::format::Format;
use crate::frame::json;
use crate::text::cut;

/// The version of the protocol.
const VERSION: u64 = 1;
/// The most items that a worker may take at once.
const AT_ONCE_MAX: u32 = 1_000;
/// The most bytes of a foreign line that a reason repeats.
const SHOWN: usize = 80;
/// The longest wait before the next attempt that a worker may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24 * 30);

/// A message of a worker.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message<'a> {
    /// The worker is ready.
    Hello(Hello),
    /// An output of an item.
    #[serde(borrow)]
    Output(Output<'a>),
    /// An item is done.
    Done(Done),
    /// An item has failed.
    Error(Failed),
    /// An entry of the log.
    Log(Entry),
}

/// The first message of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Hello {
    version: u64,
    /// The form in which it takes items.
    #[serde(default)]
    pub(super) items: Form,
    /// The most items that it takes at once.
    #[serde(default = "one")]
    pub(super) at_once: u32,
}

/// The form of items in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Form {
    /// JSON.
    #[default]
    Json,
    /// CBOR, as base64.
    Cbor,
}

/// An output of an item: a `value` in JSON, or `cbor` as base64.
#[derive(Debug, Deserialize)]
pub(super) struct Output<'a> {
    pub(super) request: u64,
    // Its `null` is a value.
    #[serde(borrow, default, deserialize_with = "some")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cbor: Option<Cow<'a, str>>,
}

/// The end of an item that is done.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    pub(super) request: u64,
}

/// The end of an item that has failed.
#[derive(Debug, Deserialize)]
pub(super) struct Failed {
    pub(super) request: u64,
    /// `true` if another attempt cannot succeed.
    #[serde(default)]
    pub(super) permanent: bool,
    /// How long the next attempt waits at least, in milliseconds.
    retry_after_ms: Option<u64>,
    pub(super) message: String,
    /// Where it happened, a line for each place.
    pub(super) trace: Option<String>,
}

/// An entry of the log.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    /// The item that it is about, if it is about one.
    pub(super) request: Option<u64>,
    #[serde(default)]
    level: EntryLevel,
    pub(super) message: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EntryLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl<'a> Message<'a> {
    /// Reads a line. The error says what is wrong with it.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| {
            let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN * 4)]);
            let shown = cut(shown.trim_end(), SHOWN);
            format!("the worker wrote a line that is no message: `{shown}` ({})", without_line(&error))
        })
    }

    /// Returns its word.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Output(_) => "output",
            Self::Done(_) => "done",
            Self::Error(_) => "error",
            Self::Log(_) => "log",
        }
    }
}

impl Hello {
    /// Returns the message if a node can talk to the worker. The error says what keeps it from that.
    pub(super) fn checked(self) -> Result<Self, String> {
        if self.version != VERSION {
            return Err(format!("it speaks version {} of the protocol; this node speaks {VERSION}", self.version));
        }
        if self.at_once == 0 || self.at_once > AT_ONCE_MAX {
            return Err(format!("it takes {} items at once; a worker takes 1 to {AT_ONCE_MAX}", self.at_once));
        }
        Ok(self)
    }
}

impl Output<'_> {
    /// Returns the output as an item.
    pub(super) fn item(&self) -> Result<Bytes, String> {
        match (self.value, &self.cbor) {
            (Some(value), None) => json::read::document(value.get().as_bytes(), 1).map_err(|error| error.within_line()),
            (None, Some(text)) => {
                let bytes =
                    STANDARD.decode(text.as_bytes()).map_err(|error| format!("`cbor` is no base64: {error}"))?;
                if bytes.is_empty() {
                    return Err("`cbor` holds no item".to_owned());
                }
                let items = Format::Cbor.items(&bytes.into()).map_err(|error| format!("`cbor`: {error}"))?;
                let [item] = &items[..] else { return Err(format!("`cbor` holds {} items", items.len())) };
                Ok(item.clone())
            }
            (Some(_), Some(_)) => Err("it has both `value` and `cbor`".to_owned()),
            (None, None) => Err("it has neither `value` nor `cbor`".to_owned()),
        }
    }
}

impl Failed {
    /// Returns how long the next attempt waits at least.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(|wait| Duration::from_millis(wait).min(RETRY_AFTER_MAX))
    }
}

impl Entry {
    /// Returns its level.
    pub(super) fn level(&self) -> Level {
        match self.level {
            EntryLevel::Error => Level::Error,
            EntryLevel::Warn => Level::Warn,
            EntryLevel::Info => Level::Info,
            EntryLevel::Debug => Level::Debug,
            EntryLevel::Trace => Level::Trace,
        }
    }
}

/// Returns the message that hands an item to a worker.
pub(super) fn item(form: Form, request: u64, of: &Item<'_>) -> Result<Vec<u8>, String> {
    let Item { bytes: item, id, topic, attempt, .. } = of;
    let id = serde_json::to_string(id).map_err(|error| error.to_string())?;
    let mut line = format!("{{\"item\":{{\"request\":{request},\"id\":{id},\"attempt\":{attempt},");
    if let Some(topic) = topic {
        let _ = write!(line, "\"topic\":\"{topic}\",");
    }
    match form {
        Form::Json => {
            let value = value_or_reason(item)?;
            line.push_str("\"value\":");
            line.push_str(&json::to_json(&value));
        }
        Form::Cbor => {
            line.push_str("\"cbor\":\"");
            STANDARD.encode_string(item, &mut line);
            line.push('"');
        }
    }
    line.push_str("}}\n");
    Ok(line.into_bytes())
}

/// Returns the text of an error of one line.
fn without_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

fn some<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

const fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::cbor::value;
    use crate::frame::format::to_cbor;
    use crate::name::Topic;

    fn output(line: &str) -> Result<String, String> {
        match Message::read(line.as_bytes())? {
            Message::Output(output) => output.item().map(|item| json::to_json(&value(&item).expect("an item"))),
            other => Err(other.name().to_owned()),
        }
    }

    #[test]
    fn an_item_is_one_line_in_the_form_that_the_worker_asks_for() {
        let given = to_cbor(&serde_json::json!({"a": "ü\n", "b": [1, 2.5]}));
        let item = |form, request, bytes: &Bytes, id, topic: Option<&Topic>| {
            super::item(form, request, &Item { bytes, id, topic, attempt: 2, keep: None })
        };
        let line = item(Form::Json, 7, &given, "a\"b", None).expect("a line");
        let expected =
            "{\"item\":{\"request\":7,\"id\":\"a\\\"b\",\"attempt\":2,\"value\":{\"a\":\"ü\\n\",\"b\":[1,2.5]}}}\n";
        assert_eq!(String::from_utf8(line).as_deref(), Ok(expected));
        let topic: Topic = "t-1".parse().expect("a topic");
        let line = item(Form::Cbor, 8, &Bytes::from_static(&[0x01]), "x", Some(&topic)).expect("a line");
        let expected = b"{\"item\":{\"request\":8,\"id\":\"x\",\"attempt\":2,\"topic\":\"t-1\",\"cbor\":\"AQ==\"}}\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn an_output_is_json_or_cbor() {
        for (line, expected) in [
            (r#"{"output":{"request":1,"value":{"a": [1, null]}}}"#, r#"{"a":[1,null]}"#),
            (r#"{"output":{"value":null,"request":1}}"#, "null"),
            (r#"{"output":{"request":1,"value":123456789012345678901234567890}}"#, "123456789012345678901234567890"),
            (r#"{"output":{"request":1,"cbor":"AQ=="}}"#, "1"),
            (r#"{"output":{"request":1,"cbor":"AQ\u003d=","more":1}}"#, "1"),
        ] {
            assert_eq!(output(line).as_deref(), Ok(expected), "{line}");
        }
        for (line, told) in [
            (r#"{"output":{"request":1}}"#, "it has neither `value` nor `cbor`"),
            (r#"{"output":{"request":1,"value":1,"cbor":"AQ=="}}"#, "it has both `value` and `cbor`"),
            (r#"{"output":{"request":1,"cbor":"A"}}"#, "`cbor` is no base64: "),
            (r#"{"output":{"request":1,"cbor":"AQI="}}"#, "`cbor` holds 2 items"),
            (r#"{"output":{"request":1,"cbor":""}}"#, "`cbor` holds no item"),
            (r#"{"output":{"request":1,"value":{"a":1,"a":2}}}"#, "the key `a` twice in one object at column"),
        ] {
            let refused = output(line).expect_err(line);
            assert!(refused.starts_with(told), "{line}: {refused}");
        }
    }

    #[test]
    fn a_hello_says_what_the_worker_takes() {
        let hello = |text: &str| match Message::read(text.as_bytes()) {
            Ok(Message::Hello(hello)) => hello.checked().map(|hello| (hello.items, hello.at_once)),
            other => panic!("{other:?}"),
        };
        assert_eq!(hello(r#"{"hello":{"version":1}}"#), Ok((Form::Json, 1)));
        assert_eq!(
            hello(r#"{"hello":{"version":1,"name":"x","items":"cbor","at_once":8,"later":[]}}"#),
            Ok((Form::Cbor, 8))
        );
        let refused = hello(r#"{"hello":{"version":2}}"#).expect_err("a later version");
        assert_eq!(refused, "it speaks version 2 of the protocol; this node speaks 1");
        assert!(hello(r#"{"hello":{"version":1,"at_once":0}}"#).is_err());
    }

    #[test]
    fn what_is_no_message_is_told() {
        for (line, told) in [
            (&b"Loading model"[..], "the worker wrote a line that is no message: `Loading model` (expected value"),
            (
                b"{\"outputs\":{}}",
                "the worker wrote a line that is no message: `{\"outputs\":{}}` (unknown variant `outputs`",
            ),
            (b"{\"done\":{}}", "the worker wrote a line that is no message: `{\"done\":{}}` (missing field `request`"),
            (b"{\"done\":{\"request\":1}} x", "the worker wrote a line that is no message: "),
            (b"{\"output\":{\"request\":1,\"value\":NaN}}", "the worker wrote a line that is no message: "),
            (b"\xff\xfe", "the worker wrote a line that is no message: "),
        ] {
            let refused = Message::read(line).expect_err("no message");
            assert!(refused.starts_with(told), "{refused}");
        }
        let failed = r#"{"error":{"request":3,"message":"no mesh","retry_after_ms":18446744073709551615}}"#;
        let Ok(Message::Error(failed)) = Message::read(failed.as_bytes()) else { panic!("an error") };
        assert_eq!((failed.permanent, failed.retry_after()), (false, Some(RETRY_AFTER_MAX)));
    }
}
