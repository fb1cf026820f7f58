//! Lowers the limit of queues that other clients publish to.
//!
//! The server removes messages beyond a new limit at once, and accepts any update of a stream, however old its basis. So a client
//! lowers the limit in three steps. It
//!
//! 1. freezes the stream, so that the stream takes nothing: publishers are told that the queue is full. A nonce in the stream's
//!    metadata identifies this freeze. Before that, the stream takes no more atomic batches: a server with one copy of a stream
//!    stores a batch message by message, and a freeze between two of them would cut it in half;
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
use crate::broker::publish::Publisher;
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
    let started = Instant::now();
    if !freeze(broker, &wide, &nonce).await? {
        Stream::update(broker, &wide).await?;
        return Ok(Narrowed::Full);
    }
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

/// Lets a stream take nothing. Returns `false` if it cannot be known in time that the stream has stored all batches.
async fn freeze(broker: &Broker, wide: &Config, nonce: &str) -> Result<bool, BrokerError> {
    let mut closed = Config { allow_atomic_publish: false, ..wide.clone() };
    closed.metadata.insert(KEY.to_owned(), now().to_string());
    closed.metadata.insert(NONCE.to_owned(), nonce.to_owned());
    Stream::update(broker, &closed).await?;
    // The server handles the messages of a stream one after the other. With the answer to this one, which it does not store, no
    // earlier batch is half stored.
    let subject = wide.subjects.first().map(|subject| subject.replace(['*', '>'], "freeze")).unwrap_or_default();
    let known = Publisher::of(broker).known(&subject, nonce);
    if !matches!(tokio::time::timeout(FREEZE, known).await, Ok(Ok(None))) {
        return Ok(false);
    }
    Stream::update(broker, &Config { max_messages: 1, ..closed }).await?;
    Ok(true)
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

#[cfg(test)]
mod tests {
    use support::Server;

    use super::*;
    use crate::broker::arrange::work::make_work;
    use crate::broker::publish::Published;
    use crate::chain::Chain;
    use crate::chain::manifest::Manifest;
    use crate::chain::record::State;
    use crate::frame::Headers;
    use crate::frame::outgoing::Outgoing;
    use crate::name::Revision;
    use crate::subject::{self, Lane};

    /// Messages of a batch. The server takes some milliseconds to store them.
    const BATCH: usize = 600;
    /// Freezes, each a little later in the course of a batch.
    const FREEZES: u64 = 16;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_freeze_cuts_no_batch_in_half() {
        let server = tokio::task::spawn_blocking(|| Server::start("")).await.expect("a server");
        let broker = Broker::connect(&server.url.as_str().into(), "freeze").await.expect("a connection");
        let stage = format!("[[stage]]\nname = \"a\"\nplugin = \"sha256:{}\"\n", "0".repeat(64));
        let manifest = Manifest::from_toml(&format!("name = \"freeze\"\nversion = \"1\"\n{stage}"));
        let checked = Chain::stored(&manifest.expect("the right shape")).expect("a chain");
        let (chain, hop, revision) = (&checked.name, &checked.stages[0].name, Revision::new(1));
        make_work(&broker, &checked, &State::of(revision)).await.expect("a work stream");
        let name = subject::work_stream(chain);
        let stream = Stream::of(&broker, &name);
        let wide = known_stream(&broker, chain, &name).await.expect("an answer").expect("the stream").config;
        let message = |freeze: u64, number: usize| Outgoing {
            subject: Lane::Retry.requeue(chain, revision, hop, freeze, number),
            message_id: format!("{freeze}.{number}"),
            headers: Headers::new(),
            payload: bytes::Bytes::from_static(&[1]),
        };
        let mut refused = 0;
        for number in 0..FREEZES {
            let batch: Vec<Outgoing> = (0..BATCH).map(|each| message(number, each)).collect();
            let (storing, nonce) = (Publisher::of(&broker).publish_batch(&batch), number.to_string());
            let freezing = async {
                tokio::time::sleep(Duration::from_millis(number)).await;
                freeze(&broker, &wide, &nonce).await
            };
            let (published, frozen) = tokio::join!(storing, freezing);
            assert!(frozen.expect("an answer"));
            let stored = stream.state(None).await.expect("an answer").state.messages;
            match published {
                Ok((Published::Stored, last)) => {
                    assert_eq!(stored, BATCH as u64);
                    assert_eq!(stream.last_place().await.expect("an answer"), last, "the place of the last");
                }
                Ok((Published::Duplicate, _)) => panic!("each batch has keys of its own"),
                Err(error) => {
                    assert!(error.is_transient(), "{error}");
                    assert_eq!(stored, 0, "{error}");
                    refused += 1;
                }
            }
            Stream::update(&broker, &wide).await.expect("it thaws");
            stream.purge(None).await.expect("it is emptied");
        }
        assert!(refused > 0, "no batch met a freeze");
        tokio::task::spawn_blocking(move || drop(server)).await.expect("the server is stopped");
    }
}
