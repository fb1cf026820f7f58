//! The counters of all chains: the handled items of each stage, over all nodes and all time.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::get::Stored;
use super::line::Answers;
use super::stream::Stream;
use super::{Broker, BrokerError};
use crate::name::{ChainName, Revision, StageName};
use crate::subject::{self, COUNT_STREAM, Count};

/// The longest wait for counters. The server answers at once, or not at all if the account may not ask.
const PATIENCE: Duration = Duration::from_secs(2);

/// The counters of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items that ended, well or not.
    pub done: u64,
    /// Of these, the dead letters.
    pub failed: u64,
}

/// The counters of all chains.
#[derive(Debug, Clone, Copy)]
pub struct Counters<'a>(&'a Broker);

impl<'a> Counters<'a> {
    /// Returns the counters of a server.
    pub fn of(broker: &'a Broker) -> Self {
        Self(broker)
    }

    /// Adds to a counter, and waits for the server's answer.
    ///
    /// An addition with the same id within two minutes is not added again.
    pub async fn add(
        &self,
        chain: &ChainName,
        revision: Revision,
        stage: &StageName,
        what: Count,
        more: u64,
        id: &str,
    ) -> Result<(), BrokerError> {
        let subject = subject::count(chain, revision, stage, what);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Incr", format!("+{more}"));
        headers.insert(NATS_MESSAGE_ID, format!("{subject}.{id}"));
        self.0.put(subject.clone(), headers, Bytes::new(), || format!("add to the counter `{subject}`")).await
    }

    /// Returns the counters of a revision's stages. `None` if the server does not answer.
    ///
    /// Each revision and kind of counter takes a request: the server answers for at most 1,024 subjects at once.
    pub async fn read(
        &self,
        chain: &ChainName,
        revision: Revision,
    ) -> Result<Option<BTreeMap<StageName, Counts>>, BrokerError> {
        let mut counts: BTreeMap<StageName, Counts> = BTreeMap::new();
        for what in [Count::Done, Count::Failed] {
            let Some(values) = self.values(subject::counts_of(chain, revision, what)).await? else { return Ok(None) };
            for (name, value) in values {
                let Some((_, stage, _)) = subject::parse_count(&name) else { continue };
                let count = counts.entry(stage).or_default();
                match what {
                    Count::Done => count.done = value,
                    Count::Failed => count.failed = value,
                }
            }
        }
        Ok(Some(counts))
    }

    /// Returns the counters of a pattern, by subject. `None` if the server does not answer.
    async fn values(&self, pattern: String) -> Result<Option<BTreeMap<String, u64>>, BrokerError> {
        let request = json!({ "multi_last": [pattern] }).to_string();
        let api = format!("{}.DIRECT.GET.{COUNT_STREAM}", self.0.api_prefix);
        // Any client may count, with any headers.
        let mut answers = Answers::to(self.0, api, request.into(), "read the counters").await?;
        let mut values = BTreeMap::new();
        loop {
            let answer = match timeout(PATIENCE, answers.next()).await {
                Ok(Some(answer)) => answer,
                // A counter has headers that the client library cannot read, so the connection has ended.
                Ok(None) => return self.values_one_by_one(&pattern).await.map(Some),
                Err(_) => return Ok(None),
            };
            match answer.status.map(|status| status.as_u16()) {
                // The end of the answer, not a message.
                Some(204 | 404) => return Ok(Some(values)),
                Some(200..600) => return Ok(None),
                // An answer that no server gives is from another client.
                None | Some(_) => {}
            }
            let name = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Subject"));
            if let Some(name) = name {
                values.insert(name.as_str().to_owned(), read_counter(&answer.payload));
            }
        }
    }

    /// Returns the same by the server's API, which answers readably for any headers. It takes a request for each counter.
    async fn values_one_by_one(&self, pattern: &str) -> Result<BTreeMap<String, u64>, BrokerError> {
        let mut values = BTreeMap::new();
        for name in Stream::of(self.0, COUNT_STREAM).subjects(pattern).await? {
            // Other subjects are skipped anyway.
            if subject::parse_count(&name).is_none() {
                continue;
            }
            let request = json!({ "last_by_subj": name });
            let stored = Stored::read(self.0, COUNT_STREAM, &request, || "read the counters".to_owned()).await?;
            if let Some(stored) = stored {
                values.insert(name, read_counter(&stored.payload));
            }
        }
        Ok(values)
    }

    /// Removes the counters of a chain.
    pub async fn purge(&self, chain: &ChainName) -> Result<(), BrokerError> {
        Stream::of(self.0, COUNT_STREAM).purge(Some(&subject::counts(chain))).await.map(drop)
    }
}

/// Reads a counter, which is stored as `{"val":"7"}`.
fn read_counter(payload: &[u8]) -> u64 {
    let value: Option<Value> = serde_json::from_slice(payload).ok();
    value.and_then(|value| value.get("val")?.as_str()?.parse().ok()).unwrap_or(0)
}
