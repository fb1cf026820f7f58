//! Writes the requests of calls and reads their responses: maps with text keys.
//!
//! Serde's code for them would be larger than all the rest of a call.

/// A map that is written. It has at most 23 entries.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Creates an empty map.
    pub(crate) fn new() -> Self {
        Self(vec![0xa0])
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.string(key, 3, text.as_bytes());
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, key: &str, bytes: &[u8]) {
        self.string(key, 2, bytes);
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        head(&mut self.0, 0, number);
    }

    /// Adds true or false.
    pub(crate) fn flag(&mut self, key: &str, flag: bool) {
        self.key(key);
        self.0.push(if flag { 0xf5 } else { 0xf4 });
    }

    /// Adds a list of this many values, which are written already.
    pub(crate) fn list(&mut self, key: &str, length: u64, values: &[u8]) {
        self.key(key);
        head(&mut self.0, 4, length);
        self.0.extend_from_slice(values);
    }

    /// Returns the map in CBOR.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, key: &str) {
        // A head of one byte holds the number of entries.
        self.0[0] += 1;
        string(&mut self.0, 3, key.as_bytes());
    }

    fn string(&mut self, key: &str, major: u8, bytes: &[u8]) {
        self.key(key);
        string(&mut self.0, major, bytes);
    }
}

/// Appends a text (major type 3) or bytes (2).
pub(crate) fn string(to: &mut Vec<u8>, major: u8, bytes: &[u8]) {
    head(to, major, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// Appends the head of a value.
pub(crate) fn head(to: &mut Vec<u8>, major: u8, argument: u64) {
    let bytes = argument.to_be_bytes();
    let (low, width) = match argument {
        0..=23 => (bytes[7], 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    to.push(major << 5 | low);
    to.extend_from_slice(&bytes[8 - width..]);
}

/// A value that is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field<'a> {
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A number that is not negative.
    Number(u64),
    /// True or false.
    Flag(bool),
    /// A list.
    List(Values<'a>),
    /// A map, as it stands in the bytes.
    Map(&'a [u8]),
    /// A value of another type.
    Other,
}

/// The values of a list, one after the other. Ends early if one is malformed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (field, rest) = value(self.0, DEPTH_MAX)?;
        self.0 = rest;
        Some(field)
    }
}

/// The most nested lists and maps.
const DEPTH_MAX: u32 = 16;

/// Returns the value of a key. `None` if the bytes are no map with this key.
pub(crate) fn field<'a>(map: &'a [u8], key: &str) -> Option<Field<'a>> {
    entries(map).find_map(|(each, field)| (each == key).then_some(field))
}

/// Returns the entries of a map whose keys are texts. Ends early if one is malformed.
pub(crate) fn entries(map: &[u8]) -> impl Iterator<Item = (&str, Field<'_>)> {
    let (length, mut rest) = match head_of(map) {
        Some((5, _, length, rest)) => (length, rest),
        _ => (0, map),
    };
    (0..length).map_while(move |_| {
        let (Field::Text(key), after) = value(rest, 0)? else { return None };
        let (field, after) = value(after, DEPTH_MAX)?;
        rest = after;
        Some((key, field))
    })
}

/// Reads a value with at most this many nested lists and maps. Also returns the bytes after it.
fn value(bytes: &[u8], depth: u32) -> Option<(Field<'_>, &[u8])> {
    let (major, low, argument, rest) = head_of(bytes)?;
    match major {
        0 => Some((Field::Number(argument), rest)),
        2 | 3 => {
            let (string, rest) = rest.split_at_checked(usize::try_from(argument).ok()?)?;
            let field = if major == 2 { Field::Bytes(string) } else { Field::Text(str::from_utf8(string).ok()?) };
            Some((field, rest))
        }
        4..=6 => {
            let nested = match major {
                4 => argument,
                5 => argument.checked_mul(2)?,
                _ => 1,
            };
            let depth = depth.checked_sub(1)?;
            let mut after = rest;
            for _ in 0..nested {
                after = value(after, depth)?.1;
            }
            let field = match major {
                4 => Field::List(Values(&rest[..rest.len() - after.len()])),
                5 => Field::Map(&bytes[..bytes.len() - after.len()]),
                _ => Field::Other,
            };
            Some((field, after))
        }
        7 if low == 20 || low == 21 => Some((Field::Flag(low == 21), rest)),
        _ => Some((Field::Other, rest)),
    }
}

/// Reads the head of a value: its major type, the low bits of the first byte, and its argument.
fn head_of(bytes: &[u8]) -> Option<(u8, u8, u64, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let low = first & 0x1f;
    let width = match low {
        0..24 => return Some((first >> 5, low, low.into(), rest)),
        24..28 => 1 << (low - 24),
        _ => return None,
    };
    let (number, rest) = rest.split_at_checked(width)?;
    let number = number.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    Some((first >> 5, low, number, rest))
}

#[cfg(test)]
mod tests {
    use ciborium::cbor;

    use super::*;
    use crate::{Value, cbor};

    #[test]
    fn a_written_map_is_a_map_to_others() {
        let mut values = Vec::new();
        string(&mut values, 2, b"one");
        head(&mut values, 0, 70_000);
        let mut map = Writer::new();
        map.text("text", "größe");
        map.bytes("bytes", &[7; 300]);
        for (key, number) in [("a", 23), ("b", 24), ("c", 256), ("d", 65_536), ("e", u64::MAX)] {
            map.number(key, number);
        }
        map.flag("flag", true);
        map.list("list", 2, &values);
        let expected = cbor!({
            "text" => "größe", "bytes" => Value::Bytes(vec![7; 300]),
            "a" => 23, "b" => 24, "c" => 256, "d" => 65_536, "e" => u64::MAX,
            "flag" => true, "list" => [Value::Bytes(b"one".to_vec()), 70_000],
        });
        assert_eq!(cbor::decode::<Value>(&map.finish()), Ok(expected.expect("a value")));
    }

    #[test]
    fn fields_are_found_among_others_of_any_type() {
        let tagged = Value::Tag(0, Box::new("now".into()));
        let map = cbor!({
            "null" => null, "float" => 1.5, "negative" => -5, "tag" => tagged,
            "nested" => { "status" => 1, "list" => [[1, {}], "x"] },
            "status" => 200, "name" => "x", "body" => Value::Bytes(vec![0; 70_000]), "more" => false, "list" => ["a", 2],
        });
        let mut bytes = Vec::new();
        cbor::encode(&map.expect("a value"), &mut bytes).expect("an encodable value");
        assert_eq!(field(&bytes, "status"), Some(Field::Number(200)));
        assert_eq!(field(&bytes, "name"), Some(Field::Text("x")));
        assert!(matches!(field(&bytes, "body"), Some(Field::Bytes(body)) if body.len() == 70_000));
        assert_eq!(field(&bytes, "more"), Some(Field::Flag(false)));
        let Some(Field::List(list)) = field(&bytes, "list") else { panic!("a list") };
        assert_eq!(list.collect::<Vec<_>>(), [Field::Text("a"), Field::Number(2)]);
        let Some(Field::Map(nested)) = field(&bytes, "nested") else { panic!("a map") };
        assert_eq!(field(nested, "status"), Some(Field::Number(1)));
        for key in ["null", "float", "negative", "tag"] {
            assert_eq!(field(&bytes, key), Some(Field::Other), "{key}");
        }
        assert_eq!(field(&bytes, "other"), None);
    }

    #[test]
    fn what_is_malformed_has_no_fields() {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\xa1",
            b"\xa1\x61a",
            b"\xa1\x01\x01",
            b"\xa1\x61a\x62b",
            b"\xa1\x61a\x61\xff",
            b"\xa1\x61a\x9f\xff",
            b"\xa1\x61a\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x00",
            b"\xa1\x61a\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00",
            b"\xa1\x61a\x5b\xff\xff\xff\xff\xff\xff\xff\xff\x00",
        ] {
            assert_eq!(field(bytes, "a"), None, "{bytes:02x?}");
        }
        let deep = [&b"\xa1\x61a"[..], &[0x81; 1000], &[0x01]].concat();
        assert_eq!(field(&deep, "a"), None);
    }
}
