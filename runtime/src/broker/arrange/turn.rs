//! Turns to change the streams of a chain.
//!
//! Clients must not change one stream at the same time. nats-server (2.15.1) compares the subjects of an update with those that the
//! stream had when the update arrived, and not with those that it has when the update is applied. Two updates at once that add the
//! same subject both subscribe to it. Then the stream takes each message twice: one with an id counts as a duplicate, one without is
//! stored twice, and no atomic batch is ever complete, so that a frame that puts items back is never finished. Only a restart of the
//! server ends that.
//!
//! So whoever changes a stream holds an entry of the registry meanwhile. A client that dies keeps it from others for [`STALE`].

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::broker::registry::Registry;
use crate::name::ChainName;
use crate::subject;

/// How long an entry stands that its client has forgotten. Longer than an update of a stream may take.
const STALE: Duration = Duration::from_secs(8);
/// How often to look whether the turn is free.
const LOOK: Duration = Duration::from_millis(25);

impl Registry {
    /// Runs a change of a chain's streams while nobody else changes them.
    ///
    /// # Errors
    ///
    /// If the change fails, or the server does not say whose turn it is.
    pub(super) async fn in_turn<T>(
        &self,
        chain: &ChainName,
        change: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let key = subject::turn_key(chain);
        let own = ulid::Ulid::generate().to_string();
        self.await_turn(&key, &own).await?;
        let changed = change.await;
        if let Err(error) = self.remove_own(&key, &own).await {
            tracing::debug!(%chain, %error, "others wait for a while before they change the streams");
        }
        changed
    }

    async fn await_turn(&self, key: &str, own: &str) -> Result<(), BrokerError> {
        let mut seen: Option<(u64, Instant)> = None;
        while !self.enter(key, None, own).await? {
            match (self.mark(key).await?, seen) {
                (Some(mark), Some((same, since))) if mark == same => {
                    if since.elapsed() >= STALE && self.enter(key, Some(mark), own).await? {
                        return Ok(());
                    }
                }
                (mark, _) => seen = mark.map(|mark| (mark, Instant::now())),
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}
