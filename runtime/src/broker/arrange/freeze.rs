//! Lowering the limit of queues that others publish to.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use tokio::time::Instant;

use super::{Info, now};
use crate::broker::{Broker, BrokerError};
use crate::name::ChainName;

/// The key of the time since when a work stream takes nothing, in seconds since the Unix epoch, in its metadata.
pub(super) const KEY: &str = "pcluster.frozen";
/// A stream that takes nothing for longer than this was left so by one who died.
const FROZEN_MAX: Duration = Duration::from_secs(10);
/// How long a stream may take nothing before its limit is left as it is.
const FREEZE: Duration = Duration::from_secs(2);
/// How often to look whether a stream takes messages again.
const LOOK: Duration = Duration::from_millis(50);

impl Info {
    /// The rest of the time that the stream may take nothing.
    pub(super) fn frozen_for(&self) -> Option<Duration> {
        let since: u64 = self.config.metadata.get(KEY)?.parse().ok()?;
        FROZEN_MAX.checked_sub(Duration::from_secs(now().abs_diff(since))).filter(|rest| !rest.is_zero())
    }
}

impl Broker {
    /// Lowers the limit of the queues if none holds more. The server removes at once what is beyond a new limit, so the stream
    /// takes nothing from before the queues are looked at until it has the new limit: whoever publishes meanwhile is told that
    /// the queue is full. Returns whether the limit was lowered.
    pub(super) async fn narrow(&self, wide: Config, limit: u64) -> Result<bool, BrokerError> {
        if self.fullest(&wide.name).await? > limit {
            return Ok(false);
        }
        let narrow = Config { max_messages_per_subject: i64::try_from(limit).unwrap_or(i64::MAX), ..wide.clone() };
        let mut frozen = Config { max_messages: 1, ..wide.clone() };
        frozen.metadata.insert(KEY.to_owned(), now().to_string());
        let started = Instant::now();
        self.update(&frozen).await?;
        let fullest = self.fullest(&wide.name).await;
        let is_safe = fullest.is_ok_and(|fullest| fullest <= limit) && started.elapsed() < FREEZE;
        self.update(if is_safe { &narrow } else { &wide }).await?;
        Ok(is_safe)
    }

    pub(super) async fn await_thaw(&self, chain: &ChainName, stream: &str, rest: Duration) -> Result<(), BrokerError> {
        let until = Instant::now() + rest;
        while Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            let info = self.known_stream(chain, stream).await?;
            if info.is_none_or(|info| info.frozen_for().is_none()) {
                break;
            }
        }
        Ok(())
    }
}
