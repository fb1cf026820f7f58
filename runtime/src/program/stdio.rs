//! What goes into a program's standard input and comes out of its standard output.

use std::io::{BufRead, Read};

use bytes::Bytes;
use ciborium::Value;

use crate::frame::cbor::value;
use crate::frame::format::Format;
use crate::frame::json;
use crate::run::output::MAX_OUTPUTS;

/// How much longer than an output its text may be: JSON may have spaces, and writes a byte as up to six characters.
pub(super) const TEXT_PER_ITEM: u64 = 8;

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
    #[error("standard output: {place}an output of more than {most} bytes; the server takes no more in one message")]
    Large {
        /// The line, as in `line 3: `. Empty if all of it is one output.
        place: String,
        /// The most bytes.
        most: u64,
    },
    /// There are too many outputs.
    #[error("an item gives at most {MAX_OUTPUTS} outputs")]
    Many,
    /// The spool cannot be read.
    #[error("standard output cannot be read back: {0}")]
    Spool(#[from] std::io::Error),
}

/// Writes an item as a program reads it. Fails if the format has no form for it.
pub(crate) fn input(format: Format, item: &Bytes) -> Result<Bytes, String> {
    let read = || value(item).ok_or_else(|| "the item cannot be read".to_owned());
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
    from: Box<dyn BufRead + Send>,
    /// The most bytes of an output.
    most: u64,
    /// The lines read so far.
    lines: u64,
    /// The outputs so far.
    count: usize,
}

impl Outputs {
    /// Creates the outputs in a text of this format. `None` for a program that gives no outputs.
    pub(crate) fn new(format: Option<Format>, from: Box<dyn BufRead + Send>, most: u64) -> Self {
        Self { format, from, most, lines: 0, count: 0 }
    }

    /// Returns the next output. `None` if there is no other.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, OutputError> {
        let next = match self.format {
            None => None,
            Some(Format::Ndjson) => self.line()?,
            // All of the text is one output.
            Some(_) if self.count > 0 => None,
            Some(format) => Some((self.all(format)?, String::new())),
        };
        let Some((item, place)) = next else { return Ok(None) };
        if item.len() as u64 > self.most {
            return Err(OutputError::Large { place, most: self.most });
        }
        self.count += 1;
        if self.count > MAX_OUTPUTS { Err(OutputError::Many) } else { Ok(Some(item)) }
    }

    fn all(&mut self, format: Format) -> Result<Bytes, OutputError> {
        let longest = self.most.saturating_mul(TEXT_PER_ITEM);
        let mut all = Vec::new();
        (&mut self.from).take(longest + 1).read_to_end(&mut all)?;
        if all.len() as u64 > longest {
            return Err(OutputError::Large { place: String::new(), most: self.most });
        }
        if all.iter().all(u8::is_ascii_whitespace) && matches!(format, Format::Json | Format::Cbor) {
            return Err(OutputError::Nothing(name(format)));
        }
        let mut items = format.items(&all.into()).map_err(|error| OutputError::Format(error.to_string()))?.into_iter();
        match (items.next(), items.next()) {
            (Some(item), None) => Ok(item),
            (None, _) => Err(OutputError::Nothing(name(format))),
            (Some(_), Some(_)) => {
                Err(OutputError::Format("there are several items; all of it is one output".to_owned()))
            }
        }
    }

    /// Returns the next line that is not blank, with its place.
    fn line(&mut self) -> Result<Option<(Bytes, String)>, OutputError> {
        let longest = self.most.saturating_mul(TEXT_PER_ITEM);
        loop {
            let mut line = Vec::new();
            (&mut self.from).take(longest + 1).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(None);
            }
            self.lines += 1;
            let place = || format!("line {}: ", self.lines);
            if line.len() as u64 > longest {
                return Err(OutputError::Large { place: place(), most: self.most });
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                let item = json::read::document(&line, self.lines);
                let item = item.map_err(|error| {
                    let shown = crate::text::cut(String::from_utf8_lossy(&line).trim(), SHOWN);
                    let problem = format!(
                        "line {} is no JSON: {error}; it is `{shown}`. A stage with `output = \"text\"` takes any text, and one with \
                         `\"json\"` JSON over several lines",
                        self.lines
                    );
                    OutputError::Format(problem)
                })?;
                return Ok(Some((item, place())));
            }
        }
    }
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
mod tests {
    use super::*;
    use crate::frame::format::to_cbor;

    fn read(format: Format, text: &[u8]) -> Result<Vec<String>, String> {
        let mut all = Vec::new();
        let mut outputs = Outputs::new(Some(format), Box::new(std::io::Cursor::new(text.to_vec())), 100);
        while let Some(item) = outputs.next().map_err(|error| error.to_string())? {
            all.push(json::to_json(&value(&item).expect("an item")));
        }
        Ok(all)
    }

    #[test]
    fn an_item_is_written_as_the_stage_says() {
        let item = to_cbor(&serde_json::json!({"a": "ü", "b": [1, 2.5]}));
        assert_eq!(input(Format::Json, &item).as_deref(), Ok("{\"a\":\"ü\",\"b\":[1,2.5]}".as_bytes()));
        assert_eq!(input(Format::Ndjson, &item).as_deref(), Ok("{\"a\":\"ü\",\"b\":[1,2.5]}\n".as_bytes()));
        assert_eq!(input(Format::Cbor, &item), Ok(item.clone()));
        assert!(input(Format::Text, &item).is_err() && input(Format::Bytes, &item).is_err());
        assert_eq!(input(Format::Text, &to_cbor(&"a\n")).as_deref(), Ok(&b"a\n"[..]));
        assert_eq!(input(Format::Bytes, &to_cbor(&Value::Bytes(vec![0, 255]))).as_deref(), Ok(&[0, 255][..]));
    }

    #[test]
    fn each_line_is_an_output_and_an_empty_one_is_nothing() {
        for (text, expected) in [
            (&b""[..], vec![]),
            (b"\n \r\n", vec![]),
            (b"1\n2", vec!["1", "2"]),
            (b"{\"a\": 1}\r\n\n[1]\n", vec!["{\"a\":1}", "[1]"]),
        ] {
            assert_eq!(read(Format::Ndjson, text).expect("outputs"), expected);
        }
        for (text, place) in [(&b"1\n2\nx\n"[..], "line 3"), (b"1\n\xff\n", "line 2"), (b"1 2\n", "line 1")] {
            let told = read(Format::Ndjson, text).expect_err("wrong");
            assert!(told.starts_with("standard output: ") && told.contains(place), "{told}");
        }
        let long = format!("1\n\"{}\"\n", "x".repeat(150));
        assert!(
            read(Format::Ndjson, long.as_bytes())
                .expect_err("too large")
                .contains("line 2: an output of more than 100 bytes")
        );
        let longer = format!("1\n\"{}\"\n", "x".repeat(5_000));
        assert!(
            read(Format::Ndjson, longer.as_bytes())
                .expect_err("too large")
                .contains("line 2: an output of more than 100 bytes")
        );
    }

    #[test]
    fn all_of_it_is_one_output_in_the_other_formats() {
        assert_eq!(read(Format::Json, b" {\n\"a\": 1\n}\n"), Ok(vec!["{\"a\":1}".to_owned()]));
        assert_eq!(read(Format::Text, b"a\nb\n"), Ok(vec!["\"a\\nb\\n\"".to_owned()]));
        assert_eq!(read(Format::Text, b""), Ok(vec!["\"\"".to_owned()]));
        assert_eq!(read(Format::Bytes, b"\x00"), Ok(vec!["\"AA==\"".to_owned()]));
        assert_eq!(read(Format::Cbor, b"\x01"), Ok(vec!["1".to_owned()]));
        for format in [Format::Json, Format::Cbor] {
            assert!(read(format, b"").expect_err("nothing").starts_with("the program wrote nothing"));
        }
        assert!(read(Format::Json, b"{").is_err() && read(Format::Text, b"\xff").is_err());
        assert!(read(Format::Text, "x".repeat(150).as_bytes()).is_err());
    }
}
