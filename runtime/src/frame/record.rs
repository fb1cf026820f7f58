//! What is known of the way of one item: the steps that it went through, and when.

use std::time::{Duration, SystemTime};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::steps::{Column, Row, Steps};

/// What is known of the way of a result or a dead letter through its chain.
///
/// Times are those of the server. A node corrects its clock by the server's as far as it knows it: see [`Step::skew`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// When the message was fed that the item descends from. `None` if that is unknown.
    pub fed: Option<SystemTime>,
    /// When the result or dead letter was stored. `None` if that is unknown.
    pub done: Option<SystemTime>,
    /// How many queues the item and its ancestors went through.
    pub hops: usize,
    /// The steps, oldest first. A failed attempt is a step too.
    pub steps: Vec<Step>,
    /// How many older steps were left out, because the record of a message is bounded.
    pub left_out: u64,
}

/// One attempt of a stage on an item, or on an ancestor of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The stage.
    pub stage: String,
    /// The version of the chain.
    pub version: String,
    /// The number of the revision.
    pub revision: u64,
    /// The node.
    pub node: String,
    /// The number of the attempt.
    pub attempt: u64,
    /// When the item was queued for the stage. `None` for an inline stage, which has no queue.
    pub queued: Option<SystemTime>,
    /// When the stage began with the item.
    pub started: SystemTime,
    /// How long it ran.
    pub ran: Duration,
    /// How long the item waited: since it was queued, or since the step before an inline stage ended.
    pub wait: Duration,
    /// How far the node's clock was ahead of the server's. The times are corrected by it. `None` if that is unknown.
    pub skew: Option<Skew>,
    /// The bytes of the item. `None` if that is not recorded.
    pub bytes_in: Option<u64>,
    /// The bytes of all of its outputs. `None` if that is not recorded, or if it failed.
    pub bytes_out: Option<u64>,
    /// How long the calls of the task took. `None` if that is not recorded.
    pub calls: Option<Duration>,
    /// The exit status of the program. `None` if the stage runs no program for each item, or a signal ended it.
    pub exit: Option<i32>,
    /// The kind of failure in one word. `None` if the attempt succeeded.
    pub failure: Option<String>,
    /// The last lines that a failed attempt has logged.
    pub lines: Vec<String>,
    /// `true` if the numbers are those of all items of the message: the first start, and means of the others.
    pub is_coarse: bool,
}

/// How far a node's clock was ahead of the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Skew {
    /// By how many milliseconds. Negative if it was behind.
    pub ms: i64,
    /// How wrong that may be, in milliseconds: half of the time that the server took to answer, and one.
    pub error_ms: u64,
}

impl Record {
    /// Reads the record of a letter, which has one item. `None` if `header` is no record.
    pub(crate) fn of_letter(header: &str, hops: usize, stored: &str) -> Option<Self> {
        Some(Self::of(&Steps::from_header(header, 1)?, 0, hops, unix_millis(stored)))
    }

    /// Returns the record of one item of a message that was stored then.
    pub(crate) fn of(steps: &Steps, position: usize, hops: usize, stored: Option<u64>) -> Self {
        let mut all: Vec<Step> = Vec::with_capacity(steps.rows.len());
        for row in &steps.rows {
            all.push(Step::of(row, position, all.last()));
        }
        Self { fed: steps.fed.map(at), done: stored.map(at), hops, steps: all, left_out: steps.dropped }
    }
}

impl Step {
    fn of(row: &Row, position: usize, before: Option<&Self>) -> Self {
        let number = |column: &Column| column.get(position).unwrap_or_default();
        let size = |column: &Option<Column>| column.as_ref().and_then(|column| u64::try_from(number(column)).ok());
        let micros = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        let started = at(u64::try_from(number(&row.started)).unwrap_or(0));
        let queued = row.queued.map(at);
        // Clocks differ by as much as they are corrected.
        let since = queued.or_else(|| before.map(Self::ended)).unwrap_or(started);
        Self {
            stage: row.stage.clone(),
            version: row.version.clone(),
            revision: row.revision,
            node: row.node.clone(),
            attempt: row.attempt,
            queued,
            started,
            ran: micros(number(&row.ran)),
            wait: started.duration_since(since).unwrap_or_default(),
            skew: row.skew.map(|(ms, error_ms)| Skew { ms, error_ms }),
            bytes_in: size(&row.received),
            bytes_out: size(&row.sent),
            calls: row.calls.as_ref().map(|calls| micros(number(calls))),
            exit: row.exit.as_ref().and_then(|exit| i32::try_from(number(exit)).ok()),
            failure: row.failure.clone(),
            lines: row.lines.clone(),
            is_coarse: row.is_coarse,
        }
    }

    /// Returns when the stage was done with the item.
    pub fn ended(&self) -> SystemTime {
        self.started.checked_add(self.ran).unwrap_or(self.started)
    }
}

/// Returns the time of so many milliseconds since the Unix epoch. Times that no clock shows are the epoch.
fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns the milliseconds since the Unix epoch of a time as RFC 3339.
pub(crate) fn unix_millis(time: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Returns a time as RFC 3339 in UTC, with three digits of its second. So texts have the order of their times.
fn rfc_3339(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let second = OffsetDateTime::from_unix_timestamp(i64::try_from(since.as_secs()).ok()?).ok()?;
    let text = second.format(&Rfc3339).ok()?;
    Some(format!("{}.{:03}Z", text.strip_suffix('Z')?, since.subsec_millis()))
}

/// Returns a time in milliseconds, to the microsecond.
#[expect(clippy::cast_precision_loss, reason = "no step takes 285 years")]
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}

/// Serializes as a map without what is not known.
impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        optional(&mut map, "fed", self.fed.and_then(rfc_3339))?;
        optional(&mut map, "done", self.done.and_then(rfc_3339))?;
        map.serialize_entry("hops", &self.hops)?;
        map.serialize_entry("steps", &self.steps)?;
        optional(&mut map, "left_out", (self.left_out > 0).then_some(self.left_out))?;
        map.end()
    }
}

/// Serializes as a map without what is not known.
impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("stage", &self.stage)?;
        map.serialize_entry("version", &self.version)?;
        map.serialize_entry("revision", &self.revision)?;
        map.serialize_entry("node", &self.node)?;
        map.serialize_entry("attempt", &self.attempt)?;
        optional(&mut map, "queued", self.queued.and_then(rfc_3339))?;
        optional(&mut map, "started", rfc_3339(self.started))?;
        optional(&mut map, "ended", rfc_3339(self.ended()))?;
        map.serialize_entry("wait_ms", &millis(self.wait))?;
        map.serialize_entry("run_ms", &millis(self.ran))?;
        optional(&mut map, "skew", self.skew)?;
        optional(&mut map, "bytes_in", self.bytes_in)?;
        optional(&mut map, "bytes_out", self.bytes_out)?;
        optional(&mut map, "calls_ms", self.calls.map(millis))?;
        optional(&mut map, "exit", self.exit)?;
        optional(&mut map, "failure", self.failure.as_ref())?;
        optional(&mut map, "lines", (!self.lines.is_empty()).then_some(&self.lines))?;
        optional(&mut map, "coarse", self.is_coarse.then_some(true))?;
        map.end()
    }
}

fn optional<M: SerializeMap>(map: &mut M, key: &str, value: Option<impl Serialize>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(key, &value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stage: &str, queued: Option<u64>, started: Column) -> Row {
        Row {
            stage: stage.to_owned(),
            node: "a".to_owned(),
            version: "1".to_owned(),
            revision: 1,
            attempt: 1,
            queued,
            skew: None,
            failure: None,
            lines: Vec::new(),
            is_coarse: false,
            started,
            ran: Column::Same(1_500),
            received: None,
            sent: None,
            calls: None,
            exit: None,
        }
    }

    #[test]
    fn an_item_waits_since_it_was_queued_or_since_the_step_before() {
        let rows = vec![
            row("first", Some(1_000), Column::Each(vec![1_004, 1_010])),
            row("inline", None, Column::Each(vec![1_007, 1_012])),
            // The clock of this node is behind.
            row("last", Some(2_000), Column::Same(1_999)),
        ];
        let steps = Steps { fed: Some(900), rows, ..Steps::default() };
        let record = Record::of(&steps, 1, 2, Some(3_000));
        let waits: Vec<f64> = record.steps.iter().map(|step| millis(step.wait)).collect();
        assert_eq!(waits, [10.0, 0.5, 0.0]);
        let json = serde_json::to_string(&record).expect("plain");
        let head = r#"{"fed":"1970-01-01T00:00:00.900Z","done":"1970-01-01T00:00:03.000Z","hops":2,"steps":[{"stage":"first","version":"1","revision":1,"node":"a","attempt":1,"queued":"1970-01-01T00:00:01.000Z","started":"1970-01-01T00:00:01.010Z","ended":"1970-01-01T00:00:01.011Z","wait_ms":10.0,"run_ms":1.5}"#;
        assert!(json.starts_with(head), "{json}");
    }
}
