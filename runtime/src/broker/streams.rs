//! Makes, empties and removes the streams of a chain and the consumers of its hops, and the streams that all chains share.

use std::collections::BTreeSet;
use std::time::SystemTime;

use async_nats::jetstream::stream::Config;
use serde::Deserialize;
use tokio::time::Instant;

use super::error::code;
use super::stream::Stream;
use super::{Broker, BrokerError, layout, replicas};
use crate::chain::{Chain, Stage};
use crate::name::{ChainName, Revision, StageName, Topic};
use crate::subject::{self, Lane};

/// The streams of a chain. [`super::info`] tells what they hold.
#[derive(Debug, Clone, Copy)]
pub struct ChainStreams<'a> {
    pub(super) broker: &'a Broker,
    pub(super) chain: &'a ChainName,
}

impl<'a> ChainStreams<'a> {
    /// Returns the streams of a chain.
    pub fn of(broker: &'a Broker, chain: &'a ChainName) -> Self {
        Self { broker, chain }
    }

    /// Makes the consumers that all pullers share, where they are missing.
    pub(super) async fn create_pull_consumers(&self) -> Result<(), BrokerError> {
        let (name, chain) = (subject::results_stream(self.chain), self.chain);
        let stream = Stream::of(self.broker, &name);
        let has_topics = stream.state(Some((&subject::results_with_topic(chain), usize::MAX >> 1))).await?.total > 0;
        let filters = if has_topics { subject::results_all(chain) } else { vec![subject::results(chain)] };
        stream.create_missing_consumer(layout::pull(filters)).await?;
        self.create_dead_consumer().await
    }

    /// Lets the consumer that all pullers share take results of topics too. Must be done before the first is stored.
    ///
    /// A consumer of two subjects costs the server half as much again for each message, so that of a chain without topics has one.
    pub async fn open_topics(&self) -> Result<(), BrokerError> {
        #[derive(Deserialize)]
        struct Found {
            config: Filters,
        }
        #[derive(Deserialize)]
        struct Filters {
            #[serde(default)]
            filter_subjects: Vec<String>,
        }
        let (name, filters) = (subject::results_stream(self.chain), subject::results_all(self.chain));
        let stream = Stream::of(self.broker, &name);
        match stream.consumer::<Found>(subject::PULL_CONSUMER).await {
            Ok(found) if filters.iter().all(|filter| found.config.filter_subjects.contains(filter)) => Ok(()),
            Err(error) if !error.is_not_found() => Err(error),
            _ => stream.create_consumer(layout::pull(filters)).await,
        }
    }

    /// Makes the consumer that all pullers of a topic share, where it is missing.
    pub(crate) async fn create_topic_consumer(&self, topic: &Topic) -> Result<(), BrokerError> {
        let name = subject::results_stream(self.chain);
        let stream = Stream::of(self.broker, &name);
        // A user who may take from the consumer need not be allowed to make it.
        match stream.consumer::<serde_json::Value>(&subject::topic_consumer(topic)).await {
            Err(error) if error.is_not_found() => {}
            found => return found.map(drop),
        }
        stream.create_missing_consumer(layout::pull_topic(self.chain, topic)).await
    }

    /// Makes the consumer that all pullers of dead letters share, where it is missing.
    pub async fn create_dead_consumer(&self) -> Result<(), BrokerError> {
        let (stream, pull) = (subject::dead_stream(self.chain), layout::pull(vec![subject::dead_all(self.chain)]));
        Stream::of(self.broker, &stream).create_consumer(pull).await
    }

    /// Returns the first sequence number for a new work stream; `None` if the chain had none before.
    ///
    /// Idempotency keys contain sequence numbers, and the streams of results and dead letters remember those keys. So a work stream
    /// that replaces another starts beyond all numbers that the other used.
    pub(super) async fn first_sequence(&self) -> Result<Option<u64>, BrokerError> {
        for kept in [subject::results_stream(self.chain), subject::dead_stream(self.chain)] {
            if Stream::of(self.broker, &kept).last_place().await? > 0 {
                return Ok(Some(unused_sequence()));
            }
        }
        Ok(None)
    }

    /// Makes the consumers of all hops of a revision, where they are missing.
    pub async fn create_consumers(&self, chain: &Chain, revision: Revision) -> Result<(), BrokerError> {
        for stage in chain.queued_stages() {
            self.create_hop_consumers(chain, stage, revision).await?;
        }
        Ok(())
    }

    /// Makes the consumers of one hop, where they are missing.
    pub async fn create_hop_consumers(
        &self,
        chain: &Chain,
        stage: &Stage,
        revision: Revision,
    ) -> Result<(), BrokerError> {
        let name = subject::work_stream(self.chain);
        let stream = Stream::of(self.broker, &name);
        let lanes = Lane::served(stage.max_in_flight.is_some());
        for &lane in lanes {
            let mut made = stream.create_consumer(layout::hop(chain, stage, revision, lane)).await;
            if made.as_ref().is_err_and(|error| error.code() == Some(code::CONSUMERS_OVERLAP)) {
                // An earlier pcluster made one consumer for each lane. Messages that nodes hold of these are delivered again.
                for other in Lane::ALL.iter().filter(|lane| !lanes.contains(lane)) {
                    stream.delete_consumer(&other.consumer(revision, &stage.name)).await?;
                }
                made = stream.create_consumer(layout::hop(chain, stage, revision, lane)).await;
            }
            if let Err(error) = made {
                if error.code() == Some(code::CONSUMER_CREATE) {
                    // The present consumer is unusable. The next try begins without it.
                    stream.delete_consumer(&lane.consumer(revision, &stage.name)).await?;
                }
                return Err(error.of_chain(self.chain, || format!("the stream `{name}`")));
            }
        }
        Ok(())
    }

    /// Removes the consumers of a revision that are still there.
    pub async fn delete_consumers(&self, chain: &Chain, revision: Revision) -> Result<(), BrokerError> {
        let stream = subject::work_stream(self.chain);
        let hops = chain.queued_stages().flat_map(|stage| Lane::ALL.map(|lane| lane.consumer(revision, &stage.name)));
        for name in hops {
            Stream::of(self.broker, &stream).delete_consumer(&name).await?;
        }
        Ok(())
    }

    /// Removes the unused streams of a chain that was never deployed, and those in `made`.
    ///
    /// It removes nothing after `until`, and nothing if the work stream was used: by then the streams may be another client's.
    pub async fn delete_new(&self, made: &BTreeSet<String>, until: Instant) -> Result<(), BrokerError> {
        let kept = [subject::results_stream(self.chain), subject::dead_stream(self.chain)];
        let mut is_used = false;
        for stream in &kept {
            match Stream::of(self.broker, stream).last_place().await {
                Err(error) if error.is_not_found() => {}
                last => is_used |= last? > 0,
            }
        }
        let work = subject::work_stream(self.chain);
        match Stream::of(self.broker, &work).state(None).await {
            Err(error) if error.is_not_found() => {}
            found => {
                let counts = found?.state;
                // Beside old results, an unused work stream does not begin at 1.
                if counts.messages > 0 || !is_used && counts.last_seq > 0 {
                    return Ok(());
                }
            }
        }
        for stream in [&work].into_iter().chain(&kept) {
            if Instant::now() >= until {
                return Ok(());
            }
            if is_used && !made.contains(stream) {
                continue;
            }
            match Stream::of(self.broker, stream).delete().await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes all queued messages of a revision. Returns their number.
    pub async fn purge_queued(&self, revision: Revision) -> Result<u64, BrokerError> {
        let (stream, mut purged) = (subject::work_stream(self.chain), 0);
        for pattern in subject::queued(self.chain, revision) {
            purged += Stream::of(self.broker, &stream).purge(Some(&pattern)).await?;
        }
        Ok(purged)
    }

    /// Removes all results and dead letters. Returns their number.
    pub async fn purge_kept(&self) -> Result<u64, BrokerError> {
        let name = subject::results_stream(self.chain);
        let stream = Stream::of(self.broker, &name);
        let mut results = 0;
        for pattern in subject::results_all(self.chain) {
            results += stream.purge(Some(&pattern)).await?;
        }
        // The rest are notes of nodes and results that were put back, which are not counted.
        stream.purge(None).await?;
        Ok(results + self.purge_dead(None).await?)
    }

    /// Removes the dead letters of the chain, or of one of its stages. Returns their number.
    pub async fn purge_dead(&self, stage: Option<&StageName>) -> Result<u64, BrokerError> {
        let (name, pattern) = (subject::dead_stream(self.chain), stage.map(|stage| subject::dead(self.chain, stage)));
        let stream = Stream::of(self.broker, &name);
        if stage.is_none() {
            // Removed first, so that they are not counted.
            stream.purge(Some(&subject::dead_item(self.chain))).await?;
        }
        stream.purge(pattern.as_deref()).await
    }
}

/// Makes the streams that all chains share, with at least this many replicas, where they are missing.
pub async fn create_shared(broker: &Broker, replicas: u32) -> Result<(), BrokerError> {
    let mut made = BTreeSet::new();
    for config in layout::shared(replicas) {
        match create_one(broker, &config, replicas).await {
            Ok(true) => drop(made.insert(config.name)),
            Ok(false) => {}
            // Without this stream, only the record of attempts is poorer.
            Err(error) if config.name == subject::HOLDER_STREAM => {
                tracing::warn!(%error, "nobody will know which node an item died with");
            }
            Err(error) => {
                delete_unused(broker, &made).await?;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Returns `true` if the stream was made.
async fn create_one(broker: &Broker, config: &Config, replicas: u32) -> Result<bool, BrokerError> {
    match replicas::raise(broker, &config.name, replicas).await {
        Err(error) if error.is_not_found() => {}
        raised => return raised.map(|()| false),
    }
    match Stream::create(broker, config).await {
        // Another client was faster.
        Err(error) if error.code() == Some(code::STREAM_EXISTS) => {
            replicas::raise(broker, &config.name, replicas).await.map(|()| false)
        }
        created => created,
    }
}

/// Removes those of the streams that never held a message.
pub async fn delete_unused(broker: &Broker, streams: &BTreeSet<String>) -> Result<(), BrokerError> {
    for stream in streams {
        let stream = Stream::of(broker, stream);
        if stream.last_place().await.is_ok_and(|last| last == 0) {
            stream.delete().await?;
        }
    }
    Ok(())
}

/// The setting that limits results.
pub(super) const RESULTS_LIMIT: &str = "`max_bytes` below `[results]`";

/// Adds to a refusal of the server what the manifest may change. `limit` is the setting that asks for less.
pub(super) fn refusal(chain: &ChainName, replicas: u32, limit: &str, error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Server { what, code, description } if code::NO_ROOM.contains(&code) => {
            let description = format!("{description}, or ask for less with {limit}");
            BrokerError::Server { what, code, description }
        }
        BrokerError::Server { code, description, .. } if code::TOO_FEW_SERVERS.contains(&code) => {
            BrokerError::TooFewServers { chain: chain.clone(), replicas, description }
        }
        error => error,
    }
}

/// Returns a sequence number that no stream has reached: the microseconds since the Unix epoch.
///
/// No stream stores a million messages a second.
fn unused_sequence() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use support::Server;

    #[tokio::test]
    async fn a_consumer_of_all_pullers_that_was_narrowed_takes_topics_again() {
        let server = tokio::task::spawn_blocking(|| Server::start("")).await.expect("a server");
        let broker = Broker::connect(&server.url.as_str().into(), "narrowed").await.expect("a connection");
        let chain: ChainName = "narrowed".parse().expect("valid");
        let name = subject::results_stream(&chain);
        let subjects = subject::results_stream_subjects(&chain);
        let config = Config { name: name.clone(), subjects, ..Config::default() };
        Stream::create(&broker, &config).await.expect("a stream");
        let (stream, streams) = (Stream::of(&broker, &name), ChainStreams::of(&broker, &chain));
        let narrow = layout::pull(vec![subject::results(&chain)]);
        for _ in 0..2 {
            // It opens one that is missing, one that is open, and one that a deploy has narrowed.
            for _ in 0..2 {
                streams.open_topics().await.expect("open");
                let found: serde_json::Value = stream.consumer(subject::PULL_CONSUMER).await.expect("a consumer");
                assert_eq!(found["config"]["filter_subjects"], serde_json::json!(subject::results_all(&chain)));
            }
            stream.create_consumer(narrow.clone()).await.expect("a narrow consumer");
        }
    }
}
