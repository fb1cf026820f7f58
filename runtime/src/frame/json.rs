//! CBOR items as JSON, for people and their tools.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciborium::Value;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Shows a CBOR value as JSON. Bytes become base64, tags disappear, keys that are not texts are written as JSON, and numbers
/// that JSON has no word for become `null`. The order of keys stays.
pub struct AsJson<'a>(pub &'a Value);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
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
            Value::Tag(_, value) => AsJson(value).serialize(serializer),
            Value::Array(values) => serializer.collect_seq(values.iter().map(AsJson)),
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    match key {
                        Value::Text(text) => map.serialize_entry(text, &AsJson(value))?,
                        other => map.serialize_entry(&to_json(other), &AsJson(value))?,
                    }
                }
                map.end()
            }
            // `Value` may grow kinds; null is the one of those known today.
            _ => serializer.serialize_unit(),
        }
    }
}

/// A value as one line of JSON.
#[must_use]
pub fn to_json(value: &Value) -> String {
    serde_json::to_string(&AsJson(value)).unwrap_or_else(|_| "null".to_owned())
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
}
