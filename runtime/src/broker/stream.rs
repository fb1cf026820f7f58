//! One stream, by its name: its state and its consumers. [`super::scan`] reads its messages.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_nats::jetstream::consumer::{self, pull};
use async_nats::jetstream::stream::{Config, SubjectTransform};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::code;
use super::{Broker, BrokerError};

/// How long to wait before another try to make a consumer.
const AGAIN: Duration = Duration::from_millis(300);

/// A stream, whether it exists or not.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    pub(super) broker: &'a Broker,
    pub(super) name: &'a str,
}

#[derive(Deserialize)]
pub(super) struct StreamState {
    pub(super) config: StreamConfig,
    pub(super) created: String,
    pub(super) state: StreamCounts,
    /// The time of the server that answers, as RFC 3339.
    #[serde(default)]
    pub(super) ts: Option<String>,
    /// Subjects that match, in this answer or not.
    #[serde(default)]
    pub(super) total: usize,
}

#[derive(Deserialize)]
pub(super) struct StreamConfig {
    pub(super) subject_transform: Option<SubjectTransform>,
    /// The most bytes of all messages. Negative for no limit.
    #[serde(default)]
    pub(super) max_bytes: i64,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct StreamCounts {
    pub(super) messages: u64,
    #[serde(default)]
    pub(super) bytes: u64,
    pub(super) last_seq: u64,
    /// How many messages each subject has, of those that were asked for.
    #[serde(default)]
    pub(super) subjects: BTreeMap<String, u64>,
}

impl<'a> Stream<'a> {
    /// Returns the stream with a name.
    pub fn of(broker: &'a Broker, name: &'a str) -> Self {
        Self { broker, name }
    }

    /// Makes a stream, unless an equal one exists. Returns `true` if it was made.
    pub(super) async fn create(broker: &Broker, config: &Config) -> Result<bool, BrokerError> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(default)]
            did_create: bool,
        }
        let name = &config.name;
        let what = || format!("make the stream `{name}`");
        let created: Created = broker.api(format!("STREAM.CREATE.{name}"), config, what).await?;
        Ok(created.did_create)
    }

    /// Changes a stream. The update is sent once: a late one would undo later changes by others.
    pub(super) async fn update(broker: &Broker, config: &Config) -> Result<(), BrokerError> {
        let name = &config.name;
        let what = || format!("change the stream `{name}`");
        let _: Value = broker.api_once(format!("STREAM.UPDATE.{name}"), config, what).await?;
        Ok(())
    }

    /// Returns the names of the streams that listen on a subject.
    pub async fn listening_on(broker: &Broker, subject: &str) -> Result<Vec<String>, BrokerError> {
        #[derive(Deserialize)]
        struct Names {
            streams: Option<Vec<String>>,
        }
        let what = || format!("tell which stream `{subject}` belongs to");
        let names: Names = broker.api("STREAM.NAMES".to_owned(), &json!({ "subject": subject }), what).await?;
        Ok(names.streams.unwrap_or_default())
    }

    /// Returns when the stream was made, as the server writes it. Another stream of the same name has another time.
    pub(super) async fn created(&self) -> Result<String, BrokerError> {
        Ok(self.state(None).await?.created)
    }

    /// Returns the number of the newest message, stored still or removed; 0 if there never was one.
    pub async fn last_place(&self) -> Result<u64, BrokerError> {
        Ok(self.state(None).await?.state.last_seq)
    }

    /// Returns `true` if the stream exists.
    pub(super) async fn exists(&self) -> Result<bool, BrokerError> {
        match self.state(None).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the state of the stream, with as many subjects of a pattern, from a position on, as fit into an answer.
    pub(super) async fn state(&self, subjects: Option<(&str, usize)>) -> Result<StreamState, BrokerError> {
        let name = self.name;
        let page = |(filter, offset)| json!({ "subjects_filter": filter, "offset": offset });
        let request = subjects.map_or(json!({}), page);
        let what = || format!("tell the state of the stream `{name}`");
        self.broker.api(format!("STREAM.INFO.{name}"), &request, what).await
    }

    /// Returns the same as [`Stream::state`] for a pattern of very many subjects.
    pub(super) async fn state_of_many(&self, pattern: &str, offset: usize) -> Result<StreamState, BrokerError> {
        let request = json!({ "subjects_filter": pattern, "offset": offset });
        let what = || format!("list what the stream `{}` holds", self.name);
        self.broker.api_slow(format!("STREAM.INFO.{}", self.name), &request, what).await
    }

    /// Returns the subjects of a pattern that the stream has messages of.
    pub(super) async fn subjects(&self, pattern: &str) -> Result<Vec<String>, BrokerError> {
        Ok(self.state(Some((pattern, 0))).await?.state.subjects.into_keys().collect())
    }

    /// Returns the most messages that any subject of the stream holds; `None` if its metadata is not as expected.
    ///
    /// The same answers of the server tell both.
    pub(super) async fn fullest(
        &self,
        is_as_expected: impl Fn(&HashMap<String, String>) -> bool,
    ) -> Result<Option<u64>, BrokerError> {
        let (mut fullest, mut seen) = (0, 0);
        loop {
            let page = self.state(Some((">", seen))).await?;
            if !is_as_expected(&page.config.metadata) {
                return Ok(None);
            }
            let subjects = page.state.subjects;
            seen += subjects.len();
            fullest = subjects.values().copied().fold(fullest, u64::max);
            if subjects.is_empty() || seen >= page.total {
                return Ok(Some(fullest));
            }
        }
    }

    /// Removes the messages of the stream, or those under the subjects of a pattern. Returns their number.
    pub(super) async fn purge(&self, pattern: Option<&str>) -> Result<u64, BrokerError> {
        #[derive(Deserialize)]
        struct Purged {
            purged: u64,
        }
        let name = self.name;
        let request = pattern.map_or(json!({}), |pattern| json!({ "filter": pattern }));
        let answer: Purged =
            self.broker.api(format!("STREAM.PURGE.{name}"), &request, || format!("empty the stream `{name}`")).await?;
        Ok(answer.purged)
    }

    /// Removes the stream.
    pub(super) async fn delete(&self) -> Result<(), BrokerError> {
        let name = self.name;
        let _: Value =
            self.broker.api(format!("STREAM.DELETE.{name}"), &(), || format!("remove the stream `{name}`")).await?;
        Ok(())
    }

    /// Makes a durable consumer, unless an equal one exists. Changes another one of the same name.
    pub(super) async fn create_consumer(&self, config: pull::Config) -> Result<(), BrokerError> {
        self.make_consumer(config, "").await
    }

    /// Makes a durable consumer, unless one of the same name exists.
    pub(super) async fn create_missing_consumer(&self, config: pull::Config) -> Result<(), BrokerError> {
        match self.make_consumer(config, "create").await {
            Err(error) if error.code() == Some(code::CONSUMER_EXISTS) => Ok(()),
            made => made,
        }
    }

    async fn make_consumer(&self, config: pull::Config, action: &str) -> Result<(), BrokerError> {
        let (stream, name) = (self.name, config.durable_name.clone().unwrap_or_default());
        let config = consumer::IntoConsumerConfig::into_consumer_config(config);
        let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let request = json!({ "stream_name": stream, "config": config, "action": action });
        let deadline = Instant::now() + self.broker.patience();
        loop {
            let what = || format!("make the consumer `{name}` of stream `{stream}`");
            let made: Result<Value, _> = self.broker.api(subject.clone(), &request, what).await;
            match made {
                // A cluster also answers so while the stream moves to other servers.
                Err(error) if error.is_no_room() && self.broker.is_clustered() && Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                }
                made => return made.map(drop),
            }
        }
    }

    /// Removes a consumer, unless it is gone already.
    pub(super) async fn delete_consumer(&self, name: &str) -> Result<(), BrokerError> {
        let api = format!("CONSUMER.DELETE.{}.{name}", self.name);
        let deleted: Result<Value, _> = self.broker.api(api, &(), || format!("remove the consumer `{name}`")).await;
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the state of a consumer.
    pub(super) async fn consumer<T: DeserializeOwned>(&self, consumer: &str) -> Result<T, BrokerError> {
        let what = || format!("tell the state of the consumer `{consumer}`");
        self.broker.api(format!("CONSUMER.INFO.{}.{consumer}", self.name), &(), what).await
    }
}
