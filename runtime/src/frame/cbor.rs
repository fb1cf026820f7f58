//! Finds the items of a CBOR sequence without decoding them. CBOR that is not well-formed is refused (RFC 8949, appendix C).

mod value;

use bytes::Bytes;
use smallvec::SmallVec;

pub use value::{value, value_or_reason};

/// The most levels of nested arrays, maps and tags. Limits the memory that a hostile payload can use.
pub const MAX_DEPTH: usize = 256;

/// Why a payload is not a CBOR sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The payload is empty: a frame holds at least one item.
    #[error("the payload is empty")]
    Empty,
    /// The payload ends within an item.
    #[error("the CBOR item at byte {0} is cut off")]
    CutOff(usize),
    /// A byte that cannot begin or continue an item.
    #[error("not well-formed CBOR at byte {0}")]
    Malformed(usize),
    /// A text is not UTF-8.
    #[error("the CBOR text at byte {0} is not UTF-8")]
    NotUtf8(usize),
    /// The item nests too deep.
    #[error("the CBOR item nests deeper than {MAX_DEPTH} levels at byte {0}")]
    TooDeep(usize),
}

impl CborError {
    /// Returns the error with its position moved by this many bytes.
    pub fn behind(self, bytes: usize) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::CutOff(at) => Self::CutOff(at + bytes),
            Self::Malformed(at) => Self::Malformed(at + bytes),
            Self::NotUtf8(at) => Self::NotUtf8(at + bytes),
            Self::TooDeep(at) => Self::TooDeep(at + bytes),
        }
    }
}

/// Splits a payload into its items. They share the bytes of the payload.
///
/// # Errors
///
/// If the payload holds no item, or is not well-formed.
pub fn split(payload: &Bytes) -> Result<Vec<Bytes>, CborError> {
    if payload.is_empty() {
        return Err(CborError::Empty);
    }
    let mut items = Vec::with_capacity(1);
    let mut start = 0;
    while start < payload.len() {
        let end = item_end(payload, start)?;
        items.push(payload.slice(start..end));
        start = end;
    }
    Ok(items)
}

/// Checks that these bytes are exactly one item.
///
/// # Errors
///
/// If they are empty, hold more than one item, or are not well-formed.
pub fn check_one(bytes: &[u8]) -> Result<(), CborError> {
    if bytes.is_empty() {
        return Err(CborError::Empty);
    }
    let end = item_end(bytes, 0)?;
    if end == bytes.len() { Ok(()) } else { Err(CborError::Malformed(end)) }
}

/// A container that has begun and not ended.
enum Open {
    /// An array, map or tag that needs this many more items.
    Definite(u64),
    /// An array without a length.
    Array,
    /// A map without a length. `value_due` is `true` between a key and its value.
    Map { value_due: bool },
    /// A string in chunks of this major type.
    Chunks(u8),
}

/// The containers that are open. Most items have few, for which nothing is allocated.
type Stack = SmallVec<[Open; 8]>;

struct Head {
    major: u8,
    /// The argument. `None` means "indefinite", or "break" in major type 7.
    argument: Option<u64>,
    info: u8,
    end: usize,
}

fn head(bytes: &[u8], at: usize) -> Result<Head, CborError> {
    let initial = *bytes.get(at).ok_or(CborError::CutOff(at))?;
    let (major, info) = (initial >> 5, initial & 0x1f);
    let wide = |len: usize| -> Result<u64, CborError> {
        let slice = bytes.get(at + 1..at + 1 + len).ok_or(CborError::CutOff(at))?;
        Ok(slice.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let (argument, len) = match info {
        0..=23 => (Some(u64::from(info)), 0),
        24 => (Some(wide(1)?), 1),
        25 => (Some(wide(2)?), 2),
        26 => (Some(wide(4)?), 4),
        27 => (Some(wide(8)?), 8),
        31 if matches!(major, 2..=5 | 7) => (None, 0),
        _ => return Err(CborError::Malformed(at)),
    };
    Ok(Head { major, argument, info, end: at + 1 + len })
}

/// Returns where the item that begins at `start` ends.
fn item_end(bytes: &[u8], start: usize) -> Result<usize, CborError> {
    Scan { open: Stack::new(), at: start }.item_end(bytes)
}

/// Finds the end of an item. If the bytes are cut off, it goes on once there are more.
#[derive(Default)]
pub struct Scan {
    open: Stack,
    at: usize,
}

impl Scan {
    /// Returns where the item ends. The bytes must begin with those of the call before.
    ///
    /// # Errors
    ///
    /// If the bytes are not well-formed, or end before the item does ([`CborError::CutOff`]).
    pub fn item_end(&mut self, bytes: &[u8]) -> Result<usize, CborError> {
        loop {
            let at = self.at;
            let head = head(bytes, at)?;
            let next = head.end;
            if let Some(Open::Chunks(major)) = self.open.last()
                && !(head.major == *major && head.argument.is_some())
                && !(head.major == 7 && head.argument.is_none())
            {
                return Err(CborError::Malformed(at));
            }
            let opened = match (head.major, head.argument) {
                (2 | 3, Some(len)) => {
                    let end = usize::try_from(len).ok().and_then(|len| next.checked_add(len));
                    let string = end.and_then(|end| bytes.get(next..end)).ok_or(CborError::CutOff(at))?;
                    if head.major == 3 && std::str::from_utf8(string).is_err() {
                        return Err(CborError::NotUtf8(at));
                    }
                    self.at = next + string.len();
                    if complete(&mut self.open) {
                        return Ok(self.at);
                    }
                    continue;
                }
                (2 | 3, None) => Some(Open::Chunks(head.major)),
                (0 | 1, _) | (4 | 5, Some(0)) => None,
                (4, Some(count)) => Some(Open::Definite(count)),
                (5, Some(count)) => Some(Open::Definite(count.checked_mul(2).ok_or(CborError::CutOff(at))?)),
                (4, None) => Some(Open::Array),
                (5, None) => Some(Open::Map { value_due: false }),
                (6, _) => Some(Open::Definite(1)),
                (_, Some(value)) if head.info == 24 && value < 32 => return Err(CborError::Malformed(at)),
                (_, Some(_)) => None,
                (_, None) => match self.open.pop() {
                    Some(Open::Array | Open::Chunks(_) | Open::Map { value_due: false }) => None,
                    _ => return Err(CborError::Malformed(at)),
                },
            };
            self.at = next;
            match opened {
                Some(_) if self.open.len() == MAX_DEPTH => return Err(CborError::TooDeep(next)),
                Some(container) => self.open.push(container),
                None if complete(&mut self.open) => return Ok(next),
                None => {}
            }
        }
    }
}

/// Writes the head of an item in its shortest form.
pub fn write_head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let (bytes, length) = shortest_head(major, argument);
    out.extend_from_slice(&bytes[..length]);
}

/// Writes the head of an item in front of its content. The caller has kept a byte for it at `start`.
pub fn insert_head(major: u8, argument: u64, start: usize, out: &mut Vec<u8>) {
    let (bytes, length) = shortest_head(major, argument);
    out[start] = bytes[0];
    if length > 1 {
        out.splice(start..=start, bytes[..length].iter().copied());
    }
}

fn shortest_head(major: u8, argument: u64) -> ([u8; 9], usize) {
    let mut bytes = [0; 9];
    let wide = argument.to_be_bytes();
    let (info, length) = match argument {
        0..24 => (wide[7], 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    bytes[0] = major << 5 | info;
    bytes[1..=length].copy_from_slice(&wide[8 - length..]);
    (bytes, 1 + length)
}

/// Counts a complete item, and closes each container that it completes. Returns `true` if no container is open.
fn complete(open: &mut Stack) -> bool {
    loop {
        match open.last_mut() {
            None => return true,
            Some(Open::Definite(1)) => {
                open.pop();
            }
            Some(Open::Definite(due)) => {
                *due -= 1;
                return false;
            }
            Some(Open::Map { value_due }) => {
                *value_due = !*value_due;
                return false;
            }
            Some(Open::Array | Open::Chunks(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciborium::Value;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).expect("a vector takes all");
        bytes
    }

    fn hex(digits: &str) -> Vec<u8> {
        let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex");
        digits.chunks(2).map(pair).collect()
    }

    #[test]
    fn items_are_found_where_they_end() {
        let values = [
            Value::from(1),
            Value::from("text"),
            Value::Map(vec![(Value::from("a"), Value::Array(vec![Value::Null, Value::from(1.5)]))]),
            Value::Tag(1, Box::new(Value::from(1_700_000_000))),
            Value::Array(vec![]),
            Value::Bytes(vec![0; 300]),
        ];
        let parts: Vec<Vec<u8>> = values.iter().map(encoded).collect();
        let items = split(&Bytes::from(parts.concat())).expect("well-formed");
        assert_eq!(items, parts);
    }

    #[test]
    fn items_without_a_length_are_found() {
        // RFC 8949, appendix A: [_ 1, [2, 3], [_ 4, 5]], {_ "a": 1, "b": [_ 2, 3]}, (_ "strea", "ming"), ""
        for digits in ["9f018202039f0405ffff", "bf61610161629f0203ffff", "7f657374726561646d696e67ff", "7fff"] {
            assert_eq!(check_one(&hex(digits)), Ok(()), "{digits}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        // RFC 8949, appendix F, and texts that are not UTF-8.
        for digits in [
            "",
            "18",
            "1900",
            "ff",
            "1c",
            "3d",
            "5c",
            "fe",
            "f818",
            "f800",
            "41",
            "61",
            "81",
            "a1",
            "a100",
            "8200",
            "9f",
            "bf00",
            "bf00ff",
            "5fff00",
            "5f6161ff",
            "7f4100ff",
            "5f5f4100ffff",
            "c0",
            "1f",
            "df",
            "61ff",
            "0001",
            "9b7fffffffffffffff",
            "bbffffffffffffffff",
            "5bffffffffffffffff",
        ] {
            assert!(check_one(&hex(digits)).is_err(), "{digits}");
        }
    }

    #[test]
    fn an_item_that_comes_in_pieces_is_found_where_it_ends() {
        let value = Value::Map(vec![(Value::from("a"), Value::Array(vec![Value::Null, Value::from("text")]))]);
        let bytes = encoded(&value);
        let mut scan = Scan::default();
        for length in 0..bytes.len() {
            assert!(matches!(scan.item_end(&bytes[..length]), Err(CborError::CutOff(_))));
        }
        assert_eq!(scan.item_end(&bytes), Ok(bytes.len()));
    }

    #[test]
    fn a_head_is_as_short_as_can_be() {
        for argument in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let (mut written, mut inserted) = (Vec::new(), vec![7, 0, 9]);
            write_head(0, argument, &mut written);
            assert_eq!(written, encoded(&Value::from(argument)));
            insert_head(0, argument, 1, &mut inserted);
            assert_eq!(inserted, [&[7], &written[..], &[9]].concat());
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = vec![0x81; MAX_DEPTH + 1];
        assert!(matches!(check_one(&deep), Err(CborError::TooDeep(_))));
        let mut most = vec![0x81; MAX_DEPTH];
        most.push(0);
        assert_eq!(check_one(&most), Ok(()));
    }

    #[test]
    fn it_agrees_with_a_decoder_on_random_bytes() {
        // A linear congruential generator (Knuth's MMIX constants) gives the same bytes in each run.
        let mut state = 0x5eed_u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u8::try_from(state >> 56).expect("eight bits")
        };
        for _ in 0..200_000 {
            let length = usize::from(byte() % 12) + 1;
            let bytes: Vec<u8> = (0..length).map(|_| byte()).collect();
            let mut rest = bytes.as_slice();
            let decoded = ciborium::from_reader::<Value, _>(&mut rest).is_ok() && rest.is_empty();
            if decoded {
                assert_eq!(check_one(&bytes), Ok(()), "{bytes:02x?}");
            }
        }
    }
}
