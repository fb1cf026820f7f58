//! Items as JSON Schema sees them: the seven types of JSON, and what CBOR has besides.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ciborium::Value;

use super::decimal::Decimal;
use super::kinds::Kinds;
use crate::frame::format::to_cbor;
use crate::frame::json::integer;

/// The most levels of a value. Deeper parts are of no type.
const MAX_DEPTH: usize = 300;

/// A value. Equal values of JSON Schema are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Datum<'a> {
    /// `null`, and what CBOR calls undefined.
    Null,
    /// `false` or `true`.
    Bool(bool),
    /// A number that is finite.
    Number(Decimal),
    /// A text.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Datum<'a>>),
    /// A map whose keys are texts, each of them once.
    Object(BTreeMap<Cow<'a, str>, Datum<'a>>),
    /// A value that JSON does not have, as CBOR.
    Foreign(Kinds, Vec<u8>),
}

impl<'a> Datum<'a> {
    /// Returns a text.
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// Returns an item as a value.
    pub(super) fn of(value: &'a Value) -> Self {
        Self::at_depth(value, 0)
    }

    fn at_depth(value: &'a Value, depth: usize) -> Self {
        if depth > MAX_DEPTH {
            return Self::Foreign(Kinds::OTHER, Vec::new());
        }
        let known = match value {
            Value::Null => Some(Self::Null),
            Value::Bool(bool) => Some(Self::Bool(*bool)),
            Value::Integer(integer) => Decimal::from_digits(&i128::from(*integer).to_string(), 0).map(Self::Number),
            Value::Float(float) => Decimal::from_float(*float).map(Self::Number),
            Value::Text(text) => Some(Self::text(text.as_str())),
            Value::Array(values) => {
                Some(Self::List(values.iter().map(|value| Self::at_depth(value, depth + 1)).collect()))
            }
            Value::Map(entries) => object(entries, depth),
            Value::Tag(tag, value) => number(*tag, value).map(Self::Number),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Foreign(foreign_kind(value), to_cbor(value).to_vec()))
    }

    /// Returns how many values there are in this one, with itself.
    pub(super) fn parts(&self) -> u64 {
        1 + match self {
            Self::List(items) => items.iter().map(Self::parts).sum(),
            Self::Object(entries) => entries.values().map(Self::parts).sum(),
            _ => 0,
        }
    }

    /// Returns the kind of the value.
    pub(super) fn kind(&self) -> Kinds {
        match self {
            Self::Null => Kinds::NULL,
            Self::Bool(_) => Kinds::BOOL,
            Self::Number(number) if number.is_integer() => Kinds::INTEGER,
            Self::Number(_) => Kinds::FRACTION,
            Self::Text(_) => Kinds::TEXT,
            Self::List(_) => Kinds::LIST,
            Self::Object(_) => Kinds::OBJECT,
            Self::Foreign(kind, _) => *kind,
        }
    }

    /// Returns the value as an item of the types that JSON has. `None` if it holds what no such item does.
    pub(super) fn to_value(&self) -> Option<Value> {
        Some(match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Number(number) => match number.integer_digits() {
                Some((is_negative, digits)) if digits.len() <= integer::MAX_DIGITS => {
                    let mut bytes = Vec::new();
                    integer::write(is_negative, digits.as_bytes(), &mut bytes);
                    crate::frame::cbor::value(&bytes)?
                }
                _ => Value::Float(number.to_float()?),
            },
            Self::Text(text) => Value::Text(text.clone().into_owned()),
            Self::List(values) => Value::Array(values.iter().map(Self::to_value).collect::<Option<_>>()?),
            Self::Object(entries) => Value::Map(
                entries
                    .iter()
                    .map(|(key, value)| Some((Value::Text(key.clone().into_owned()), value.to_value()?)))
                    .collect::<Option<_>>()?,
            ),
            Self::Foreign(..) => return None,
        })
    }

    /// Returns the value without a borrow.
    pub(super) fn into_owned(self) -> Datum<'static> {
        match self {
            Self::Null => Datum::Null,
            Self::Bool(bool) => Datum::Bool(bool),
            Self::Number(number) => Datum::Number(number),
            Self::Text(text) => Datum::text(text.into_owned()),
            Self::List(values) => Datum::List(values.into_iter().map(Datum::into_owned).collect()),
            Self::Object(entries) => Datum::Object(
                entries.into_iter().map(|(key, value)| (Cow::Owned(key.into_owned()), value.into_owned())).collect(),
            ),
            Self::Foreign(kind, cbor) => Datum::Foreign(kind, cbor),
        }
    }
}

/// Returns a map as an object. `None` if a key is no text, or is there twice.
fn object(entries: &[(Value, Value)], depth: usize) -> Option<Datum<'_>> {
    let mut object = BTreeMap::new();
    for (key, value) in entries {
        let key = Cow::Borrowed(key.as_text()?);
        if object.insert(key, Datum::at_depth(value, depth + 1)).is_some() {
            return None;
        }
    }
    Some(Datum::Object(object))
}

/// Returns the number of a tag: a big integer, or a decimal fraction.
fn number(tag: u64, value: &Value) -> Option<Decimal> {
    const FRACTION: u64 = 4;
    if tag != FRACTION {
        return Decimal::from_digits(&integer::big_digits(tag, value.as_bytes()?)?, 0);
    }
    let [exponent, digits] = value.as_array()?.as_slice() else { return None };
    let exponent = i64::try_from(i128::from(exponent.as_integer()?)).ok()?;
    let digits = match digits {
        Value::Integer(digits) => i128::from(*digits).to_string(),
        Value::Tag(tag, value) => integer::big_digits(*tag, value.as_bytes()?)?,
        _ => return None,
    };
    Decimal::from_digits(&digits, exponent)
}

fn foreign_kind(value: &Value) -> Kinds {
    match value {
        Value::Bytes(_) => Kinds::BYTES,
        Value::Tag(0 | 1, _) => Kinds::TIME,
        Value::Tag(100 | 1004, _) => Kinds::DATE,
        Value::Tag(37, _) => Kinds::UUID,
        _ => Kinds::OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(tag: u64, value: impl Into<Value>) -> Value {
        Value::Tag(tag, Box::new(value.into()))
    }

    #[test]
    fn equal_numbers_are_equal_whatever_holds_them() {
        let big = Value::Bytes(vec![1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let groups = [
            vec![
                Value::from(1),
                Value::Float(1.0),
                tag(2, Value::Bytes(vec![0, 1])),
                tag(4, vec![Value::from(-1), 10.into()]),
            ],
            vec![tag(2, big), Value::Float(18_446_744_073_709_551_616.0 * 0.0 + 1e19)],
        ];
        for value in &groups[0] {
            assert_eq!(Datum::of(value), Datum::of(&groups[0][0]));
            assert_eq!(Datum::of(value).kind(), Kinds::INTEGER);
        }
        assert_ne!(Datum::of(&groups[1][0]), Datum::of(&groups[1][1]));
        assert_eq!(Datum::of(&tag(4, vec![Value::from(-2), 1999.into()])), Datum::of(&Value::Float(19.99)));
    }

    #[test]
    fn what_json_lacks_is_foreign() {
        let text = |text: &str| Value::from(text);
        for (value, kind) in [
            (Value::Bytes(vec![1]), Kinds::BYTES),
            (tag(0, "2026-01-01T00:00:00Z"), Kinds::TIME),
            (tag(1, 5), Kinds::TIME),
            (tag(37, Value::Bytes(vec![0; 16])), Kinds::UUID),
            (tag(1004, "2026-01-01"), Kinds::DATE),
            (tag(99, 1), Kinds::OTHER),
            (Value::Float(f64::NAN), Kinds::OTHER),
            (Value::Float(f64::INFINITY), Kinds::OTHER),
            (Value::Map(vec![(1.into(), 1.into())]), Kinds::OTHER),
            (Value::Map(vec![(text("a"), 1.into()), (text("a"), 1.into())]), Kinds::OTHER),
        ] {
            let datum = Datum::of(&value);
            assert_eq!((datum.kind(), datum.to_value()), (kind, None), "{value:?}");
        }
    }

    #[test]
    fn a_value_of_json_comes_back() {
        let value = Value::Map(vec![
            (Value::from("a"), Value::Array(vec![Value::Null, true.into(), 1.into(), Value::Float(0.5)])),
            (Value::from("b"), tag(2, Value::Bytes(vec![1, 0, 0, 0, 0, 0, 0, 0, 0]))),
        ]);
        assert_eq!(Datum::of(&value).into_owned().to_value().as_ref(), Some(&value));
    }
}
