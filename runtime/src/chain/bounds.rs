//! The bounds of a manifest's durations, sizes and counts, with reasons.
//!
//! They are checked when a manifest is deployed. A manifest that was deployed before a bound existed is served with the nearest
//! value within it.

use std::fmt::Display;
use std::time::Duration;

use super::manifest;
use super::{ChainError, Reader, default};

const DAY: Duration = Duration::from_hours(24);
/// The most servers on which NATS keeps copies of a stream.
const REPLICAS_MAX: u32 = 5;
/// The size of a page of a guest's memory in bytes.
const MEMORY_PAGE: u64 = 64 << 10;

/// The bounds of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<T> {
    pub(super) key: &'static str,
    pub(super) least: T,
    pub(super) greatest: T,
    /// The reason for the lower bound, as the end of a sentence. Empty if it needs none.
    why_least: &'static str,
    /// The reason for the upper bound.
    why_greatest: &'static str,
}

/// `replicas`
pub(super) const REPLICAS: Bounds<u32> =
    Bounds::up_to("replicas", 1, REPLICAS_MAX, "NATS keeps no more copies of a stream");
/// `[queue] limit`
pub(super) const LIMIT: Bounds<u64> =
    Bounds::up_to("limit", 1, 1_000_000_000, "the server keeps an entry for each message in memory");
/// `[queue] ack_wait`
pub(super) const ACK_WAIT: Bounds<Duration> = Bounds {
    key: "ack_wait",
    least: Duration::from_millis(100),
    greatest: DAY,
    why_least: "a node reports progress three times in it, and is taken for dead if a report is late",
    why_greatest: "the items of a dead node wait that long",
};
/// `[queue] duplicate_window`. The lower bound depends on `ack_wait`.
pub(super) const DUPLICATE_WINDOW: Bounds<Duration> = Bounds::up_to(
    "duplicate_window",
    Duration::from_secs(1),
    Duration::from_hours(24 * 30),
    "the server keeps the message ids of that time in memory",
);
/// `[results] max_age`. The lower bound depends on `ack_wait`.
pub(super) const MAX_AGE: Bounds<Duration> = Bounds::up_to(
    "max_age",
    Duration::from_secs(1),
    Duration::from_hours(24 * 36_500),
    "the server counts ages in nanoseconds, up to 292 years",
);
/// `[results] max_bytes`
pub(super) const MAX_BYTES: Bounds<u64> = Bounds {
    key: "max_bytes",
    least: 1_000_000,
    greatest: 1 << 50,
    why_least: "a message of results may be larger than half of that, and is never stored if it does not fit",
    why_greatest: "the server reserves it on its disk",
};
/// `[queue] large`
pub(super) const LARGE: Bounds<u64> = Bounds {
    key: "large",
    least: 1 << 10,
    greatest: 64 << 20,
    why_least: "a reference to a large item takes about 150 bytes, and its records on the server take more",
    why_greatest: "no server takes a larger message",
};
/// `[queue] large_bytes`
pub(super) const LARGE_BYTES: Bounds<u64> = Bounds {
    key: "large_bytes",
    least: 1 << 20,
    greatest: 1 << 50,
    why_least: "feeders and each stage fill a part of it only, so that items can leave the chain",
    why_greatest: "no disk has as much",
};
/// `concurrency`
pub(super) const CONCURRENCY: Bounds<u32> =
    Bounds::up_to("concurrency", 1, 10_000, "each running item has memory of its own on the node");
/// `max_in_flight`
pub(super) const MAX_IN_FLIGHT: Bounds<u32> =
    Bounds::up_to("max_in_flight", 1, 1_000_000, "the server keeps an entry for each delivered message in memory");
/// `timeout`
pub(super) const TIMEOUT: Bounds<Duration> = Bounds {
    key: "timeout",
    least: Duration::from_millis(1),
    greatest: Duration::from_hours(24 * 30),
    why_least: "a node measures it in milliseconds",
    why_greatest: "a task that never ends would hold its slot for as long",
};
/// `memory`
pub(super) const MEMORY: Bounds<u64> = Bounds {
    key: "memory",
    least: MEMORY_PAGE,
    greatest: 4 << 30,
    why_least: "a guest's memory comes in pages of that size",
    why_greatest: "a guest has 32-bit addresses",
};
/// `memory` of a program
pub(super) const PROGRAM_MEMORY: Bounds<u64> = Bounds {
    key: "memory",
    least: 1 << 20,
    greatest: 1 << 60,
    why_least: "no program runs with less",
    why_greatest: "no machine has as much",
};
/// `reuse`
pub(super) const REUSE: Bounds<u32> = Bounds::up_to("reuse", 1, 1_000_000_000, "leave it out for no limit");
/// `retry.attempts`
pub(super) const ATTEMPTS: Bounds<u32> =
    Bounds::up_to("attempts", 1, 10_000, "an item that always fails would run that often");
/// Each wait of `retry.backoff`.
pub(super) const BACKOFF: Bounds<Duration> = Bounds::up_to(
    "backoff",
    Duration::ZERO,
    Duration::from_hours(24 * 30),
    "the item stays in the queue all that time",
);
/// `allow.limits.calls`
pub(super) const CALLS: Bounds<u32> = Bounds {
    key: "allow.limits.calls",
    least: 1,
    greatest: 1_000_000,
    why_least: "leave the grants out for a stage that calls nothing",
    why_greatest: "the node remembers each call until its item is done",
};
/// `allow.limits.sent`
pub(super) const SENT: Bounds<u64> = Bounds {
    key: "allow.limits.sent",
    least: 1 << 10,
    greatest: 1 << 40,
    why_least: "the head of one request may be that large",
    why_greatest: "no item has the time to send as much",
};
/// `allow.limits.received`
pub(super) const RECEIVED: Bounds<u64> = Bounds {
    key: "allow.limits.received",
    least: 1 << 10,
    greatest: 1 << 40,
    why_least: "no useful answer is smaller",
    why_greatest: "no item has the time to receive as much",
};
/// `allow.limits.body`
pub(super) const BODY: Bounds<u64> = Bounds {
    key: "allow.limits.body",
    least: 1 << 10,
    greatest: 256 << 20,
    why_least: "the answer that tells an error is often that large",
    why_greatest: "the node and the task each hold a whole body in memory",
};
/// The most stages of a chain.
pub(super) const STAGES_MAX: usize = 256;
/// The most waits of `retry.backoff`.
const BACKOFFS_MAX: usize = 100;

impl<T: PartialOrd + Copy> Bounds<T> {
    /// Returns bounds of which only the upper one needs a reason.
    const fn up_to(key: &'static str, least: T, greatest: T, why_greatest: &'static str) -> Self {
        Self { key, least, greatest, why_least: "", why_greatest }
    }

    /// Returns the value if it is within the bounds. A deployed value is moved to the nearest bound.
    pub(super) fn check(&self, reader: &Reader, value: T, shown: impl Fn(T) -> String) -> Result<T, ChainError> {
        let (bound, most, why) = if value < self.least {
            (self.least, "least", self.why_least)
        } else if value > self.greatest {
            (self.greatest, "most", self.why_greatest)
        } else {
            return Ok(value);
        };
        if reader.is_deployed {
            return Ok(bound);
        }
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        Err(reader.error(self.key, format!("must be at {most} {}{why}", shown(bound))))
    }
}

impl<T: PartialOrd + Copy + Display> Bounds<T> {
    pub(super) fn count(&self, reader: &Reader, value: Option<T>, default: T) -> Result<T, ChainError> {
        value.map_or(Ok(default), |value| self.check(reader, value, |value| value.to_string()))
    }
}

impl Bounds<Duration> {
    pub(super) fn duration(
        &self,
        reader: &Reader,
        text: Option<&String>,
        default: Duration,
    ) -> Result<Duration, ChainError> {
        let Some(text) = text else { return Ok(default) };
        self.check(reader, reader.duration(self.key, text)?, |value| {
            format!("\"{}\"", humantime::format_duration(value))
        })
    }
}

impl Bounds<u64> {
    pub(super) fn size(&self, reader: &Reader, text: &str) -> Result<u64, ChainError> {
        self.check(reader, reader.size(self.key, text)?, |value| format!("\"{}\"", bytes(value)))
    }
}

/// Returns a size in the largest unit that divides it.
fn bytes(size: u64) -> String {
    let units = [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    if size.is_multiple_of(1_000_000) {
        return format!("{}MB", size / 1_000_000);
    }
    let unit = units.iter().find(|(bits, _)| size >= 1 << bits && size.is_multiple_of(1 << bits));
    unit.map_or_else(|| format!("{size}B"), |(bits, unit)| format!("{}{unit}", size >> bits))
}

/// Reads the waits between attempts.
pub(super) fn backoff(reader: &Reader, raw: &manifest::Retry) -> Result<Vec<Duration>, ChainError> {
    let Some(waits) = &raw.backoff else { return Ok(default::BACKOFF.to_vec()) };
    if waits.len() > BACKOFFS_MAX && !reader.is_deployed {
        let problem = format!("must be at most {BACKOFFS_MAX} waits: the last one holds for all that follow");
        return Err(reader.error(BACKOFF.key, problem));
    }
    waits.iter().map(|wait| BACKOFF.duration(reader, Some(wait), Duration::ZERO)).collect()
}

#[cfg(test)]
mod tests {
    use crate::chain::Chain;
    use crate::chain::manifest::Manifest;

    /// Returns a manifest with this value for the key.
    fn manifest(key: &str, value: &str) -> Result<Manifest, String> {
        let line = |keys: &[&str]| if keys.contains(&key) { format!("{key} = {value}\n") } else { String::new() };
        let stage = match key {
            "attempts" | "backoff" => format!("retry = {{ {key} = {value} }}\n"),
            "reuse" => format!("isolation = \"frame\"\nreuse = {value}\n"),
            _ => line(&["concurrency", "max_in_flight", "timeout", "memory"]),
        };
        let text = format!(
            "name = \"a\"\nversion = \"1\"\n{}[queue]\n{}[results]\n{}[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\n{stage}",
            line(&["replicas"]),
            line(&["limit", "ack_wait", "duplicate_window", "large", "large_bytes"]),
            line(&["max_age", "max_bytes"]),
        );
        Manifest::from_toml(&text).map_err(|error| error.to_string())
    }

    fn check(key: &str, value: &str) -> Result<Chain, String> {
        Chain::new(&manifest(key, value)?).map_err(|error| error.to_string())
    }

    /// Each key with allowed values, and with other values and their errors.
    type Row = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

    const NEVER: &str = "is not a";
    const TABLE: [Row; 15] = [
        ("replicas", &["1", "5"], &[("0", "least 1"), ("6", "most 5"), ("4294967296", "line 3")]),
        (
            "limit",
            &["1", "1_000_000_000"],
            &[("0", "least 1"), ("1_000_000_001", "most 1000000000"), ("9223372036854775807", "most"), ("-1", "line ")],
        ),
        (
            "ack_wait",
            &["\"100ms\"", "\"1day\""],
            &[
                ("\"0s\"", "least \"100ms\""),
                ("\"2ns\"", "least \"100ms\": a node reports"),
                ("\"1ms\"", "least \"100ms\""),
                ("\"99ms 999us 999ns\"", "least \"100ms\""),
                ("\"1day 1ns\"", "most \"1day\""),
                ("\"584years 200days 8h\"", "most \"1day\""),
                ("\"99999999999999999999s\"", NEVER),
                ("\"-1s\"", NEVER),
                ("\"\"", NEVER),
            ],
        ),
        (
            "duplicate_window",
            &["\"30s\"", "\"30days\""],
            &[
                ("\"29s\"", "least \"30s\""),
                ("\"0s\"", "least"),
                ("\"31days\"", "most \"30days\""),
                ("\"300years\"", "most"),
            ],
        ),
        (
            "max_age",
            &["\"30s\"", "\"99years\""],
            &[("\"29s\"", "least"), ("\"101years\"", "most \"99years"), ("\"584years 200days 8h\"", "most \"99years")],
        ),
        (
            "max_bytes",
            &["\"1MB\"", "\"1PiB\""],
            &[
                ("\"0B\"", "least \"1MB\""),
                ("\"1KiB\"", "least \"1MB\": a message of results"),
                ("\"2PiB\"", "most \"1PiB\""),
                ("\"99999999999999999999EiB\"", ""),
                ("\"-5MiB\"", NEVER),
                ("\"NaN\"", NEVER),
                ("\"nanMB\"", NEVER),
                ("\"infMB\"", NEVER),
            ],
        ),
        (
            "large",
            &["\"1KiB\"", "\"64MiB\""],
            &[("\"0B\"", "least \"1KiB\""), ("\"65MiB\"", "most \"64MiB\""), ("\"big\"", NEVER), ("7", "line ")],
        ),
        (
            "large_bytes",
            &["\"1MiB\"", "\"1PiB\""],
            &[("\"1MB\"", "least \"1MiB\""), ("\"2PiB\"", "most \"1PiB\""), ("\"-5MiB\"", NEVER)],
        ),
        ("concurrency", &["1", "10_000"], &[("0", "least 1"), ("10_001", "most 10000"), ("4294967296", "line ")]),
        ("max_in_flight", &["1", "1_000_000"], &[("0", "least 1"), ("1_000_001", "most"), ("4294967296", "line ")]),
        (
            "timeout",
            &["\"1ms\"", "\"30days\""],
            &[
                ("\"0s\"", "least \"1ms\""),
                ("\"999us\"", "least \"1ms\""),
                ("\"293years\"", "most"),
                ("\"soon\"", NEVER),
            ],
        ),
        (
            "memory",
            &["\"64KiB\"", "\"4GiB\""],
            &[("\"1KiB\"", "least \"64KiB\""), ("\"5GiB\"", "most \"4GiB\""), ("\"0B\"", "least"), ("\"lots\"", NEVER)],
        ),
        ("reuse", &["1", "1_000_000_000"], &[("0", "least 1"), ("4_294_967_295", "most"), ("4294967296", "line ")]),
        ("attempts", &["1", "10_000"], &[("0", "least 1"), ("10_001", "most 10000"), ("4294967296", "line ")]),
        (
            "backoff",
            &["[]", "[\"0s\"]", "[\"30days\", \"1s\"]"],
            &[("[\"1s\", \"293years\"]", "most"), ("[\"584years 200days 8h\"]", "most"), ("[\"later\"]", NEVER)],
        ),
    ];

    #[test]
    fn each_duration_size_and_count_has_a_least_and_a_greatest_value() {
        for (key, good, bad) in TABLE {
            for value in good {
                assert!(check(key, value).is_ok(), "{key} = {value}: {:?}", check(key, value));
            }
            for (value, says) in bad {
                let error = check(key, value).expect_err(&format!("{key} = {value}"));
                assert!(error.contains(says), "{key} = {value}: {error}");
                assert!(error.contains(key) || error.starts_with("line "), "{key} = {value}: {error}");
            }
        }
        let long = format!("[{}]", "\"1s\", ".repeat(101));
        assert!(check("backoff", &long).is_err_and(|error| error.contains("at most 100 waits")));
    }

    #[test]
    fn what_was_deployed_before_a_bound_was_drawn_is_served_within_it() {
        for (key, _, bad) in TABLE {
            for (value, says) in bad {
                let Ok(manifest) = manifest(key, value) else { continue };
                let stored = Chain::stored(&manifest);
                let is_unreadable = *says == NEVER || says.is_empty();
                assert!(is_unreadable || stored.is_ok(), "{key} = {value}: {stored:?}");
                if let Ok(chain) = stored {
                    let (age, window) = (chain.retention.max_age, chain.queue.duplicate_window);
                    let fits = |nanos: u128| i64::try_from(nanos).is_ok();
                    assert!(fits(age.as_nanos()) && fits(window.as_nanos()), "{key} = {value}");
                    assert!(window >= super::super::Queue::needs(chain.queue.ack_wait), "{key} = {value}");
                }
            }
        }
    }
}
