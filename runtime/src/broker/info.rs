//! What streams and consumers hold, as the server tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::BrokerError;
use super::stream::{Stream, StreamState};
use super::streams::ChainStreams;
use crate::frame::record::unix_millis;
use crate::name::{Digest, Revision, StageName, Topic};
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

/// The progress of a consumer through its stream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Progress {
    /// When the consumer was made, as the server writes it. Another time means another consumer.
    #[serde(default)]
    pub created: String,
    /// All messages up to this sequence number are acknowledged.
    #[serde(rename = "ack_floor", deserialize_with = "stream_sequence")]
    pub acknowledged: u64,
    /// All messages up to this sequence number were delivered at least once.
    #[serde(deserialize_with = "stream_sequence")]
    pub delivered: u64,
}

/// Reads a place that the server tells as a sequence number of the stream and one of the consumer.
fn stream_sequence<'de, D: Deserializer<'de>>(place: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    struct Place {
        stream_seq: u64,
    }
    Ok(Place::deserialize(place)?.stream_seq)
}

impl ChainStreams<'_> {
    /// Returns how many messages the work stream holds. The chain is empty if and only if this is 0.
    pub async fn unfinished(&self) -> Result<u64, BrokerError> {
        Ok(self.chain_stream(&subject::work_stream(self.chain), None).await?.state.messages)
    }

    /// Returns how many messages wait or run in each hop of each revision.
    pub async fn unfinished_by_hop(&self) -> Result<BTreeMap<(Revision, StageName), u64>, BrokerError> {
        let mut hops = BTreeMap::new();
        let mut seen = 0;
        loop {
            let page = self.chain_stream(&subject::work_stream(self.chain), Some((">", seen))).await?;
            let subjects = page.state.subjects;
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

    /// Returns `true` if an older revision has no items left: it is not fed, and its queues are empty.
    ///
    /// One answer of the server tells both, so that nothing can be fed in between. The registry tells which revisions may get items
    /// back: see [`State::live`](crate::chain::record::State::live).
    pub async fn is_finished(&self, revision: Revision) -> Result<bool, BrokerError> {
        let queued = subject::queued_any(self.chain, revision);
        let stream = self.chain_stream(&subject::work_stream(self.chain), Some((&queued, 0))).await?;
        let transform = stream.config.subject_transform;
        let fed = transform.and_then(|transform| subject::parse_queued(&transform.destination));
        Ok(fed.is_none_or(|fed| fed.revision != revision) && stream.state.subjects.is_empty())
    }

    /// Returns how many dead letters each stage has.
    pub async fn dead_by_stage(&self) -> Result<BTreeMap<StageName, u64>, BrokerError> {
        let stream = self.chain_stream(&subject::dead_stream(self.chain), Some((">", 0))).await?;
        let subjects = stream.state.subjects;
        Ok(subjects.into_iter().filter_map(|(name, count)| Some((subject::parse_dead(&name)?, count))).collect())
    }

    /// Returns `true` if the item of any dead letter is in messages of its own.
    pub async fn has_item_parts(&self) -> Result<bool, BrokerError> {
        let parts = subject::dead_item(self.chain);
        let stream = self.chain_stream(&subject::dead_stream(self.chain), Some((&parts, 0))).await?;
        Ok(!stream.state.subjects.is_empty())
    }

    /// Returns how many messages of results the chain has, pulled or not.
    pub async fn result_count(&self) -> Result<u64, BrokerError> {
        let results = subject::results(self.chain);
        let stream = self.chain_stream(&subject::results_stream(self.chain), Some((&results, 0))).await?;
        let without = stream.state.subjects.values().sum::<u64>();
        Ok(without + self.results_by_topic().await?.values().sum::<u64>())
    }

    /// Returns how many messages of results each topic has, pulled or not.
    pub(crate) async fn results_by_topic(&self) -> Result<BTreeMap<Topic, u64>, BrokerError> {
        let (name, pattern) = (subject::results_stream(self.chain), subject::results_with_topic(self.chain));
        let (mut topics, mut seen) = (BTreeMap::new(), 0);
        loop {
            let page = self.chain_stream(&name, Some((&pattern, seen))).await?;
            let subjects = page.state.subjects;
            seen += subjects.len();
            let is_last = subjects.is_empty() || seen >= page.total;
            let read = |(name, messages): (String, u64)| Some((subject::parse_results_topic(&name)?, messages));
            topics.extend(subjects.into_iter().filter_map(read));
            if is_last {
                return Ok(topics);
            }
        }
    }

    /// Returns how many messages are queued under a subject.
    pub async fn queued(&self, subject: &str) -> Result<u64, BrokerError> {
        let stream = self.chain_stream(&subject::work_stream(self.chain), Some((subject, 0))).await?;
        Ok(stream.state.subjects.values().sum())
    }

    /// Returns the part of the idempotency keys that belongs to this work stream alone.
    ///
    /// It is a digest of the time when the stream was made, to the nanosecond. A stream that replaces another has another key, and
    /// a client that cannot ask when the stream was made cannot guess it.
    pub async fn work_key(&self) -> Result<String, BrokerError> {
        let created = self.chain_stream(&subject::work_stream(self.chain), None).await?.created;
        let digest = Digest::of(created.as_bytes());
        Ok(digest.as_hex()[..KEY_DIGITS].to_owned())
    }

    /// Returns the time of the server that stores the chain's messages, in milliseconds since the Unix epoch.
    pub async fn time(&self) -> Result<u64, BrokerError> {
        let told = self.chain_stream(&subject::work_stream(self.chain), None).await?.ts;
        let millis = told.as_deref().and_then(unix_millis);
        let reason = "the state of a stream came without it".to_owned();
        millis.ok_or_else(|| BrokerError::Other { what: "read the time of the server".to_owned(), reason })
    }

    /// Returns how many requeued messages wait for a hop.
    ///
    /// Unless the hop is `limited`, messages that wait for their back-off do not count.
    pub async fn requeued(&self, revision: Revision, hop: &StageName, limited: bool) -> Result<u64, BrokerError> {
        if !limited && let Ok(backlog) = self.consumer_info(revision, hop, Lane::Retry).await {
            return Ok(backlog.queued);
        }
        // Each message has a subject of its own. A page beyond the last subject has only their number.
        let pattern = Lane::Retry.queue(self.chain, revision, hop);
        let stream = self.chain_stream(&subject::work_stream(self.chain), Some((&pattern, u32::MAX as usize))).await?;
        Ok(stream.total as u64)
    }

    /// Returns what is in one of a hop's queues.
    pub async fn consumer_info(
        &self,
        revision: Revision,
        hop: &StageName,
        lane: Lane,
    ) -> Result<ConsumerInfo, BrokerError> {
        self.consumer_state(&subject::work_stream(self.chain), &lane.consumer(revision, hop)).await
    }

    /// Returns the progress of a hop's consumer on a lane.
    pub async fn progress(&self, revision: Revision, hop: &StageName, lane: Lane) -> Result<Progress, BrokerError> {
        self.consumer_state(&subject::work_stream(self.chain), &lane.consumer(revision, hop)).await
    }

    /// Returns what waits for the pullers that share this consumer of results or dead letters, and what they hold.
    pub async fn untaken(&self, stream: &str, consumer: &str) -> Result<ConsumerInfo, BrokerError> {
        self.consumer_state(stream, consumer).await
    }

    /// Returns the place up to which a consumer of results has taken all of them.
    pub async fn taken(&self, stream: &str, consumer: &str) -> Result<u64, BrokerError> {
        Ok(self.consumer_state::<Progress>(stream, consumer).await?.acknowledged)
    }

    /// Returns how long the server waits for a puller's acknowledgement before it delivers the message again.
    pub async fn pull_ack_wait(&self, stream: &str, consumer: &str) -> Result<Duration, BrokerError> {
        #[derive(Deserialize)]
        struct Consumer {
            config: Settings,
        }
        #[derive(Deserialize)]
        struct Settings {
            /// In nanoseconds.
            ack_wait: u64,
        }
        let consumer: Consumer = self.consumer_state(stream, consumer).await?;
        Ok(Duration::from_nanos(consumer.config.ack_wait))
    }

    /// Returns the state of a consumer that each deployed chain has.
    async fn consumer_state<T: DeserializeOwned>(&self, stream: &str, consumer: &str) -> Result<T, BrokerError> {
        let state = Stream::of(self.broker, stream).consumer(consumer).await;
        state.map_err(|error: BrokerError| {
            error.of_chain(self.chain, || format!("the consumer `{consumer}` of stream `{stream}`"))
        })
    }

    /// Returns the state of a stream that each deployed chain has.
    async fn chain_stream(&self, stream: &str, subjects: Option<(&str, usize)>) -> Result<StreamState, BrokerError> {
        let state = Stream::of(self.broker, stream).state(subjects).await;
        state.map_err(|error| error.of_chain(self.chain, || format!("the stream `{stream}`")))
    }
}
