//! Waiting for a server that is not there yet, or whose JetStream is not.

use std::time::Duration;

use tokio::time::Instant;

use super::hint;
use crate::broker::{Address, Broker, BrokerError};

/// How long to wait before trying again to connect; doubled each time.
const AGAIN: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// How long to wait for a server that cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// One try, which takes at most five seconds.
    No,
    /// This long.
    For(Duration),
    /// Until it is there.
    Forever,
}

/// A wait that has begun. It is told once.
#[derive(Debug)]
pub struct Waiting {
    wait: Wait,
    began: Instant,
    is_told: bool,
}

impl Waiting {
    /// Begins to wait.
    #[must_use]
    pub fn new(wait: Wait) -> Self {
        Self { wait, began: Instant::now(), is_told: false }
    }

    /// Connects as [`Broker::connect`] does, as soon as the server can be reached.
    ///
    /// # Errors
    ///
    /// If no server can be reached in time, or one is there and cannot be used.
    pub async fn connect(&mut self, address: &Address, name: &str) -> Result<Broker, BrokerError> {
        let passes = |error: &BrokerError| matches!(error, BrokerError::Unreachable { .. });
        self.until(passes, async || Broker::connect(address, name).await).await
    }

    /// Asks until the server answers, also one that has just started and elects who leads.
    ///
    /// # Errors
    ///
    /// If it does not answer in time, or refuses.
    pub async fn answer<T>(&mut self, ask: impl AsyncFnMut() -> Result<T, BrokerError>) -> Result<T, BrokerError> {
        self.until(BrokerError::is_transient, ask).await
    }

    async fn until<T>(
        &mut self,
        passes: impl Fn(&BrokerError) -> bool,
        mut attempt: impl AsyncFnMut() -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let mut pause = AGAIN;
        loop {
            let error = match attempt().await {
                Err(error) if passes(&error) && self.goes_on(pause) => error,
                ended => return ended,
            };
            if !std::mem::replace(&mut self.is_told, true) {
                tracing::warn!("waiting for NATS: {error}{}", hint::of_broker(&error).unwrap_or_default());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN_MAX);
        }
    }

    /// Whether another try begins in time after this pause.
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
