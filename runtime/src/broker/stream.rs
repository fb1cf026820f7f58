//! What is stored where: the streams of a chain and those that all chains share, and the consumers of its hops.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::{self, pull};
use async_nats::jetstream::stream::{Config, DirectGetErrorKind, SubjectTransform};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Broker, BrokerError, NO_ROOM, layout};
use crate::chain::record::State;
use crate::chain::{Chain, Stage};
use crate::frame::Headers;
use crate::name::{ChainName, Revision, StageName};
use crate::subject::{self, Count, Lane};

/// JetStream: the stream name is already in use with a different configuration.
const STREAM_EXISTS: u64 = 10058;

/// What a consumer has before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Backlog {
    /// Messages that wait to be handed out.
    #[serde(default, rename = "num_pending")]
    pub queued: u64,
    /// Messages that are handed out and not yet acknowledged.
    #[serde(default, rename = "num_ack_pending")]
    pub running: u64,
}

#[derive(Deserialize)]
struct StreamState {
    config: StreamConfig,
    state: StreamCounts,
    /// Subjects that fit, in this answer or not.
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct StreamConfig {
    subject_transform: Option<SubjectTransform>,
}

#[derive(Deserialize)]
struct StreamCounts {
    messages: u64,
    #[serde(default)]
    last_seq: u64,
    #[serde(default)]
    subjects: Option<BTreeMap<String, u64>>,
}

impl Broker {
    /// Makes the streams that all chains share, where they are missing.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn create_shared_streams(&self) -> Result<(), BrokerError> {
        self.create_if_missing(layout::log()).await?;
        self.create_if_missing(layout::counters()).await
    }

    /// Makes the streams of a chain's results and dead letters, and makes those that are there agree with the manifest. No
    /// item is touched. Only these take their room in advance, so a server without it says so here.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn apply_retention(&self, chain: &Chain) -> Result<(), BrokerError> {
        for config in [layout::results(chain), layout::dead(chain)] {
            self.create_or_update(config).await.map_err(|error| match error {
                BrokerError::Server { what, code, description } if NO_ROOM.contains(&code) => {
                    let description = format!("{description}, or ask for less with `max_bytes` below `[results]`");
                    BrokerError::Server { what, code, description }
                }
                error => error,
            })?;
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
        self.create_or_update(layout::work(chain, state)).await?;
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
        for lane in Lane::ALL {
            self.create_consumer(&stream, layout::hop(chain, stage, revision, lane)).await?;
        }
        Ok(())
    }

    async fn create_consumer(&self, stream: &str, config: pull::Config) -> Result<(), BrokerError> {
        let name = config.durable_name.clone().unwrap_or_default();
        let config = consumer::IntoConsumerConfig::into_consumer_config(config);
        let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let request = json!({ "stream_name": stream, "config": config });
        let _: Value =
            self.api(subject, &request, || format!("make the consumer `{name}` of stream `{stream}`")).await?;
        Ok(())
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
            let api = format!("CONSUMER.DELETE.{stream}.{name}");
            let deleted: Result<Value, _> = self.api(api, &(), || format!("remove the consumer `{name}`")).await;
            if let Err(error) = deleted
                && !error.is_not_found()
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// How many messages a chain's work stream holds. The chain is empty if and only if this is 0.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn unfinished(&self, chain: &ChainName) -> Result<u64, BrokerError> {
        Ok(self.stream_counts(&subject::work_stream(chain), None).await?.messages)
    }

    /// How many messages wait or run in each hop of each revision.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn unfinished_by_hop(
        &self,
        chain: &ChainName,
    ) -> Result<BTreeMap<(Revision, StageName), u64>, BrokerError> {
        let mut hops = BTreeMap::new();
        let mut seen = 0;
        loop {
            let page = self.stream_state(&subject::work_stream(chain), Some(">"), seen).await?;
            let subjects = page.state.subjects.unwrap_or_default();
            seen += subjects.len();
            let is_last = subjects.is_empty() || seen >= page.total;
            for (name, messages) in subjects {
                if let Some(queued) = subject::parse_queued(&name) {
                    *hops.entry((queued.revision, queued.hop)).or_default() += messages;
                }
            }
            if is_last {
                return Ok(hops);
            }
        }
    }

    /// Whether an older revision has nothing left: the intake leads elsewhere and its queues are empty. Both are told by one
    /// answer of the server, so nothing can be fed in between. What is put back into its queues is told by the registry: see
    /// [`State::live`].
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn is_finished(&self, chain: &ChainName, revision: Revision) -> Result<bool, BrokerError> {
        let queued = subject::queued_any(chain, revision);
        let stream = self.stream_state(&subject::work_stream(chain), Some(&queued), 0).await?;
        let transform = stream.config.subject_transform;
        let fed = transform.and_then(|transform| subject::parse_queued(&transform.destination));
        let is_empty = stream.state.subjects.is_none_or(|subjects| subjects.is_empty());
        Ok(fed.is_none_or(|fed| fed.revision != revision) && is_empty)
    }

    /// How many dead letters each stage has.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn dead_by_stage(&self, chain: &ChainName) -> Result<BTreeMap<StageName, u64>, BrokerError> {
        let counts = self.stream_counts(&subject::dead_stream(chain), Some(">")).await?;
        let subjects = counts.subjects.unwrap_or_default();
        Ok(subjects.into_iter().filter_map(|(name, count)| Some((subject::parse_dead(&name)?, count))).collect())
    }

    /// How many messages of results a chain has, taken or not.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn results_kept(&self, chain: &ChainName) -> Result<u64, BrokerError> {
        let counts = self.stream_counts(&subject::results_stream(chain), Some(&subject::results(chain))).await?;
        Ok(counts.subjects.unwrap_or_default().values().sum())
    }

    /// The number of the newest message that a stream has ever had.
    pub(super) async fn last_sequence(&self, stream: &str) -> Result<u64, BrokerError> {
        Ok(self.stream_counts(stream, None).await?.last_seq)
    }

    async fn stream_counts(&self, stream: &str, subjects: Option<&str>) -> Result<StreamCounts, BrokerError> {
        Ok(self.stream_state(stream, subjects, 0).await?.state)
    }

    /// The state of a stream and, of those subjects that fit the pattern, the ones from `offset` on that fit into an answer.
    async fn stream_state(
        &self,
        stream: &str,
        subjects: Option<&str>,
        offset: usize,
    ) -> Result<StreamState, BrokerError> {
        let request = subjects.map_or(json!({}), |filter| json!({ "subjects_filter": filter, "offset": offset }));
        let what = || format!("tell the state of the stream `{stream}`");
        self.api(format!("STREAM.INFO.{stream}"), &request, what).await
    }

    /// What waits for the pullers of a stream, and what they hold.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such consumer.
    pub async fn untaken(&self, stream: &str) -> Result<Backlog, BrokerError> {
        self.consumer_state(stream, subject::PULL_CONSUMER).await
    }

    /// What is in one of a hop's queues.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such consumer.
    pub async fn backlog(
        &self,
        chain: &ChainName,
        revision: Revision,
        hop: &StageName,
        lane: Lane,
    ) -> Result<Backlog, BrokerError> {
        self.consumer_state(&subject::work_stream(chain), &lane.consumer(revision, hop)).await
    }

    async fn consumer_state(&self, stream: &str, consumer: &str) -> Result<Backlog, BrokerError> {
        let what = || format!("tell the state of the consumer `{consumer}`");
        self.api(format!("CONSUMER.INFO.{stream}.{consumer}"), &(), what).await
    }

    /// The headers of a message, if the stream still has it.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn stored_headers(&self, stream: &str, sequence: u64) -> Result<Option<Headers>, BrokerError> {
        let what = || format!("read a message of the stream `{stream}`");
        let handle =
            self.jetstream.get_stream_no_info(stream).await.map_err(|error| BrokerError::other(what(), &error))?;
        match handle.direct_get(sequence).await {
            Ok(message) => Ok(Some(super::from_header_map(Some(&message.headers)))),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(BrokerError::other(what(), &error)),
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
            purged += self.purge(&subject::work_stream(chain), json!({ "filter": pattern })).await?;
        }
        Ok(purged)
    }

    /// Removes every result and dead letter.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn purge_kept(&self, chain: &ChainName) -> Result<u64, BrokerError> {
        let results = self.purge(&subject::results_stream(chain), json!({})).await?;
        Ok(results + self.purge_dead(chain, None).await?)
    }

    /// Removes the dead letters of a chain, or of one of its stages.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn purge_dead(&self, chain: &ChainName, stage: Option<&StageName>) -> Result<u64, BrokerError> {
        let request = stage.map_or(json!({}), |stage| json!({ "filter": subject::dead(chain, stage) }));
        self.purge(&subject::dead_stream(chain), request).await
    }

    async fn purge(&self, stream: &str, request: Value) -> Result<u64, BrokerError> {
        #[derive(Deserialize)]
        struct Purged {
            purged: u64,
        }
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

    async fn create_if_missing(&self, config: Config) -> Result<(), BrokerError> {
        match self.create(&config).await {
            Err(BrokerError::Server { code: STREAM_EXISTS, .. }) => Ok(()),
            other => other,
        }
    }

    async fn create_or_update(&self, config: Config) -> Result<(), BrokerError> {
        match self.create(&config).await {
            Err(BrokerError::Server { code: STREAM_EXISTS, .. }) => {
                let name = &config.name;
                let what = || format!("change the stream `{name}`");
                let _: Value = self.api(format!("STREAM.UPDATE.{name}"), &config, what).await?;
                Ok(())
            }
            other => other,
        }
    }

    async fn create(&self, config: &Config) -> Result<(), BrokerError> {
        let name = &config.name;
        let _: Value =
            self.api(format!("STREAM.CREATE.{name}"), config, || format!("make the stream `{name}`")).await?;
        Ok(())
    }
}
