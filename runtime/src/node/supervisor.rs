//! The supervisor: serves the revisions that are live in the registry. One task per revision makes it ready and runs a worker on
//! each of its hops.

pub(crate) mod arrange;
pub(crate) mod context;
pub(crate) mod load;
pub(crate) mod orphan;
pub(crate) mod retire;
pub(crate) mod serve;
pub(crate) mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::broker::registry::{Change, Marked};
use crate::broker::streams::ChainStreams;
use crate::chain::record::State;
use crate::name::{ChainName, Revision};
use crate::node::phase::Phase;
use crate::node::supervisor::arrange::Arranger;
use crate::node::supervisor::context::Context;
use crate::node::sweep::{Pace, Sweeper};
use crate::node::tasks::Keeper;

/// A revision is served for this long before it can be retired. A client that has made it live again is about to queue items for
/// it.
const RETIRE_AFTER: Duration = Duration::from_secs(1);
/// How long a starting node waits for its revisions before it is ready.
const SETTLE: Duration = Duration::from_secs(30);
/// How often a stopping node looks for chains that cannot be finished.
const REFUSED_AGAIN: Duration = Duration::from_millis(100);
/// How long an interrupted worker may take to give back what it holds.
const INTERRUPT: Duration = Duration::from_secs(2);

/// A revision that the node serves.
struct Serving {
    phase: watch::Sender<Phase>,
    settled: watch::Receiver<bool>,
    task: JoinHandle<()>,
    active: bool,
    /// Since when it is served.
    since: Instant,
}

/// The revisions that the node serves.
pub struct Supervisor {
    context: Arc<Context>,
    serving: BTreeMap<(ChainName, Revision), Serving>,
    /// Revisions that end. One that is live again is served once its end is over.
    leaving: BTreeMap<(ChainName, Revision), JoinHandle<()>>,
    /// The task that retires older revisions.
    retiring: Option<JoinHandle<()>>,
    arranger: Arranger,
    sweeper: Sweeper,
    /// The marks of states that were read before the first changes came. Changes from before them are old.
    read: BTreeMap<ChainName, u64>,
}

impl Supervisor {
    /// Creates a supervisor that serves nothing yet.
    pub(crate) fn new(context: Arc<Context>, sweep: Pace) -> Self {
        Self {
            context,
            serving: BTreeMap::new(),
            leaving: BTreeMap::new(),
            retiring: None,
            arranger: Arranger::default(),
            sweeper: Sweeper::new(sweep),
            read: BTreeMap::new(),
        }
    }

    /// Follows a change of the registry.
    pub async fn change(&mut self, change: Change, only: &BTreeSet<ChainName>) {
        match change {
            Change::State(chain, marked) if !self.is_old(&chain, marked.mark()) => {
                self.context.board.problem(chain.as_str(), None, None);
                self.state(&chain, &marked.state, only);
            }
            Change::Removed(chain, mark) if !self.is_old(&chain, mark) => {
                self.arranger.removed(&chain);
                self.keep(&chain, &BTreeSet::new());
            }
            Change::Unreadable(key, error) => self.unreadable(&key, &error),
            Change::Renewed => self.renew().await,
            Change::State(..) | Change::Removed(..) => {}
        }
    }

    /// Serves the state of a chain as it is read when the node starts. An older state may still come as a change, and would end
    /// what has just begun.
    pub(crate) fn read(&mut self, chain: &ChainName, marked: &Marked, only: &BTreeSet<ChainName>) {
        self.read.insert(chain.clone(), marked.mark());
        self.state(chain, &marked.state, only);
    }

    /// Returns `true` if a change is older than what was read. From the first newer change on, changes are in order.
    fn is_old(&mut self, chain: &ChainName, mark: u64) -> bool {
        let is_old = self.read.get(chain).is_some_and(|read| mark < *read);
        if !is_old {
            self.read.remove(chain);
        }
        is_old
    }

    /// Forgets all revisions: the registry is another one, and its revisions count from 1 again.
    async fn renew(&mut self) {
        tracing::warn!("what is deployed was made anew: serving that, and nothing from before");
        self.arranger = Arranger::default();
        self.read.clear();
        let mut gone = std::mem::take(&mut self.serving);
        let leaving = std::mem::take(&mut self.leaving);
        // Their tasks are about to remove consumers that may soon belong to another revision with the same number.
        for task in leaving.values().chain(&self.retiring) {
            task.abort();
        }
        for serving in gone.values() {
            serving.phase.send_replace(Phase::Interrupt);
        }
        let tasks = gone.values_mut().map(|serving| &mut serving.task);
        let _ = tokio::time::timeout(INTERRUPT, futures_util::future::join_all(tasks)).await;
        for (chain, revision) in gone.keys().chain(leaving.keys()) {
            self.context.board.remove(chain, *revision);
        }
    }

    /// Reports an entry that cannot be read.
    pub fn unreadable(&self, key: &str, error: &str) {
        if self.context.board.problem(key, None, Some(error)) {
            tracing::error!(key, error, "an entry of the registry cannot be read; the other chains go on");
        }
    }

    /// Serves exactly the live revisions of a chain.
    fn state(&mut self, chain: &ChainName, state: &State, only: &BTreeSet<ChainName>) {
        if !only.is_empty() && !only.contains(chain) {
            return;
        }
        self.keep(chain, &state.live);
        self.arranger.changed(chain, state);
        for &revision in &state.live {
            let (context, leaving) = (&self.context, &mut self.leaving);
            let serving = self.serving.entry((chain.clone(), revision)).or_insert_with_key(|key| {
                Serving::start(Arc::clone(context), chain.clone(), revision, leaving.remove(key))
            });
            serving.active = revision == state.active;
        }
    }

    /// Interrupts the revisions of a chain that are not among these.
    fn keep(&mut self, chain: &ChainName, live: &BTreeSet<Revision>) {
        let gone: Vec<_> =
            self.serving.keys().filter(|(each, revision)| each == chain && !live.contains(revision)).cloned().collect();
        for key in gone {
            self.leave(key);
        }
    }

    /// Interrupts a revision.
    fn leave(&mut self, key: (ChainName, Revision)) {
        self.leaving.retain(|_, leaving| !leaving.is_finished());
        if let Some(serving) = self.serving.remove(&key) {
            tracing::info!(node = self.context.node, chain = %key.0, revision = %key.1, "no longer served");
            serving.phase.send_replace(Phase::Interrupt);
            let forgetting = retire::forget(Arc::clone(&self.context), key.0.clone(), key.1, serving.task);
            self.leaving.insert(key, tokio::spawn(forgetting));
        }
    }

    /// Retires older revisions that have run empty, unless that is still going on.
    pub fn retire(&mut self) {
        if self.retiring.as_ref().is_some_and(|retiring| !retiring.is_finished()) {
            return;
        }
        let older = self.serving.iter();
        let older = older.filter(|(_, serving)| !serving.active && serving.since.elapsed() >= RETIRE_AFTER);
        let older: Vec<(ChainName, Revision)> = older.map(|(key, _)| key.clone()).collect();
        if !older.is_empty() {
            self.retiring = Some(retire::older(&self.context, older));
        }
    }

    /// Makes the streams of chains agree with their states, where that is due.
    pub(crate) fn arrange(&mut self) {
        self.arranger.look(&self.context);
    }

    /// Removes what large items have left, where that is due.
    pub(crate) fn sweep(&mut self) {
        let chains: BTreeSet<&ChainName> = self.serving.keys().map(|(chain, _)| chain).collect();
        self.sweeper.look(&self.context, chains.into_iter().cloned());
    }

    /// Waits until each revision is served or has a problem.
    pub async fn settled(&mut self) {
        let all = self.serving.values_mut().map(async |serving| {
            let _ = serving.settled.wait_for(|settled| *settled).await;
        });
        let _ = tokio::time::timeout(SETTLE, futures_util::future::join_all(all)).await;
    }

    /// Returns `true` if all served chains are empty.
    pub async fn is_empty(&self) -> bool {
        let chains: BTreeSet<&ChainName> = self.serving.keys().map(|(chain, _)| chain).collect();
        for chain in chains {
            if !matches!(ChainStreams::of(&self.context.broker, chain).unfinished().await, Ok(0)) {
                return false;
            }
        }
        true
    }

    /// Takes no new items, finishes those in hand within `grace`, and gives back the rest. Programs may take a moment longer to end.
    pub async fn drain(&mut self, grace: Duration) {
        self.context.board.drain();
        if let Some(retiring) = self.retiring.take() {
            retiring.abort();
        }
        for serving in self.serving.values() {
            serving.phase.send_replace(Phase::Drain);
        }
        let phases: Vec<_> =
            self.serving.iter().map(|((chain, _), each)| (chain.clone(), each.phase.clone())).collect();
        let broker = self.context.broker.clone();
        let serving = self.serving.values_mut().map(|serving| &mut serving.task);
        let tasks: Vec<_> = serving.chain(self.leaving.values_mut()).collect();
        tokio::select! {
            _ = futures_util::future::join_all(tasks) => return,
            () = tokio::time::sleep(grace) => {}
            () = interrupt_refused(&broker, &phases) => {}
        }
        tracing::warn!(
            node = self.context.node,
            "items are still running after the grace period: interrupted and given back"
        );
        // Tasks go on meanwhile.
        self.context.programs.end_all().await;
        for serving in self.serving.values() {
            serving.phase.send_replace(Phase::Interrupt);
        }
        let rest = self.serving.values_mut().map(|serving| &mut serving.task).filter(|task| !task.is_finished());
        let _ = tokio::time::timeout(INTERRUPT, futures_util::future::join_all(rest)).await;
    }
}

/// Interrupts chains whose items cannot be finished, because the server does not allow it. They need no grace.
async fn interrupt_refused(broker: &Broker, phases: &[(ChainName, watch::Sender<Phase>)]) {
    loop {
        let refused = broker.missing_permissions();
        let stops = |chain: &ChainName| {
            let is_of = |of: &Option<String>| of.as_ref().is_none_or(|of| of == chain.as_str());
            refused.iter().any(|missing| missing.stops_items && is_of(&missing.chain))
        };
        for (_, phase) in phases.iter().filter(|(chain, _)| stops(chain)) {
            phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Interrupt) != Phase::Interrupt);
        }
        tokio::time::sleep(REFUSED_AGAIN).await;
    }
}

impl Serving {
    /// Serves a revision, once an earlier end of it is over.
    fn start(context: Arc<Context>, chain: ChainName, revision: Revision, before: Option<JoinHandle<()>>) -> Self {
        let (phase, receiver) = watch::channel(Phase::Run);
        let (settle, settled) = watch::channel(false);
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let keeper = Keeper::of(Arc::clone(&context.board), "serve it", &chain, revision);
            keeper.keep(|| serve::serve(&context, &chain, revision, receiver.clone(), &settle)).await;
        });
        Self { phase, settled, task, active: true, since: Instant::now() }
    }
}
