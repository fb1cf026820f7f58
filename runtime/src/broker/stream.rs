//! What is stored where: makes and changes the streams of a chain and those that all chains share, and the consumers of a
//! chain's hops.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{self, pull};
use async_nats::jetstream::stream::Config;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::code;
use super::{Broker, BrokerError, layout, replicas};
use crate::chain::{Chain, Stage};
use crate::name::{ChainName, Revision, StageName};
use crate::subject::{self, Lane};

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
        let mut made = BTreeSet::new();
        for config in layout::shared(replicas) {
            match self.create_shared_stream(&config, replicas).await {
                Ok(true) => drop(made.insert(config.name)),
                Ok(false) => {}
                // Only the record of attempts wants for it.
                Err(error) if config.name == subject::HOLDER_STREAM => {
                    tracing::warn!(%error, "nobody will know which node an item died with");
                }
                Err(error) => {
                    self.delete_unused(&made).await?;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Says whether it was made.
    async fn create_shared_stream(&self, config: &Config, replicas: u32) -> Result<bool, BrokerError> {
        match replicas::raise(self, &config.name, replicas).await {
            Err(error) if error.is_not_found() => {}
            raised => return raised.map(|()| false),
        }
        match self.create(config).await {
            // Another was faster.
            Err(error) if error.code() == Some(code::STREAM_EXISTS) => {
                replicas::raise(self, &config.name, replicas).await.map(|()| false)
            }
            created => created,
        }
    }

    /// Removes streams that nothing was ever stored in.
    pub(super) async fn delete_unused(&self, streams: &BTreeSet<String>) -> Result<(), BrokerError> {
        for stream in streams {
            if self.stream_facts(stream).await.is_ok_and(|facts| facts.last_sequence == 0) {
                self.delete_stream(stream).await?;
            }
        }
        Ok(())
    }

    /// Makes the consumers that all pullers of a chain share, where they are missing.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub(super) async fn create_pull_consumers(&self, chain: &ChainName) -> Result<(), BrokerError> {
        self.create_consumer(&subject::results_stream(chain), layout::pull(subject::results(chain))).await?;
        self.create_dead_consumer(chain).await
    }

    /// Makes the consumer that those share who pull dead letters along with results, where it is missing.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn create_dead_consumer(&self, chain: &ChainName) -> Result<(), BrokerError> {
        self.create_consumer(&subject::dead_stream(chain), layout::pull(subject::dead_all(chain))).await
    }

    /// Where a work stream begins to count: one that follows on one that was removed counts on from a place that was never
    /// used, because nodes make idempotency keys of places, and the streams of results and dead letters remember those.
    pub(super) async fn first_sequence(&self, chain: &ChainName) -> Result<Option<u64>, BrokerError> {
        for kept in [subject::results_stream(chain), subject::dead_stream(chain)] {
            if self.stream_facts(&kept).await?.last_sequence > 0 {
                return Ok(Some(unused_sequence()));
            }
        }
        Ok(None)
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

    /// Removes the streams of a chain that was never deployed: those that are named, and those that were never used. After
    /// `until` it removes no more, nor anything if the work stream was used: they are another's by then.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn delete_new_streams(
        &self,
        chain: &ChainName,
        made: &BTreeSet<String>,
        until: Instant,
    ) -> Result<(), BrokerError> {
        let kept = [subject::results_stream(chain), subject::dead_stream(chain)];
        let mut is_used = false;
        for stream in &kept {
            match self.stream_facts(stream).await {
                Err(error) if error.is_not_found() => {}
                facts => is_used |= facts?.last_sequence > 0,
            }
        }
        let work = subject::work_stream(chain);
        match self.stream_facts(&work).await {
            Err(error) if error.is_not_found() => {}
            facts => {
                let facts = facts?;
                // Beside results of old, a new one does not begin at 1.
                if facts.messages > 0 || !is_used && facts.last_sequence > 0 {
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
            match self.delete_stream(stream).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The streams that listen on a subject.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn streams_of(&self, subject: &str) -> Result<Vec<String>, BrokerError> {
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            streams: Option<Vec<String>>,
        }
        let what = || format!("tell which stream `{subject}` belongs to");
        let names: Names = self.api("STREAM.NAMES".to_owned(), &json!({ "subject": subject }), what).await?;
        Ok(names.streams.unwrap_or_default())
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
        let (stream, pattern) = (subject::dead_stream(chain), stage.map(|stage| subject::dead(chain, stage)));
        if stage.is_none() {
            // So they are not counted.
            self.purge(&stream, Some(&subject::dead_item(chain))).await?;
        }
        self.purge(&stream, pattern.as_deref()).await
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

    /// Says whether it was made: one that is there already and is just like this one is left alone.
    pub(super) async fn create(&self, config: &Config) -> Result<bool, BrokerError> {
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

    pub(super) async fn delete_stream(&self, name: &str) -> Result<(), BrokerError> {
        let _: Value = self.api(format!("STREAM.DELETE.{name}"), &(), || format!("remove the stream `{name}`")).await?;
        Ok(())
    }

    /// Changes a stream. Asked once: an update that arrives late undoes what others have made of the stream since.
    pub(super) async fn update(&self, config: &Config) -> Result<(), BrokerError> {
        let name = &config.name;
        let what = || format!("change the stream `{name}`");
        let _: Value = self.api_once(format!("STREAM.UPDATE.{name}"), config, what).await?;
        Ok(())
    }
}

/// Why a chain's streams cannot be as it asks.
pub(super) fn refusal(chain: &ChainName, replicas: u32, error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Server { what, code, description } if code::NO_ROOM.contains(&code) => {
            let description = format!("{description}, or ask for less with `max_bytes` below `[results]`");
            BrokerError::Server { what, code, description }
        }
        BrokerError::Server { code, description, .. } if code::TOO_FEW_SERVERS.contains(&code) => {
            BrokerError::TooFewServers { chain: chain.clone(), replicas, description }
        }
        error => error,
    }
}

/// A place that no stream has reached: the microseconds since the Unix epoch, because none stores a million messages a second.
fn unused_sequence() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
