//! The client of a cluster: everything that the command line does, with types and without printing.
//!
//! ```no_run
//! # async fn example() -> Result<(), pcluster::client::ClientError> {
//! use pcluster::client::{Item, Client};
//!
//! let client = Client::connect(&"nats://127.0.0.1:4222".into(), "my-program").await?;
//! client.deploy("chain.toml").await?;
//! let chain = "example".parse()?;
//! let mut feeder = client.feeder(&chain).await?;
//! feeder.feed(Item::of(&"hello world!")?).await?;
//! feeder.finish().await?;
//! client.wait(&chain).await?;
//! let mut puller = client.puller(&chain).await?;
//! let result = puller.next().await?;
//! println!("{} came of {}", result.result.to_json(), result.result.id);
//! result.ack().await;
//! # Ok(())
//! # }
//! ```

mod dead;
pub(crate) mod deploy;
mod error;
mod feed;
mod intake;
mod items;
mod logs;
mod pull;
mod pulled;
mod reset;
mod result;
mod stages;
mod status;
mod wait;
mod watch;

use crate::broker::Broker;
use crate::broker::arrange;
use crate::broker::registry::{Marked, Registry};
use crate::chain::Chain;
use crate::chain::record::Deployed;
use crate::name::{ChainName, Revision};

pub use crate::broker::Address;
pub use crate::broker::follow::StartAt;
pub use crate::broker::service::Nodes;
pub use crate::dead::{Attempt, FailureKind};
pub use crate::frame::Headers;
pub use crate::log::LogRecord;
pub use crate::report::{HopReport, NodeReport, Problem};
pub use dead::{DeadFilter, DeadLetter, Retried, Selection};
pub use deploy::{DeployOptions, Deployment, Package};
pub use error::ClientError;
pub use feed::{Fed, Feeder, Item, Packing, Waiting, Waits};
pub use intake::Switched;
pub use items::Items;
pub use logs::LogFilter;
pub use pcluster_abi::Level;
pub use pull::{Outcome, Puller};
pub use pulled::PulledResult;
pub use reset::Reset;
pub use result::{ResultItem, WithMeta};
pub use status::{ChainStatus, NodeProblem, RevisionStatus, StageStatus};
pub use wait::{Notice, Pace, Wait};
pub use watch::Watcher;

impl From<&str> for Address {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }
}

/// A client of a cluster.
#[derive(Debug, Clone)]
pub struct Client {
    broker: Broker,
}

impl Client {
    /// Connects to a cluster. The server lists this connection under `name`.
    ///
    /// # Errors
    ///
    /// If no usable server answers within five seconds.
    pub async fn connect(address: &Address, name: &str) -> Result<Self, ClientError> {
        Ok(Self { broker: Broker::connect(address, name).await? })
    }

    /// Wraps an open connection.
    pub(crate) fn new(broker: Broker) -> Self {
        Self { broker }
    }

    /// Returns the connection.
    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Returns the names of all chains, sorted.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn chains(&self) -> Result<Vec<ChainName>, ClientError> {
        match Registry::open(&self.broker).await? {
            Some(registry) => Ok(registry.chains().await?),
            None => Ok(Vec::new()),
        }
    }

    /// Returns the registry, and the state of a chain in it.
    async fn chain(&self, chain: &ChainName) -> Result<(Registry, Marked), ClientError> {
        if let Some(registry) = Registry::open(&self.broker).await? {
            if let Some(marked) = registry.state(chain).await?.filter(|marked| marked.state.is_deployed()) {
                arrange::check_wire(&self.broker, chain).await?;
                return Ok((registry, marked));
            }
            let chains = registry.chains().await?;
            return Err(ClientError::NoChain { chain: chain.clone(), known: chains });
        }
        Err(ClientError::NoChain { chain: chain.clone(), known: Vec::new() })
    }

    /// Returns the manifest of a revision, as stored and as checked.
    async fn revision(
        registry: &Registry,
        chain: &ChainName,
        revision: Revision,
    ) -> Result<(Deployed, Chain), ClientError> {
        let unreadable = |reason: String| ClientError::Registry { what: format!("chain `{chain}` {revision}"), reason };
        let deployed = registry.deployed(chain, revision).await?;
        let deployed = deployed.ok_or_else(|| unreadable("its manifest is missing".to_owned()))?;
        let checked = Chain::stored(&deployed.manifest).map_err(|error| unreadable(error.to_string()))?;
        Ok((deployed, checked))
    }
}
