//! How the values of single settings are read. An error says what is wrong and what to write instead.

use std::time::Duration;

use bytesize::ByteSize;
use figment::value::{Dict, Value};
use serde::de::{Deserialize, Deserializer, Error};

use crate::machine;
use crate::slots::capacity::{Capacity, Labels};

/// The most bytes of a node's name. The longest host name is shorter. Each result has the name in its headers, and each dead letter
/// has it several times.
const NODE_MAX: usize = 255;
/// The least memory that a node can work with, in bytes: a few items of usual size at once.
pub const MEMORY_MIN: u64 = 64 << 20;

pub fn urls<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let is_web_socket = |url: &str| ["ws://", "wss://"].iter().any(|scheme| url.trim().starts_with(scheme));
    checked(from, |urls| match urls {
        "" => Err("empty; write a URL like \"nats://127.0.0.1:4222\"".to_owned()),
        urls if urls.split(',').any(is_web_socket) => {
            Err("WebSocket is not supported; write the address of a port for clients, nats://HOST:4222".to_owned())
        }
        urls => Ok(urls.to_owned()),
    })
}

pub fn domain<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    checked(from, |domain| match domain {
        "" => Ok(None),
        domain if domain.chars().any(|character| character.is_whitespace() || ".*>".contains(character)) => {
            Err(format!("`{domain}` cannot be a domain: no spaces and none of `.*>`"))
        }
        domain => Ok(Some(domain.to_owned())),
    })
}

pub fn node<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    checked(from, |name| {
        if name.is_empty() || name.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(format!("`{name}` cannot be a name; write one without spaces"));
        }
        if name.len() > NODE_MAX {
            return Err(format!("a name of {} bytes; {NODE_MAX} is the most: each result carries it", name.len()));
        }
        Ok(name.to_owned())
    })
}

pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let wrong = |text: &str| format!("`{text}` is not a duration; write one like \"30s\"");
    checked(from, |text| humantime::parse_duration(text).map_err(|_| wrong(text)))
}

pub fn instances<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let wrong = |text: &str| format!("`{text}` is not a number from 1 to 100000");
    checked(from, |text| text.parse().ok().filter(|number| (1..=100_000).contains(number)).ok_or_else(|| wrong(text)))
}

pub fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let wrong = |text: &str| format!("`{text}` is not a size of at least 64MiB; write one like \"2GiB\"");
    let bytes = |text: &str| text.parse::<ByteSize>().ok().map(|size| size.0).filter(|bytes| *bytes >= MEMORY_MIN);
    checked(from, |text| bytes(text).ok_or_else(|| wrong(text)))
}

/// Reads the slots of a node: a table, or a text as in `gpu=2,cores=0-7`.
pub fn slots<'de, D: Deserializer<'de>>(from: D) -> Result<Capacity, D::Error> {
    let mut slots = Capacity::of_machine(machine::memory());
    for (name, value) in pairs(from)? {
        slots.set(&name, &value).map_err(D::Error::custom)?;
    }
    Ok(slots)
}

/// Reads the labels of a node: a table, or a text as in `zone=eu`.
pub fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
    let mut labels = Labels::of_machine();
    for (name, value) in pairs(from)? {
        labels.set(&name, &value).map_err(D::Error::custom)?;
    }
    Ok(labels)
}

/// Reads names with their values.
fn pairs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, String)>, D::Error> {
    let wrong = || D::Error::custom("must be a table of names and values, or a text as in `gpu=2,cores=0-7`");
    let value = <Value as Deserialize>::deserialize(from)?;
    let mut pairs = Vec::new();
    match value {
        Value::Empty(..) => {}
        Value::String(_, text) => split(&text, &mut pairs),
        Value::Array(_, texts) => {
            for text in texts {
                split(&text.into_string().ok_or_else(wrong)?, &mut pairs);
            }
        }
        Value::Dict(_, table) => flatten("", table, &mut pairs).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    }
    Ok(pairs)
}

/// Splits `a=1,b=2-3,5` into the names and their values, which may have commas.
pub fn split(text: &str, pairs: &mut Vec<(String, String)>) {
    for part in text.split(',').map(str::trim) {
        match (part.split_once('='), pairs.last_mut()) {
            (Some((name, value)), _) => pairs.push((name.trim().to_owned(), value.trim().to_owned())),
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(part);
            }
            (None, None) => pairs.push((part.to_owned(), String::new())),
        }
    }
}

/// Collects the values of a table. A name with dots may be a table in the table.
fn flatten(prefix: &str, table: Dict, pairs: &mut Vec<(String, String)>) -> Option<()> {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        match value {
            Value::Dict(_, inner) => flatten(&format!("{name}."), inner, pairs)?,
            Value::String(_, text) => pairs.push((name, text)),
            Value::Num(_, number) => pairs.push((name, number.to_i128()?.to_string())),
            _ => return None,
        }
    }
    Some(())
}

/// Reads a text, which is empty if the setting has no value, and turns it into a value.
fn checked<'de, D: Deserializer<'de>, T>(
    from: D,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    check(&Option::<String>::deserialize(from)?.unwrap_or_default()).map_err(D::Error::custom)
}
