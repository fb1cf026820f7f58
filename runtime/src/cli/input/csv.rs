//! Comma-separated values after RFC 4180, with a header line. Each row is a record of texts.
//!
//! A row ends with a line feed, a carriage return, or both. In a file of one column, a blank row is an empty text. In a
//! file of several columns, it is skipped.

use std::collections::HashSet;
use std::io::Read;

use anyhow::{anyhow, bail};
use bytes::Bytes;

use super::{Sink, Stop};
use crate::frame::cbor::write_head;
use crate::frame::text::Text;

/// Separators that may be in use instead of a comma, each with its name.
const OTHERS: [(u8, &str); 3] = [(b';', "';'"), (b'\t', "tab"), (b'|', "'|'")];

/// Reads a delimiter from the command line.
pub fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" | b"tab" => Ok(b'\t'),
        [b'"' | b'\r' | b'\n'] => Err("is a character that CSV needs for itself".to_owned()),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("must be one ASCII character, as in ';' or '|', or tab".to_owned()),
    }
}

/// Reads the header line and the rows after it.
pub fn read(text: &mut Text<impl Read>, delimiter: Option<u8>, sink: &mut Sink) -> Result<(), Stop> {
    let (separator, row) = (delimiter.unwrap_or(b','), Row::default());
    let mut rows = Rows { text, delimiter: separator, line: 1, is_after_return: false, row };
    let names = loop {
        if !rows.next(sink)? {
            return Ok(());
        }
        if !rows.row.is_blank() {
            break rows.row.names(delimiter)?;
        }
    };
    while rows.next(sink)? {
        let row = &rows.row;
        if row.is_blank() && names.heads.len() > 1 {
            continue;
        }
        sink.item(row.item(&names)?)?;
    }
    Ok(())
}

/// Reads rows one after the other.
struct Rows<'a, R> {
    text: &'a mut Text<R>,
    delimiter: u8,
    /// The number of the line that is read.
    line: u64,
    /// `true` if the last row ended with a carriage return. A line feed may follow, but to wait for it could take long.
    is_after_return: bool,
    row: Row,
}

/// The fields of a row.
#[derive(Default)]
struct Row {
    bytes: Vec<u8>,
    /// Where each field ends.
    ends: Vec<usize>,
    /// The line in which the row begins.
    line: u64,
    has_quotes: bool,
}

impl<R: Read> Rows<'_, R> {
    /// Reads a row. Returns `false` if there is none.
    fn next(&mut self, sink: &Sink) -> Result<bool, Stop> {
        self.row.bytes.clear();
        self.row.ends.clear();
        (self.row.line, self.row.has_quotes) = (self.line, false);
        if std::mem::take(&mut self.is_after_return) && self.text.peek()? == Some(b'\n') {
            self.text.pass(1);
        }
        if self.text.peek()?.is_none() {
            return Ok(false);
        }
        loop {
            let is_quoted = self.text.peek()? == Some(b'"');
            if is_quoted {
                self.row.has_quotes = true;
                self.quoted(sink)?;
            }
            loop {
                if self.row.bytes.len() + self.row.ends.len() > sink.max {
                    return Err(sink.too_large(self.row.line).into());
                }
                match self.text.peek()?.filter(|byte| !matches!(byte, b'\n' | b'\r') && *byte != self.delimiter) {
                    None => break,
                    Some(_) if is_quoted => return Err(self.wrong("text after the closing quote of a field").into()),
                    Some(b'"') => {
                        let what = "a quote in a field that does not begin with one; put the field in quotes and write the quote twice";
                        return Err(self.wrong(what).into());
                    }
                    Some(byte) => {
                        self.row.bytes.push(byte);
                        self.text.pass(1);
                    }
                }
            }
            self.row.ends.push(self.row.bytes.len());
            match self.text.peek()? {
                Some(byte) if byte == self.delimiter => self.text.pass(1),
                end => {
                    self.text.pass(1);
                    self.line += 1;
                    self.is_after_return = end == Some(b'\r');
                    return Ok(true);
                }
            }
        }
    }

    /// Reads a field in quotes up to the closing quote.
    fn quoted(&mut self, sink: &Sink) -> Result<(), Stop> {
        let opened = self.line;
        self.text.pass(1);
        let mut is_after_return = false;
        loop {
            let Some(byte) = self.text.peek()? else {
                return Err(anyhow!("line {opened}: the quote that opens here is never closed").into());
            };
            self.text.pass(1);
            if byte == b'"' {
                if self.text.peek()? != Some(b'"') {
                    return Ok(());
                }
                self.text.pass(1);
            }
            self.line += u64::from(byte == b'\r' || byte == b'\n' && !is_after_return);
            is_after_return = byte == b'\r';
            self.row.bytes.push(byte);
            if self.row.bytes.len() > sink.max {
                let quote = format!("is the quote that opens in line {opened} never closed?");
                return Err(anyhow!("{}; {quote}", sink.too_large(self.row.line)).into());
            }
        }
    }

    fn wrong(&self, what: &str) -> anyhow::Error {
        anyhow!("line {}: {what}", self.line)
    }
}

/// The names of the columns.
struct Names {
    /// Each name as CBOR.
    heads: Vec<Vec<u8>>,
    /// The hint for rows with another number of fields.
    hint: String,
}

impl Row {
    /// Returns `true` if the row is an empty line.
    fn is_blank(&self) -> bool {
        self.ends == [0] && !self.has_quotes
    }

    fn fields(&self) -> anyhow::Result<Vec<&str>> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        let fields = begins.zip(&self.ends).map(|(begin, end)| std::str::from_utf8(&self.bytes[begin..*end]));
        fields.collect::<Result<_, _>>().map_err(|_| anyhow!("line {}: not UTF-8", self.line))
    }

    /// Returns the names of the columns in a header line. `delimiter` is the one that the user named.
    fn names(&self, delimiter: Option<u8>) -> anyhow::Result<Names> {
        let (line, names) = (self.line, self.fields()?);
        let other = OTHERS.iter().find(|(sign, _)| delimiter.is_none() && self.bytes.contains(sign));
        if let (Some((_, shown)), [name], false) = (other, &names[..], self.has_quotes) {
            bail!(
                "line {line}: the header line has one column, `{name}`; add --delimiter {shown} to separate columns there, \
                 or --delimiter , if it is one column"
            );
        }
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(**name)) {
            bail!("line {line}: the header line has two columns of the name `{twice}`");
        }
        let heads = names.iter().map(|name| text(name, Vec::new())).collect();
        let hint = other.map(|(_, shown)| format!("; if they are separated otherwise, add --delimiter {shown}"));
        Ok(Names { heads, hint: hint.unwrap_or_default() })
    }

    fn item(&self, names: &Names) -> anyhow::Result<Bytes> {
        let fields = self.fields()?;
        let (has, columns) = (fields.len(), names.heads.len());
        if has != columns {
            bail!("line {}: {has} fields, but the header line has {columns}{}", self.line, names.hint);
        }
        let mut item = Vec::with_capacity(self.bytes.len() + 16 * columns);
        write_head(5, columns as u64, &mut item);
        for (name, field) in names.heads.iter().zip(fields) {
            item.extend_from_slice(name);
            item = text(field, item);
        }
        Ok(item.into())
    }
}

/// Appends a text as CBOR.
fn text(text: &str, mut out: Vec<u8>) -> Vec<u8> {
    write_head(3, text.len() as u64, &mut out);
    out.extend_from_slice(text.as_bytes());
    out
}
