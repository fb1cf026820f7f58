//! What streams and consumers hold, as the server tells it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_nats::jetstream::stream::SubjectTransform;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Broker, BrokerError};
use crate::name::{ChainName, Digest, Revision, StageName};
use crate::subject::{self, Lane};

/// Hexadecimal digits of a stream's part of the idempotency keys.
const KEY_DIGITS: usize = 12;

/// What a consumer has before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct ConsumerInfo {
    /// Messages that wait to be handed out.
    #[serde(default, rename = "num_pending")]
    pub queued: u64,
    /// Messages that are handed out and not yet acknowledged.
    #[serde(default, rename = "num_ack_pending")]
    pub running: u64,
}

/// How far a consumer has come, in places of its stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last place up to which everything that it was to hand out is acknowledged.
    pub acknowledged: u64,
    /// The last place that it has handed out.
    pub delivered: u64,
}

#[derive(Deserialize)]
struct ConsumerProgress {
    delivered: ConsumerPlace,
    ack_floor: ConsumerPlace,
}

#[derive(Deserialize)]
struct ConsumerPlace {
    stream_seq: u64,
}

#[derive(Deserialize)]
struct StreamState {
    config: StreamConfig,
    created: String,
    state: StreamCounts,
    /// Subjects that fit, in this answer or not.
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct StreamConfig {
    subject_transform: Option<SubjectTransform>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
struct StreamCounts {
    messages: u64,
    last_seq: u64,
    #[serde(default)]
    subjects: Option<BTreeMap<String, u64>>,
}

/// What tells a stream from another one, and its content now from what comes later.
pub(super) struct StreamFacts {
    /// When it was made, as the server writes it.
    pub(super) created: String,
    /// The place of the message that was stored last, or would have been; 0: none ever was.
    pub(super) last_sequence: u64,
    /// How many messages it holds.
    pub(super) messages: u64,
}

impl Broker {
    /// How many messages a chain's work stream holds. The chain is empty if and only if this is 0.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn unfinished(&self, chain: &ChainName) -> Result<u64, BrokerError> {
        Ok(self.chain_stream(chain, &subject::work_stream(chain), None).await?.state.messages)
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
            let page = self.chain_stream(chain, &subject::work_stream(chain), Some((">", seen))).await?;
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

    /// The most messages that any subject of a stream holds; `None` if its metadata is not as expected, by the answers that say
    /// what it holds.
    pub(super) async fn fullest(
        &self,
        stream: &str,
        is_as_expected: impl Fn(&HashMap<String, String>) -> bool,
    ) -> Result<Option<u64>, BrokerError> {
        let (mut fullest, mut seen) = (0, 0);
        loop {
            let page = self.stream_state(stream, Some((">", seen))).await?;
            if !is_as_expected(&page.config.metadata) {
                return Ok(None);
            }
            let subjects = page.state.subjects.unwrap_or_default();
            seen += subjects.len();
            fullest = subjects.values().copied().fold(fullest, u64::max);
            if subjects.is_empty() || seen >= page.total {
                return Ok(Some(fullest));
            }
        }
    }

    /// Whether an older revision has nothing left: the intake leads elsewhere and its queues are empty. Both are told by one
    /// answer of the server, so nothing can be fed in between. What is put back into its queues is told by the registry: see
    /// [`State::live`](crate::chain::record::State::live).
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn is_finished(&self, chain: &ChainName, revision: Revision) -> Result<bool, BrokerError> {
        let queued = subject::queued_any(chain, revision);
        let stream = self.chain_stream(chain, &subject::work_stream(chain), Some((&queued, 0))).await?;
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
        let stream = self.chain_stream(chain, &subject::dead_stream(chain), Some((">", 0))).await?;
        let subjects = stream.state.subjects.unwrap_or_default();
        Ok(subjects.into_iter().filter_map(|(name, count)| Some((subject::parse_dead(&name)?, count))).collect())
    }

    /// Whether an item of a dead letter is in messages of its own.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn has_item_parts(&self, chain: &ChainName) -> Result<bool, BrokerError> {
        let parts = subject::dead_item(chain);
        let stream = self.chain_stream(chain, &subject::dead_stream(chain), Some((&parts, 0))).await?;
        Ok(stream.state.subjects.is_some_and(|subjects| !subjects.is_empty()))
    }

    /// How many messages of results a chain has, taken or not.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn result_count(&self, chain: &ChainName) -> Result<u64, BrokerError> {
        let results = subject::results(chain);
        let stream = self.chain_stream(chain, &subject::results_stream(chain), Some((&results, 0))).await?;
        Ok(stream.state.subjects.unwrap_or_default().values().sum())
    }

    /// The part of the idempotency keys that belongs to a chain's work stream and to no other: made of the time when it was made,
    /// to the nanosecond. Two that are made in the place of one another have different ones, and nobody who is not told when a
    /// stream was made can guess it.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn work_key(&self, chain: &ChainName) -> Result<String, BrokerError> {
        let created = self.chain_stream(chain, &subject::work_stream(chain), None).await?.created;
        let digest = Digest::of(created.as_bytes());
        Ok(digest.as_hex()[..KEY_DIGITS].to_owned())
    }

    /// How many messages wait in front of a hop that were put back, those left out that wait for their back-off if that can be
    /// told: with `limited`, they are in a lane of their own.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn requeue(
        &self,
        chain: &ChainName,
        revision: Revision,
        hop: &StageName,
        limited: bool,
    ) -> Result<u64, BrokerError> {
        if !limited && let Ok(backlog) = self.consumer_info(chain, revision, hop, Lane::Retry).await {
            return Ok(backlog.queued);
        }
        // Each has a subject of its own. It takes none of them to learn how many there are.
        let pattern = Lane::Retry.queue(chain, revision, hop);
        let stream =
            self.chain_stream(chain, &subject::work_stream(chain), Some((&pattern, u32::MAX as usize))).await?;
        Ok(stream.total as u64)
    }

    /// What is in one of a hop's queues.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such consumer.
    pub async fn consumer_info(
        &self,
        chain: &ChainName,
        revision: Revision,
        hop: &StageName,
        lane: Lane,
    ) -> Result<ConsumerInfo, BrokerError> {
        self.consumer_state(chain, &subject::work_stream(chain), &lane.consumer(revision, hop)).await
    }

    /// How far a hop's consumer on a lane has come.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such consumer.
    pub async fn progress(
        &self,
        chain: &ChainName,
        revision: Revision,
        hop: &StageName,
        lane: Lane,
    ) -> Result<Progress, BrokerError> {
        let (stream, consumer) = (subject::work_stream(chain), lane.consumer(revision, hop));
        let ConsumerProgress { delivered, ack_floor } = self.consumer_state(chain, &stream, &consumer).await?;
        Ok(Progress { acknowledged: ack_floor.stream_seq, delivered: delivered.stream_seq })
    }

    /// What waits for the pullers of a chain's stream of results, or of dead letters, and what they hold.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such consumer.
    pub async fn untaken(&self, chain: &ChainName, stream: &str) -> Result<ConsumerInfo, BrokerError> {
        self.consumer_state(chain, stream, subject::PULL_CONSUMER).await
    }

    /// How long the server waits for a puller's acknowledgement before it gives the message to another.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such consumer.
    pub async fn pull_ack_wait(&self, chain: &ChainName, stream: &str) -> Result<Duration, BrokerError> {
        #[derive(Deserialize)]
        struct Consumer {
            config: Settings,
        }
        #[derive(Deserialize)]
        struct Settings {
            /// In nanoseconds.
            ack_wait: u64,
        }
        let consumer: Consumer = self.consumer_state(chain, stream, subject::PULL_CONSUMER).await?;
        Ok(Duration::from_nanos(consumer.config.ack_wait))
    }

    async fn consumer_state<T: DeserializeOwned>(
        &self,
        chain: &ChainName,
        stream: &str,
        consumer: &str,
    ) -> Result<T, BrokerError> {
        let what = || format!("tell the state of the consumer `{consumer}`");
        let state = self.api(format!("CONSUMER.INFO.{stream}.{consumer}"), &(), what).await;
        state.map_err(|error: BrokerError| {
            error.of_chain(chain, || format!("the consumer `{consumer}` of stream `{stream}`"))
        })
    }

    /// Whether a stream is there.
    pub(super) async fn has_stream(&self, stream: &str) -> Result<bool, BrokerError> {
        match self.stream_state(stream, None).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The subjects of a pattern that a stream has messages of.
    pub(super) async fn subjects(&self, stream: &str, pattern: &str) -> Result<Vec<String>, BrokerError> {
        let subjects = self.stream_state(stream, Some((pattern, 0))).await?.state.subjects;
        Ok(subjects.unwrap_or_default().into_keys().collect())
    }

    pub(super) async fn stream_facts(&self, stream: &str) -> Result<StreamFacts, BrokerError> {
        let StreamState { created, state, .. } = self.stream_state(stream, None).await?;
        Ok(StreamFacts { created, last_sequence: state.last_seq, messages: state.messages })
    }

    /// A stream that a chain has by being deployed.
    async fn chain_stream(
        &self,
        chain: &ChainName,
        stream: &str,
        subjects: Option<(&str, usize)>,
    ) -> Result<StreamState, BrokerError> {
        let state = self.stream_state(stream, subjects).await;
        state.map_err(|error| error.of_chain(chain, || format!("the stream `{stream}`")))
    }

    /// The state of a stream and, of those subjects that fit the pattern, the ones from a place on that fit into an answer.
    async fn stream_state(&self, stream: &str, subjects: Option<(&str, usize)>) -> Result<StreamState, BrokerError> {
        let page = |(filter, offset)| json!({ "subjects_filter": filter, "offset": offset });
        let request = subjects.map_or(json!({}), page);
        let what = || format!("tell the state of the stream `{stream}`");
        self.api(format!("STREAM.INFO.{stream}"), &request, what).await
    }
}
