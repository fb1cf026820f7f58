//! Waits for a server that cannot be reached yet, or whose JetStream does not answer yet.

use std::time::Duration;

use tokio::time::Instant;

use super::hint;
use crate::backoff::Backoff;
use crate::broker::{Address, Broker, BrokerError};

/// The wait before the second try. It doubles after each try.
const AGAIN: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// How long to wait for a server that cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// One try, which takes at most five seconds.
    No,
    /// At most this long.
    For(Duration),
    /// Until the server can be reached.
    Forever,
}

/// A wait that has begun. The user is told of it once.
#[derive(Debug)]
pub struct Waiting {
    wait: Wait,
    began: Instant,
    is_told: bool,
}

impl Waiting {
    /// Begins a wait.
    pub fn new(wait: Wait) -> Self {
        Self { wait, began: Instant::now(), is_told: false }
    }

    /// Connects like [`Broker::connect`] as soon as the server can be reached.
    pub async fn connect(&mut self, address: &Address, name: &str) -> Result<Broker, BrokerError> {
        let passes = |error: &BrokerError| matches!(error, BrokerError::Unreachable { .. });
        self.until(passes, async || Broker::connect(address, name).await).await
    }

    /// Asks until the server answers. A cluster that has just started still elects its leaders.
    pub async fn answer<T>(&mut self, ask: impl AsyncFnMut() -> Result<T, BrokerError>) -> Result<T, BrokerError> {
        self.until(BrokerError::is_transient, ask).await
    }

    async fn until<T>(
        &mut self,
        passes: impl Fn(&BrokerError) -> bool,
        mut attempt: impl AsyncFnMut() -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let mut backoff = Backoff::new(AGAIN, AGAIN_MAX);
        loop {
            let pause = backoff.next();
            let error = match attempt().await {
                Err(error) if passes(&error) && self.goes_on(pause) => error,
                ended => return ended,
            };
            if !std::mem::replace(&mut self.is_told, true) {
                tracing::warn!("waiting for NATS: {error}{}", hint::of_broker(&error).unwrap_or_default());
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Returns `true` if another try can begin in time after this pause.
    fn goes_on(&self, pause: Duration) -> bool {
        match self.wait {
            Wait::No => false,
            Wait::For(time) => self.began.elapsed() + pause <= time,
            Wait::Forever => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tries(wait: Wait, until: usize, passes: bool) -> (usize, bool) {
        let mut tries = 0;
        let mut waiting = Waiting::new(wait);
        let answer = waiting.until(
            |_| passes,
            async || {
                tries += 1;
                if tries < until { Err(BrokerError::Timeout("answer".to_owned())) } else { Ok(()) }
            },
        );
        let is_answered = answer.await.is_ok();
        (tries, is_answered)
    }

    #[tokio::test]
    async fn a_wait_ends_with_an_answer_an_error_that_stays_or_its_time() {
        assert_eq!(tries(Wait::No, 3, true).await, (1, false));
        assert_eq!(tries(Wait::For(Duration::ZERO), 3, true).await, (1, false));
        assert_eq!(tries(Wait::Forever, 3, false).await, (1, false));
        assert_eq!(tries(Wait::Forever, 2, true).await, (2, true));
        assert_eq!(tries(Wait::For(Duration::from_hours(1)), 2, true).await, (2, true));
    }
}
