//! Benchmarks: what a chain costs beside a relay that is written by hand, on the same server and in the same minutes.
//!
//! Machines are noisy, so every rate is a ratio to the relay, each pair is run several times in turn, and the median counts.
//! `cargo bench` runs all; `cargo bench -- throughput` those whose name has `throughput` in it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints, and cannot go on without its parts"
)]
#![expect(clippy::cast_precision_loss, reason = "rates need not be exact")]

#[expect(dead_code, unused_imports, reason = "the end-to-end tests use the rest")]
#[path = "../e2e/support/mod.rs"]
mod support;

mod engine;
mod relay;
mod start;
mod throughput;

/// A line of the table.
pub struct Row {
    name: &'static str,
    value: String,
    aim: &'static str,
}

impl Row {
    /// A figure and what is aimed at.
    #[must_use]
    pub fn new(name: &'static str, value: String, aim: &'static str) -> Self {
        Self { name, value, aim }
    }
}

type Benchmark = fn() -> Vec<Row>;

const BENCHMARKS: [(&str, Benchmark); 3] =
    [("engine", engine::run), ("start", start::run), ("throughput", throughput::run)];

fn main() {
    // Cargo adds flags of its own, as `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut rows = Vec::new();
    for (name, benchmark) in BENCHMARKS {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            println!("running {name}");
            rows.extend(benchmark());
        }
    }
    println!("\n{:<58} {:>34}  aim", "what", "measured");
    for row in rows {
        println!("{:<58} {:>34}  {}", row.name, row.value, row.aim);
    }
}

/// The median of some figures.
#[must_use]
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The median with the least and the greatest, as text.
#[must_use]
pub fn spread(figures: &[f64], unit: &str) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = figures.iter().copied().fold(0.0, f64::max);
    let digits = if greatest < 10.0 { 2 } else { 0 };
    format!("{:.digits$}{unit} ({least:.digits$} to {greatest:.digits$})", median(figures.to_vec()))
}
