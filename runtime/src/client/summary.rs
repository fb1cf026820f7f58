//! How long items waited and ran, stage by stage, over many records.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::frame::record::{Record, millis};

/// How long items waited and ran, stage by stage.
///
/// An output of a generator has the steps of its ancestors, so these count once for each output. Values have three digits, so that
/// the summary stays small however many records it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    stages: Vec<StageSummary>,
    records: u64,
}

/// How long the items of one stage waited and ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StageSummary {
    /// The stage.
    pub stage: String,
    /// How many steps there are.
    pub steps: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How long items waited.
    #[serde(rename = "wait_ms")]
    pub wait: Spread,
    /// How long items ran.
    #[serde(rename = "run_ms")]
    pub run: Spread,
}

/// How durations are spread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many there are of each, in microseconds.
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Summary {
    /// Adds the steps of a record.
    pub fn add(&mut self, record: &Record) {
        self.records += 1;
        for step in &record.steps {
            let position = self.stages.iter().position(|stage| stage.stage == step.stage);
            let position = position.unwrap_or_else(|| {
                let (wait, run) = (Spread::default(), Spread::default());
                self.stages.push(StageSummary { stage: step.stage.clone(), steps: 0, failed: 0, wait, run });
                self.stages.len() - 1
            });
            let stage = &mut self.stages[position];
            stage.steps += 1;
            stage.failed += u64::from(step.failure.is_some());
            stage.wait.add(step.wait);
            stage.run.add(step.ran);
        }
    }

    /// Returns how many records were added.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns the stages, in the order in which they were first met.
    pub fn stages(&self) -> &[StageSummary] {
        &self.stages
    }
}

impl Spread {
    fn add(&mut self, time: Duration) {
        *self.counts.entry(rounded(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))).or_default() += 1;
        self.total += 1;
    }

    /// Returns the duration that this many percent of all do not exceed. `None` if there are none.
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        let wanted = (u128::from(self.total) * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0u128;
        let found = self.counts.iter().find(|(_, count)| {
            seen += u128::from(**count);
            seen >= wanted
        });
        found.map(|(micros, _)| Duration::from_micros(*micros))
    }
}

/// Serializes as the usual percentiles, in milliseconds.
impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let percentiles = [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)];
        serializer.collect_map(percentiles.map(|(name, percent)| (name, self.percentile(percent).map(millis))))
    }
}

/// Returns a number with its first three digits.
fn rounded(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 1_000 {
        unit *= 10;
    }
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_values_to_three_digits() {
        let mut spread = Spread::default();
        assert_eq!(spread.percentile(50), None);
        (1..=1_000).for_each(|millis| spread.add(Duration::from_micros(millis * 1_000 + 7)));
        let millis = |percent| spread.percentile(percent).map(|time| time.as_millis());
        assert_eq!([millis(0), millis(50), millis(99), millis(100)], [Some(1), Some(500), Some(990), Some(1_000)]);
        assert!(spread.counts.len() <= 1_000);
        assert_eq!([rounded(999), rounded(1_234), rounded(u64::MAX)], [999, 1_230, 18_400_000_000_000_000_000]);
        let json = serde_json::to_string(&spread).expect("plain");
        assert_eq!(json, r#"{"p50":500.0,"p90":900.0,"p99":990.0,"max":1000.0}"#);
    }
}
