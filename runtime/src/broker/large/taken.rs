//! Results with large items are removed once all who wait for results have taken them.
//!
//! Those are the plain pullers, which share one consumer, and if the result has a topic, the pullers of the topic, if they have
//! one. Other results stay until they are too old.

use std::collections::HashMap;

use super::super::info::Progress;
use super::super::stream::Stream;
use super::super::{Broker, BrokerError};
use super::LargeStore;
use crate::frame::header;
use crate::name::ChainName;
use crate::subject as names;

/// On results: their topic.
const TOPIC: &str = "Pcluster-Topic";

/// How far the pullers of a chain have come. Cheap to ask again and again; it is as old as the pullers it has met.
#[derive(Debug)]
pub(crate) struct Taken {
    broker: Broker,
    stream: String,
    /// By consumer: the place up to which all results are taken. `None` if there is no such consumer.
    consumers: HashMap<String, Option<u64>>,
}

impl LargeStore {
    /// Returns how far the pullers of the chain have come by now.
    pub(crate) async fn taken(&self) -> Result<Taken, BrokerError> {
        Taken::of(&self.0.broker, &self.0.chain).await
    }
}

impl Taken {
    async fn of(broker: &Broker, chain: &ChainName) -> Result<Self, BrokerError> {
        let stream = names::results_stream(chain);
        let mut taken = Self { broker: broker.clone(), stream, consumers: HashMap::new() };
        taken.floor(names::PULL_CONSUMER).await?;
        Ok(taken)
    }

    /// Removes the result at a place if all who wait for it have taken it. Returns `true` if it is gone.
    pub(crate) async fn remove(&mut self, place: u64) -> Result<bool, BrokerError> {
        // Without a consumer for all pullers, nobody has taken anything yet.
        if self.floor(names::PULL_CONSUMER).await?.is_none_or(|floor| place > floor) {
            return Ok(false);
        }
        let stream = self.stream.clone();
        let broker = self.broker.clone();
        let stream = Stream::of(&broker, &stream);
        let Some(headers) = stream.headers(place).await? else { return Ok(true) };
        if headers.get(header::LARGE).is_none() {
            return Ok(false);
        }
        if let Some(topic) = headers.get(TOPIC)
            && self.floor(&format!("topic_{topic}")).await?.is_some_and(|floor| place > floor)
        {
            return Ok(false);
        }
        stream.remove_message(place).await?;
        Ok(true)
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
