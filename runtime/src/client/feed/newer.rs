//! Refuses what only newer nodes know, for a revision that may have nodes which do not.

use crate::client::{Client, ClientError};
use crate::name::{ChainName, Topic};
use crate::wire::OLDEST_WIRE;

/// Checks that a chain takes what the oldest wire lacks, once and before the first of it.
pub(super) struct Newer {
    client: Client,
    chain: ChainName,
    is_taken: bool,
}

impl Newer {
    /// Returns the check for a chain.
    pub(super) fn of(client: Client, chain: ChainName) -> Self {
        Self { client, chain, is_taken: false }
    }

    /// Refuses a topic if the chain takes none.
    pub(super) async fn check_topic(&mut self, topic: Option<&Topic>) -> Result<(), ClientError> {
        if topic.is_none() || self.takes().await? { Ok(()) } else { Err(ClientError::NoTopics(self.chain.clone())) }
    }

    /// Refuses an item of this many bytes, which does not fit in a message, if the chain takes no references.
    pub(super) async fn check_large(&mut self, size: u64, max: u64) -> Result<(), ClientError> {
        let why = " of a chain that an earlier pcluster has deployed; write a new version into the manifest and deploy it with \
                   this one";
        if self.takes().await? { Ok(()) } else { Err(ClientError::Oversized { size, max, why }) }
    }

    /// Returns `false` if the active revision has the oldest wire. Releases that know neither topics nor references serve it too.
    async fn takes(&mut self) -> Result<bool, ClientError> {
        if !self.is_taken {
            let (registry, marked) = self.client.chain(&self.chain).await?;
            let deployed = registry.deployed(&self.chain, marked.state.active).await?;
            self.is_taken = deployed.is_none_or(|deployed| deployed.wire() != OLDEST_WIRE);
        }
        Ok(self.is_taken)
    }
}
