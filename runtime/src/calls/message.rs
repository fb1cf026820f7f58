//! Requests and responses of calls in CBOR (RFC 8949).
//!
//! A request is read where it lies, in the guest's memory. What is read from it is never larger than the request, so no request
//! can take more memory than the guest has.

mod response;

use super::failure::CallFailure;
pub(crate) use response::Response;

/// The most entries of a map.
const ENTRIES_MAX: u64 = 16;
/// The most nested lists and maps of a request.
const DEPTH_MAX: u32 = 4;

/// A map with text keys. Each entry is taken once; what is left at the end is unknown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request<'a> {
    entries: Vec<(&'a str, Value<'a>)>,
}

/// A value of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A number that is not negative.
    Number(u64),
    /// True or false.
    Flag(bool),
    /// Null or undefined.
    Null,
    /// A list.
    List(List<'a>),
    /// A map.
    Map(Map<'a>),
}

/// A map within a request, which is read when it is needed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Map<'a> {
    bytes: &'a [u8],
    len: u64,
    depth: u32,
}

impl<'a> Map<'a> {
    /// Returns the entries.
    pub(crate) fn read(self) -> Result<Request<'a>, CallFailure> {
        Reader { bytes: self.bytes }.entries(self.len, self.depth)
    }
}

/// A list whose values are read one by one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct List<'a> {
    bytes: &'a [u8],
    len: u64,
    depth: u32,
}

impl<'a> List<'a> {
    /// Returns the number of values.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns the values.
    pub(crate) fn values(self) -> impl Iterator<Item = Result<Value<'a>, CallFailure>> {
        let mut reader = Reader { bytes: self.bytes };
        (0..self.len).map(move |_| reader.value(self.depth))
    }
}

impl<'a> Request<'a> {
    /// Reads a request.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, CallFailure> {
        let mut reader = Reader { bytes };
        let Value::Map(map) = reader.value(0)? else { return Err(malformed("it is no map")) };
        let request = map.read()?;
        if !reader.bytes.is_empty() {
            return Err(malformed("bytes follow the map"));
        }
        Ok(request)
    }

    /// Takes a value. `None` if it is not there, or null.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value<'a>> {
        let at = self.entries.iter().position(|(each, _)| *each == key)?;
        match self.entries.swap_remove(at).1 {
            Value::Null => None,
            value => Some(value),
        }
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<&'a str>, CallFailure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(key, "a text")),
        }
    }

    /// Takes bytes, which may be written as a text.
    pub(crate) fn bytes(&mut self, key: &str) -> Result<Option<&'a [u8]>, CallFailure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Value::Text(text)) => Ok(Some(text.as_bytes())),
            Some(_) => Err(wrong(key, "bytes")),
        }
    }

    /// Takes a number that is not negative.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<u64>, CallFailure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number)),
            Some(_) => Err(wrong(key, "a number that is not negative")),
        }
    }

    /// Takes true or false.
    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, CallFailure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(flag)),
            Some(_) => Err(wrong(key, "true or false")),
        }
    }

    /// Takes a list.
    pub(crate) fn list(&mut self, key: &str) -> Result<Option<List<'a>>, CallFailure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(wrong(key, "a list")),
        }
    }

    /// Ends reading. Refuses what has not been taken.
    pub(crate) fn end(self) -> Result<(), CallFailure> {
        match self.entries.iter().find(|(_, value)| *value != Value::Null) {
            None => Ok(()),
            Some((key, _)) => Err(CallFailure::invalid(format!("the request has an unknown key `{}`", quoted(key)))),
        }
    }
}

/// Returns the failure of a request that lacks a key.
pub(crate) fn missing(key: &str) -> CallFailure {
    CallFailure::invalid(format!("the request lacks `{key}`"))
}

/// Returns the failure of a request with a value of the wrong type.
pub(crate) fn wrong(key: &str, expected: &str) -> CallFailure {
    CallFailure::invalid(format!("`{key}` of the request is not {expected}"))
}

fn malformed(problem: &str) -> CallFailure {
    CallFailure::invalid(format!("the request is malformed: {problem}"))
}

/// Returns the beginning of a text that a guest has written, as a message may quote it.
pub(crate) fn quoted(text: &str) -> String {
    const MAX: usize = 200;
    let mut quoted: String = text.chars().take(MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

/// Reads values from their bytes.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64) -> Result<&'a [u8], CallFailure> {
        let len = usize::try_from(len).map_err(|_| malformed("it ends too early"))?;
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(|| malformed("it ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Reads the head of a value: its major type, the low bits of its first byte, and its argument.
    fn head(&mut self) -> Result<(u8, u8, u64), CallFailure> {
        let first = self.take(1)?[0];
        let low = first & 0x1f;
        let argument = match low {
            0..=23 => u64::from(low),
            24..=27 => self.take(1 << (low - 24))?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            _ => return Err(malformed("it has a value of indefinite length")),
        };
        Ok((first >> 5, low, argument))
    }

    fn text(&mut self, len: u64) -> Result<&'a str, CallFailure> {
        std::str::from_utf8(self.take(len)?).map_err(|_| malformed("a text is not UTF-8"))
    }

    /// Reads a value within this many lists and maps.
    fn value(&mut self, depth: u32) -> Result<Value<'a>, CallFailure> {
        if depth > DEPTH_MAX {
            return Err(malformed("it is nested too deeply"));
        }
        Ok(match self.head()? {
            (0, _, number) => Value::Number(number),
            (2, _, len) => Value::Bytes(self.take(len)?),
            (3, _, len) => Value::Text(self.text(len)?),
            (4, _, len) => {
                let bytes = self.bytes;
                for _ in 0..len {
                    self.value(depth + 1)?;
                }
                Value::List(List { bytes: &bytes[..bytes.len() - self.bytes.len()], len, depth: depth + 1 })
            }
            (5, _, len) if len <= ENTRIES_MAX => {
                let bytes = self.bytes;
                for _ in 0..len {
                    self.key()?;
                    self.value(depth + 1)?;
                }
                Value::Map(Map { bytes: &bytes[..bytes.len() - self.bytes.len()], len, depth: depth + 1 })
            }
            (5, _, _) => return Err(malformed("a map has too many entries")),
            (7, 20, _) => Value::Flag(false),
            (7, 21, _) => Value::Flag(true),
            (7, 22 | 23, _) => Value::Null,
            _ => return Err(malformed("it has a value of a type that no request has")),
        })
    }

    /// Reads the entries of a map.
    fn entries(&mut self, len: u64, depth: u32) -> Result<Request<'a>, CallFailure> {
        let mut entries: Vec<(&str, Value<'_>)> = Vec::new();
        for _ in 0..len {
            let key = self.key()?;
            if entries.iter().any(|(each, _)| *each == key) {
                return Err(malformed("it has a key twice"));
            }
            entries.push((key, self.value(depth)?));
        }
        Ok(Request { entries })
    }

    fn key(&mut self) -> Result<&'a str, CallFailure> {
        let (3, _, len) = self.head()? else { return Err(malformed("a key is not a text")) };
        self.text(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Response::new();
        inner.text("secret", "token");
        let mut response = Response::new();
        response.text("url", "http://a");
        response.bytes("body", &[0; 300]);
        response.number("limit", 70_000);
        response.flag("wait", true);
        response.texts("keys", ["a", "b"].into_iter());
        response.pairs("headers", [("x", b"1".as_slice())].into_iter());
        response.maps("maps", [inner].into_iter());
        let bytes = response.finish();
        let mut request = Request::read(&bytes).expect("a map");
        assert_eq!(request.text("url"), Ok(Some("http://a")));
        assert_eq!(request.bytes("body"), Ok(Some([0; 300].as_slice())));
        assert_eq!(request.number("limit"), Ok(Some(70_000)));
        assert_eq!(request.flag("wait"), Ok(Some(true)));
        let keys: Vec<_> = request.list("keys").expect("a list").expect("there").values().collect();
        assert_eq!(keys, [Ok(Value::Text("a")), Ok(Value::Text("b"))]);
        let headers = request.list("headers").expect("a list").expect("there");
        let Some(Ok(Value::List(pair))) = headers.values().next() else { panic!("a pair") };
        assert_eq!((headers.len(), pair.values().nth(1)), (1, Some(Ok(Value::Bytes(b"1")))));
        assert!(matches!(
            request.list("maps").expect("a list").expect("there").values().next(),
            Some(Ok(Value::Map(_)))
        ));
        assert_eq!(request.text("no"), Ok(None));
        assert_eq!(request.end(), Ok(()));
    }

    #[test]
    fn what_is_malformed_is_refused_and_takes_no_memory() {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\xa1\x61a",
            b"\xa1\x01\x01",
            b"\xa2\x61a\x01\x61a\x01",
            b"\xa1\x61a\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x00",
            b"\xa1\x61a\x5b\xff\xff\xff\xff\xff\xff\xff\xff\x00",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00",
            b"\xa1\x61a\x9f\xff",
            b"\xa1\x61a\xfb\0\0\0\0\0\0\0\0",
            b"\xa1\x61a\x20",
            b"\xa1\x61a\x61\xff",
            b"\xa0\x00",
            b"\xa1\x61a\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x01",
        ] {
            let failure = Request::read(bytes).expect_err("malformed");
            assert!(failure.message.starts_with("the request is malformed: "), "{bytes:02x?}: {failure}");
        }
        let mut request = Request::read(b"\xa1\x61a\x01").expect("a map");
        assert!(request.clone().end().is_err_and(|failure| failure.message.ends_with("an unknown key `a`")));
        assert!(request.text("a").is_err());
    }
}
