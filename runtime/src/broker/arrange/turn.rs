//! One client at a time changes the streams of a chain.
//!
//! Clients must not change one stream at the same time. nats-server (2.15.1) compares the subjects of an update with those that the
//! stream had when the update arrived, not with those that it has when the update is applied. Two updates at once that add the
//! same subject both subscribe to it. Then the stream takes each message twice: a message with an id counts as a duplicate, one
//! without is stored twice, and no atomic batch is ever complete, so that a frame that requeues items is never finished. Only a
//! restart of the server ends that.
//!
//! So a client holds an entry of the registry while it changes a stream. A client that dies keeps others waiting for [`STALE`].

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::broker::bucket::{Before, Bucket, Entry};
use crate::broker::registry::Registry;
use crate::name::ChainName;
use crate::subject;

/// How long an entry stands whose client has died. Longer than an update of a stream may take.
const STALE: Duration = Duration::from_secs(8);
/// How often to look whether the turn is free.
const LOOK: Duration = Duration::from_millis(25);

/// The entry that a client holds while it changes the streams of a chain.
struct Turn<'a> {
    bucket: &'a Bucket,
    key: String,
    /// Tells this client's entry from those of others.
    own: String,
}

/// Runs a change of a chain's streams while no other client changes them.
pub(super) async fn in_turn<T>(
    registry: &Registry,
    chain: &ChainName,
    change: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let (key, own) = (subject::turn_key(chain), ulid::Ulid::generate().to_string());
    let turn = Turn { bucket: registry.bucket(), key, own };
    turn.take().await?;
    let changed = change.await;
    if let Err(error) = turn.give_back().await {
        tracing::debug!(%chain, %error, "others wait for a while before they change the streams");
    }
    changed
}

impl Turn<'_> {
    async fn take(&self) -> Result<(), BrokerError> {
        let mut seen: Option<(u64, Instant)> = None;
        while !self.enter(Before::None).await? {
            let entry = self.bucket.entry(&self.key).await?.filter(|entry| entry.value.is_some());
            match (entry.map(|entry| entry.mark), seen) {
                (Some(mark), Some((same, since))) if mark == same => {
                    if since.elapsed() >= STALE && self.enter(Before::Mark(mark)).await? {
                        return Ok(());
                    }
                }
                (mark, _) => seen = mark.map(|mark| (mark, Instant::now())),
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn enter(&self, before: Before) -> Result<bool, BrokerError> {
        self.bucket.swap(&self.key, before, &self.own, &format!("write the entry `{}`", self.key)).await
    }

    /// Removes the entry, unless another client has taken it over.
    async fn give_back(&self) -> Result<(), BrokerError> {
        if let Some(Entry { mark, value: Some(json) }) = self.bucket.entry(&self.key).await?
            && serde_json::from_slice::<String>(&json).is_ok_and(|owner| owner == self.own)
        {
            self.bucket.remove(&self.key, Some(mark), &format!("remove the entry `{}`", self.key)).await?;
        }
        Ok(())
    }
}
