//! Lowers the limit of queues that other clients publish to.
//!
//! The server removes messages beyond a new limit at once, and accepts any update of a stream, however old its basis. So a client
//! lowers the limit in three steps. It
//!
//! 1. freezes the stream, so that the stream takes nothing: publishers are told that the queue is full. A nonce in the stream's
//!    metadata identifies this freeze;
//! 2. reads, in one answer, that this freeze still stands and what the queues hold. Any other update has removed the nonce; then
//!    the client writes nothing more and decides anew;
//! 3. sends the lower limit, once and within [`FREEZE`] of the first step. Other clients do not update a frozen stream for
//!    [`FROZEN_MAX`].
//!
//! Two cases remain. Another client's update was sent before the freeze and arrives between steps 2 and 3, and more messages than
//! the limit follow it: this takes a round trip. Or the update of step 3 is delayed for longer than other clients wait: this takes
//! some seconds in a stalled network or server.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use tokio::time::Instant;

use super::turn::in_turn;
use super::{Info, Look, known_stream, now};
use crate::broker::stream::Stream;
use crate::broker::{Broker, BrokerError};
use crate::name::ChainName;

/// The metadata key of the time since when a work stream is frozen, in seconds since the Unix epoch.
pub(super) const KEY: &str = "pcluster.frozen";
/// The key of the nonce of the freeze.
pub(super) const NONCE: &str = "pcluster.frozen.nonce";
/// A stream that is frozen for longer than this was left so by a client that died.
const FROZEN_MAX: Duration = Duration::from_secs(10);
/// The longest freeze after which the limit may still be lowered.
const FREEZE: Duration = Duration::from_secs(2);
/// How often to look whether a stream takes messages again.
const LOOK: Duration = Duration::from_millis(50);

/// The result of lowering a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Narrowed {
    /// The limit is lower.
    Done,
    /// A queue holds more, or it took too long: the limit is unchanged.
    Full,
    /// Other clients have changed the state or the stream meanwhile.
    Overtaken,
}

impl Info {
    /// Returns the remaining time of the freeze.
    pub(super) fn frozen_for(&self) -> Option<Duration> {
        let since: u64 = self.config.metadata.get(KEY)?.parse().ok()?;
        FROZEN_MAX.checked_sub(Duration::from_secs(now().abs_diff(since))).filter(|rest| !rest.is_zero())
    }
}

/// Lowers the limit of the queues if none holds more.
pub(super) async fn narrow(look: &Look<'_>, wide: Config, limit: u64) -> Result<Narrowed, BrokerError> {
    let (broker, stream) = (look.broker, &wide.name);
    if Stream::of(broker, stream).fullest(|_| true).await?.is_none_or(|fullest| fullest > limit) {
        return Ok(Narrowed::Full);
    }
    Box::pin(in_turn(look.registry, look.chain, Box::pin(freeze_and_narrow(look, wide, limit)))).await
}

async fn freeze_and_narrow(look: &Look<'_>, wide: Config, limit: u64) -> Result<Narrowed, BrokerError> {
    let (broker, stream) = (look.broker, &wide.name);
    if !look.is_current().await? {
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
