//! Lowering the limit of queues that others publish to.
//!
//! The server removes at once what is beyond a new limit, and takes any update of a stream, whatever it was made of. So whoever
//! lowers the limit
//!
//! 1. freezes the stream, so that it takes nothing: whoever publishes meanwhile is told that the queue is full. A nonce in the
//!    stream's metadata tells this freeze from all others;
//! 2. reads, in one answer, that this very freeze still stands and what the queues hold. Any update of another has taken the
//!    nonce away, and then this one writes nothing more and decides anew;
//! 3. sends the lower limit, once and within [`FREEZE`] of the first step. All others leave a frozen stream alone for
//!    [`FROZEN_MAX`].
//!
//! What remains: an update of another that was on its way since before the freeze and arrives between the server's answer of
//! step 2 and the update of step 3, with more messages than the limit right behind it; or the update of step 3 itself, if it is
//! on its way for longer than others wait. The first takes a round trip, the second some seconds in a network or a server that
//! is held up.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use tokio::time::Instant;

use super::turn::in_turn;
use super::{Info, Look, known_stream, now};
use crate::broker::stream::Stream;
use crate::broker::{Broker, BrokerError};
use crate::name::ChainName;

/// The key of the time since when a work stream takes nothing, in seconds since the Unix epoch, in its metadata.
pub(super) const KEY: &str = "pcluster.frozen";
/// The key of the nonce of the freeze.
pub(super) const NONCE: &str = "pcluster.frozen.nonce";
/// A stream that takes nothing for longer than this was left so by one who died.
const FROZEN_MAX: Duration = Duration::from_secs(10);
/// How long a stream may take nothing before its limit is left as it is.
const FREEZE: Duration = Duration::from_secs(2);
/// How often to look whether a stream takes messages again.
const LOOK: Duration = Duration::from_millis(50);

/// What has come of lowering a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Narrowed {
    /// The limit is lower.
    Done,
    /// A queue holds more, or it took too long: the limit is as it was.
    Full,
    /// Others have changed the state or the stream meanwhile.
    Overtaken,
}

impl Info {
    /// The rest of the time that the stream may take nothing.
    pub(super) fn frozen_for(&self) -> Option<Duration> {
        let since: u64 = self.config.metadata.get(KEY)?.parse().ok()?;
        FROZEN_MAX.checked_sub(Duration::from_secs(now().abs_diff(since))).filter(|rest| !rest.is_zero())
    }
}

impl Look<'_> {
    /// Lowers the limit of the queues if none holds more.
    pub(super) async fn narrow(&self, wide: Config, limit: u64) -> Result<Narrowed, BrokerError> {
        let (broker, stream) = (self.broker, &wide.name);
        if Stream::of(broker, stream).fullest(|_| true).await?.is_none_or(|fullest| fullest > limit) {
            return Ok(Narrowed::Full);
        }
        Box::pin(in_turn(self.registry, self.chain, Box::pin(self.freeze_and_narrow(wide, limit)))).await
    }

    async fn freeze_and_narrow(&self, wide: Config, limit: u64) -> Result<Narrowed, BrokerError> {
        let (broker, stream) = (self.broker, &wide.name);
        if !self.is_current().await? {
            return Ok(Narrowed::Overtaken);
        }
        let nonce = ulid::Ulid::generate().to_string();
        let mut frozen = Config { max_messages: 1, ..wide.clone() };
        frozen.metadata.insert(KEY.to_owned(), now().to_string());
        frozen.metadata.insert(NONCE.to_owned(), nonce.clone());
        let started = Instant::now();
        Stream::update(broker, &frozen).await?;
        let Some(fullest) = Stream::of(broker, stream).fullest(|metadata| metadata.get(NONCE) == Some(&nonce)).await?
        else {
            return Ok(Narrowed::Overtaken);
        };
        if fullest > limit || started.elapsed() >= FREEZE {
            Stream::update(broker, &wide).await?;
            return Ok(Narrowed::Full);
        }
        let narrow = Config { max_messages_per_subject: i64::try_from(limit).unwrap_or(i64::MAX), ..wide };
        Stream::update(broker, &narrow).await?;
        Ok(Narrowed::Done)
    }
}

pub(super) async fn await_thaw(
    broker: &Broker,
    chain: &ChainName,
    stream: &str,
    rest: Duration,
) -> Result<(), BrokerError> {
    let until = Instant::now() + rest;
    while Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        let info = known_stream(broker, chain, stream).await?;
        if info.is_none_or(|info| info.frozen_for().is_none()) {
            break;
        }
    }
    Ok(())
}
