//! The cost of records: the same chains with and without them, in turn.

use crate::chain::Chain;
use crate::relays;
use crate::report::Row;
use crate::series::{Series, Settings, Variant};
use crate::words;

/// The values of `records`, the cheapest first.
const RECORDS: [&str; 3] = ["false", "\"times\"", "\"all\""];

/// Measures an echo stage and the three stages of [`words`], with single-item and packed frames.
pub fn run(settings: Settings) -> Vec<Row> {
    let echo = [relays::single(settings), relays::packed(settings)];
    let three = [words::single(settings), words::packed(settings)];
    let chains = [("an echo stage", &["echo"][..], &echo), ("three stages", &words::STAGES, &three)];
    let mut series = Series::new("records");
    for (stages, tasks, loads) in chains {
        for (load, frames) in loads.iter().zip(["single-item", "256-item"]) {
            let mut without = None;
            for records in RECORDS {
                let top = format!("[results]\nrecords = {records}\n");
                let chain = Chain { top, ..Chain::of(tasks).isolated("worker") };
                let name = format!("{stages}, {frames} frames, records {}", records.trim_matches('"'));
                let variant = Variant::new(name, move || chain.sample(load));
                match without {
                    None => without = Some(series.add(variant)),
                    Some(without) => drop(series.add(variant.to(without))),
                }
            }
        }
    }
    series.run(settings)
}
