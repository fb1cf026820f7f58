//! Waits between tries: exponential back-off with jitter.

use std::time::Duration;

/// The waits between the tries of one thing. Each is twice as long as the one before, up to a bound.
///
/// A wait is up to a quarter longer than that, at random, so that those who fail together do not all try again together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Creates the waits from the first to the longest.
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// Returns the next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        let random = getrandom::u32().unwrap_or_default() % 256;
        wait + wait / 1024 * random
    }

    /// Changes the longest wait.
    pub(crate) fn bound(&mut self, max: Duration) {
        (self.max, self.next) = (max, self.next.min(max));
    }

    /// Starts again with the first wait.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// Sleeps for the next wait.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_as_long_up_to_the_bound_and_up_to_a_quarter_more() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        for expected in [100, 200, 400, 500, 500] {
            let wait = backoff.next();
            let expected = Duration::from_millis(expected);
            assert!(wait >= expected && wait <= expected * 5 / 4, "{wait:?}");
        }
        backoff.bound(Duration::from_millis(40));
        assert!(backoff.next() <= Duration::from_millis(50));
        backoff.reset();
        assert!(backoff.next() >= Duration::from_millis(100), "the first wait");
    }
}
