//! Refuses topics for a revision that may have nodes which drop them.

use crate::client::{Client, ClientError};
use crate::name::{ChainName, Topic};
use crate::wire::OLDEST_WIRE;

/// Checks that a chain takes topics, once and before the first.
pub(super) struct Topics {
    client: Client,
    chain: ChainName,
    are_taken: bool,
}

impl Topics {
    /// Returns the check for a chain.
    pub(super) fn of(client: Client, chain: ChainName) -> Self {
        Self { client, chain, are_taken: false }
    }

    /// Refuses a topic if the active revision has the oldest wire. Releases that know no topics serve it too.
    pub(super) async fn check(&mut self, topic: Option<&Topic>) -> Result<(), ClientError> {
        if topic.is_none() || self.are_taken {
            return Ok(());
        }
        let (registry, marked) = self.client.chain(&self.chain).await?;
        let deployed = registry.deployed(&self.chain, marked.state.active).await?;
        if deployed.is_some_and(|deployed| deployed.wire() == OLDEST_WIRE) {
            return Err(ClientError::NoTopics(self.chain.clone()));
        }
        self.are_taken = true;
        Ok(())
    }
}
