//! Items as a case file writes them: as values of TOML, or as a table that holds their JSON or CBOR.

use std::collections::HashSet;

use bytes::Bytes;
use ciborium::Value as Cbor;
use toml_edit::{Item, TableLike, Value};

use crate::frame::cbor;
use crate::frame::format::to_cbor;
use crate::frame::json::integer::big_digits;
use crate::frame::json::read::document;
use crate::frame::json::to_json;

/// The key of a table that holds an item as JSON.
pub(super) const JSON: &str = "json";
/// The key of a table that holds an item as the hexadecimal digits of its CBOR.
pub(super) const CBOR: &str = "cbor";
/// The most levels that are written as TOML, which has a limit of its own.
const DEPTH_MAX: usize = 32;

/// A part of a file in whichever form TOML has for it.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// What stands after a key.
    Item(&'a Item),
    /// An element of an array.
    Value(&'a Value),
}

impl<'a> Part<'a> {
    /// Returns the value. `None` for tables with a header.
    pub(super) fn value(self) -> Option<&'a Value> {
        match self {
            Self::Item(item) => item.as_value(),
            Self::Value(value) => Some(value),
        }
    }

    /// Returns the table, in whichever form.
    pub(super) fn table(self) -> Option<&'a dyn TableLike> {
        match self {
            Self::Item(item) => item.as_table_like(),
            Self::Value(value) => value.as_inline_table().map(|table| table as &dyn TableLike),
        }
    }
}

/// Reads an item. The error says why it is none.
pub(super) fn read(part: Part<'_>) -> Result<Bytes, String> {
    if let Some(table) = part.table()
        && let Some(held) = held(table)
    {
        return held;
    }
    Ok(to_cbor(&plain(part)))
}

/// Reads the item that a table holds as JSON or CBOR. `None` if it is the item itself.
fn held(table: &dyn TableLike) -> Option<Result<Bytes, String>> {
    let (key, item) = table.iter().next().filter(|_| table.len() == 1)?;
    let text = item.as_str()?;
    let hint = |key: &str| format!("a table with the key `{key}` alone holds an item as {}", key.to_uppercase());
    match key {
        JSON => Some(document(text.as_bytes(), 1).map_err(|error| {
            format!(
                "not JSON: {}; {}, so a table of that kind is written `{{ json = '{{\"json\": …}}' }}`",
                error.within_line(),
                hint(JSON)
            )
        })),
        CBOR => Some(from_hex(text).and_then(|bytes| {
            cbor::check_one(&bytes).map_err(|error| format!("{error}; {}", hint(CBOR)))?;
            cbor::value_or_reason(&bytes)?;
            Ok(bytes.into())
        })),
        _ => None,
    }
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs
        .collect::<Option<_>>()
        .ok_or_else(|| "not hexadecimal; write pairs of the digits 0 to 9 and a to f".to_owned())
}

/// Returns a part as the value that it says. A date or time is its text.
pub(super) fn plain(part: Part<'_>) -> Cbor {
    if let Some(table) = part.table() {
        return Cbor::Map(table.iter().map(|(key, item)| (key.into(), plain(Part::Item(item)))).collect());
    }
    if let Part::Item(Item::ArrayOfTables(tables)) = part {
        let maps = tables.iter().map(|table| table.iter().map(|(key, item)| (key.into(), plain(Part::Item(item)))));
        return Cbor::Array(maps.map(|entries| Cbor::Map(entries.collect())).collect());
    }
    match part.value() {
        Some(Value::String(text)) => Cbor::from(text.value().as_str()),
        Some(Value::Integer(number)) => Cbor::from(*number.value()),
        Some(Value::Float(number)) => Cbor::from(*number.value()),
        Some(Value::Boolean(value)) => Cbor::from(*value.value()),
        Some(Value::Datetime(date)) => Cbor::from(date.value().to_string()),
        Some(Value::Array(values)) => Cbor::Array(values.iter().map(|value| plain(Part::Value(value))).collect()),
        Some(Value::InlineTable(_)) | None => Cbor::Null,
    }
}

/// Writes an item on one line, so that [`read`] gives the same value.
pub(super) fn write(item: &[u8]) -> String {
    let Some(value) = cbor::value(item) else { return in_hex(item) };
    match toml_of(&value, 0) {
        Some(toml) if !looks_held(&value) => toml,
        _ if is_json(&value) => format!("{{ {JSON} = {} }}", text(&to_json(&value))),
        _ => in_hex(item),
    }
}

fn in_hex(item: &[u8]) -> String {
    let digits: String = item.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{ {CBOR} = \"{digits}\" }}")
}

/// Writes an item as a line of JSON. `None` if JSON cannot hold it, or if a literal text of TOML cannot hold the line.
pub(super) fn line(item: &[u8]) -> Option<String> {
    let value = cbor::value(item).filter(is_json)?;
    let json = to_json(&value).replace('\u{7f}', "\\u007f");
    (!json.contains("'''")).then_some(json)
}

/// Returns `true` if a value would be read as one that holds another.
fn looks_held(value: &Cbor) -> bool {
    match value {
        Cbor::Map(entries) => match entries.as_slice() {
            [(key, value)] => value.is_text() && matches!(key.as_text(), Some(JSON | CBOR)),
            _ => false,
        },
        _ => false,
    }
}

/// Writes a text: as a literal if that spares escapes.
fn text(text: &str) -> String {
    let is_literal = !text.contains('\'') && !text.chars().any(char::is_control);
    if is_literal { format!("'{text}'") } else { string(text) }
}

/// Writes a text between double quotes. Its escapes are those of JSON, and one more.
pub(crate) fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Writes a key.
pub(crate) fn key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_bare { key.to_owned() } else { string(key) }
}

/// Writes a value as TOML on one line. `None` if TOML cannot hold it.
fn toml_of(value: &Cbor, depth: usize) -> Option<String> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match value {
        Cbor::Integer(number) => i64::try_from(i128::from(*number)).ok()?.to_string(),
        Cbor::Float(number) if number.is_nan() => "nan".to_owned(),
        Cbor::Float(number) => format!("{number:?}"),
        Cbor::Text(text) => string(text),
        Cbor::Bool(value) => value.to_string(),
        Cbor::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| toml_of(value, depth + 1)).collect::<Option<_>>()?;
            format!("[{}]", values.join(", "))
        }
        Cbor::Map(entries) => {
            let mut keys = HashSet::new();
            let entry = |(name, value): &(Cbor, Cbor)| {
                let name = name.as_text().filter(|name| keys.insert((*name).to_owned()))?;
                Some(format!("{} = {}", key(name), toml_of(value, depth + 1)?))
            };
            let entries: Vec<String> = entries.iter().map(entry).collect::<Option<_>>()?;
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
        _ => return None,
    })
}

/// Returns `true` if JSON can hold a value as it is.
fn is_json(value: &Cbor) -> bool {
    match value {
        Cbor::Null | Cbor::Bool(_) | Cbor::Integer(_) | Cbor::Text(_) => true,
        Cbor::Float(number) => number.is_finite(),
        Cbor::Tag(tag, value) => value.as_bytes().is_some_and(|bytes| is_shortest(*tag, bytes)),
        Cbor::Array(values) => values.iter().all(is_json),
        Cbor::Map(entries) => {
            let mut keys = HashSet::new();
            entries.iter().all(|(key, value)| key.as_text().is_some_and(|key| keys.insert(key)) && is_json(value))
        }
        _ => false,
    }
}

/// Returns `true` if a tag is a big number that JSON can hold.
fn is_shortest(tag: u64, bytes: &[u8]) -> bool {
    big_digits(tag, bytes).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::random::Random;

    fn read_back(written: &str) -> Bytes {
        let text = format!("item = {written}");
        let document: toml_edit::DocumentMut = text.parse().unwrap_or_else(|error| panic!("{written}: {error}"));
        read(Part::Item(&document["item"])).expect("an item")
    }

    #[test]
    fn random_items_survive_a_file() {
        let mut random = Random::new(1);
        for _ in 0..3_000 {
            let item = to_cbor(&random.value(3));
            let written = write(&item);
            assert!(!written.contains('\n'), "{written}");
            let (read, item) = (cbor::value(&read_back(&written)), cbor::value(&item));
            assert_eq!(format!("{read:?}"), format!("{item:?}"), "{written}");
        }
    }

    #[test]
    fn what_toml_lacks_is_written_as_json_or_cbor() {
        let map = |key: &str, value| Cbor::Map(vec![(Cbor::from(key), value)]);
        for (value, written) in [
            (map("a", Cbor::from(1)), "{ a = 1 }"),
            (Cbor::from(0.1), "0.1"),
            (Cbor::from(f64::INFINITY), "inf"),
            (map("a", Cbor::Null), r#"{ json = '{"a":null}' }"#),
            (Cbor::from(u64::MAX), "{ json = '18446744073709551615' }"),
            (map("json", Cbor::from("x")), r#"{ json = '{"json":"x"}' }"#),
            (map("cbor", Cbor::from(1)), "{ cbor = 1 }"),
            (Cbor::Bytes(vec![1, 2]), r#"{ cbor = "420102" }"#),
            (Cbor::Tag(1, Box::new(Cbor::from(5))), r#"{ cbor = "c105" }"#),
            (Cbor::Map(vec![(Cbor::from(1), Cbor::from(2))]), r#"{ cbor = "a10102" }"#),
        ] {
            assert_eq!(write(&to_cbor(&value)), written, "{value:?}");
        }
        let deep = (0..200).fold(Cbor::from(1), |value, _| Cbor::Array(vec![value]));
        assert_eq!(cbor::value(&read_back(&write(&to_cbor(&deep)))), Some(deep));
    }

    #[test]
    fn what_holds_no_item_says_why() {
        let wrong = |text: &str| {
            let document: toml_edit::DocumentMut = format!("item = {text}").parse().expect("TOML");
            read(Part::Item(&document["item"])).expect_err("no item")
        };
        assert!(wrong("{ json = '{' }").starts_with("not JSON: EOF while parsing"), "{}", wrong("{ json = '{' }"));
        assert!(wrong("{ cbor = '1' }").starts_with("not hexadecimal; "));
        assert!(wrong("{ cbor = '0102' }").starts_with("not well-formed CBOR at byte 1; "));
    }
}
