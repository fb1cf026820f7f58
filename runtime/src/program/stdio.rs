//! What goes into a program's standard input and comes out of its standard output.

use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use bytesize::ByteSize;
use ciborium::Value;

use super::process::here;
use super::spool::{Spool, Written};
use crate::frame::cbor::value_or_reason;
use crate::frame::disguise::Disguise;
use crate::frame::format::{Format, FormatError};
use crate::frame::json;
use crate::frame::large::{Form, MAX_WHOLE};
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::{ItemBytes, ItemFile};
use crate::run::output::MAX_OUTPUTS;

/// The most bytes of the text of an output: JSON may have spaces, and writes a byte as up to six characters.
pub(super) const TEXT_MAX: u64 = 2 * MAX_WHOLE;
/// The bytes by which the encoding of a payload is known.
const START: usize = 64;

/// The most columns of a line that an error shows.
const SHOWN: usize = 60;

/// The output of a program is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The program has written nothing, but its output is one item.
    #[error("the program wrote nothing to its standard output; its stage says `output = \"{0}\"`, which is one output")]
    Nothing(&'static str),
    /// The text is not in the format.
    #[error("standard output: {0}")]
    Format(String),
    /// An output is too large.
    #[error(
        "standard output: {place}an output of {size}; at most {most} are one output, and 1.0 GiB with `output = \"bytes\"` or \
         `\"text\"`"
    )]
    Large {
        /// The line, as in `line 3: `. Empty if all of it is one output.
        place: String,
        /// The bytes of the output.
        size: ByteSize,
        /// The most bytes.
        most: ByteSize,
    },
    /// There are too many outputs.
    #[error("an item gives at most {MAX_OUTPUTS} outputs")]
    Many,
    /// The spool cannot be read.
    #[error("standard output cannot be read back: {0}")]
    Spool(#[from] std::io::Error),
}

/// The standard input of a program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Input {
    /// What comes first.
    pub(crate) head: Bytes,
    /// The file whose content comes behind it.
    pub(crate) file: Option<ItemFile>,
}

/// Returns an item as a program reads it. A file is not read before the program runs, if its content is in the format already.
pub(crate) async fn input(format: Format, item: &ItemBytes) -> Result<Input, Failure> {
    let (format, file) = match (item, format) {
        (ItemBytes::Whole(bytes), format) => return written(format, bytes),
        (ItemBytes::File(file), Format::Json | Format::Ndjson) => (format, file),
        (ItemBytes::File(file), Format::Cbor) => {
            return Ok(Input { head: file.form().head(file.size()).into(), file: Some(file.clone()) });
        }
        (ItemBytes::File(file), format) => match (file.form(), format) {
            (Form::Text, Format::Text) | (Form::Bytes, Format::Bytes) => {
                return Ok(Input { head: Bytes::new(), file: Some(file.clone()) });
            }
            (Form::Cbor, _) => (format, file),
            // Fails, whatever it holds.
            (form, _) => return written(format, &form.head(0).into()),
        },
    };
    written(format, &whole(file, "as JSON, a program").await?)
}

/// Reads a large item. Fails if it is too large for `who`.
pub(crate) async fn whole(file: &ItemFile, who: &str) -> Result<Bytes, Failure> {
    if file.size() > MAX_WHOLE {
        let [size, most] = [file.item_size(), MAX_WHOLE].map(ByteSize);
        let reason = format!(
            "the item has {size}, and {who} takes at most {most}; a stage that says `input = \"bytes\"` or `\"text\"` takes more"
        );
        return Err(Failure::fatal(FailureKind::Memory, reason));
    }
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || file.read()).await.map_err(io::Error::other).flatten();
    read.map_err(|error| here("the file of a large item cannot be read", &error))
}

/// Writes an item as a program reads it. Fails if the format has no form for it.
fn written(format: Format, item: &Bytes) -> Result<Input, Failure> {
    let head = text(format, item).map_err(|reason| Failure::fatal(FailureKind::Error, reason))?;
    Ok(Input { head, file: None })
}

fn text(format: Format, item: &Bytes) -> Result<Bytes, String> {
    let read = || value_or_reason(item);
    match format {
        Format::Cbor => Ok(item.clone()),
        Format::Json => Ok(json::to_json(&read()?).into()),
        Format::Ndjson => Ok((json::to_json(&read()?) + "\n").into()),
        Format::Text => match read()? {
            Value::Text(text) => Ok(text.into()),
            _ => Err("the item is no text, and the stage says `input = \"text\"`; `json` writes any item".to_owned()),
        },
        Format::Bytes => match read()? {
            Value::Bytes(bytes) => Ok(bytes.into()),
            _ => Err("the item is no byte string, and the stage says `input = \"bytes\"`".to_owned()),
        },
    }
}

/// The outputs of a program that has ended well.
pub(crate) struct Outputs {
    format: Option<Format>,
    /// `None` once all of it was taken.
    from: Option<Written>,
    /// The size of an output above which it stays in its file.
    large: u64,
    /// The lines read so far.
    lines: u64,
    /// The outputs so far.
    count: usize,
}

impl Outputs {
    /// Creates the outputs in a text of this format. `None` for a program that gives no outputs.
    pub(crate) fn new(format: Option<Format>, spool: Spool, large: u64) -> io::Result<Self> {
        Ok(Self { format, from: Some(spool.finish()?), large, lines: 0, count: 0 })
    }

    /// Returns the next output. `None` if there is no other.
    pub(crate) fn next(&mut self) -> Result<Option<ItemBytes>, OutputError> {
        let next = match (self.format, self.from.take()) {
            (None, _) | (_, None) => None,
            (Some(Format::Ndjson), Some(Written::Any(from))) => self.line(from)?.map(ItemBytes::Whole),
            // All of the text is one output.
            (Some(format), Some(Written::Any(from))) => Some(all(format, from)?.into()),
            (Some(_), Some(content @ Written::Content { .. })) => Some(content.item(self.large)?),
        };
        self.count += usize::from(next.is_some());
        if self.count > MAX_OUTPUTS { Err(OutputError::Many) } else { Ok(next) }
    }

    /// Returns the next line that is not blank.
    fn line(&mut self, mut from: Box<dyn BufRead + Send>) -> Result<Option<Bytes>, OutputError> {
        loop {
            let mut line = Vec::new();
            (&mut from).take(TEXT_MAX + 1).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(None);
            }
            self.lines += 1;
            let place = || format!("line {}: ", self.lines);
            if line.len() as u64 > TEXT_MAX {
                let rest = from.skip_until(b'\n')? as u64;
                return Err(too_large(place(), line.len() as u64 + rest, TEXT_MAX));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let item = json::read::document(&line, self.lines).map_err(|error| {
                let shown = crate::text::cut(String::from_utf8_lossy(&line).trim(), SHOWN);
                let problem = format!(
                    "line {} is no JSON: {error}; it is `{shown}`. A stage with `output = \"text\"` takes any text, and one with \
                     `\"json\"` JSON over several lines",
                    self.lines
                );
                OutputError::Format(problem)
            })?;
            let item = within(item, place)?;
            self.from = Some(Written::Any(from));
            return Ok(Some(item));
        }
    }
}

impl Written {
    /// Returns the item whose content it is. Reads it if it has no more bytes than `large`.
    fn item(self, large: u64) -> Result<ItemBytes, OutputError> {
        let Self::Content { file, size, digest, form, wrong_after } = self else {
            return Err(OutputError::Format("it is no content of an item".to_owned()));
        };
        if let Some(valid) = wrong_after {
            let mut start = vec![0; START];
            let bytes = file.read_at(&mut start, 0)?;
            let not_utf8 = FormatError::NotUtf8(usize::try_from(valid).unwrap_or(usize::MAX));
            let wrong = Disguise::of_payload(&start[..bytes]).map_or(not_utf8, FormatError::Disguised);
            return Err(OutputError::Format(wrong.to_string()));
        }
        let file = ItemFile::new(file, size, &digest, form);
        if size > large { Ok(ItemBytes::File(file)) } else { Ok(file.read()?.into()) }
    }
}

/// Reads a text that is one output.
fn all(format: Format, from: Box<dyn BufRead + Send>) -> Result<Bytes, OutputError> {
    let (mut all, mut from) = (Vec::new(), from);
    (&mut from).take(TEXT_MAX + 1).read_to_end(&mut all)?;
    if all.len() as u64 > TEXT_MAX {
        let rest = io::copy(&mut from, &mut io::sink())?;
        return Err(too_large(String::new(), all.len() as u64 + rest, TEXT_MAX));
    }
    if all.iter().all(u8::is_ascii_whitespace) && matches!(format, Format::Json | Format::Cbor) {
        return Err(OutputError::Nothing(name(format)));
    }
    let mut items = format.items(&all.into()).map_err(|error| OutputError::Format(error.to_string()))?.into_iter();
    match (items.next(), items.next()) {
        (Some(item), None) => within(item, String::new),
        (None, _) => Err(OutputError::Nothing(name(format))),
        (Some(_), Some(_)) => Err(OutputError::Format("there are several items; all of it is one output".to_owned())),
    }
}

/// Returns an item unless it is too large.
fn within(item: Bytes, place: impl FnOnce() -> String) -> Result<Bytes, OutputError> {
    let size = item.len() as u64;
    if size > MAX_WHOLE { Err(too_large(place(), size, MAX_WHOLE)) } else { Ok(item) }
}

fn too_large(place: String, size: u64, most: u64) -> OutputError {
    OutputError::Large { place, size: ByteSize(size), most: ByteSize(most) }
}

fn name(format: Format) -> &'static str {
    match format {
        Format::Cbor => "cbor",
        Format::Json => "json",
        Format::Ndjson => "ndjson",
        Format::Text => "text",
        Format::Bytes => "bytes",
    }
}

#[cfg(test)]
mod tests;
