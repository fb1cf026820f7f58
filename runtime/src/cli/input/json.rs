//! JSON: documents back to back, or one on each line.

use std::io::Read;

use anyhow::anyhow;
use bytes::{BufMut, Bytes, BytesMut};

use super::{InputFormat, Sink, Stop, too_large};
use crate::frame::cbor::{CborError, MAX_DEPTH, check_one, split, write_head};
use crate::frame::json::error::JsonError;
use crate::frame::json::read::JsonReader;
use crate::frame::text::Text;

/// What an array is that stands at the top level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrays {
    /// An item.
    Items,
    /// Each element is an item.
    Elements,
    /// Each element is an item if the array is the first document and spans lines. Else the array is an item, as in a
    /// file with a document on each line.
    Undecided,
}

/// Reads a document from each line that is not blank. `hint` is added to errors.
pub fn one_a_line(text: &mut Text<impl Read>, hint: &str, sink: &mut Sink) -> Result<(), Stop> {
    let mut reader = JsonReader::of_lines(sink.max);
    while reader.blank(text)?.is_some() {
        let item = reader.value(text).map_err(|error| wrong(&error, hint))?;
        text.pass_spaces()?;
        if text.peek()?.is_some_and(|byte| byte != b'\n') {
            return Err(wrong(&JsonError::invalid("trailing characters", text), hint).into());
        }
        sink.item(item)?;
    }
    Ok(())
}

/// Reads documents that may span lines. `hint` is added to errors.
pub fn documents(text: &mut Text<impl Read>, mut arrays: Arrays, hint: &str, sink: &mut Sink) -> Result<(), Stop> {
    let mut reader = JsonReader::new(sink.max);
    while let Some(first) = reader.blank(text)? {
        let breaks = reader.breaks();
        if first == b'[' && arrays != Arrays::Items {
            arrays = Array { reader: &mut reader, breaks, arrays, hint }.read(text, sink)?;
            continue;
        }
        let item = reader.value(text).map_err(|error| wrong(&error, hint))?;
        // Strings, objects and arrays show their own end, so anything may follow them.
        if !matches!(first, b'"' | b'{' | b'[')
            && text.peek()?.is_some_and(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'{' | b'['))
        {
            return Err(wrong(&JsonError::invalid("trailing characters", text), hint).into());
        }
        if arrays == Arrays::Undecided {
            arrays = Arrays::Items;
            sink.is_read_as(if reader.breaks() == breaks { InputFormat::Ndjson } else { InputFormat::Json });
        }
        sink.item(item)?;
    }
    Ok(())
}

/// An array whose elements may be items.
struct Array<'a> {
    reader: &'a mut JsonReader,
    /// How many line breaks precede the array.
    breaks: u64,
    arrays: Arrays,
    hint: &'a str,
}

impl Array<'_> {
    /// Reads the array, and returns what the next array is.
    fn read(mut self, text: &mut Text<impl Read>, sink: &mut Sink) -> Result<Arrays, Stop> {
        text.pass(1);
        let mut held = Held::default();
        let mut is_first = true;
        loop {
            let next = self.next(text)?;
            self.decide(&mut held, sink)?;
            if next == b']' && is_first {
                break;
            }
            let item = self.reader.value(text).map_err(|error| wrong(&error, self.hint))?;
            is_first = false;
            if self.arrays == Arrays::Elements {
                sink.item(item)?;
            } else {
                held.add(&item, text, sink)?;
            }
            let next = self.next(text)?;
            self.decide(&mut held, sink)?;
            match next {
                b',' => text.pass(1),
                b']' => break,
                _ => return Err(wrong(&JsonError::invalid("expected `,` or `]`", text), self.hint).into()),
            }
        }
        text.pass(1);
        if self.arrays == Arrays::Undecided {
            // A line of text may begin like an array, so the rest of the line is checked first.
            text.pass_spaces()?;
            if text.peek()?.is_some_and(|byte| !matches!(byte, b'\n' | b'[' | b'{')) {
                return Err(wrong(&JsonError::invalid("trailing characters", text), self.hint).into());
            }
            sink.is_read_as(InputFormat::Ndjson);
            let array = held.array();
            if check_one(&array).is_err() {
                let error = JsonError::invalid(format!("nested deeper than {MAX_DEPTH} levels"), text);
                return Err(wrong(&error, self.hint).into());
            }
            sink.item(array)?;
            self.arrays = Arrays::Items;
        }
        Ok(self.arrays)
    }

    fn next(&mut self, text: &mut Text<impl Read>) -> Result<u8, Stop> {
        let next = self.reader.blank(text)?;
        Ok(next.ok_or_else(|| wrong(&self.reader.cut_off(text), self.hint))?)
    }

    /// Decides that the elements are items once the array spans lines.
    fn decide(&mut self, held: &mut Held, sink: &mut Sink) -> Result<(), Stop> {
        if self.arrays == Arrays::Undecided && self.reader.breaks() > self.breaks {
            self.arrays = Arrays::Elements;
            sink.is_read_as(InputFormat::Json);
            held.items()?.into_iter().try_for_each(|item| sink.item(item))?;
        }
        Ok(())
    }
}

/// The elements of an array, back to back, while it is not known whether they are items.
#[derive(Default)]
struct Held {
    bytes: BytesMut,
    number: u64,
}

impl Held {
    fn add(&mut self, item: &[u8], text: &Text<impl Read>, sink: &Sink) -> Result<(), Stop> {
        self.bytes.put_slice(item);
        self.number += 1;
        if self.bytes.len() > sink.max {
            let hint = "if each element of the array is an item, add --format json";
            return Err(anyhow!("line {}: {}; {hint}", text.place().line, too_large(sink.max)).into());
        }
        Ok(())
    }

    /// Takes out the elements.
    fn items(&mut self) -> Result<Vec<Bytes>, CborError> {
        let bytes = self.bytes.split().freeze();
        // An empty sequence is none.
        if bytes.is_empty() { Ok(Vec::new()) } else { split(&bytes) }
    }

    fn array(&self) -> Bytes {
        let mut head = Vec::new();
        write_head(4, self.number, &mut head);
        [&head[..], &self.bytes].concat().into()
    }
}

fn wrong(error: &JsonError, hint: &str) -> anyhow::Error {
    match error {
        JsonError::TooLarge { max, place } => anyhow!("line {}: {}", place.line, too_large(*max)),
        JsonError::Io(error) => anyhow!("{error}"),
        JsonError::Invalid { place, .. } | JsonError::Number { place, .. } => {
            anyhow!("line {}: not JSON: {}{hint}", place.line, error.within_line())
        }
    }
}
