//! Results with large items are removed once all who wait for results have taken them.
//!
//! Those are the plain pullers, which share one consumer, and if the result has a topic, the pullers of the topic, if they have
//! one. Other results stay until they are too old.

use std::collections::HashMap;

use serde_json::json;

use super::super::get::Stored;
use super::super::info::Progress;
use super::super::stream::Stream;
use super::super::{Broker, BrokerError};
use super::LargeStore;
use crate::frame::{Headers, header};
use crate::name::{ChainName, Topic};
use crate::subject as names;

/// How far the pullers of a chain have come. Cheap to ask again and again; it is as old as the pullers it has met.
#[derive(Debug)]
pub(crate) struct TakenUpTo {
    broker: Broker,
    chain: ChainName,
    stream: String,
    /// By consumer: the place up to which all results are taken. `None` if there is no such consumer.
    consumers: HashMap<String, Option<u64>>,
}

impl LargeStore {
    /// Returns how far the pullers of the chain have come by now.
    pub(crate) async fn taken(&self) -> Result<TakenUpTo, BrokerError> {
        TakenUpTo::of(&self.0.broker, &self.0.chain).await
    }
}

impl TakenUpTo {
    async fn of(broker: &Broker, chain: &ChainName) -> Result<Self, BrokerError> {
        let stream = names::results_stream(chain);
        let mut taken = Self { broker: broker.clone(), chain: chain.clone(), stream, consumers: HashMap::new() };
        taken.floor(names::PULL_CONSUMER).await?;
        Ok(taken)
    }

    /// Removes the result at a place if all who wait for it have taken it. Returns `true` if it is gone.
    pub(crate) async fn remove(&mut self, place: u64) -> Result<bool, BrokerError> {
        let (broker, name) = (self.broker.clone(), self.stream.clone());
        let what = || format!("read message {place} of the stream `{name}`");
        let Some(result) = Stored::read(&broker, &name, &json!({ "seq": place }), what).await? else { return Ok(true) };
        let headers = result.headers();
        if headers.get(header::LARGE).is_none() || !self.is_taken(place, &result.subject, &headers).await? {
            return Ok(false);
        }
        Stream::of(&broker, &name).remove_message(place).await?;
        Ok(true)
    }

    async fn is_taken(&mut self, place: u64, subject: &str, headers: &Headers) -> Result<bool, BrokerError> {
        let topic = headers.get(header::TOPIC).and_then(|topic| topic.parse::<Topic>().ok());
        let of_topic = match &topic {
            Some(topic) => self.floor(&names::topic_consumer(topic)).await?,
            None => None,
        };
        // What pullers of a topic have put back is for them alone.
        if topic.is_some_and(|topic| subject == names::results_again(&self.chain, topic.as_str())) {
            return Ok(of_topic.is_some_and(|floor| place <= floor));
        }
        // Without a consumer for all pullers, nobody has taken anything yet.
        let of_all = self.floor(names::PULL_CONSUMER).await?;
        Ok(of_all.is_some_and(|floor| place <= floor) && of_topic.is_none_or(|floor| place <= floor))
    }

    async fn floor(&mut self, consumer: &str) -> Result<Option<u64>, BrokerError> {
        if let Some(floor) = self.consumers.get(consumer) {
            return Ok(*floor);
        }
        let progress: Result<Progress, _> = Stream::of(&self.broker, &self.stream).consumer(consumer).await;
        let floor = match progress {
            Ok(progress) => Some(progress.acknowledged),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        self.consumers.insert(consumer.to_owned(), floor);
        Ok(floor)
    }
}
