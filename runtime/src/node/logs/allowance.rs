//! The allowance of a stage: how much it may log on one node. Pure: the caller tells the time.

use std::time::{Duration, Instant};

/// The most lines a second of a stage on one node.
pub const LINES: u32 = 1_000;
/// The most bytes a second of a stage on one node, as they are stored.
pub const BYTES: u32 = 1 << 20;
/// After a pause, a burst may be as large as the allowance of this time.
pub const BURST: Duration = Duration::from_secs(2);

/// What a stage may log now.
#[derive(Debug)]
pub struct Allowance {
    lines: Bucket,
    bytes: Bucket,
}

impl Allowance {
    /// Creates a full allowance.
    pub fn new(now: Instant) -> Self {
        Self { lines: Bucket::new(LINES, now), bytes: Bucket::new(BYTES, now) }
    }

    /// Takes one line of the allowance. Returns `false` if none is left.
    pub fn take_line(&mut self, now: Instant) -> bool {
        let open = self.lines.is_open(now) && self.bytes.is_open(now);
        if open {
            self.lines.spend(1);
        }
        open
    }

    /// Takes the bytes of a logged line from the allowance.
    pub fn spend(&mut self, bytes: usize) {
        self.bytes.spend(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

/// A token bucket that the last taker may overdraw. So a line larger than the rest is not held back forever, and later lines pay
/// for it.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second * BURST.as_secs_f64(), filled: now }
    }

    /// Returns `true` if anything is left.
    fn is_open(&mut self, now: Instant) -> bool {
        // Threads may report times out of order.
        let since = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        let most = self.per_second * BURST.as_secs_f64();
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(most);
        self.tokens >= 1.0
    }

    fn spend(&mut self, tokens: u32) {
        self.tokens -= f64::from(tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lines of this length get through, of one each millisecond.
    fn through(allowance: &mut Allowance, start: Instant, millis: u64, length: usize) -> u32 {
        let mut lines = 0;
        for millis in 0..millis {
            // Ten are tried each time.
            for _ in 0..10 {
                if allowance.take_line(start + Duration::from_millis(millis)) {
                    allowance.spend(length);
                    lines += 1;
                }
            }
        }
        lines
    }

    #[test]
    fn a_burst_comes_at_once_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let at_once = (0..10_000).filter(|_| allowance.take_line(start)).count();
        assert_eq!(at_once, 2 * LINES as usize);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..10_000).filter(|_| allowance.take_line(later)).count(), LINES as usize / 2);
        let after_a_pause = later + Duration::from_hours(1);
        assert_eq!((0..10_000).filter(|_| allowance.take_line(after_a_pause)).count(), 2 * LINES as usize);
    }

    #[test]
    fn short_lines_are_bound_by_their_number_and_long_ones_by_their_bytes() {
        let start = Instant::now();
        let seconds = 10;
        let lines = through(&mut Allowance::new(start), start, seconds * 1_000, 10);
        assert!(lines.abs_diff(LINES * 12) <= 10, "{lines}");
        let length = 100 << 10;
        let lines = through(&mut Allowance::new(start), start, seconds * 1_000, length);
        assert!((lines * (100 << 10)).abs_diff(BYTES * 12) <= 2 * (100 << 10), "{lines}");
    }

    #[test]
    fn a_line_larger_than_the_allowance_passes_and_is_paid_for() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!(allowance.take_line(start));
        allowance.spend(5 * BYTES as usize);
        // Two of five seconds were there.
        assert!(!allowance.take_line(start + Duration::from_millis(2_900)));
        assert!(allowance.take_line(start + Duration::from_millis(3_100)));
    }

    #[test]
    fn a_time_that_goes_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut allowance = Allowance::new(start);
        while allowance.take_line(start) {}
        assert!(!allowance.take_line(start.checked_sub(Duration::from_secs(5)).expect("a time")));
        assert!(!allowance.take_line(start), "the past was counted twice");
    }
}
