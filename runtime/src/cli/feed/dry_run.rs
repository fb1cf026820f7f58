//! `pcluster feed --dry-run`, which shows what would be fed.

use std::time::Duration;

use ciborium::Value;
use serde::Serialize;

use crate::cli::exit::TimedOut;
use crate::cli::input::{self, Content, Reading, Source};
use crate::cli::output::{Output, count};
use crate::cli::unless_told;
use crate::frame::cbor;
use crate::frame::json::{AsJson, to_json};
use crate::frame::large::MAX_WHOLE;
use crate::frame::outgoing::HEADER_ROOM;

/// The largest item that goes in a message, for a server with the default `max_payload`, in bytes.
const USUAL: u64 = (1 << 20) - HEADER_ROOM as u64;
/// How many characters of the first item are shown.
const SHOWN: usize = 1_000;

/// What was read.
#[derive(Default, Serialize)]
struct Seen {
    format: Option<String>,
    items: u64,
    /// Bytes of the largest item.
    largest: u64,
    /// The first item. `None` if it is in a file of its own.
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
            "the largest item has {}; an item of more than {USUAL} goes beside the queue, unless the manifest or the server's \
             `max_payload` says otherwise",
            count(seen.largest, "byte")
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
        ("largest", (seen.items > 0).then(|| count(seen.largest, "byte"))),
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
    let mut input = input::open(source, reading, usize::try_from(MAX_WHOLE)?)?;
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
        seen.add(item?)?;
    }
}

impl Seen {
    fn add(&mut self, content: Content) -> anyhow::Result<()> {
        self.items += 1;
        match content {
            Content::Item(item) => {
                self.largest = self.largest.max(item.len() as u64);
                if self.first.is_none() {
                    self.first = Some(cbor::value(&item).unwrap_or_else(|| Value::Bytes(item.to_vec())));
                }
            }
            Content::File(file, form) => {
                let size = file.metadata()?.len();
                self.largest = self.largest.max(size + form.head(size).len() as u64);
            }
        }
        Ok(())
    }
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn as_json<S: serde::Serializer>(item: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    item.as_ref().map(AsJson).serialize(serializer)
}
