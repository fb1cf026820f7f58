//! The formats of fed payloads, and their conversion to items.

use bytes::Bytes;
use ciborium::Value;
use serde::{Deserialize, Serialize};

use super::cbor;
use super::disguise::Disguise;
use super::json::error::JsonError;
use super::json::read::document;
use super::text::without_mark;

/// The content type of one JSON document.
const JSON: &str = "application/json";

/// A format that the intake of a chain accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// `application/cbor`, `application/cbor-seq`: one or more CBOR data items.
    #[default]
    Cbor,
    /// `application/json`: one document, which is one item. A byte-order mark is dropped, as in the other text formats.
    Json,
    /// `application/x-ndjson`: each line is a document and an item. Empty lines are skipped.
    Ndjson,
    /// `text/plain`: the whole payload is one text.
    Text,
    /// `application/octet-stream`: the whole payload is one byte string.
    Bytes,
}

/// Why a payload holds no items.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The intake does not accept this content type.
    #[error(
        "the content type `{0}` is not known; known are application/cbor, application/cbor-seq, application/json, \
         application/x-ndjson, text/plain and application/octet-stream"
    )]
    UnknownType(String),
    /// The payload is not CBOR.
    #[error(transparent)]
    Cbor(#[from] cbor::CborError),
    /// The payload is not JSON.
    #[error("not JSON: {0}")]
    Json(JsonError),
    /// A line is not JSON.
    #[error("line {line} is not JSON: {}", error.within_line())]
    Line {
        /// The line, counted from 1.
        line: u64,
        /// The error in the line.
        error: JsonError,
    },
    /// The payload is not UTF-8.
    #[error("not UTF-8 after byte {0}")]
    NotUtf8(usize),
    /// The payload is not text.
    #[error("{0}")]
    Disguised(Disguise),
}

impl Format {
    /// Returns the format of a `Content-Type` header. Parameters such as `; charset=utf-8` are ignored.
    pub(crate) fn from_content_type(text: &str) -> Result<Self, FormatError> {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/cbor" | "application/cbor-seq" => Ok(Self::Cbor),
            "application/json" => Ok(Self::Json),
            "application/x-ndjson" | "application/jsonl" => Ok(Self::Ndjson),
            "text/plain" => Ok(Self::Text),
            "application/octet-stream" => Ok(Self::Bytes),
            _ => Err(FormatError::UnknownType(text.to_owned())),
        }
    }

    /// Returns the part of a payload that an item was made of. The first value is the content type of the part. `None` for CBOR,
    /// where the part is the item.
    pub fn written(self, payload: &Bytes, position: usize) -> Option<(&'static str, Bytes)> {
        match self {
            Self::Cbor => None,
            Self::Json => Some((JSON, payload.clone())),
            Self::Ndjson => {
                let line = filled_lines(payload).nth(position).map(|(line, _)| line)?;
                Some((JSON, payload.slice_ref(line)))
            }
            Self::Text => Some(("text/plain", payload.clone())),
            Self::Bytes => Some(("application/octet-stream", payload.clone())),
        }
    }

    /// Converts a payload in this format to items. Each is one CBOR data item.
    pub(crate) fn items(self, payload: &Bytes) -> Result<Vec<Bytes>, FormatError> {
        match self {
            Self::Cbor => Ok(cbor::split(payload)?),
            Self::Json => Ok(vec![document(payload, 1).map_err(FormatError::Json)?]),
            Self::Ndjson => {
                let items: Vec<Bytes> = filled_lines(payload)
                    .map(|(text, line)| document(text, line).map_err(|error| FormatError::Line { line, error }))
                    .collect::<Result<_, _>>()?;
                if items.is_empty() { Err(cbor::CborError::Empty.into()) } else { Ok(items) }
            }
            Self::Text => {
                let text = std::str::from_utf8(without_mark(payload)).map_err(|error| {
                    let not_utf8 =
                        FormatError::NotUtf8(payload.len() - without_mark(payload).len() + error.valid_up_to());
                    Disguise::of_payload(payload).map_or(not_utf8, FormatError::Disguised)
                })?;
                Ok(vec![to_cbor(&Value::from(text))])
            }
            Self::Bytes => Ok(vec![to_cbor(&Value::Bytes(payload.to_vec()))]),
        }
    }
}

/// Returns the lines that are not blank, numbered from 1.
fn filled_lines(payload: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    let lines = without_mark(payload).split(|byte| *byte == b'\n').zip(1..);
    lines.filter(|(line, _)| !line.iter().all(u8::is_ascii_whitespace))
}

/// Returns a value as an item.
pub fn to_cbor<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = Vec::new();
    match ciborium::into_writer(value, &mut bytes) {
        Ok(()) => bytes.into(),
        // A vector accepts every write, and CBOR can hold all values that this program makes.
        Err(error) => unreachable!("a value that CBOR cannot hold: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(format: Format, payload: &'static [u8]) -> Result<Vec<Value>, FormatError> {
        let items = format.items(&Bytes::from_static(payload))?;
        Ok(items.iter().map(|item| ciborium::from_reader(&item[..]).expect("made by us")).collect())
    }

    #[test]
    fn each_format_gives_its_items() {
        assert_eq!(values(Format::Json, br#" "a" "#).expect("json"), [Value::from("a")]);
        assert_eq!(values(Format::Ndjson, b"1\n\n2\n").expect("ndjson"), [Value::from(1), Value::from(2)]);
        assert_eq!(values(Format::Text, b"1\n2").expect("text"), [Value::from("1\n2")]);
        assert_eq!(values(Format::Bytes, b"\xff").expect("bytes"), [Value::Bytes(vec![0xff])]);
        assert_eq!(values(Format::Cbor, b"\x01\x02").expect("cbor"), [Value::from(1), Value::from(2)]);
    }

    #[test]
    fn what_an_item_was_written_as_gives_the_item() {
        for (format, payload) in [
            (Format::Json, " [0.1] "),
            (Format::Ndjson, "1\n\n {\"a\":2}\r\n3"),
            (Format::Text, "1\n2"),
            (Format::Bytes, "x"),
        ] {
            let payload = Bytes::from_static(payload.as_bytes());
            for (position, item) in format.items(&payload).expect("valid").into_iter().enumerate() {
                let (content_type, written) = format.written(&payload, position).expect("not CBOR");
                let again = Format::from_content_type(content_type).expect("known").items(&written).expect("valid");
                assert_eq!(again, [item], "{format:?} {position}");
            }
        }
        assert_eq!(Format::Cbor.written(&Bytes::from_static(b"\x01"), 0), None);
    }

    #[test]
    fn an_error_says_where() {
        assert_eq!(
            values(Format::Ndjson, b"1\n{\n").expect_err("cut off").to_string(),
            "line 2 is not JSON: EOF while parsing a value at column 1"
        );
        assert_eq!(values(Format::Text, b"ab\xff").expect_err("not UTF-8").to_string(), "not UTF-8 after byte 2");
        assert!(values(Format::Ndjson, b"\n").is_err());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        assert_eq!(values(Format::Json, b"\xef\xbb\xbf1").expect("json"), [Value::from(1)]);
        assert_eq!(values(Format::Ndjson, b"\xef\xbb\xbf\n1\n2").expect("ndjson"), [Value::from(1), Value::from(2)]);
        assert_eq!(values(Format::Text, b"\xef\xbb\xbfa").expect("text"), [Value::from("a")]);
        assert_eq!(values(Format::Bytes, b"\xef\xbb\xbf").expect("bytes"), [Value::Bytes(vec![0xef, 0xbb, 0xbf])]);
    }

    #[test]
    fn what_is_no_text_is_named() {
        let refused = |format, payload| values(format, payload).expect_err("no text").to_string();
        assert_eq!(refused(Format::Text, b"\xff\xfea\0"), "the text is UTF-16LE and not UTF-8");
        assert_eq!(refused(Format::Json, b"\x1f\x8b\x08"), "not JSON: it is compressed with gzip at line 1 column 1");
        assert_eq!(
            refused(Format::Ndjson, b"\n{\"a\":1,\"a\":2}"),
            "line 2 is not JSON: the key `a` twice in one object at column 11"
        );
    }

    #[test]
    fn a_content_type_may_have_parameters() {
        assert_eq!(Format::from_content_type("Text/Plain; charset=utf-8").expect("known"), Format::Text);
        assert!(Format::from_content_type("image/png").is_err());
    }
}
