//! Reads JSON strictly. Each value is converted to a CBOR data item while it is read, or refused with its position.
//!
//! RFC 8259 leaves some choices open. Here, integers are exact at any size, a number that is too large for a float is refused,
//! and so is an object with the same key twice.

mod scalar;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;

use super::error::JsonError;
use crate::frame::cbor::{MAX_DEPTH, insert_head, write_head};
use crate::frame::disguise::Disguise;
use crate::frame::text::{Place, Text};

/// The most keys of an object that are compared one by one. More keys are compared by their hashes.
const FEW_KEYS: usize = 16;

/// Converts JSON values to items, one after the other.
#[derive(Default)]
pub struct JsonReader {
    /// The most bytes of an item.
    max: usize,
    /// `true` if each value must end on its line.
    lines: bool,
    out: Vec<u8>,
    /// The text that is being read, with its escapes resolved.
    string: Vec<u8>,
    open: Vec<Open>,
    /// The keys of all open objects, as ranges of `out`.
    keys: Vec<Range<usize>>,
    hasher: RandomState,
    breaks: u64,
}

/// An array or object that has begun and not ended.
struct Open {
    is_object: bool,
    /// Where the head begins in `out`.
    start: usize,
    /// The number of elements or pairs.
    count: u64,
    /// Where its keys begin in the list of keys.
    keys: usize,
    /// The hashes of its keys, if there are many.
    hashes: Option<HashSet<u64>>,
}

/// The tokens that may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
}

impl JsonReader {
    /// Creates a reader of items of at most this many bytes.
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Creates a reader of values that each have a line.
    pub fn of_lines(max: usize) -> Self {
        Self { lines: true, ..Self::new(max) }
    }

    /// Returns how many line breaks were skipped between and within values.
    pub fn breaks(&self) -> u64 {
        self.breaks
    }

    /// Skips white space and returns the next byte. `None` at the end.
    pub fn blank<R: Read>(&mut self, text: &mut Text<R>) -> io::Result<Option<u8>> {
        loop {
            text.pass_spaces()?;
            match text.peek()? {
                Some(b'\n') => self.breaks += 1,
                other => return Ok(other),
            }
            text.pass(1);
        }
    }

    /// Reads one value and the white space before it. Reads no byte after the value, except one after a number.
    pub fn value<R: Read>(&mut self, text: &mut Text<R>) -> Result<Bytes, JsonError> {
        self.out.clear();
        self.open.clear();
        self.keys.clear();
        let mut next = Next::Value;
        loop {
            let byte = self.token(text)?;
            let is_whole = match (next, byte) {
                (Next::Value | Next::ValueOrEnd, b'[' | b'{') => {
                    next = self.begin(byte == b'{', text)?;
                    continue;
                }
                (Next::ValueOrEnd | Next::CommaOrEnd, b']') if !self.is_in_object() => self.end(text),
                (Next::KeyOrEnd | Next::CommaOrEnd, b'}') if self.is_in_object() => self.end(text),
                (Next::Value | Next::ValueOrEnd, _) => {
                    self.scalar(byte, text)?;
                    self.open.is_empty()
                }
                (Next::Key | Next::KeyOrEnd, b'"') => {
                    self.key(text)?;
                    next = Next::Colon;
                    continue;
                }
                (Next::Colon, b':') => {
                    text.pass(1);
                    next = Next::Value;
                    continue;
                }
                (Next::CommaOrEnd, b',') => {
                    text.pass(1);
                    next = if self.is_in_object() { Next::Key } else { Next::Value };
                    continue;
                }
                _ => return Err(self.unexpected(next, text)),
            };
            if self.out.len() > self.max {
                return Err(JsonError::TooLarge { max: self.max, place: text.place() });
            }
            if is_whole {
                return Ok(Bytes::copy_from_slice(&self.out));
            }
            if let Some(open) = self.open.last_mut() {
                open.count += 1;
            }
            next = Next::CommaOrEnd;
        }
    }

    fn is_in_object(&self) -> bool {
        self.open.last().is_some_and(|open| open.is_object)
    }

    /// Returns the first byte of the next token.
    fn token<R: Read>(&mut self, text: &mut Text<R>) -> Result<u8, JsonError> {
        if self.lines {
            text.pass_spaces()?;
            match text.peek()? {
                Some(byte) if byte != b'\n' => Ok(byte),
                _ => Err(self.cut_off(text)),
            }
        } else {
            self.blank(text)?.ok_or_else(|| self.cut_off(text))
        }
    }

    fn begin<R: Read>(&mut self, is_object: bool, text: &mut Text<R>) -> Result<Next, JsonError> {
        if self.open.len() == MAX_DEPTH {
            return Err(JsonError::invalid(format!("nested deeper than {MAX_DEPTH} levels"), text));
        }
        text.pass(1);
        self.open.push(Open { is_object, start: self.out.len(), count: 0, keys: self.keys.len(), hashes: None });
        // A byte is kept for the head, which is written once the number of elements is known.
        self.out.push(0);
        Ok(if is_object { Next::KeyOrEnd } else { Next::ValueOrEnd })
    }

    /// Ends the innermost array or object. Returns `true` if no other is open.
    fn end<R: Read>(&mut self, text: &mut Text<R>) -> bool {
        text.pass(1);
        if let Some(open) = self.open.pop() {
            self.keys.truncate(open.keys);
            insert_head(4 + u8::from(open.is_object), open.count, open.start, &mut self.out);
        }
        self.open.is_empty()
    }

    fn key<R: Read>(&mut self, text: &mut Text<R>) -> Result<(), JsonError> {
        self.string(text)?;
        let start = self.out.len();
        write_head(3, self.string.len() as u64, &mut self.out);
        self.out.extend_from_slice(&self.string);
        let key = start..self.out.len();
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        let (out, others) = (&self.out, &self.keys[open.keys..]);
        let is_there = || others.iter().any(|other| out[other.clone()] == out[key.clone()]);
        let is_twice = if others.len() < FEW_KEYS {
            is_there()
        } else {
            let hash = |key: &Range<usize>| self.hasher.hash_one(&out[key.clone()]);
            let hashes = open.hashes.get_or_insert_with(|| others.iter().map(hash).collect());
            !hashes.insert(hash(&key)) && is_there()
        };
        if is_twice {
            let name = String::from_utf8_lossy(&self.string);
            return Err(JsonError::invalid(format!("the key `{name}` twice in one object"), text));
        }
        self.keys.push(key);
        Ok(())
    }

    fn scalar<R: Read>(&mut self, first: u8, text: &mut Text<R>) -> Result<(), JsonError> {
        match first {
            b'"' => {
                self.string(text)?;
                write_head(3, self.string.len() as u64, &mut self.out);
                self.out.extend_from_slice(&self.string);
            }
            b'-' | b'0'..=b'9' => self.number(text)?,
            b't' => self.word(b"true", 0xf5, text)?,
            b'f' => self.word(b"false", 0xf4, text)?,
            b'n' => self.word(b"null", 0xf6, text)?,
            _ => return Err(self.unexpected(Next::Value, text)),
        }
        Ok(())
    }

    fn word<R: Read>(&mut self, word: &[u8], cbor: u8, text: &mut Text<R>) -> Result<(), JsonError> {
        for letter in word {
            if text.peek()? != Some(*letter) {
                return Err(self.unexpected(Next::Value, text));
            }
            text.pass(1);
        }
        self.out.push(cbor);
        Ok(())
    }

    fn check_size<R: Read>(&self, text: &Text<R>) -> Result<(), JsonError> {
        if self.out.len() + self.string.len() <= self.max {
            return Ok(());
        }
        Err(JsonError::TooLarge { max: self.max, place: text.place() })
    }

    fn unexpected<R: Read>(&self, next: Next, text: &Text<R>) -> JsonError {
        let expected = match (next, self.is_in_object()) {
            (Next::Value, _) => "expected value",
            (Next::ValueOrEnd, _) => "expected value or `]`",
            (Next::Key, _) => "expected key in quotes",
            (Next::KeyOrEnd, _) => "expected key in quotes or `}`",
            (Next::Colon, _) => "expected `:`",
            (Next::CommaOrEnd, true) => "expected `,` or `}`",
            (Next::CommaOrEnd, false) => "expected `,` or `]`",
        };
        JsonError::invalid(expected, text)
    }

    /// Returns the error for a text that ends too early.
    pub fn cut_off<R: Read>(&self, text: &Text<R>) -> JsonError {
        self.cut_off_in("value", text)
    }

    fn cut_off_in<R: Read>(&self, what: &str, text: &Text<R>) -> JsonError {
        let mut place = text.place();
        place.column = place.column.saturating_sub(1);
        let end = if self.lines { "the line ends" } else { "EOF" };
        JsonError::Invalid { what: format!("{end} while parsing a {what}"), place }
    }
}

/// Converts one JSON document to an item. The document begins on this line of a larger text. White space and a byte-order mark
/// around it are skipped.
pub fn document(document: &[u8], line: u64) -> Result<Bytes, JsonError> {
    let mut text = Text::of(document, line);
    let mut reader = JsonReader::new(usize::MAX);
    let end = |reader: &mut JsonReader, text: &mut Text<_>| match reader.blank(text)? {
        None => Ok(()),
        Some(_) => Err(JsonError::invalid("trailing characters", text)),
    };
    let read = reader.value(&mut text).and_then(|item| end(&mut reader, &mut text).map(|()| item));
    read.map_err(|error| match Disguise::of_payload(document) {
        Some(disguise) => JsonError::Invalid { what: disguise.to_string(), place: Place::in_line(line) },
        None => error,
    })
}

#[cfg(test)]
mod tests;
