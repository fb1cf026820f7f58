//! Reading a stream without taking anything from it: results to watch, log lines, counters.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;

use super::{Broker, BrokerError, from_header_map};
use crate::frame::Headers;
use crate::name::{ChainName, Revision, StageName};
use crate::subject::{self, COUNT_STREAM, Count};

/// Where to start reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the oldest message.
    First,
    /// At what comes from now on.
    Now,
    /// At what came this long ago.
    Ago(Duration),
}

/// A message that was read.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Where it was published.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
    /// How many more there are at this moment.
    pub pending: u64,
}

/// A stream being read.
pub struct Follower {
    messages: pull::Ordered,
    pending: u64,
}

impl Broker {
    /// Reads a stream in order.
    ///
    /// # Errors
    ///
    /// If there is no such stream, or the server does not allow it.
    pub async fn follow(&self, stream: &str, subjects: Vec<String>, from: From) -> Result<Follower, BrokerError> {
        let what = || format!("read the stream `{stream}`");
        let deliver_policy = match from {
            From::First => DeliverPolicy::All,
            From::Now => DeliverPolicy::New,
            From::Ago(ago) => {
                DeliverPolicy::ByStartTime { start_time: time::OffsetDateTime::from(SystemTime::now() - ago) }
            }
        };
        let config =
            pull::OrderedConfig { filter_subjects: subjects, deliver_policy, ..pull::OrderedConfig::default() };
        let handle =
            self.jetstream.get_stream_no_info(stream).await.map_err(|error| BrokerError::other(what(), &error))?;
        let consumer = handle.create_consumer(config).await.map_err(|error| BrokerError::other(what(), &error))?;
        let pending = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(|error| BrokerError::other(what(), &error))?;
        Ok(Follower { messages, pending })
    }

    /// What the stages of a chain have handled, over all nodes and all time.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn counts(&self, chain: &ChainName) -> Result<BTreeMap<(Revision, StageName), Counts>, BrokerError> {
        /// The server answers at once; an account that may not ask gets no answer.
        const PATIENCE: Duration = Duration::from_secs(2);
        let failed = |error: &dyn std::error::Error| BrokerError::other("read the counters", error);
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
        let request = json!({ "multi_last": [subject::counts(chain)] }).to_string();
        let api = format!("$JS.API.DIRECT.GET.{COUNT_STREAM}");
        self.client.publish_with_reply(api, inbox, request.into()).await.map_err(|error| failed(&error))?;
        let mut counts: BTreeMap<(Revision, StageName), Counts> = BTreeMap::new();
        while let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, answers.next()).await {
            if answer.status.is_some() {
                break;
            }
            let name = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Subject"));
            let Some((revision, stage, what)) = name.and_then(|name| subject::parse_count(name.as_str())) else {
                continue;
            };
            let value = read_counter(&answer.payload);
            let count = counts.entry((revision, stage)).or_default();
            match what {
                Count::Done => count.done = value,
                Count::Failed => count.failed = value,
            }
        }
        Ok(counts)
    }
}

/// What a stage has handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items handled for good, well or not.
    pub done: u64,
    /// Of these, the dead letters.
    pub failed: u64,
}

/// A counter is stored as `{"val":"7"}`.
fn read_counter(payload: &[u8]) -> u64 {
    let value: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    value.and_then(|value| value.get("val")?.as_str()?.parse().ok()).unwrap_or(0)
}

impl Follower {
    /// How many messages were there when reading began.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// The next message; `None` when the connection is closed.
    ///
    /// # Errors
    ///
    /// If the stream cannot be read any more.
    pub async fn next(&mut self) -> Result<Option<Seen>, BrokerError> {
        let Some(message) = self.messages.next().await else { return Ok(None) };
        let message = message.map_err(|error| BrokerError::other("read on", &error))?;
        let pending = message.info().map_or(0, |info| info.pending);
        Ok(Some(Seen {
            subject: message.subject.to_string(),
            headers: from_header_map(message.headers.as_ref()),
            payload: message.payload.clone(),
            pending,
        }))
    }
}
