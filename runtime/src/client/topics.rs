//! What a client does with one topic of a chain.

use std::collections::BTreeMap;

use super::{Client, ClientError, Puller, StartAt, Watcher, pull, watch};
use crate::broker::streams::ChainStreams;
use crate::name::{ChainName, Topic};

impl Client {
    /// Opens a puller for the results of one topic of a chain.
    ///
    /// All pullers of a topic share its results, those that were stored before the first of them too. They and the pullers of
    /// [`Client::puller`] take nothing from each other: each kind gives each result once. The server forgets what the pullers of a
    /// topic have taken once there was none for a day.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn topic_puller(&self, chain: &ChainName, topic: &Topic) -> Result<Puller, ClientError> {
        pull::puller(self, chain, Some(topic)).await
    }

    /// Watches the results of one topic of a chain without taking them.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn topic_watcher(&self, chain: &ChainName, topic: &Topic, from: StartAt) -> Result<Watcher, ClientError> {
        watch::watcher(self, chain, Some(topic), from).await
    }

    /// Returns how many messages of results each topic of a chain has, pulled or not. A message may hold many results.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not answer.
    pub async fn topics(&self, chain: &ChainName) -> Result<BTreeMap<Topic, u64>, ClientError> {
        self.chain(chain).await?;
        Ok(ChainStreams::of(&self.broker, chain).results_by_topic().await?)
    }
}
