//! Reads answers to calls, and makes of them what a task reads.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciborium::Value;
use pcluster_abi::call::{self, FailureKind};
use sha2::{Digest, Sha256};
use toml_edit::Item;

use super::reading::File;
use super::tables::{Section, listed};
use crate::calls::failure::CallFailure;
use crate::cases::value::{Part, plain};
use crate::frame::format::to_cbor;
use crate::frame::json::to_json;
use crate::name::nearest;
use crate::run::call::Answer;

/// What a key of an answer holds.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bytes,
    Text,
    Number,
    Flag,
    Texts,
    /// A table of names with their values.
    Headers,
    /// A list of tables, each with `name`, `size` and `digest`.
    Objects,
    /// Anything, which becomes bytes of JSON.
    Json,
}

/// Returns the keys of the answer to a call.
fn keys(name: &str) -> &'static [(&'static str, Kind)] {
    match name {
        call::HTTP => &[
            ("status", Kind::Number),
            ("body", Kind::Bytes),
            ("json", Kind::Json),
            ("headers", Kind::Headers),
            ("url", Kind::Text),
            ("retry_after_ms", Kind::Number),
        ],
        call::KV_GET => &[("value", Kind::Bytes), ("revision", Kind::Number)],
        call::KV_PUT | call::KV_CREATE | call::KV_UPDATE => &[("revision", Kind::Number)],
        call::KV_KEYS => &[("keys", Kind::Texts), ("more", Kind::Flag)],
        call::OBJECTS_GET => &[("data", Kind::Bytes), ("size", Kind::Number), ("digest", Kind::Text)],
        call::OBJECTS_PUT => &[("size", Kind::Number), ("digest", Kind::Text)],
        call::OBJECTS_LIST => &[("objects", Kind::Objects), ("more", Kind::Flag)],
        call::PUBLISH => &[("stream", Kind::Text), ("sequence", Kind::Number), ("duplicate", Kind::Flag)],
        call::SECRETS_GET => &[("value", Kind::Bytes)],
        _ => &[],
    }
}

/// Returns how the answer to a call is written.
pub(in crate::cases) fn example(name: &str) -> &'static str {
    match name {
        call::HTTP => "answer = { status = 200, body = \"3.50\" }",
        call::KV_GET | call::SECRETS_GET => "answer = { value = \"text\" }",
        call::KV_PUT | call::KV_CREATE | call::KV_UPDATE => "answer = { revision = 1 }",
        call::KV_KEYS => "answer = { keys = [\"a\", \"b\"] }",
        call::OBJECTS_GET => "answer = { data = \"text\" }",
        call::OBJECTS_LIST => "answer = { objects = [{ name = \"a\", size = 1 }] }",
        _ => "answer = {}",
    }
}

/// Reads an answer. What it leaves out is what a server says most often.
pub(super) fn answer(file: &mut File<'_>, section: &Section<'_>, name: &str, target: &str) -> Option<Answer> {
    let own = file.notes.section(section, "answer", example(name))?;
    let keys = keys(name);
    let names: Vec<&'static str> = keys.iter().map(|(key, _)| *key).collect();
    if names.is_empty() {
        for (key, _) in own.table.iter() {
            file.notes.add(
                "unknown-key",
                own.key(key),
                format!("unknown key `{key}`; the answer to `{name}` is empty: write `answer = {{}}`"),
            );
        }
    } else {
        file.notes.unknown(&own, &names, &format!("the answer to `{name}`"));
    }
    let mut entries = Vec::new();
    for (key, kind) in keys {
        let Some(item) = own.get(key) else { continue };
        match value(*kind, item) {
            Ok(value) => entries.push((if *kind == Kind::Json { "body" } else { key }, value)),
            Err(problem) => file.notes.add("wrong-type", own.value(key), format!("`{key}` {problem}")),
        }
    }
    complete(&mut entries, name, target);
    let entries = entries.into_iter().map(|(key, value)| (Value::from(key), value)).collect();
    Some(Answer::Response(to_cbor(&Value::Map(entries))))
}

/// Adds what an answer leaves out.
fn complete(entries: &mut Vec<(&str, Value)>, name: &str, target: &str) {
    let data = entries.iter().find(|(key, _)| *key == "data").and_then(|(_, data)| data.as_bytes().cloned());
    let data = data.unwrap_or_default();
    let url = target.split_once(' ').map_or("", |(_, url)| url);
    let defaults: Vec<(&str, Value)> = match name {
        call::HTTP => vec![
            ("status", 200.into()),
            ("headers", Value::Array(Vec::new())),
            ("body", Value::Bytes(Vec::new())),
            ("url", url.into()),
        ],
        call::KV_GET => vec![("value", Value::Bytes(Vec::new())), ("revision", 1.into())],
        call::KV_PUT | call::KV_CREATE | call::KV_UPDATE => vec![("revision", 1.into())],
        call::KV_KEYS => vec![("keys", Value::Array(Vec::new())), ("more", false.into())],
        call::OBJECTS_GET => vec![
            ("data", Value::Bytes(Vec::new())),
            ("size", (data.len() as u64).into()),
            ("digest", digest(&data).into()),
        ],
        call::OBJECTS_PUT => vec![("size", 0.into()), ("digest", digest(&data).into())],
        call::OBJECTS_LIST => vec![("objects", Value::Array(Vec::new())), ("more", false.into())],
        call::SECRETS_GET => vec![("value", Value::Bytes(Vec::new()))],
        _ => Vec::new(),
    };
    for (key, value) in defaults {
        if !entries.iter().any(|(own, _)| *own == key) {
            entries.push((key, value));
        }
    }
}

/// Returns a digest as NATS writes it.
fn digest(data: &[u8]) -> String {
    format!("SHA-256={}", base64::engine::general_purpose::URL_SAFE.encode(Sha256::digest(data)))
}

/// Reads a value of an answer. The error says what it must be.
fn value(kind: Kind, item: &Item) -> Result<Value, &'static str> {
    match kind {
        Kind::Bytes => bytes(item).map(Value::Bytes).ok_or("is no text, nor `{ base64 = \"…\" }`"),
        Kind::Text => item.as_str().map(Value::from).ok_or("is no text"),
        Kind::Number => {
            let number = item.as_integer().and_then(|number| u64::try_from(number).ok());
            number.map(Value::from).ok_or("is no whole number that is not negative")
        }
        Kind::Flag => item.as_bool().map(Value::from).ok_or("is neither true nor false"),
        Kind::Texts => {
            let texts =
                item.as_array().and_then(|values| values.iter().map(|value| value.as_str().map(Value::from)).collect());
            texts.map(Value::Array).ok_or("is no list of texts")
        }
        Kind::Headers => headers(item).map(Value::Array).ok_or("is no table of texts, as in `{ etag = \"a\" }`"),
        Kind::Objects => objects(item).map(Value::Array).ok_or("is no list as `[{ name = \"a\", size = 1 }]`"),
        Kind::Json => Ok(Value::Bytes(to_json(&plain(Part::Item(item))).into_bytes())),
    }
}

/// Reads bytes: a text, or a table with their Base64.
fn bytes(item: &Item) -> Option<Vec<u8>> {
    match item.as_table_like() {
        Some(table) if table.len() == 1 => BASE64_STANDARD.decode(table.get("base64")?.as_str()?).ok(),
        Some(_) => None,
        None => item.as_str().map(|text| text.as_bytes().to_vec()),
    }
}

/// Reads headers. A list stands for a header that comes several times.
fn headers(item: &Item) -> Option<Vec<Value>> {
    let mut headers = Vec::new();
    for (name, item) in item.as_table_like()?.iter() {
        let values: Vec<&str> = match item.as_array() {
            Some(values) => values.iter().map(toml_edit::Value::as_str).collect::<Option<_>>()?,
            None => vec![item.as_str()?],
        };
        let name = name.to_ascii_lowercase();
        headers.extend(
            values
                .into_iter()
                .map(|value| Value::Array(vec![Value::from(name.as_str()), Value::Bytes(value.as_bytes().to_vec())])),
        );
    }
    Some(headers)
}

fn objects(item: &Item) -> Option<Vec<Value>> {
    let object = |value: &toml_edit::Value| {
        let table = value.as_inline_table()?;
        let size = table.get("size").map_or(Some(0), |size| u64::try_from(size.as_integer()?).ok())?;
        let own = table.get("digest").map_or_else(|| Some(digest(&[])), |digest| digest.as_str().map(str::to_owned))?;
        let name = table.get("name")?.as_str()?;
        let entries = [("name", Value::from(name)), ("size", size.into()), ("digest", own.into())];
        Some(Value::Map(entries.map(|(key, value)| (Value::from(key), value)).into()))
    };
    item.as_array()?.iter().map(object).collect()
}

/// Reads how a call fails.
pub(super) fn failure(file: &mut File<'_>, section: &Section<'_>) -> Option<Answer> {
    const EXAMPLE: &str = "failure = { kind = \"unavailable\", message = \"no route\" }";
    let own = file.notes.section(section, "failure", EXAMPLE)?;
    file.notes.unknown(&own, &["kind", "message", "transient", "retry_after_ms"], "a failure");
    if own.get("kind").is_none() {
        file.notes.missing(&own, "kind", EXAMPLE);
    }
    let word = file.notes.text(&own, "kind", "kind = \"unavailable\"")?;
    let names = FailureKind::ALL.map(FailureKind::name);
    let Some(kind) = FailureKind::ALL.into_iter().find(|kind| kind.name() == word) else {
        let help = match nearest(word, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", listed(&names)),
        };
        file.notes.add("invalid-value", own.value("kind"), format!("no call fails with `{word}`; {help}"));
        return None;
    };
    let message = file.notes.text(&own, "message", "message = \"no route\"").unwrap_or("the case says so");
    let mut failure = CallFailure::new(kind, message);
    if let Some(is_transient) = file.notes.flag(&own, "transient") {
        failure.is_transient = is_transient;
    }
    failure.retry_after = file.notes.number(&own, "retry_after_ms", 0).map(Duration::from_millis);
    Some(Answer::Failure(failure.encode()))
}
