//! The figures of a run: its progress and its report.

use std::time::Duration;

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items that were handed in.
    pub items: u64,
    /// Results that were seen.
    pub results: u64,
    /// Items that were seen to fail.
    pub failures: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything was fed and handled.
    Done,
    /// It was told to stop; what it had fed until then was handled.
    Interrupted,
    /// So many items failed before any gave a result that no more was fed; what was fed until then was handled.
    Failing,
    /// The time was over.
    TimedOut,
}

/// What a run has measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// Items that the chain has taken.
    pub items: u64,
    /// Messages that they were fed in.
    pub messages: u64,
    /// Bytes of the items, as CBOR.
    pub bytes: u64,
    /// Results that were seen of them.
    pub results: u64,
    /// Dead letters that were seen of them.
    pub failures: u64,
    /// Items that neither was seen of: tasks have dropped them, or they are still in the chain if the time was over.
    pub unanswered: u64,
    /// From the first item until the server had the last.
    pub feeding: Duration,
    /// From the first item until the last result or failure was seen; if there are unanswered items, until the chain was found
    /// empty, which is looked for every 50 ms.
    pub elapsed: Duration,
    /// Of the results; `None` if there are none.
    pub latency: Option<Latency>,
}

impl Report {
    /// Items a second, over the whole run.
    pub fn items_per_second(&self) -> f64 {
        self.per_second(self.items)
    }

    /// Results a second, over the whole run.
    pub fn results_per_second(&self) -> f64 {
        self.per_second(self.results)
    }

    /// Bytes of fed items a second, over the whole run.
    pub fn bytes_per_second(&self) -> f64 {
        self.per_second(self.bytes)
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn per_second(&self, number: u64) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { number as f64 / self.elapsed.as_secs_f64() }
    }
}

/// How long results took: from when their items were handed in, or with a rate were due, until they were seen in the stream of
/// results. In steps of a microsecond, up to 71 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// The shortest.
    pub min: Duration,
    /// Half of the results took no longer.
    pub p50: Duration,
    /// 90 % of the results took no longer.
    pub p90: Duration,
    /// 99 % of the results took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    /// Of these microseconds, which are sorted by the way.
    pub(super) fn of(micros: &mut [u32]) -> Option<Self> {
        micros.sort_unstable();
        let at = |position: usize| Some(Duration::from_micros(u64::from(*micros.get(position)?)));
        // The nearest rank: the least value that so many percent of all are no greater than.
        let rank = |percent: usize| at((micros.len() * percent).div_ceil(100).checked_sub(1)?);
        Some(Self { min: at(0)?, p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, max: rank(100)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(mut micros: Vec<u32>) -> Option<[u128; 5]> {
        let latency = Latency::of(&mut micros)?;
        let Latency { min, p50, p90, p99, max } = latency;
        Some([min, p50, p90, p99, max].map(|duration| duration.as_micros()))
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        assert_eq!(latency((1..=1_000).rev().collect()), Some([1, 500, 900, 990, 1_000]));
        assert_eq!(latency(vec![30, 10, 20]), Some([10, 20, 30, 30, 30]));
        assert_eq!(latency(vec![7]), Some([7; 5]));
        assert_eq!(latency(vec![]), None);
    }

    #[test]
    fn a_run_without_any_time_has_no_rate() {
        let mut report = Report {
            ending: Ending::Done,
            items: 10,
            messages: 1,
            bytes: 500,
            results: 20,
            failures: 0,
            unanswered: 0,
            feeding: Duration::ZERO,
            elapsed: Duration::ZERO,
            latency: None,
        };
        assert!(report.items_per_second().abs() < f64::EPSILON);
        report.elapsed = Duration::from_secs(2);
        let rates = [report.items_per_second(), report.results_per_second(), report.bytes_per_second()];
        assert_eq!(rates.map(|rate| format!("{rate:.1}")), ["5.0", "10.0", "250.0"]);
    }
}
