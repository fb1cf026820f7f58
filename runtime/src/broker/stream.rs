//! What is stored where: makes and changes the streams of a chain and those that all chains share, and the consumers of a
//! chain's hops.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{self, pull};
use async_nats::jetstream::stream::Config;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::code;
use super::{Broker, BrokerError, layout};
use crate::chain::record::State;
use crate::chain::{Chain, Stage};
use crate::name::{ChainName, Revision, StageName};
use crate::subject::{self, Count, Lane};

/// How long to wait before making a consumer that could not be made yet.
const AGAIN: Duration = Duration::from_millis(300);

impl Broker {
    /// Makes the streams that all chains share, where they are missing, and lets at least this many servers keep a copy of
    /// each.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn create_shared_streams(&self, replicas: u32) -> Result<(), BrokerError> {
        for config in layout::shared(replicas) {
            match self.create_shared_stream(&config, replicas).await {
                // Only the record of attempts wants for it.
                Err(error) if config.name == subject::CLAIM_STREAM => {
                    tracing::warn!(%error, "nobody will know which node an item died with");
                }
                created => created?,
            }
        }
        Ok(())
    }

    async fn create_shared_stream(&self, config: &Config, replicas: u32) -> Result<(), BrokerError> {
        match self.raise_replicas(&config.name, replicas).await {
            Err(error) if error.is_not_found() => {}
            raised => return raised,
        }
        match self.create(config).await {
            // Another was faster.
            Err(error) if error.code() == Some(code::STREAM_EXISTS) => {
                self.raise_replicas(&config.name, replicas).await
            }
            created => created.map(drop),
        }
    }

    /// Makes the streams of a chain's results and dead letters, and makes those that are there agree with the manifest. No
    /// item is touched. Only these take their room in advance, so a server without it says so here; and so does one that
    /// has fewer servers beside it than the chain asks for.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn apply_retention(&self, chain: &Chain) -> Result<(), BrokerError> {
        let mut made = Vec::new();
        for config in [layout::results(chain), layout::dead(chain)] {
            match self.update_or_create(&config).await {
                Ok(true) => made.push(config.name),
                Ok(false) => {}
                Err(error) => {
                    // One without the other would only keep room from those who need it.
                    for stream in made {
                        let deleted = self.delete_stream(&stream).await;
                        tracing::debug!(stream, ?deleted, "what is left of a deploy that is refused");
                    }
                    return Err(refusal(chain, error));
                }
            }
        }
        Ok(())
    }

    /// Makes the chain's streams agree with its state, and makes them where they are missing. From the moment the server
    /// has done so, newly fed items belong to the active revision.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn apply(&self, chain: &Chain, state: &State) -> Result<(), BrokerError> {
        self.apply_retention(chain).await?;
        self.apply_work(&chain.name, layout::work(chain, state)).await?;
        self.create_consumer(&subject::results_stream(&chain.name), layout::pull(subject::results(&chain.name)))
            .await?;
        self.create_dead_consumer(&chain.name).await
    }

    /// Makes the consumer that those share who pull dead letters along with results, where it is missing.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn create_dead_consumer(&self, chain: &ChainName) -> Result<(), BrokerError> {
        self.create_consumer(&subject::dead_stream(chain), layout::pull(subject::dead_all(chain))).await
    }

    /// Makes the work stream agree with this, or makes it. One that follows on one that was removed counts on from a place that
    /// was never used: nodes make idempotency keys of places, and the streams of results and dead letters remember those.
    async fn apply_work(&self, chain: &ChainName, mut config: Config) -> Result<(), BrokerError> {
        match self.update(&config).await {
            Err(error) if error.is_not_found() => {}
            updated => return updated,
        }
        for kept in [subject::results_stream(chain), subject::dead_stream(chain)] {
            if self.stream_facts(&kept).await?.last_sequence > 0 {
                config.first_sequence = Some(unused_sequence());
            }
        }
        match self.create(&config).await {
            // Another was faster.
            Err(error) if error.code() == Some(code::STREAM_EXISTS) => {
                config.first_sequence = None;
                self.update(&config).await
            }
            created => created.map(drop),
        }
    }

    /// Makes the consumers of a revision's hops, where they are missing.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn create_consumers(&self, chain: &Chain, revision: Revision) -> Result<(), BrokerError> {
        for stage in chain.queued_stages() {
            self.create_hop_consumers(chain, stage, revision).await?;
        }
        Ok(())
    }

    /// Makes the consumers of one hop, where they are missing.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn create_hop_consumers(
        &self,
        chain: &Chain,
        stage: &Stage,
        revision: Revision,
    ) -> Result<(), BrokerError> {
        let stream = subject::work_stream(&chain.name);
        let lanes = Lane::served(stage.max_in_flight.is_some());
        for &lane in lanes {
            let mut made = self.create_consumer(&stream, layout::hop(chain, stage, revision, lane)).await;
            if made.as_ref().is_err_and(|error| error.code() == Some(code::CONSUMERS_OVERLAP)) {
                // An earlier pcluster has made one for each lane. What nodes have in hand of them is handed out again.
                for other in Lane::ALL.iter().filter(|lane| !lanes.contains(lane)) {
                    self.delete_consumer(&stream, &other.consumer(revision, &stage.name)).await?;
                }
                made = self.create_consumer(&stream, layout::hop(chain, stage, revision, lane)).await;
            }
            if let Err(error) = made {
                if error.code() == Some(code::CONSUMER_CREATE) {
                    // What there is of it cannot be used; the next try begins with nothing.
                    self.delete_consumer(&stream, &lane.consumer(revision, &stage.name)).await?;
                }
                return Err(error.of_chain(&chain.name, || format!("the stream `{stream}`")));
            }
        }
        Ok(())
    }

    async fn create_consumer(&self, stream: &str, config: pull::Config) -> Result<(), BrokerError> {
        let name = config.durable_name.clone().unwrap_or_default();
        let config = consumer::IntoConsumerConfig::into_consumer_config(config);
        let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let request = json!({ "stream_name": stream, "config": config });
        let deadline = Instant::now() + self.patience();
        loop {
            let what = || format!("make the consumer `{name}` of stream `{stream}`");
            let made: Result<Value, _> = self.api(subject.clone(), &request, what).await;
            match made {
                // In a cluster this is also the answer while the stream is given to other servers.
                Err(error) if error.is_no_room() && self.is_clustered() && Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                }
                made => return made.map(drop),
            }
        }
    }

    /// Removes the consumers of a revision. Those already gone are passed over.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn delete_consumers(&self, chain: &Chain, revision: Revision) -> Result<(), BrokerError> {
        let stream = subject::work_stream(&chain.name);
        let hops = chain.queued_stages().flat_map(|stage| Lane::ALL.map(|lane| lane.consumer(revision, &stage.name)));
        for name in hops {
            self.delete_consumer(&stream, &name).await?;
        }
        Ok(())
    }

    async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), BrokerError> {
        let api = format!("CONSUMER.DELETE.{stream}.{name}");
        let deleted: Result<Value, _> = self.api(api, &(), || format!("remove the consumer `{name}`")).await;
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes every message that a revision has queued.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn purge_queued(&self, chain: &ChainName, revision: Revision) -> Result<u64, BrokerError> {
        let mut purged = 0;
        for pattern in subject::queued(chain, revision) {
            purged += self.purge(&subject::work_stream(chain), Some(&pattern)).await?;
        }
        Ok(purged)
    }

    /// Removes every result and dead letter.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn purge_kept(&self, chain: &ChainName) -> Result<u64, BrokerError> {
        let stream = subject::results_stream(chain);
        let results = self.purge(&stream, Some(&subject::results(chain))).await?;
        // The notes of nodes go too, and are no results.
        self.purge(&stream, None).await?;
        Ok(results + self.purge_dead(chain, None).await?)
    }

    /// Removes the dead letters of a chain, or of one of its stages.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn purge_dead(&self, chain: &ChainName, stage: Option<&StageName>) -> Result<u64, BrokerError> {
        let pattern = stage.map(|stage| subject::dead(chain, stage));
        self.purge(&subject::dead_stream(chain), pattern.as_deref()).await
    }

    /// Removes the messages of a stream, or those under the subjects of a pattern.
    pub(super) async fn purge(&self, stream: &str, pattern: Option<&str>) -> Result<u64, BrokerError> {
        #[derive(Deserialize)]
        struct Purged {
            purged: u64,
        }
        let request = pattern.map_or(json!({}), |pattern| json!({ "filter": pattern }));
        let answer: Purged =
            self.api(format!("STREAM.PURGE.{stream}"), &request, || format!("empty the stream `{stream}`")).await?;
        Ok(answer.purged)
    }

    /// Adds to a counter. Not waited for.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub async fn count(
        &self,
        chain: &ChainName,
        revision: Revision,
        stage: &StageName,
        what: Count,
        more: u64,
    ) -> Result<(), BrokerError> {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Incr", format!("+{more}"));
        let subject = subject::count(chain, revision, stage, what);
        let published = self.client.publish_with_headers(subject, headers, bytes::Bytes::new()).await;
        published.map_err(|error| BrokerError::other("count", &error))
    }

    /// Says whether it was made. One that is there is not made again, because the server would want its room a second time.
    async fn update_or_create(&self, config: &Config) -> Result<bool, BrokerError> {
        match self.update(config).await {
            Err(error) if error.is_not_found() => {}
            updated => return updated.map(|()| false),
        }
        match self.create(config).await {
            // Another was faster.
            Err(error) if error.code() == Some(code::STREAM_EXISTS) => self.update(config).await.map(|()| false),
            created => created,
        }
    }

    /// Says whether it was made: one that is there already and is just like this one is left alone.
    async fn create(&self, config: &Config) -> Result<bool, BrokerError> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(default)]
            did_create: bool,
        }
        let name = &config.name;
        let what = || format!("make the stream `{name}`");
        let created: Created = self.api(format!("STREAM.CREATE.{name}"), config, what).await?;
        Ok(created.did_create)
    }

    async fn delete_stream(&self, name: &str) -> Result<(), BrokerError> {
        let _: Value = self.api(format!("STREAM.DELETE.{name}"), &(), || format!("remove the stream `{name}`")).await?;
        Ok(())
    }

    async fn update(&self, config: &Config) -> Result<(), BrokerError> {
        let name = &config.name;
        let what = || format!("change the stream `{name}`");
        let _: Value = self.api(format!("STREAM.UPDATE.{name}"), config, what).await?;
        Ok(())
    }
}

/// Why a chain's streams cannot be as it asks.
fn refusal(chain: &Chain, error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Server { what, code, description } if code::NO_ROOM.contains(&code) => {
            let description = format!("{description}, or ask for less with `max_bytes` below `[results]`");
            BrokerError::Server { what, code, description }
        }
        BrokerError::Server { code, description, .. } if code::TOO_FEW_SERVERS.contains(&code) => {
            BrokerError::TooFewServers { chain: chain.name.clone(), replicas: chain.replicas, description }
        }
        error => error,
    }
}

/// A place that no stream has reached: the microseconds since the Unix epoch, because none stores a million messages a second.
fn unused_sequence() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
