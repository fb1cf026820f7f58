//! Reading items from arguments, files and standard input. A thread of its own reads, a little ahead of what is fed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use ciborium::Value;
use clap::ValueEnum;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use tokio::sync::mpsc;

use super::exit::NotFound;
use crate::frame::format::{json_item, to_cbor};

/// Items that may be read ahead.
const AHEAD: usize = 256;
/// How much of a file is read at once.
const BUFFER: usize = 256 << 10;

/// How items stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A JSON document a line
    Ndjson,
    /// One JSON document; the elements of an array are items
    Json,
    /// Each line a text
    Lines,
    /// With a header line; each row a record of texts
    Csv,
    /// A CBOR sequence
    Cbor,
}

/// Where items come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The command line.
    Arguments(Vec<String>),
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// Items as they are read.
pub struct Input {
    items: mpsc::Receiver<anyhow::Result<Bytes>>,
}

impl Input {
    /// The next item; `None` after the last.
    pub async fn next(&mut self) -> Option<anyhow::Result<Bytes>> {
        self.items.recv().await
    }
}

/// Opens a source. Without a format, the file's extension or its first line decides.
///
/// # Errors
///
/// If the file cannot be opened.
pub fn open(source: Source, format: Option<InputFormat>) -> anyhow::Result<Input> {
    let (sender, items) = mpsc::channel(AHEAD);
    let mut sink = Sink(sender);
    match source {
        Source::Arguments(arguments) => {
            std::thread::spawn(move || arguments.iter().try_for_each(|text| sink.item(argument(text))));
        }
        Source::File(path) => {
            let shown = path.display().to_string();
            let file = File::open(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => anyhow::Error::new(NotFound(format!("there is no file `{shown}`"))),
                _ => anyhow!("cannot read `{shown}`: {error}"),
            })?;
            let format = format.or_else(|| from_extension(&path));
            std::thread::spawn(move || read_all(BufReader::with_capacity(BUFFER, file), format, &shown, &mut sink));
        }
        Source::Stdin => {
            std::thread::spawn(move || {
                let stdin = BufReader::with_capacity(BUFFER, io::stdin());
                read_all(stdin, format, "standard input", &mut sink);
            });
        }
    }
    Ok(Input { items })
}

/// Nobody wants more items.
struct Unwanted;

struct Sink(mpsc::Sender<anyhow::Result<Bytes>>);

impl Sink {
    fn item(&mut self, item: Bytes) -> Result<(), Unwanted> {
        self.0.blocking_send(Ok(item)).map_err(|_| Unwanted)
    }
}

fn argument(text: &str) -> Bytes {
    json_item(text.as_bytes()).unwrap_or_else(|_| to_cbor(&Value::from(text)))
}

fn from_extension(path: &Path) -> Option<InputFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "ndjson" | "jsonl" => Some(InputFormat::Ndjson),
        "json" => Some(InputFormat::Json),
        "csv" => Some(InputFormat::Csv),
        "cbor" => Some(InputFormat::Cbor),
        "txt" | "log" | "md" => Some(InputFormat::Lines),
        _ => None,
    }
}

fn read_all(mut reader: impl BufRead, format: Option<InputFormat>, shown: &str, sink: &mut Sink) {
    let guessed = format.is_none();
    let read = format.map_or_else(|| guess(&mut reader), Ok).and_then(|format| {
        let hint =
            if guessed && format == InputFormat::Ndjson { "; if it is plain text, add --format lines" } else { "" };
        match format {
            InputFormat::Ndjson => ndjson(reader, hint, sink),
            InputFormat::Json => json(reader, sink),
            InputFormat::Lines => lines(reader, sink),
            InputFormat::Csv => csv(reader, sink),
            InputFormat::Cbor => cbor(reader, sink),
        }
    });
    if let Err(error) = read {
        // Whoever fed has stopped, if this cannot be sent.
        let _ = sink.0.blocking_send(Err(error.context(format!("`{shown}`"))));
    }
}

/// Whether the first line is JSON.
fn guess(reader: &mut impl BufRead) -> anyhow::Result<InputFormat> {
    let start = reader.fill_buf()?;
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(first).is_ok();
    Ok(if is_json { InputFormat::Ndjson } else { InputFormat::Lines })
}

/// Calls `each` with every line and its number, without its line break.
fn each_line(
    mut reader: impl BufRead,
    mut each: impl FnMut(&[u8], u64) -> anyhow::Result<Result<(), Unwanted>>,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).with_context(|| format!("line {number}"))? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if each(text.strip_suffix(b"\r").unwrap_or(text), number)?.is_err() {
            break;
        }
    }
    Ok(())
}

fn ndjson(reader: impl BufRead, hint: &str, sink: &mut Sink) -> anyhow::Result<()> {
    each_line(reader, |line, number| {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Ok(()));
        }
        let item =
            json_item(line).map_err(|error| anyhow!("line {number}: not JSON: {}{hint}", without_line(&error)))?;
        Ok(sink.item(item))
    })
}

fn lines(reader: impl BufRead, sink: &mut Sink) -> anyhow::Result<()> {
    each_line(reader, |line, number| {
        let text = std::str::from_utf8(line)
            .map_err(|error| anyhow!("line {number}: not UTF-8 after byte {} of the line", error.valid_up_to()))?;
        Ok(sink.item(to_cbor(&Value::from(text))))
    })
}

/// The reader of a line takes it for a document of its own, with a line 1.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

fn json(mut reader: impl BufRead, sink: &mut Sink) -> anyhow::Result<()> {
    let is_array = loop {
        let start = reader.fill_buf()?;
        let blank = start.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match start.get(blank) {
            Some(byte) => break *byte == b'[',
            None if start.is_empty() => break false,
            None => reader.consume(blank),
        }
    };
    if is_array {
        let mut deserializer = serde_json::Deserializer::from_reader(reader);
        deserializer.deserialize_seq(Elements(sink))?;
        return Ok(deserializer.end()?);
    }
    for value in serde_json::Deserializer::from_reader(reader).into_iter::<Value>() {
        if sink.item(to_cbor(&value?)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Hands on the elements of an array as they are read.
struct Elements<'a>(&'a mut Sink);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Element(self.0))?.is_some() {}
        Ok(())
    }
}

struct Element<'a>(&'a mut Sink);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let value = <Value as serde::Deserialize>::deserialize(deserializer)?;
        self.0.item(to_cbor(&value)).map_err(|_| serde::de::Error::custom("interrupted"))
    }
}

fn csv(reader: impl Read, sink: &mut Sink) -> anyhow::Result<()> {
    let mut reader = csv::Reader::from_reader(reader);
    let headers: Vec<Value> = reader.headers().map_err(csv_error)?.iter().map(Value::from).collect();
    for record in reader.into_records() {
        let record = record.map_err(csv_error)?;
        let fields = headers.iter().cloned().zip(record.iter().map(Value::from));
        if sink.item(to_cbor(&Value::Map(fields.collect()))).is_err() {
            break;
        }
    }
    Ok(())
}

fn csv_error(error: csv::Error) -> anyhow::Error {
    let line = error.position().map_or(1, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            anyhow!("line {line}: {len} fields, but the header line has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => anyhow!("line {line}: not UTF-8"),
        _ => error.into(),
    }
}

fn cbor(mut reader: impl BufRead, sink: &mut Sink) -> anyhow::Result<()> {
    let mut number = 1;
    while !reader.fill_buf()?.is_empty() {
        let value: Value =
            ciborium::from_reader(&mut reader).map_err(|error| anyhow!("item {number}: not CBOR: {error}"))?;
        if sink.item(to_cbor(&value)).is_err() {
            break;
        }
        number += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Option<InputFormat>, text: &[u8]) -> (Vec<Value>, Option<String>) {
        let (sender, mut items) = mpsc::channel(100);
        read_all(text, format, "input", &mut Sink(sender));
        let (mut values, mut error) = (Vec::new(), None);
        while let Some(item) = items.blocking_recv() {
            match item {
                Ok(item) => values.push(ciborium::from_reader(&item[..]).expect("made by us")),
                Err(found) => error = Some(format!("{found:#}")),
            }
        }
        (values, error)
    }

    #[test]
    fn each_format_is_read() {
        let two = vec![Value::from(1), Value::from("a")];
        assert_eq!(read(Some(InputFormat::Ndjson), b"1\n\n\"a\"\n"), (two.clone(), None));
        assert_eq!(read(Some(InputFormat::Json), b" [1, \"a\"]\n"), (two.clone(), None));
        assert_eq!(read(Some(InputFormat::Json), b"1 \"a\""), (two.clone(), None));
        assert_eq!(read(Some(InputFormat::Cbor), b"\x01\x61a"), (two, None));
        assert_eq!(read(Some(InputFormat::Lines), b"1\r\n\na"), (vec!["1".into(), "".into(), "a".into()], None));
        let record = Value::Map(vec![("x".into(), "1".into()), ("y".into(), "b, c".into())]);
        assert_eq!(read(Some(InputFormat::Csv), b"x,y\n1,\"b, c\"\n"), (vec![record], None));
    }

    #[test]
    fn without_a_format_the_first_line_decides() {
        assert_eq!(read(None, b"{\"a\": 1}\n2\n").0.len(), 2);
        assert_eq!(read(None, b"plain\n2\n").0, [Value::from("plain"), Value::from("2")]);
        assert_eq!(read(None, b"").0, []);
    }

    #[test]
    fn what_comes_before_an_error_is_read_and_the_error_says_where() {
        let (values, error) = read(Some(InputFormat::Ndjson), b"1\n2\n{\"a\":\n");
        assert_eq!(values.len(), 2);
        assert_eq!(error.as_deref(), Some("`input`: line 3: not JSON: EOF while parsing a value at column 5"));
        let (values, error) = read(Some(InputFormat::Csv), b"x,y\n1,2\n3\n");
        assert_eq!((values.len(), error.as_deref()), (1, Some("`input`: line 3: 1 fields, but the header line has 2")));
        let (values, error) = read(Some(InputFormat::Lines), b"ok\nb\xff\n");
        assert_eq!((values.len(), error.as_deref()), (1, Some("`input`: line 2: not UTF-8 after byte 1 of the line")));
        assert!(read(Some(InputFormat::Cbor), b"\x01\x82").1.is_some());
    }

    #[test]
    fn a_guess_that_was_wrong_says_how_to_mend_it() {
        let error = read(None, b"42\nplain\n").1.expect("not JSON");
        assert!(error.ends_with("; if it is plain text, add --format lines"), "{error}");
    }
}
