//! Lines of text.

use std::io::Read;

use anyhow::anyhow;
use ciborium::Value;

use super::{Sink, Stop};
use crate::frame::format::to_cbor;
use crate::frame::text::Text;

/// Reads lines, each of which is an item. A line ends with a line feed, or with a carriage return and a line feed,
/// which are not part of the text.
pub fn read(text: &mut Text<impl Read>, sink: &mut Sink) -> Result<(), Stop> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let is_last = loop {
            let rest = text.rest()?;
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (is_over, is_whole) = (rest.is_empty(), rest.is_empty() || end < rest.len());
            line.extend_from_slice(&rest[..end]);
            text.pass(end + 1);
            if line.len() > sink.max {
                return Err(sink.too_large(number).into());
            }
            if is_whole {
                break is_over;
            }
        };
        if is_last && line.is_empty() {
            break;
        }
        let line = if is_last { &line } else { line.strip_suffix(b"\r").unwrap_or(&line) };
        let line = std::str::from_utf8(line)
            .map_err(|error| anyhow!("line {number}: not UTF-8 after byte {} of the line", error.valid_up_to()))?;
        sink.item(to_cbor(&Value::from(line)))?;
        if is_last {
            break;
        }
    }
    Ok(())
}
