//! Reads items from arguments, files and standard input. A thread reads a little ahead of the feeder.
//!
//! Each format has a reader: `json`, `lines`, `csv`, `cbor`, and `whole` for a file that is one item. `guess` finds the format of a file whose name does not
//! tell it, and `argument` reads items on the command line. Input that breaks the rules of its format is an error with
//! its place.

mod ahead;
mod argument;
mod cbor;
mod csv;
mod file;
mod flags;
mod guess;
mod json;
mod lines;
mod whole;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::anyhow;
use bytes::Bytes;
use clap::ValueEnum;
use tokio::sync::mpsc;

use super::exit::{NotFound, Usage};
use crate::frame::disguise::Disguise;
use crate::frame::large::Form;
use crate::frame::text::Text;
use ahead::Ahead;

pub use csv::delimiter;
pub use file::Bytes as FileBytes;
pub use flags::Flags;

/// The hint for input whose format was guessed wrong.
const GUESSED: &str = "; if it is plain text, add --format lines";

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A JSON document on each line
    Ndjson,
    /// JSON documents that may span lines; the elements of an array are items
    Json,
    /// Each line is a text
    Lines,
    /// With a header line; each row is a record of texts
    Csv,
    /// A CBOR sequence
    Cbor,
    /// The whole input is one text, of up to 1 GiB
    Text,
    /// The whole input is one byte string, of up to 1 GiB
    Bytes,
}

impl InputFormat {
    /// Returns the name, as in `--format`.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Returns `true` if a whole input is one item.
    pub fn is_whole(self) -> bool {
        self.whole().is_some()
    }

    /// Returns what a whole input in this format is; `None` if it holds items.
    fn whole(self) -> Option<Form> {
        match self {
            Self::Text => Some(Form::Text),
            Self::Bytes => Some(Form::Bytes),
            _ => None,
        }
    }
}

/// What is read at once.
#[derive(Debug)]
pub enum Content {
    /// An item, in CBOR.
    Item(Bytes),
    /// The content of a byte string or a text, from the start of a file.
    File(File, Form),
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

/// How a source is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// The format. `None` if the file's extension or its first bytes decide.
    pub format: Option<InputFormat>,
    /// The separator of the columns of a CSV file. `None` for a comma, or for a tab if the file's extension is `tsv`.
    pub delimiter: Option<u8>,
    /// `true` if the command has no flag for the format.
    pub is_fixed: bool,
}

impl Reading {
    /// Returns the hint how to feed text that begins like JSON.
    fn as_text(self) -> &'static str {
        if self.is_fixed { "put it into quotes, as in '\"[ready]\"'" } else { "add --format lines" }
    }

    /// Adds what the extension of a file tells.
    fn of(self, path: Option<&Path>) -> Result<Self, Usage> {
        let extension = path.and_then(Path::extension).and_then(|extension| extension.to_str());
        let extension = extension.unwrap_or_default().to_ascii_lowercase();
        let known = match extension.as_str() {
            "ndjson" | "jsonl" => Some(InputFormat::Ndjson),
            "json" => Some(InputFormat::Json),
            "csv" | "tsv" => Some(InputFormat::Csv),
            "cbor" => Some(InputFormat::Cbor),
            "txt" | "log" | "md" => Some(InputFormat::Lines),
            _ => self.delimiter.map(|_| InputFormat::Csv),
        };
        let format = self.format.or(known);
        if let (Some(_), Some(format)) = (self.delimiter, format.filter(|format| *format != InputFormat::Csv)) {
            return Err(Usage(format!("--delimiter goes with csv, and this is {}; add --format csv", format.name())));
        }
        let delimiter = self.delimiter.or((extension == "tsv").then_some(b'\t'));
        Ok(Self { format, delimiter, ..self })
    }
}

/// Items as they are read.
pub struct Input {
    items: mpsc::Receiver<anyhow::Result<Content>>,
    ahead: Arc<Ahead>,
    format: Arc<OnceLock<InputFormat>>,
    file: Option<FileBytes>,
}

impl Input {
    /// Returns how far the file is read; `None` if the source is not a file of known size.
    pub fn file(&self) -> Option<&FileBytes> {
        self.file.as_ref()
    }

    /// Returns the next item; `None` after the last one. A dropped call loses no item.
    pub async fn next(&mut self) -> Option<anyhow::Result<Content>> {
        let item = self.items.recv().await;
        if let Some(Ok(Content::Item(item))) = &item {
            self.ahead.give_back(item.len());
        }
        item
    }

    /// Returns the format; `None` until it is known, and for items on the command line.
    pub fn format(&self) -> Option<InputFormat> {
        self.format.get().copied()
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.ahead.close();
    }
}

/// Checks a source before it is opened. Arguments must be items, and the flags must fit the file's name.
pub fn check(source: &Source, reading: Reading) -> Result<(), Usage> {
    match source {
        Source::Arguments(arguments) => argument::items(arguments, reading).map(drop),
        Source::File(path) => reading.of(Some(path)).map(drop),
        Source::Stdin => reading.of(None).map(drop),
    }
}

/// Opens a source. `max` is the most bytes that an item may have.
pub fn open(source: Source, reading: Reading, max: usize) -> anyhow::Result<Input> {
    let (sender, items) = mpsc::channel(ahead::ITEMS);
    let mut input = Input { items, ahead: Arc::default(), format: Arc::default(), file: None };
    let mut sink = Sink { sender, max, ahead: Arc::clone(&input.ahead), format: Arc::clone(&input.format) };
    match source {
        Source::Arguments(arguments) => {
            // All arguments are checked before any is fed.
            let items = argument::items(&arguments, reading)?;
            std::thread::spawn(move || items.into_iter().try_for_each(|item| sink.item(item)));
        }
        Source::File(path) => {
            let shown = path.display().to_string();
            let reading = reading.of(Some(&path))?;
            let file = File::open(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => anyhow::Error::new(NotFound(format!("there is no file `{shown}`"))),
                _ => anyhow!("cannot read `{shown}`: {error}"),
            })?;
            let whole = reading.format.and_then(InputFormat::whole).map(|_| whole::Original::of(&file)).transpose()?;
            let (file, bytes) = file::Counted::new(file);
            input.file = bytes;
            std::thread::spawn(move || read_all(file, reading, Some(&shown), whole.flatten(), &mut sink));
        }
        Source::Stdin => {
            let reading = reading.of(None)?;
            std::thread::spawn(move || read_all(io::stdin(), reading, None, None, &mut sink));
        }
    }
    Ok(input)
}

/// Why reading ends early.
#[derive(Debug)]
enum Stop {
    /// The feeder takes no more items.
    Unwanted,
    /// The input is wrong.
    Wrong(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Wrong(error.into())
    }
}

/// Passes the items that a reader finds to the feeder.
struct Sink {
    sender: mpsc::Sender<anyhow::Result<Content>>,
    /// The most bytes that an item may have.
    max: usize,
    ahead: Arc<Ahead>,
    format: Arc<OnceLock<InputFormat>>,
}

impl Sink {
    fn item(&mut self, item: Bytes) -> Result<(), Stop> {
        self.ahead.take(item.len());
        self.content(Content::Item(item))
    }

    fn content(&mut self, content: Content) -> Result<(), Stop> {
        self.sender.blocking_send(Ok(content)).map_err(|_| Stop::Unwanted)
    }

    /// Records the format that is read.
    fn is_read_as(&mut self, format: InputFormat) {
        // The format that was recorded first stays.
        let _ = self.format.set(format);
    }

    /// Returns the error for an item in this line that is too large.
    fn too_large(&self, line: u64) -> anyhow::Error {
        anyhow!("line {line}: {}", too_large(self.max))
    }
}

fn too_large(max: usize) -> String {
    format!(
        "an item of more than {max} bytes, which is the most; --format bytes or text feeds a file of up to 1 GiB as one item"
    )
}

/// Reads a source to its end. `file` is the file's name; `None` for standard input. `original` can be handed on as it is.
fn read_all(
    source: impl Read,
    reading: Reading,
    file: Option<&str>,
    original: Option<whole::Original>,
    sink: &mut Sink,
) {
    let shown = file.unwrap_or("standard input");
    let mut text = Text::new(source);
    let read = match reading.format.zip(reading.format.and_then(InputFormat::whole)) {
        Some((format, form)) => {
            sink.is_read_as(format);
            whole::read(&mut text, form, file, original, sink)
        }
        None => read(&mut text, reading, file, sink),
    };
    if let Err(Stop::Wrong(error)) = read {
        // If this cannot be sent, the feeder has stopped.
        let _ = sink.sender.blocking_send(Err(error.context(format!("`{shown}`"))));
    }
}

fn read(text: &mut Text<impl Read>, reading: Reading, file: Option<&str>, sink: &mut Sink) -> Result<(), Stop> {
    if reading.format != Some(InputFormat::Cbor) {
        if let Some(disguise) = guess::disguise(text)? {
            return Err(anyhow!("{disguise}; {}", undo(disguise, file)).into());
        }
        text.pass_mark()?;
    }
    let (format, hint) = match reading.format {
        None => (guess::format(text, sink)?, GUESSED),
        given => (given, ""),
    };
    if let Some(format) = format {
        sink.is_read_as(format);
    }
    match format {
        Some(InputFormat::Ndjson) => json::one_a_line(text, hint, sink),
        Some(InputFormat::Json) => json::documents(text, json::Arrays::Elements, hint, sink),
        Some(InputFormat::Lines) => lines::read(text, sink),
        Some(InputFormat::Csv) => csv::read(text, reading.delimiter, sink),
        Some(InputFormat::Cbor) => cbor::read(text, file, sink),
        // `whole` reads the others.
        Some(InputFormat::Text | InputFormat::Bytes) => Ok(()),
        None => json::documents(text, json::Arrays::Undecided, hint, sink),
    }
}

/// Returns the hint how to convert or unpack such input.
fn undo(disguise: Disguise, file: Option<&str>) -> String {
    let file = file.map(|file| format!(" {file}")).unwrap_or_default();
    match disguise {
        Disguise::Encoding(encoding) => {
            format!("convert it, as in `iconv -f {encoding} -t UTF-8{file} | pcluster feed …`")
        }
        Disguise::Compressed(_, program) => format!("unpack it, as in `{program}{file} | pcluster feed …`"),
    }
}

#[cfg(test)]
mod tests;
