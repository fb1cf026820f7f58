//! The figures of a run: its progress and its report.

use std::time::Duration;

/// The progress of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items that were fed.
    pub items: u64,
    /// Results that were seen.
    pub results: u64,
    /// Dead letters that were seen.
    pub failures: u64,
}

/// The way in which a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All items were fed and handled.
    Done,
    /// A signal stopped the feeding. The items fed before were handled.
    Interrupted,
    /// Feeding stopped because many items failed and none gave a result. The items fed before were handled.
    Failing,
    /// The timeout ended the run.
    TimedOut,
}

/// The figures of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The way in which the run ended.
    pub ending: Ending,
    /// Items that the chain has stored.
    pub items: u64,
    /// Messages of these items.
    pub messages: u64,
    /// Bytes of the items, as CBOR.
    pub bytes: u64,
    /// Results of these items.
    pub results: u64,
    /// Dead letters of these items.
    pub failures: u64,
    /// Items without result or dead letter. Tasks have dropped them, or they are still in the chain after a timeout.
    pub unanswered: u64,
    /// The time from the first item until the server had stored all.
    pub feeding: Duration,
    /// The time from the first item until the last result or failure. If there are unanswered items, it ends when the chain was
    /// found empty, which is checked every 50 ms.
    pub elapsed: Duration,
    /// The latency of the results. `None` if there are none.
    pub latency: Option<Latency>,
}

impl Report {
    /// Returns one of the numbers per second over the whole run.
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    pub fn per_second(&self, number: u64) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { number as f64 / self.elapsed.as_secs_f64() }
    }
}

/// The latency of results.
///
/// The latency of a result begins when its item was fed, or with a rate when it was due. It ends when the result was seen in its
/// stream. The unit is a microsecond, and the limit is 71 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// The shortest latency.
    pub min: Duration,
    /// The median.
    pub p50: Duration,
    /// 90 % of the results took at most this long.
    pub p90: Duration,
    /// 99 % of the results took at most this long.
    pub p99: Duration,
    /// The longest latency.
    pub max: Duration,
}

impl Latency {
    /// Returns the figures of latencies in microseconds, and sorts them. `None` if there are none.
    pub(super) fn of(micros: &mut [u32]) -> Option<Self> {
        micros.sort_unstable();
        let at = |position: usize| Some(Duration::from_micros(u64::from(*micros.get(position)?)));
        // The nearest rank: the smallest value that at least this percentage of all values do not exceed.
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
        assert!(report.per_second(report.items).abs() < f64::EPSILON);
        report.elapsed = Duration::from_secs(2);
        let rates = [report.items, report.results, report.bytes];
        assert_eq!(rates.map(|number| format!("{:.1}", report.per_second(number))), ["5.0", "10.0", "250.0"]);
    }
}
