//! How far the clock of this machine is ahead of the server's.
//!
//! The server tells its time in an answer. Between the request and the answer it was that time, so half of what the answer took is
//! the most that the difference can be wrong.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::broker::Broker;
use crate::broker::streams::ChainStreams;
use crate::lock::lock;
use crate::name::ChainName;
use crate::node::frame::steps::Stamp;

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_mins(1);

/// The clock of this machine beside that of the server that stores a chain's messages.
#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    known: Mutex<Option<Known>>,
    is_asking: AtomicBool,
}

/// The difference, as it was found.
#[derive(Debug, Clone, Copy)]
struct Known {
    at: Instant,
    ahead: i64,
    error: u64,
}

impl ServerClock {
    /// Asks the server for its time.
    pub(crate) async fn ask(&self, broker: &Broker, chain: &ChainName) {
        let (began, own) = (Instant::now(), own_time());
        match ChainStreams::of(broker, chain).time().await {
            Ok(server) => {
                let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                *lock(&self.known) = Some(Known { at: began, ahead: ahead(own, took, server), error: took / 2 + 1 });
            }
            Err(error) => tracing::debug!(%chain, %error, "the server's time is not known"),
        }
    }

    /// Returns the time now. Asks the server in the background if it was not asked for long.
    pub(crate) fn stamp(self: &Arc<Self>, broker: &Broker, chain: &ChainName) -> Stamp {
        let known = *lock(&self.known);
        if known.is_none_or(|known| known.at.elapsed() > ASK_EVERY) && !self.is_asking.swap(true, Relaxed) {
            let (clock, broker, chain) = (Arc::clone(self), broker.clone(), chain.clone());
            tokio::spawn(async move {
                clock.ask(&broker, &chain).await;
                clock.is_asking.store(false, Relaxed);
            });
        }
        let skew = known.map(|known| (known.ahead, known.error));
        Stamp { instant: Instant::now(), millis: own_time(), skew }
    }
}

/// Returns how far a clock is ahead that showed `own` when a request was sent, if the answer took so long and has the server's time.
fn ahead(own: u64, took: u64, server: u64) -> i64 {
    let signed = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
    signed(own.saturating_add(took / 2)).saturating_sub(signed(server))
}

/// Returns the time of this machine in milliseconds since the Unix epoch.
fn own_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_told_its_time_in_the_middle_of_the_request() {
        assert_eq!((ahead(1_000, 10, 1_005), ahead(1_000, 10, 905), ahead(0, 1, u64::MAX)), (0, 100, -i64::MAX));
    }
}
