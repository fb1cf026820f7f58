//! CBOR sequences. Items are passed on byte for byte.

use std::collections::HashSet;
use std::io::Read;

use anyhow::anyhow;
use bytes::Bytes;
use ciborium::Value;

use super::{Sink, Stop, too_large, undo};
use crate::frame::cbor::{self, CborError, Scan};
use crate::frame::disguise::{Disguise, Known};
use crate::frame::format::to_cbor;
use crate::frame::json::to_json;
use crate::frame::text::Text;

/// Reads the items of a sequence. `file` is the file's name; `None` for standard input.
pub fn read(text: &mut Text<impl Read>, file: Option<&str>, sink: &mut Sink) -> Result<(), Stop> {
    let mut start = 0;
    for number in 1.. {
        let mut scan = Scan::default();
        let mut length = 1;
        let end = loop {
            let ahead = text.ahead(length)?;
            if ahead.is_empty() {
                return Ok(());
            }
            let is_over = ahead.len() < length;
            match scan.item_end(ahead) {
                Ok(end) => break end,
                Err(CborError::CutOff(_)) if !is_over && ahead.len() <= sink.max => length = ahead.len() + 1,
                Err(CborError::CutOff(_)) if !is_over => {
                    return Err(anyhow!("item {number}: {}", too_large(sink.max)).into());
                }
                Err(error) => {
                    let disguise = match Disguise::of(ahead) {
                        Known::Yes(disguise) if number == 1 => format!("; {disguise}: {}", undo(disguise, file)),
                        _ => String::new(),
                    };
                    return Err(anyhow!("item {number}: not CBOR: {}{disguise}", error.behind(start)).into());
                }
            }
        };
        let item = Bytes::copy_from_slice(&text.ahead(length)?[..end]);
        if item.len() > sink.max {
            return Err(anyhow!("item {number}: {}", too_large(sink.max)).into());
        }
        if let Some(value) = cbor::value(&item)
            && let Some(key) = key_twice(&value)
        {
            return Err(anyhow!("item {number}: the key {} twice in one map", to_json(key)).into());
        }
        text.pass(end);
        start += end;
        sink.item(item)?;
    }
    Ok(())
}

/// Returns a key that a map in this value has twice.
fn key_twice(value: &Value) -> Option<&Value> {
    match value {
        Value::Array(values) => values.iter().find_map(key_twice),
        Value::Tag(_, value) => key_twice(value),
        Value::Map(entries) => {
            let mut keys = HashSet::with_capacity(entries.len());
            let twice = entries.iter().map(|(key, _)| key).find(|key| !keys.insert(to_cbor(key)));
            twice.or_else(|| entries.iter().find_map(|(key, value)| key_twice(key).or_else(|| key_twice(value))))
        }
        _ => None,
    }
}
