//! Checks whether there is nothing more to take.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::hold::Holds;
use super::{Puller, RESULTS};
use crate::broker::streams::ChainStreams;
use crate::broker::topic::TopicWork;
use crate::client::{Client, ClientError};
use crate::name::ChainName;

/// The most time that a message travels from server to puller.
const ON_ITS_WAY: Duration = Duration::from_millis(250);

/// Checks whether there is nothing more to take.
pub(super) struct Drained {
    client: Client,
    chain: ChainName,
    streams: Vec<(String, String)>,
    topic: Option<Arc<Mutex<TopicWork>>>,
    holds: Arc<Holds>,
}

impl Drained {
    /// Returns the check for a puller.
    pub(super) fn of<T>(puller: &Puller<T>) -> Self {
        let Puller { client, chain, streams, topic, holds, .. } = puller;
        let (client, chain, streams) = (client.clone(), chain.clone(), streams.clone());
        Self { client, chain, streams, topic: topic.clone(), holds: Arc::clone(holds) }
    }

    /// Returns `true` if every item is handled, or every item of the topic.
    async fn is_finished(&self) -> Result<bool, ClientError> {
        let streams = ChainStreams::of(&self.client.broker, &self.chain);
        Ok(match &self.topic {
            None => streams.unfinished().await? == 0,
            Some(topic) => topic.lock().await.is_finished(streams).await?,
        })
    }

    /// Returns `true` if every item is handled and all results are taken.
    pub(super) async fn is_drained(&self) -> Result<bool, ClientError> {
        // A node stores results before it finishes their items. Checked in this order, no result is missed.
        if !self.is_finished().await? {
            return Ok(false);
        }
        for ((stream, consumer), number) in self.streams.iter().zip(RESULTS..) {
            let untaken = ChainStreams::of(&self.client.broker, &self.chain).untaken(stream, consumer).await?;
            // Messages that other pullers hold are not taken until they are confirmed. Some may be on their way to this puller.
            if untaken.queued > 0 || untaken.running > self.holds.given(number) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns `true` if no message waits for a puller.
    ///
    /// A message that the server has handed out may be on its way to this puller or held by another one. The server does not tell
    /// which, so this waits a moment for it to arrive.
    pub(super) async fn is_empty(&self) -> Result<bool, ClientError> {
        let mut is_known = true;
        for ((stream, consumer), number) in self.streams.iter().zip(RESULTS..) {
            let untaken = ChainStreams::of(&self.client.broker, &self.chain).untaken(stream, consumer).await?;
            if untaken.queued > 0 {
                return Ok(false);
            }
            is_known &= untaken.running <= self.holds.given(number);
        }
        if !is_known {
            tokio::time::sleep(ON_ITS_WAY).await;
        }
        Ok(true)
    }
}
