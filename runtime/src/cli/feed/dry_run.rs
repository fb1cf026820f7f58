//! `pcluster feed --dry-run`, which shows what would be fed.

use std::time::Duration;

use bytes::Bytes;
use ciborium::Value;
use serde::Serialize;

use crate::cli::exit::TimedOut;
use crate::cli::input::{self, Reading, Source};
use crate::cli::output::{Output, count};
use crate::cli::unless_told;
use crate::frame::cbor;
use crate::frame::json::{AsJson, to_json};
use crate::frame::outgoing::HEADER_ROOM;

/// The largest message that any server takes, in bytes.
const MAX: usize = 64 << 20;
/// The largest item for a server with the default `max_payload`, in bytes.
const USUAL: usize = (1 << 20) - HEADER_ROOM;
/// How many characters of the first item are shown.
const SHOWN: usize = 1_000;

/// What was read.
#[derive(Default, Serialize)]
struct Seen {
    format: Option<String>,
    items: u64,
    /// Bytes of the largest item.
    largest: usize,
    #[serde(serialize_with = "as_json")]
    first: Option<Value>,
}

/// Reads the whole input and describes it. Gives up when nothing comes for `timeout`.
pub(super) async fn run(
    source: Source,
    reading: Reading,
    timeout: Option<Duration>,
    output: &Output,
) -> anyhow::Result<()> {
    let mut seen = Seen::default();
    if let Err(error) = unless_told(read(source, reading, timeout, &mut seen)).await {
        if seen.items > 0 {
            output.note(&format!("{} could be fed before that", count(seen.items, "item")));
        }
        return Err(error);
    }
    if seen.largest > USUAL {
        output.note(&format!(
            "the largest item has {}; a server refuses more than {USUAL} unless its `max_payload` is raised",
            count(seen.largest as u64, "byte")
        ));
    }
    if output.is_json() {
        return Ok(output.line(&seen)?);
    }
    let first = seen.first.as_ref().map(|item| {
        let json = to_json(item);
        match json.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &json[..end]),
            None => json,
        }
    });
    let lines = [
        ("format", seen.format),
        ("items", Some(seen.items.to_string())),
        ("largest", first.as_ref().map(|_| count(seen.largest as u64, "byte"))),
        ("first", first),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            output.data(&format!("{name:<7}  {value}"))?;
        }
    }
    Ok(())
}

async fn read(source: Source, reading: Reading, timeout: Option<Duration>, seen: &mut Seen) -> anyhow::Result<()> {
    let mut input = input::open(source, reading, MAX)?;
    loop {
        let next = tokio::select! {
            next = input.next() => next,
            () = tokio::time::sleep(timeout.unwrap_or_default()), if timeout.is_some() => {
                let timeout = humantime::format_duration(timeout.unwrap_or_default());
                return Err(TimedOut(format!("nothing came from the input for {timeout}")).into());
            }
        };
        seen.format = input.format().map(input::InputFormat::name);
        let Some(item) = next else { return Ok(()) };
        seen.add(&item?);
    }
}

impl Seen {
    fn add(&mut self, item: &Bytes) {
        self.items += 1;
        self.largest = self.largest.max(item.len());
        if self.first.is_none() {
            self.first = Some(cbor::value(item).unwrap_or_else(|| Value::Bytes(item.to_vec())));
        }
    }
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn as_json<S: serde::Serializer>(item: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    item.as_ref().map(AsJson).serialize(serializer)
}
