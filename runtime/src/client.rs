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
pub(crate) mod large;
mod logs;
mod pull;
mod pulled;
mod reset;
mod result;
mod settle;
mod stage;
mod stages;
mod status;
mod summary;
mod topics;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use crate::broker::Broker;
use crate::broker::arrange;
use crate::broker::registry::{Marked, Registry};
use crate::chain::Chain;
use crate::chain::record::Deployed;
use crate::name::{ChainName, Revision, StageName};

pub use crate::broker::Address;
pub use crate::broker::follow::StartAt;
pub use crate::broker::service::Nodes;
pub use crate::dead::calls::{CallRecord, Called, Safety};
pub use crate::dead::{Attempt, FailureKind};
pub use crate::frame::Headers;
pub use crate::frame::large::{Form, Reference};
pub use crate::frame::record::{Record, Skew, Step};
pub use crate::log::LogRecord;
pub use crate::report::{EndedBy, HopReport, NodeReport, Problem, SlotReport};
pub(crate) use dead::RanWith;
pub use dead::{DeadFilter, DeadLetter, Retried, RetryOptions, Selection};
pub use deploy::compare::{Change, Comparison, Queued};
pub(crate) use deploy::folders::PluginFolder;
pub(crate) use deploy::here::Here;
pub use deploy::{DeployOptions, Deployment, Package};
pub use error::ClientError;
pub(crate) use feed::file::item_of as item_of_file;
pub use feed::{Fed, Feeder, Item, Packing, Waiting, Waits};
pub use intake::Switched;
pub use items::Items;
pub use logs::LogFilter;
pub use pcluster_abi::Level;
pub use pull::{Outcome, Puller};
pub use pulled::PulledResult;
pub use reset::Reset;
pub use result::{ResultItem, WithMeta};
pub use stage::{InitializerReads, StageDetails};
pub use status::{ChainStatus, NodeProblem, RevisionStatus, StageStatus};
pub use summary::{Spread, StageSummary, Summary};
pub(crate) use wait::until_served;
pub use wait::{Notice, Pace, Wait};
pub use watch::Watcher;

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

    /// Deploys a manifest at a path, or a [`Package`].
    ///
    /// The new revision receives all items that are fed after this has returned. Earlier items are finished by earlier revisions.
    /// If this is dropped before it is done, it may leave a pending revision. Nothing uses that revision, and the next deploy of
    /// the chain removes it.
    ///
    /// # Errors
    ///
    /// If the manifest or a plugin is invalid, or the server refuses a request. Nothing is changed then.
    pub async fn deploy(&self, package: impl Into<Package> + Send) -> Result<Deployment, ClientError> {
        self.deploy_with(package, DeployOptions::default()).await
    }

    /// Deploys a manifest with options. See [`Client::deploy`].
    ///
    /// # Errors
    ///
    /// If the manifest or a plugin is invalid, or the server refuses a request. Nothing is changed then, except after
    /// [`ClientError::NotMoved`] and [`ClientError::Untold`].
    pub async fn deploy_with(
        &self,
        package: impl Into<Package> + Send,
        options: DeployOptions,
    ) -> Result<Deployment, ClientError> {
        deploy::deploy_with(self, package, options, |_| {}).await
    }

    /// Opens a feeder for a chain.
    ///
    /// # Errors
    ///
    /// If there is no such chain, its intake is closed, or another stream also listens to the intake.
    pub async fn feeder(&self, chain: &ChainName) -> Result<Feeder, ClientError> {
        feed::feeder(self, chain).await
    }

    /// Opens a puller for the results of a chain.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn puller(&self, chain: &ChainName) -> Result<Puller, ClientError> {
        pull::puller(self, chain, None).await
    }

    /// Watches the results of a chain without taking them.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn watcher(&self, chain: &ChainName, from: StartAt) -> Result<Watcher, ClientError> {
        watch::watcher(self, chain, None, from).await
    }

    /// Waits until every item of a chain is handled: the queues are empty and nothing runs.
    ///
    /// The wait continues while the server is away. It can be dropped at any time, because it changes nothing.
    ///
    /// ```no_run
    /// # async fn example(client: &pcluster::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// client.wait(&"example".parse()?).timeout(Duration::from_secs(30)).notices(|notice| println!("{notice:?}")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such chain, the time is over, or the chain's queues are gone.
    pub fn wait<'a>(&'a self, chain: &'a ChainName) -> Wait<'a> {
        Wait::new(self, chain)
    }

    /// Returns the status of one chain. It comes from the chain's streams and the nodes that answer. `nodes` is `None` if nodes
    /// are connected and nothing is known of them.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not answer.
    pub async fn status(&self, chain: &ChainName, nodes: Option<&Nodes>) -> Result<ChainStatus, ClientError> {
        status::status(self, chain, nodes).await
    }

    /// Returns what is known of a stage, in each live revision that has it. `nodes` is as for [`Client::status`].
    ///
    /// # Errors
    ///
    /// If there is no such chain or stage, or the server does not answer.
    pub async fn stage(
        &self,
        chain: &ChainName,
        stage: &StageName,
        nodes: Option<&Nodes>,
    ) -> Result<Vec<StageDetails>, ClientError> {
        stage::stage_details(self, chain, stage, nodes).await
    }

    /// Returns the nodes that answer, and the names of all others.
    ///
    /// # Errors
    ///
    /// If the connection is closed, or nodes are connected, none of them answers, and the server does not name them.
    pub async fn nodes(&self) -> Result<Nodes, ClientError> {
        status::nodes(self).await
    }

    /// Returns the nodes once idle ones have reported all their counters. Waits a moment for that. `None` if nodes are connected,
    /// none of them answers, and the server does not name them.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn settled_nodes(&self) -> Result<Option<Nodes>, ClientError> {
        status::settled_nodes(self).await
    }

    /// Follows the log lines that pass a filter.
    ///
    /// # Errors
    ///
    /// If there is no such chain or stage, or the server does not answer.
    pub async fn logs(&self, filter: &LogFilter) -> Result<Items<LogRecord>, ClientError> {
        logs::logs(self, filter).await
    }

    /// Closes the intake. Returns `true` if it was open.
    ///
    /// Feeding fails from now on. Items that were fed before are finished.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not allow it.
    pub async fn stop(&self, chain: &ChainName) -> Result<bool, ClientError> {
        Ok(intake::set_open(self, chain, false).await?.changed)
    }

    /// Opens the intake. Returns `true` if it was closed.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not allow it.
    pub async fn start(&self, chain: &ChainName) -> Result<bool, ClientError> {
        Ok(self.start_and_tell(chain).await?.changed)
    }

    /// Opens the intake, and returns everything that this has changed.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not allow it.
    pub async fn start_and_tell(&self, chain: &ChainName) -> Result<Switched, ClientError> {
        intake::set_open(self, chain, true).await
    }

    /// Interrupts running items and empties all queues. With `all`, removes results and dead letters too.
    ///
    /// The chain continues as a new revision of the same manifest. The server refuses all messages of earlier revisions, so the
    /// reset is final even for a node that is cut off from the server now. Ids that were fed before count as new. If a reset is
    /// dropped before it is done, it is incomplete, and another reset completes it.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not allow it.
    pub async fn reset(&self, chain: &ChainName, all: bool) -> Result<Reset, ClientError> {
        reset::reset(self, chain, all).await
    }

    /// Reads the current dead letters of a chain, oldest first. They stay in the stream.
    ///
    /// # Errors
    ///
    /// If there is no such chain or stage, or the server does not answer.
    pub async fn dead_letters(&self, chain: &ChainName, filter: &DeadFilter) -> Result<Items<DeadLetter>, ClientError> {
        dead::dead_letters(self, chain, filter).await
    }

    /// Returns one dead letter. `None` if no letter has this number.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn dead_letter(&self, chain: &ChainName, number: u64) -> Result<Option<DeadLetter>, ClientError> {
        dead::dead_letter(self, chain, number).await
    }

    /// Returns the numbers of the selected letters, in ascending order.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or no letter with one of the numbers.
    pub async fn dead_numbers(&self, chain: &ChainName, selection: &Selection) -> Result<Vec<u64>, ClientError> {
        dead::dead_numbers(self, chain, selection).await
    }

    /// Returns the number of dead letters of each stage that has any.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not answer.
    pub async fn dead_by_stage(&self, chain: &ChainName) -> Result<BTreeMap<StageName, u64>, ClientError> {
        dead::dead_by_stage(self, chain).await
    }

    /// Returns the log lines about the items of letters, by number. The lines are those of the stage that the item failed in.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not answer.
    pub async fn dead_logs(
        &self,
        chain: &ChainName,
        letters: &[DeadLetter],
    ) -> Result<BTreeMap<u64, Vec<LogRecord>>, ClientError> {
        dead::dead_logs(self, chain, letters).await
    }

    /// Retries dead letters: their items get new attempts in the stages that they failed in.
    ///
    /// Each item goes to the revision that it failed in, which becomes live again if it has retired. After a reset, it goes to a
    /// later revision with the same manifest. With [`RetryOptions::active`], it goes to the active revision. Its letter is removed. `tell` is
    /// called with the number of letters retried so far.
    ///
    /// This waits while a queue is full, and while a stage has as many requeued items as its queue may hold. Once `stop` is set,
    /// this requeues no more items, removes the letters of the items that it has requeued, and returns.
    ///
    /// # Errors
    ///
    /// If there is no such chain, no letter with one of the numbers (nothing is changed then), or the server does not answer.
    /// Items that were not retried keep their letters. A second call retries no item twice.
    pub async fn retry_dead(
        &self,
        chain: &ChainName,
        selection: &Selection,
        options: RetryOptions,
        stop: &AtomicBool,
        tell: impl FnMut(u64),
    ) -> Result<Retried, ClientError> {
        dead::retry_dead(self, chain, selection, options, stop, tell).await
    }

    /// Removes dead letters. Returns how many.
    ///
    /// # Errors
    ///
    /// If there is no such chain, no letter with one of the numbers (nothing is removed then), or the server refuses it.
    pub async fn drop_dead(&self, chain: &ChainName, selection: &Selection) -> Result<u64, ClientError> {
        dead::drop_dead(self, chain, selection).await
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
