//! When two values are equal.

use std::collections::BTreeMap;

use ciborium::Value;

use crate::contract::is_same_number;

/// By how much floats may differ, absolutely or in relation to the greater one.
#[derive(Debug, Clone, Copy)]
pub(in crate::cases) struct Tolerance(pub(in crate::cases) f64);

impl Tolerance {
    /// Returns `true` if two values are equal.
    pub(in crate::cases) fn is_equal(self, expected: &Value, got: &Value) -> bool {
        match (expected, got) {
            (Value::Array(expected), Value::Array(got)) => {
                expected.len() == got.len()
                    && expected.iter().zip(got).all(|(expected, got)| self.is_equal(expected, got))
            }
            (Value::Map(expected), Value::Map(got)) => {
                let pairs = Entries::pair(expected, got);
                pairs.missing.is_empty()
                    && pairs.surplus.is_empty()
                    && pairs.both.iter().all(|(_, expected, got)| self.is_equal(expected, got))
            }
            (Value::Tag(tag, expected), Value::Tag(other, got)) if tag == other && !is_number(*tag) => {
                self.is_equal(expected, got)
            }
            _ => self.is_same(expected, got),
        }
    }

    /// Returns `true` if two values that hold no others are equal.
    pub(super) fn is_same(self, expected: &Value, got: &Value) -> bool {
        if let (Value::Float(expected), Value::Float(got)) = (expected, got)
            && expected.is_nan()
            && got.is_nan()
        {
            return true;
        }
        expected == got || self.is_near(expected, got) || is_same_number(expected, got)
    }

    /// Returns `true` if two numbers are within the tolerance, and one of them is a float.
    fn is_near(self, expected: &Value, got: &Value) -> bool {
        if self.0 <= 0.0 || !(expected.is_float() || got.is_float()) {
            return false;
        }
        let (Some(expected), Some(got)) = (float(expected), float(got)) else { return false };
        (expected - got).abs() <= self.0 * expected.abs().max(got.abs()).max(1.0)
    }
}

/// Returns a number as a float. `None` if it is none, or not finite.
fn float(value: &Value) -> Option<f64> {
    let float = match value {
        Value::Float(float) => *float,
        #[expect(clippy::cast_precision_loss, reason = "it is compared within a tolerance")]
        Value::Integer(integer) => i128::from(*integer) as f64,
        _ => return None,
    };
    float.is_finite().then_some(float)
}

/// Returns `true` if a tag is that of a number.
pub(super) fn is_number(tag: u64) -> bool {
    (2..=4).contains(&tag)
}

/// The entries of two maps, by their keys.
pub(super) struct Entries<'a> {
    /// Those that both have, in the order of the first.
    pub(super) both: Vec<(&'a Value, &'a Value, &'a Value)>,
    /// Those that only the first has.
    pub(super) missing: Vec<(&'a Value, &'a Value)>,
    /// Those that only the second has.
    pub(super) surplus: Vec<(&'a Value, &'a Value)>,
}

impl<'a> Entries<'a> {
    /// Pairs the entries of two maps. Keys that a map has twice are paired in order.
    pub(super) fn pair(expected: &'a [(Value, Value)], got: &'a [(Value, Value)]) -> Self {
        let mut by_key: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for (at, (key, _)) in got.iter().enumerate().rev() {
            by_key.entry(canonical(key)).or_default().push(at);
        }
        let (mut both, mut missing) = (Vec::new(), Vec::new());
        let mut is_left = vec![true; got.len()];
        for (key, value) in expected {
            match by_key.get_mut(&canonical(key)).and_then(Vec::pop) {
                Some(at) => {
                    is_left[at] = false;
                    both.push((key, value, &got[at].1));
                }
                None => missing.push((key, value)),
            }
        }
        let left = got.iter().zip(is_left).filter(|(_, is_left)| *is_left);
        let surplus = left.map(|((key, value), _)| (key, value)).collect();
        Self { both, missing, surplus }
    }
}

/// Returns bytes that equal keys have alike: maps within keys are sorted, and numbers that are whole are integers.
fn canonical(key: &Value) -> Vec<u8> {
    match key {
        // The most common kind, without a copy of a copy.
        Value::Text(text) => [b"t", text.as_bytes()].concat(),
        _ => [b"v".to_vec(), crate::frame::format::to_cbor(&sorted(key)).to_vec()].concat(),
    }
}

fn sorted(key: &Value) -> Value {
    match key {
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        Value::Map(entries) => {
            let mut entries: Vec<(Value, Value)> =
                entries.iter().map(|(key, value)| (sorted(key), sorted(value))).collect();
            entries.sort_by_key(|(key, _)| canonical(key));
            Value::Map(entries)
        }
        Value::Tag(tag, value) => Value::Tag(*tag, Box::new(sorted(value))),
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within 53 bits")]
        Value::Float(float) if float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 => {
            Value::from(*float as i64)
        }
        other => other.clone(),
    }
}
