//! What a fed payload may be written in, and how items are made of it.

use bytes::Bytes;
use ciborium::Value;
use serde::{Deserialize, Serialize};

use super::cbor;

/// A format that a chain's intake takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `application/cbor`, `application/cbor-seq`: one or more CBOR data items.
    #[default]
    Cbor,
    /// `application/json`: one document, one item.
    Json,
    /// `application/x-ndjson`: each line a document and an item; empty lines are passed over.
    Ndjson,
    /// `text/plain`: the whole payload is one text.
    Text,
    /// `application/octet-stream`: the whole payload is one byte string.
    Bytes,
}

/// Why a payload gave no items.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The content type is not one that the intake takes.
    #[error(
        "the content type `{0}` is not known; known are application/cbor, application/cbor-seq, application/json, \
         application/x-ndjson, text/plain and application/octet-stream"
    )]
    UnknownType(String),
    /// Not CBOR.
    #[error(transparent)]
    Cbor(#[from] cbor::CborError),
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(serde_json::Error),
    /// A line is not JSON.
    #[error("line {line} is not JSON: {error}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// Not UTF-8.
    #[error("not UTF-8 after byte {0}")]
    NotUtf8(usize),
}

impl Format {
    /// The format that a `Content-Type` header names. Parameters as in `; charset=utf-8` are passed over.
    ///
    /// # Errors
    ///
    /// If it names none.
    pub fn from_content_type(text: &str) -> Result<Self, FormatError> {
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

    /// The items of a payload in this format, each as one CBOR data item.
    ///
    /// # Errors
    ///
    /// If the payload is not in this format.
    pub fn items(self, payload: &Bytes) -> Result<Vec<Bytes>, FormatError> {
        match self {
            Self::Cbor => Ok(cbor::split(payload)?),
            Self::Json => Ok(vec![json_item(payload).map_err(FormatError::Json)?]),
            Self::Ndjson => {
                let lines = payload.split(|byte| *byte == b'\n').zip(1..);
                let filled = lines.filter(|(line, _)| !line.iter().all(u8::is_ascii_whitespace));
                let items: Vec<Bytes> = filled
                    .map(|(text, line)| json_item(text).map_err(|error| FormatError::Line { line, error }))
                    .collect::<Result<_, _>>()?;
                if items.is_empty() { Err(cbor::CborError::Empty.into()) } else { Ok(items) }
            }
            Self::Text => {
                let text = std::str::from_utf8(payload).map_err(|error| FormatError::NotUtf8(error.valid_up_to()))?;
                Ok(vec![to_cbor(&Value::from(text))])
            }
            Self::Bytes => Ok(vec![to_cbor(&Value::Bytes(payload.to_vec()))]),
        }
    }
}

/// One JSON document as an item. The order of keys stays.
///
/// # Errors
///
/// If it is not one JSON document.
pub fn json_item(text: &[u8]) -> Result<Bytes, serde_json::Error> {
    serde_json::from_slice::<Value>(text).map(|value| to_cbor(&value))
}

/// A value as an item.
#[must_use]
pub fn to_cbor<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = Vec::new();
    match ciborium::into_writer(value, &mut bytes) {
        Ok(()) => bytes.into(),
        // A vector takes every write, and the values made here are of kinds that CBOR has.
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
    fn an_error_says_where() {
        assert_eq!(
            values(Format::Ndjson, b"1\n{\n").expect_err("cut off").to_string(),
            "line 2 is not JSON: EOF while parsing an object at line 1 column 1"
        );
        assert_eq!(values(Format::Text, b"ab\xff").expect_err("not UTF-8").to_string(), "not UTF-8 after byte 2");
        assert!(values(Format::Ndjson, b"\n").is_err());
    }

    #[test]
    fn a_content_type_may_have_parameters() {
        assert_eq!(Format::from_content_type("Text/Plain; charset=utf-8").expect("known"), Format::Text);
        assert!(Format::from_content_type("image/png").is_err());
    }
}
