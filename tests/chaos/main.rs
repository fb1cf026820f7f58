//! `make chaos`: a chain in a storm for as long as `DURATION` says (`30s`, `10m`), with the events of `SEED`.
//!
//! Without them, the storm is short and random. With `ONLY=kills`, nodes are killed and nothing else happens. With `ITEMS=20000`,
//! it ends after so many items. With `PROGRAMS=1s`, two of the three stages are programs, and one of their processes is killed
//! that often. With `LARGE=1`, its items have up to 4 MiB, most of them are in the chain's object store, and nothing of them may
//! be left at the end. With `SERVERS=3`, three servers keep all streams, and one of them is killed at a time. With `RECORDS=1`, results tell
//! their steps, which must name each stage once. With `TRACE=FILE`, all messages that pass through the server are written to a file. The
//! exit status is 1 if a result was lost or doubled, or something of a program is left.
//!
//! With `WORLD=1`, the chain is a stage that posts each of its items to a server, and nodes are killed until all are done. The exit
//! status is 1 if the server got an item under two keys or never, two items under one, or a result was lost or doubled.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers that prints, and cannot go on without its parts"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use support::storm::{self, Plan, WorldPlan};

fn main() -> ExitCode {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let duration = set("DURATION").map_or(Duration::from_mins(1), |text| humantime::parse_duration(&text).unwrap());
    let seed = set("SEED").map_or_else(random, |text| text.parse().unwrap());
    let items = set("ITEMS").map(|text| text.parse().unwrap());
    if set("WORLD").is_some() {
        return world(seed, items.unwrap_or(20_000));
    }
    println!("SEED={seed} DURATION={}", humantime::format_duration(duration));
    let plan = Plan {
        seed,
        items: items.unwrap_or(u64::MAX),
        duration,
        nodes: 3,
        servers: set("SERVERS").map_or(1, |text| text.parse().unwrap()),
        every: Duration::from_secs(2),
        micros: 500,
        all: set("ONLY").is_none_or(|only| only != "kills"),
        programs: set("PROGRAMS").map(|text| humantime::parse_duration(&text).unwrap()),
        large: set("LARGE").is_some(),
        records: set("RECORDS").is_some(),
        trace: set("TRACE").map(PathBuf::from),
    };
    let report = storm::run(&plan);
    println!("{}", report.story.join("\n"));
    println!("{report}");
    if report.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn world(seed: u64, items: u64) -> ExitCode {
    println!("SEED={seed} WORLD=1 ITEMS={items}");
    let plan = WorldPlan { seed, items, nodes: 3, every: Duration::from_secs(2), concurrency: 32 };
    let report = storm::run_world(&plan);
    println!("{report}");
    if report.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn random() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_secs() ^ u64::from(since.subsec_nanos())
}
