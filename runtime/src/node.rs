//! Running a node: it takes items off the queues of the chains, runs their tasks, and puts the outputs where they belong.
//!
//! Everything that matters is on the server. Nothing is lost with the memory of a node.

// The supervisor serves the live revisions: it loads each, runs a worker on each of its hops, and retires it. A worker takes
// messages as its demand and permits allow. The pipeline handles each: frame (read, admit, plan), execute, commit, acknowledge.
// Suspicion decides about frames whose nodes may have died of them. Limited stages park items that wait. Health reports counters
// and conditions, logs sends log lines, memory and backlog throttle a hop, tasks restarts what panics, failpoint lets tests kill
// a node in the middle of all this. Reach opens the doors of stages that were granted something, and shares keeps them from taking
// all instances. Reporter makes the report of the node. Large
// fetches large items before they run and stores large outputs, and sweep removes what is left of them.

mod backlog;
mod clock;
mod commit;
pub(crate) mod execute;
pub(crate) mod executor;
pub(crate) mod failpoint;
pub(crate) mod frame;
pub(crate) mod health;
mod hop;
mod identity;
pub(crate) mod large;
mod limited;
mod lines;
mod logs;
pub(crate) mod memory;
mod phase;
mod pipeline;
pub(crate) mod programs;
pub(crate) mod reach;
mod reporter;
mod route;
pub(crate) mod runner;
mod settings;
pub(crate) mod shares;
mod supervisor;
mod suspicion;
pub(crate) mod sweep;
mod tasks;
pub(crate) mod worker;

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use crate::broker::Address;
use crate::broker::registry::{Change, Changes, Registry};
use crate::broker::service::{INCARNATION, NAME, NodeService};
use crate::broker::{Broker, BrokerError, Outage};
use crate::chain::default;
use crate::engine::{Engine, EngineSettings};
use crate::lock::lock;
use crate::report::NodeReport;
use crate::slots::Slots;
use executor::Executor;
use health::Board;
use logs::LogQueue;
use programs::Programs;
use reach::Reach;
pub use settings::{NodeError, NodeSettings};
use supervisor::Supervisor;
use supervisor::context::Context;
use tasks::Keeper;

/// How often to measure the memory of this process.
const MEMORY_EVERY: Duration = Duration::from_millis(250);
/// How often to look whether older revisions have run empty.
const RETIRE_EVERY: Duration = Duration::from_millis(500);
/// How often to look whether all chains are empty, if the node ends then.
const EMPTY_EVERY: Duration = Duration::from_millis(100);
/// The most changes of chains that wait to be looked at.
const CHANGES_AHEAD: usize = 64;
/// The most time for sending the last counters, and then the last log lines, when the node ends.
const FINISH: Duration = Duration::from_secs(2);
/// How long to wait before the next try.
const AGAIN: Duration = Duration::from_secs(1);

/// A running node.
pub struct Node {
    context: Arc<Context>,
    supervisor: Supervisor,
    settings: NodeSettings,
}

impl Node {
    /// Connects and runs a node until `shutdown` is ready.
    ///
    /// Then the node takes no new items, finishes the items in hand within the grace period, and gives back the rest. A program that
    /// still runs then has five more seconds to end. `ready`
    /// is called once the node serves what is deployed. Needs a multi-threaded Tokio runtime. The node lives as long as this
    /// future: dropped in the middle, the node stops without finishing its items, and other nodes run them again.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), pcluster::error::NodeError> {
    /// use pcluster::node::{Node, NodeSettings};
    ///
    /// let until = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    /// Node::run(&"nats://127.0.0.1:4222".into(), NodeSettings::new("worker-1"), until, || println!("ready")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If no usable server answers within five seconds, the server does not let a node do its work, the machine does not let
    /// the engine start, or the node cannot go on.
    pub async fn run(
        address: &Address,
        settings: NodeSettings,
        shutdown: impl Future<Output = ()>,
        ready: impl FnOnce(),
    ) -> Result<(), NodeError> {
        let broker = Broker::connect(address, &format!("pcluster-node {}", settings.name)).await?;
        Self::run_on(broker, settings, shutdown, ready).await
    }

    /// Runs a node on an open connection.
    pub(crate) async fn run_on(
        broker: Broker,
        settings: NodeSettings,
        shutdown: impl Future<Output = ()>,
        ready: impl FnOnce(),
    ) -> Result<(), NodeError> {
        let engine = Engine::new(&EngineSettings {
            instances: settings.instances,
            memory: Some(settings.memory),
            cache: settings.cache.clone(),
            compiler: settings.compiler.clone(),
        })?;
        memory::keep_nothing_large();
        let registry = Registry::create(&broker, default::REPLICAS).await?;
        let board = Arc::new(Board::default());
        let (logs, carrying) = LogQueue::start(broker.clone(), settings.name.clone(), &board);
        let executor =
            Executor::start().map_err(|error| BrokerError::other("start the threads of the guests", &error))?;
        let name = settings.name.clone();
        let reach = Reach::new(Arc::clone(&settings.ceiling), &broker, settings.instances)
            .map_err(|error| NodeError::CannotGoOn(error.to_string()))?;
        let mut context = Context::new(broker.clone(), registry, engine, name, executor.handle(), (logs, board), reach);
        context.programs = Programs::start(settings.allowed.clone(), &context.incarnation)
            .map_err(|error| BrokerError::other("start what programs need", &error))?;
        context.slots = Slots::new(settings.slots.clone());
        context.labels = settings.labels.clone();
        let context = Arc::new(context);
        let mut node = Self { supervisor: Supervisor::new(Arc::clone(&context), settings.sweep), context, settings };
        let service = NodeService::start(&broker, node.metadata(), node.reporter()).await?;
        let (stop, stopping) = watch::channel(false);
        let answering = node.answer(service, stopping);
        let counting = node.count();
        let telling = node.tell_permissions();
        let followed = node.follow(shutdown, ready).await;
        node.supervisor.drain(node.settings.grace).await;
        // The workers of its stages end once their stages are left.
        node.context.programs.gone().await;
        counting.abort();
        let engine = node.context.engine.clone();
        let _ = tokio::task::spawn_blocking(move || engine.wait_for_cache()).await;
        if tokio::time::timeout(FINISH, node.context.send_all_counts()).await.is_err() {
            tracing::warn!("the last counts were not sent in time");
        }
        stop.send_replace(true);
        let _ = tokio::time::timeout(FINISH, answering).await;
        telling.abort();
        drop(node);
        drop(executor);
        if tokio::time::timeout(FINISH, carrying).await.is_err() {
            tracing::warn!("the last log lines were not sent in time");
        }
        if let Err(error) = broker.flush().await {
            tracing::debug!(%error, "the last messages may not have been sent");
        }
        broker.close();
        followed
    }

    /// Serves what is deployed, until the node is told to stop, has nothing left to do or cannot go on.
    async fn follow(&mut self, shutdown: impl Future<Output = ()>, ready: impl FnOnce()) -> Result<(), NodeError> {
        // It may be in the middle of anything: with the server away, that may take long.
        tokio::select! {
            () = shutdown => Ok(()),
            ended = AssertUnwindSafe(self.serve(ready)).catch_unwind() => match ended {
                Ok(ended) => Ok(ended?),
                Err(panic) => {
                    let message = tasks::panic_message(panic.as_ref());
                    Err(NodeError::CannotGoOn(format!("its main task panicked: {message}")))
                }
            },
        }
    }

    async fn serve(&mut self, ready: impl FnOnce()) -> Result<(), BrokerError> {
        // A server that gives no answer yet is no reason to end. The followed changes begin with the present states.
        let first = match self.context.registry.changes().await {
            Err(error) if error.is_transient() => None,
            first => Some(first?),
        };
        let mut changes = follow_registry(&self.context, first);
        while let Err(error) = self.catch_up().await {
            if !error.is_transient() {
                return Err(error);
            }
            tokio::time::sleep(AGAIN).await;
        }
        ready();
        failpoint::task("run the node");
        let mut beside = memory::Beside::default();
        let mut memory = tokio::time::interval(MEMORY_EVERY);
        let mut retire = tokio::time::interval(RETIRE_EVERY);
        let mut empty = tokio::time::interval(EMPTY_EVERY);
        for interval in [&mut memory, &mut retire, &mut empty] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                Some(change) = changes.recv() => self.supervisor.change(change, &self.settings.chains).await,
                _ = memory.tick() => beside.look(self.context.engine.budget()),
                _ = retire.tick() => {
                    self.supervisor.retire();
                    self.supervisor.arrange();
                    self.supervisor.sweep();
                }
                _ = empty.tick(), if self.settings.until_empty => {
                    if self.supervisor.is_empty().await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Updates rates and sends counters, again and again.
    fn count(&self) -> JoinHandle<()> {
        let (context, keeper) = (Arc::clone(&self.context), self.keeper("send the counts"));
        tokio::spawn(async move { keeper.keep(|| context.count()).await })
    }

    /// Returns the keeper of a task of this node.
    fn keeper(&self, what: &'static str) -> Keeper {
        Keeper::new(Arc::clone(&self.context.board), what)
    }

    /// Answers as a node until it is told to stop.
    fn answer(&self, first: NodeService, stopping: watch::Receiver<bool>) -> JoinHandle<()> {
        let (broker, metadata, report) = (self.context.broker.clone(), self.metadata(), self.reporter());
        let mut first = Some(first);
        let keeper = self.keeper("answer as a node");
        keeper.spawn(move || answer(broker.clone(), metadata.clone(), report.clone(), first.take(), stopping.clone()))
    }

    /// Logs each missing permission once.
    fn tell_permissions(&self) -> JoinHandle<()> {
        let broker = self.context.broker.clone();
        let told = Arc::new(Mutex::new(BTreeSet::new()));
        self.keeper("tell which permissions are missing").spawn(move || {
            let (broker, told) = (broker.clone(), Arc::clone(&told));
            async move {
                loop {
                    for missing in broker.missing_permissions() {
                        if lock(&told).insert(missing.clone()) {
                            tracing::error!("{missing}");
                        }
                    }
                    broker.more_permissions_missing().await;
                }
            }
        })
    }

    /// Reads what is deployed, and waits until each revision is served or has a problem.
    async fn catch_up(&mut self) -> Result<(), BrokerError> {
        for chain in self.context.registry.chains().await? {
            match self.context.registry.state(&chain).await {
                Ok(Some(marked)) => self.supervisor.read(&chain, &marked, &self.settings.chains),
                Ok(None) => {}
                Err(error) => self.supervisor.unreadable(&chain.to_string(), &error.to_string()),
            }
        }
        self.supervisor.settled().await;
        Ok(())
    }

    fn metadata(&self) -> HashMap<String, String> {
        HashMap::from([
            (NAME.to_owned(), self.settings.name.clone()),
            ("host".to_owned(), host_name()),
            (INCARNATION.to_owned(), self.context.incarnation.clone()),
        ])
    }
}

/// Answers as a node until it is told to stop. Starts the service again if it ends.
async fn answer(
    broker: Broker,
    metadata: HashMap<String, String>,
    report: impl Fn() -> NodeReport + Send + Sync + Clone + 'static,
    mut service: Option<NodeService>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        if let Some(mut service) = service.take() {
            tokio::select! {
                () = service.ended() => {}
                () = told(&mut stopping) => return,
            }
            tracing::warn!("this node could not be found any more, and offers its service again");
            drop(service);
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = told(&mut stopping) => return,
        }
        service = NodeService::start(&broker, metadata.clone(), report.clone()).await.ok();
    }
}

/// Waits until it is told to stop.
async fn told(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Follows the registry in a task of its own. Begins anew if that ends.
fn follow_registry(context: &Context, mut first: Option<Changes>) -> mpsc::Receiver<Change> {
    let (broker, registry) = (context.broker.clone(), context.registry.clone());
    let (sender, receiver) = mpsc::channel(CHANGES_AHEAD);
    let keeper = Keeper::new(Arc::clone(&context.board), "follow what is deployed");
    keeper.spawn(move || follow(broker.clone(), registry.clone(), sender.clone(), first.take()));
    receiver
}

async fn follow(broker: Broker, registry: Registry, sender: mpsc::Sender<Change>, mut changes: Option<Changes>) {
    const WHAT: &str = "follow what is deployed";
    let mut outage = Outage::default();
    let mut is_gone = false;
    loop {
        let error = match &mut changes {
            None => match registry.changes().await {
                Ok(again) => {
                    outage.over(WHAT);
                    changes = Some(again);
                    if std::mem::take(&mut is_gone) && sender.send(Change::Renewed).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => error,
            },
            Some(followed) => match followed.next().await {
                Ok(change) => {
                    if sender.send(change).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => error,
            },
        };
        is_gone |= changes.take().is_some() && error.is_not_found();
        outage.met(&broker, WHAT, &error);
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = sender.closed() => return,
        }
    }
}

/// Returns the name of this machine.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
