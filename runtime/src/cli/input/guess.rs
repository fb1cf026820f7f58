//! Guesses the format of a text from its beginning. The first value or line is enough, and nothing is consumed.

use std::io::{self, Read};

use super::{InputFormat, Sink, Stop};
use crate::frame::disguise::{Disguise, Known};
use crate::frame::json::error::JsonError;
use crate::frame::json::read::document;
use crate::frame::text::Text;

/// Returns what the input really is, if its first bytes show that it is not UTF-8 text. Reads only the bytes that
/// decide this.
pub fn disguise(text: &mut Text<impl Read>) -> io::Result<Option<Disguise>> {
    for length in 1.. {
        let ahead = text.ahead(length)?;
        let start = &ahead[..length.min(ahead.len())];
        match Disguise::of(start) {
            Known::Yes(disguise) => return Ok(Some(disguise)),
            Known::NotYet if start.len() == length => {}
            Known::NotYet | Known::No => return Ok(None),
        }
    }
    Ok(None)
}

/// Guesses the format of the text.
///
/// `None` for JSON documents that may span lines: the text begins with an object or array. If the first line is a JSON string,
/// number, true, false or null, each line is a document.
pub fn format(text: &mut Text<impl Read>, sink: &Sink) -> Result<Option<InputFormat>, Stop> {
    let mut length = 1;
    // What was seen before is not searched again: a line may be very long.
    let (mut blank, mut searched) = (0, 0);
    loop {
        let ahead = text.ahead(length)?;
        let (is_over, seen) = (ahead.len() < length, ahead.len());
        blank += ahead[blank..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let first = &ahead[blank..];
        let end = first[searched..].iter().position(|byte| *byte == b'\n').map(|end| searched + end);
        searched = first.len();
        let line = &first[..end.unwrap_or(first.len())];
        match first.first() {
            Some(b'{' | b'[') => return Ok(None),
            Some(_) if line.len() < first.len() || is_over => {
                return match Disguise::without_mark(ahead) {
                    Some(disguise) => Err(anyhow::anyhow!("{disguise}; {}", super::undo(disguise, None)).into()),
                    None if is_scalar(line) => Ok(Some(InputFormat::Ndjson)),
                    None => Ok(Some(InputFormat::Lines)),
                };
            }
            Some(_) if line.len() > sink.max => {
                let lines = ahead[..blank].split(|byte| *byte == b'\n').count() as u64;
                return Err(sink.too_large(lines).into());
            }
            None if is_over || seen > sink.max => return Ok(Some(InputFormat::Lines)),
            _ => length = seen + 1,
        }
    }
}

/// Returns `true` if a line is a JSON scalar, or is meant to be one: a text in quotes, or a number.
pub fn is_scalar(line: &[u8]) -> bool {
    match document(line, 1) {
        Ok(_) | Err(JsonError::Number { .. }) => true,
        Err(_) => is_quoted(line.trim_ascii()),
    }
}

/// Returns `true` if a line is one text in quotes, even with escapes that JSON does not know.
fn is_quoted(line: &[u8]) -> bool {
    let Some((b'"', rest)) = line.split_first() else { return false };
    let mut is_escaped = false;
    let end = rest.iter().position(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    });
    end.is_some_and(|end| end + 1 == rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_json_or_meant_to_be_is_no_text() {
        for line in ["\"a\"", " 17 ", "-1.5e3", "true", "null", "1e400", r#""C:\new""#, r#""a\"b""#] {
            assert!(is_scalar(line.as_bytes()), "{line}");
        }
        for line in ["", "plain", "007", "2026-01-02 start", "\"yes\" or \"no\"", "\"open", "trueish", "-", "nan"] {
            assert!(!is_scalar(line.as_bytes()), "{line}");
        }
    }
}
