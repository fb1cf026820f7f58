//! Shows CBOR items as JSON, for people and their tools. [`read`] converts JSON to items.

pub mod error;
pub mod integer;
pub mod read;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciborium::Value;
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::format::to_cbor;

/// A CBOR value that serializes as JSON. Integers are exact at any size, and byte strings become base64. Other tags are dropped,
/// keys that are not texts are written as JSON text, and numbers that JSON does not have become `null`. Keys stay in order.
///
/// A list or map in a key of a key is written as the base64 of its CBOR. As JSON within JSON, its length would double with each
/// level.
pub struct AsJson<'a>(pub &'a Value);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shown { value: self.0, in_key: false }.serialize(serializer)
    }
}

/// A value, and whether it is part of a key.
struct Shown<'a> {
    value: &'a Value,
    in_key: bool,
}

impl<'a> Shown<'a> {
    /// Returns a value that is part of this one.
    fn part(&self, value: &'a Value) -> Self {
        Self { value, in_key: self.in_key }
    }

    /// Returns a key of this map as text.
    fn key(&self, key: &'a Value) -> Cow<'a, str> {
        match key {
            Value::Text(text) => Cow::Borrowed(text),
            _ if self.in_key && holds_others(key) => Cow::Owned(STANDARD.encode(to_cbor(key))),
            _ => Cow::Owned(write(&Shown { value: key, in_key: true })),
        }
    }
}

fn holds_others(value: &Value) -> bool {
    match value {
        Value::Array(_) | Value::Map(_) => true,
        Value::Tag(_, value) => holds_others(value),
        _ => false,
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Integer(integer) => {
                let wide = i128::from(*integer);
                match (u64::try_from(wide), i64::try_from(wide)) {
                    (Ok(small), _) => serializer.serialize_u64(small),
                    (_, Ok(small)) => serializer.serialize_i64(small),
                    _ => serializer.serialize_i128(wide),
                }
            }
            Value::Bytes(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Value::Float(float) => serializer.serialize_f64(*float),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bool(bool) => serializer.serialize_bool(*bool),
            Value::Tag(tag, value) => match big_integer(*tag, value) {
                Some(number) => number.serialize(serializer),
                None => self.part(value).serialize(serializer),
            },
            Value::Array(values) => serializer.collect_seq(values.iter().map(|value| self.part(value))),
            Value::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (self.key(key), self.part(value))))
            }
            // Later versions of ciborium may add kinds of values. Of those known today, only null is left.
            _ => serializer.serialize_unit(),
        }
    }
}

/// Returns an integer of more than 64 bits as JSON.
fn big_integer(tag: u64, value: &Value) -> Option<Box<RawValue>> {
    RawValue::from_string(integer::big_digits(tag, value.as_bytes()?)?).ok()
}

/// Returns a value as one line of JSON.
pub fn to_json(value: &Value) -> String {
    write(&AsJson(value))
}

fn write(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_has_a_json_form() {
        let value = Value::Map(vec![
            (Value::from("z"), Value::from(u64::MAX)),
            (Value::from("a"), Value::from(-1)),
            (Value::from(3), Value::Bytes(vec![1, 2, 3])),
            (Value::from("t"), Value::Tag(0, Box::new(Value::from("2026-01-01T00:00:00Z")))),
            (Value::from("n"), Value::Array(vec![Value::Null, Value::Float(f64::NAN), Value::Bool(true)])),
        ]);
        let expected =
            r#"{"z":18446744073709551615,"a":-1,"3":"AQID","t":"2026-01-01T00:00:00Z","n":[null,null,true]}"#;
        assert_eq!(to_json(&value), expected);
    }

    #[test]
    fn integers_are_exact_at_any_size() {
        let big = |tag, bytes: Vec<u8>| Value::Tag(tag, Box::new(Value::Bytes(bytes)));
        let value = Value::Map(vec![
            (big(2, vec![1, 0, 0, 0, 0, 0, 0, 0, 0]), Value::from(-i128::from(u64::MAX) - 1)),
            (Value::from("n"), Value::Array(vec![big(3, vec![0xff; 20]), big(2, vec![]), big(7, vec![1])])),
        ]);
        let expected = r#"{"18446744073709551616":-18446744073709551616,"n":[-1461501637330902918203684832716283019655932542976,0,"AQ=="]}"#;
        assert_eq!(to_json(&value), expected);
    }

    #[test]
    fn keys_within_keys_do_not_double_in_length_with_each_level() {
        let map = |key| Value::Map(vec![(key, Value::Null)]);
        assert_eq!(to_json(&map(Value::Array(vec![1.into(), "a".into()]))), r#"{"[1,\"a\"]":null}"#);
        assert_eq!(to_json(&map(map("a".into()))), r#"{"{\"a\":null}":null}"#);
        // The base64 is that of {"a": null}.
        assert_eq!(to_json(&map(map(map("a".into())))), r#"{"{\"oWFh9g==\":null}":null}"#);
        let deep = (0..200).fold(Value::Null, |key, _| map(key));
        assert!(to_json(&deep).len() < 1_000);
    }
}
