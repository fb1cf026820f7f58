//! Benchmarks: the cost of a chain beside a relay that is written by hand. Both run on servers with the same settings and in the
//! same minutes.
//!
//! Machines are noisy, so every rate is a ratio to a baseline. Compared runs take turns, round after round, and the median of the
//! rounds counts. `cargo bench` runs all benchmarks, `cargo bench -- echo` those with `echo` in their names, and `--quick` only
//! checks that they run.
//!
//! [`drain`] measures one run, of a [`relay`] or of a [`chain`], on a [`stand`]. [`series`] runs the compared runs in turn, and
//! [`report`] prints the figures. Each other module is one benchmark.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints, and cannot go on without its parts"
)]
#![expect(clippy::cast_precision_loss, reason = "rates need not be exact")]
#![expect(unreachable_pub, reason = "nothing in a benchmark is seen from outside")]

mod authors;
mod beside;
mod calls;
mod chain;
mod drain;
mod echo;
mod engine;
mod growth;
mod languages;
mod large;
mod latency;
mod minute;
mod pipe;
mod programs;
mod promises;
mod records;
mod relay;
mod relays;
mod report;
mod series;
mod spread;
mod stand;
mod start;
mod usage;
mod watch;
mod words;

use std::path::PathBuf;

use clap::Parser;

use relay::Relay;
use report::{Report, Row};
use series::Settings;

/// Measures pcluster beside a relay that is written by hand.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only the benchmarks with one of these in their names
    only: Vec<String>,
    /// How often to run each; the median counts [default: 5, or 1 with `--quick`]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Few items: shows that the benchmarks run, not how fast
    #[arg(long)]
    quick: bool,
    /// Where to write the table as JSON [default: bench.json in cargo's target folder]
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
    /// Be a relay with these settings
    #[arg(long, hide = true, requires = "url")]
    relay: Option<String>,
    /// The server of the relay
    #[arg(long, hide = true)]
    url: Option<String>,
}

type Benchmark = fn(Settings) -> Vec<Row>;

const BENCHMARKS: [(&str, Benchmark); 17] = [
    ("relay", relays::run),
    ("echo", echo::run),
    ("w1", words::run),
    ("latency", latency::run),
    ("growth", growth::run),
    ("engine", engine::run),
    ("promises", promises::run),
    ("spread", spread::run),
    ("start", start::run),
    ("programs", programs::run),
    ("calls", calls::run),
    ("records", records::run),
    ("large", large::run),
    ("languages", languages::run),
    ("minute", minute::run),
    ("pipe", pipe::run),
    ("watch", watch::run),
];

fn main() {
    let arguments = Arguments::parse();
    if let (Some(relay), Some(url)) = (&arguments.relay, &arguments.url) {
        let relay: Relay = serde_json::from_str(relay).unwrap();
        relay.serve(url);
        return;
    }
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 5 }).into();
    let settings = Settings { rounds, quick: arguments.quick };
    let load_before = usage::load();
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|part| name.contains(part));
    let file = arguments.json.unwrap_or_else(|| target().join("bench.json"));
    // Cargo starts this program in the folder of the package.
    let file = support::repository().join(file);
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut report =
        Report { rounds, quick: settings.quick, cores, load_before, load_after: load_before, rows: Vec::new() };
    for (_, benchmark) in BENCHMARKS.iter().filter(|(name, _)| wanted(name)) {
        report.rows.extend(benchmark(settings));
        report.load_after = usage::load();
        // All benchmarks take long: write the figures so far, in case a later one fails.
        std::fs::write(&file, serde_json::to_string_pretty(&report).unwrap()).unwrap();
    }
    print!("{}", report.table());
    println!("written to {}", file.display());
}

/// Returns cargo's target folder.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}
