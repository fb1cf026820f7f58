//! Percentiles of what items waited and ran, as `pcluster pull` and `pcluster dead ls` print them.

use std::time::Duration;

use serde_json::json;

use super::output::{Output, table};
use crate::client::{Spread, StageSummary, Summary};

/// The headings of the table.
const HEADINGS: [&str; 9] = ["STAGE", ">STEPS", ">FAILED", ">WAIT p50", ">p90", ">p99", ">RUN p50", ">p90", ">p99"];

/// The note for records that are not there.
const NONE: &str = "none of them tells of its steps; the chain records them with `records = \"times\"` in [results]";

/// Prints a summary as data.
pub(super) fn print(summary: &Summary, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(summary.stages().iter().try_for_each(|stage| output.line(stage))?);
    }
    if summary.records() == 0 {
        output.note(NONE);
        return Ok(());
    }
    Ok(output.table(&HEADINGS, &rows(summary))?)
}

/// Prints the summary of results that were printed: at standard error, or as a last line of JSON.
pub(super) fn print_after(summary: &Summary, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(output.line(&json!({ "summary": summary.stages() }))?);
    }
    if summary.records() == 0 {
        output.note(NONE);
    } else {
        for line in table::lines(&HEADINGS, &rows(summary), None) {
            output.note(&line);
        }
    }
    Ok(())
}

/// Returns the rows of the table.
fn rows(summary: &Summary) -> Vec<Vec<String>> {
    summary.stages().iter().map(row).collect()
}

fn row(stage: &StageSummary) -> Vec<String> {
    let mut row = vec![stage.stage.clone(), stage.steps.to_string(), stage.failed.to_string()];
    let spread =
        |spread: &Spread| [50, 90, 99].map(|percent| spread.percentile(percent).map_or_else(String::new, shown));
    row.extend(spread(&stage.wait));
    row.extend(spread(&stage.run));
    row
}

/// Returns a duration with its unit, to three digits.
pub(super) fn shown(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", time.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..10_000_000 => format!("{:.2} s", time.as_secs_f64()),
        _ => format!("{} s", micros / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_three_digits_and_a_unit() {
        let all = [7, 1_500, 25_300, 2_000_000, 75_000_000].map(|micros| shown(Duration::from_micros(micros)));
        assert_eq!(all, ["7 µs", "1.50 ms", "25 ms", "2.00 s", "75 s"]);
    }
}
