//! A node: takes items off the queues of the chains' hops, runs their tasks, and puts the outputs where they belong.
//!
//! [`catalog`] knows which revisions to serve, has `ready` make them so, and keeps a [`worker`] on each of their hops, until
//! [`retire`] ends it; a worker takes as many frames as [`turns`] has room for and gives them to its `handlers`. [`outcome`]
//! decides what becomes of a frame: [`taken`] reads it, `run` runs its items on the threads of the [`guests`] or right there,
//! [`inline`] and `together` those of several stages at once, `plan` decides what it leaves behind, `commit` and `letter` make
//! that, `settle` sees to it that this counts once, and `store` puts it on the server. `claims` tells what the node has in hand,
//! `suspicion` what to make of what others had, and `roll_call` which of them live. `parked` moves what has waited for its
//! back-off. `backlog` holds a hop back that puts back too much, [`memory`] one that asks for more than the node has room for.
//! `quarantine` keeps apart what nodes died with, `tasks` keeps alive what runs as long as the node. [`stats`] counts,
//! [`trouble`] shows what keeps a chain from going on,
//! [`logs`] carries log lines away without ever waiting, [`fault`] lets tests kill a node in the middle of all this.
//!
//! Nothing a node holds in memory is missed when it is gone: all that matters is on the server.

mod arrange;
mod backlog;
pub mod catalog;
mod claims;
mod commit;
pub mod fault;
pub mod guests;
mod handlers;
pub mod inline;
mod letter;
pub mod logs;
pub mod memory;
mod orphan;
pub mod outcome;
mod parked;
mod plan;
mod quarantine;
mod ready;
pub mod retire;
mod roll_call;
mod run;
mod settle;
pub mod stats;
mod store;
mod suspicion;
pub mod taken;
mod tasks;
mod together;
pub mod trouble;
pub mod turns;
pub mod worker;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::broker::registry::{Change, Changes, Registry};
use crate::broker::service::{INCARNATION, NodeReport};
use crate::broker::{Broker, BrokerError, Complaint};
use crate::chain::default;
use crate::engine::Engine;
use crate::engine::budget::Budget;
use crate::name::ChainName;
use catalog::Catalog;
use guests::Guests;
use logs::LogQueue;

/// How often counters are sent and rates worked out.
const COUNT_EVERY: Duration = Duration::from_millis(250);
/// How often to look whether older revisions have run empty.
const RETIRE_EVERY: Duration = Duration::from_millis(500);
/// How often to look whether all chains are empty, when the node shall end then.
const EMPTY_EVERY: Duration = Duration::from_millis(100);
/// Changes of chains that may wait to be looked at.
const CHANGES_AHEAD: usize = 64;
/// How long the last counts may take when the node ends.
const FINISH: Duration = Duration::from_secs(2);
/// How long to wait before following the registry again after that has failed.
const FOLLOW_AGAIN: Duration = Duration::from_secs(1);

/// What a node is told.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Its name; should be its own.
    pub name: String,
    /// How long items in hand may take when the node is told to stop.
    pub grace: Duration,
    /// Serve only these chains; empty: all.
    pub chains: BTreeSet<ChainName>,
    /// End when all chains served are empty.
    pub until_empty: bool,
}

/// A running node.
pub struct Node {
    broker: Broker,
    registry: Registry,
    catalog: Catalog,
    settings: NodeSettings,
    logs: LogQueue,
    guests: Guests,
    budget: Arc<Budget>,
}

impl Node {
    /// Runs a node until `shutdown` is ready; then takes no new items, finishes those in hand within the grace period, and
    /// gives back the rest. `ready` is called once the node serves what is deployed.
    ///
    /// # Errors
    ///
    /// If the server does not let a node do its work.
    pub async fn run(
        broker: Broker,
        engine: Engine,
        settings: NodeSettings,
        shutdown: impl Future<Output = ()>,
        ready: impl FnOnce(),
    ) -> Result<(), BrokerError> {
        let registry = broker.create_registry(default::REPLICAS).await?;
        let (logs, carrying) = LogQueue::start(broker.clone(), settings.name.clone());
        let guests = Guests::start().map_err(|error| BrokerError::other("start the threads of the guests", &error))?;
        let (broker_of, registry_of, name) = (broker.clone(), registry.clone(), settings.name.clone());
        let budget = Arc::clone(engine.budget());
        let catalog = Catalog::new(broker_of, registry_of, engine, name, logs.clone(), guests.handle());
        let mut node = Self { broker, registry, catalog, settings, logs, guests, budget };
        let service = node.broker.serve_node(node.metadata(), node.reporter()).await?;
        let followed = node.follow(shutdown, ready).await;
        node.catalog.drain(node.settings.grace).await;
        if tokio::time::timeout(FINISH, node.catalog.send_counts()).await.is_err() {
            tracing::warn!("the last counts were not sent in time");
        }
        service.stop().await;
        drop(node.logs);
        drop(node.catalog);
        drop(node.guests);
        carrying.finish().await;
        if let Err(error) = node.broker.flush().await {
            tracing::debug!(%error, "the last messages may not have been sent");
        }
        node.broker.close();
        followed
    }

    /// Serves what is deployed, until it is told to stop or has nothing left to do.
    async fn follow(&mut self, shutdown: impl Future<Output = ()>, ready: impl FnOnce()) -> Result<(), BrokerError> {
        // Whatever it is doing at the moment: with the server away, that may take long.
        tokio::select! {
            () = shutdown => Ok(()),
            ended = self.serve(ready) => ended,
        }
    }

    async fn serve(&mut self, ready: impl FnOnce()) -> Result<(), BrokerError> {
        let first = self.registry.changes().await?;
        let mut changes = follow_registry(self.broker.clone(), self.registry.clone(), first);
        self.catch_up().await?;
        ready();
        let mut beside = memory::Beside::default();
        let mut count = tokio::time::interval(COUNT_EVERY);
        let mut retire = tokio::time::interval(RETIRE_EVERY);
        let mut empty = tokio::time::interval(EMPTY_EVERY);
        for interval in [&mut count, &mut retire, &mut empty] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                Some(change) = changes.recv() => self.catalog.change(change, &self.settings.chains).await,
                _ = count.tick() => {
                    beside.look(&self.budget);
                    self.catalog.send_counts().await;
                }
                _ = retire.tick() => {
                    self.catalog.retire();
                    self.catalog.arrange();
                }
                _ = empty.tick(), if self.settings.until_empty => {
                    if self.catalog.is_empty().await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Starts on all that is deployed and waits until each revision is served or has a problem.
    async fn catch_up(&mut self) -> Result<(), BrokerError> {
        for chain in self.registry.chains().await? {
            match self.registry.state(&chain).await {
                Ok(Some(marked)) => self.catalog.state(&chain, &marked.state, &self.settings.chains),
                Ok(None) => {}
                Err(error) => self.catalog.unreadable(&chain.to_string(), &error.to_string()),
            }
        }
        self.catalog.settled().await;
        Ok(())
    }

    fn metadata(&self) -> HashMap<String, String> {
        HashMap::from([
            ("node".to_owned(), self.settings.name.clone()),
            ("host".to_owned(), host_name()),
            (INCARNATION.to_owned(), self.catalog.incarnation().to_owned()),
        ])
    }

    fn reporter(&self) -> impl Fn() -> NodeReport + Send + Sync + Clone + 'static {
        let started = Instant::now();
        let name = self.settings.name.clone();
        let incarnation = self.catalog.incarnation().to_owned();
        let (board, budget) = (self.catalog.board(), Arc::clone(&self.budget));
        move || NodeReport {
            node: name.clone(),
            incarnation: incarnation.clone(),
            pid: std::process::id(),
            host: host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: started.elapsed().as_secs_f64(),
            draining: board.is_draining(),
            memory_used: budget.used(),
            memory: budget.limit(),
            hops: board.hops(),
            problems: board.problems(),
        }
    }
}

/// Follows the registry in a task of its own, and anew where that has ended; states that were seen before do no harm.
fn follow_registry(broker: Broker, registry: Registry, mut changes: Changes) -> mpsc::Receiver<Change> {
    const WHAT: &str = "follow what is deployed";
    let (sender, receiver) = mpsc::channel(CHANGES_AHEAD);
    tokio::spawn(async move {
        let mut complaint = Complaint::default();
        loop {
            let mut error = match changes.next().await {
                Ok(change) => {
                    if sender.send(change).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => error,
            };
            let is_gone = error.is_not_found();
            changes = loop {
                complaint.met(&broker, WHAT, &error);
                tokio::time::sleep(FOLLOW_AGAIN).await;
                match registry.changes().await {
                    Ok(again) => break again,
                    Err(again) => error = again,
                }
                if sender.is_closed() {
                    return;
                }
            };
            complaint.over(WHAT);
            if is_gone && sender.send(Change::Renewed).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// The name of this machine.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
