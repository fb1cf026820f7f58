//! A hop of a revision on this node: the data and handles that its rooms share.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::runtime::Handle;

use crate::broker::line::Line;
use crate::broker::streams::ChainStreams;
use crate::broker::{Broker, BrokerError};
use crate::chain::{Accepts, Stage};
use crate::name::StageName;
use crate::node::backlog::Backlog;
use crate::node::clock::ServerClock;
use crate::node::commit::topics::Topics;
use crate::node::commit::window::Window;
use crate::node::frame::FrameContext;
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::steps::Stamp;
use crate::node::health::HopCounters;
use crate::node::health::conditions::Conditions;
use crate::node::health::fitness::Fitness;
use crate::node::identity::Identity;
use crate::node::large::LargeItems;
use crate::node::limited::moved::Moved;
use crate::node::limited::waits::Behind;
use crate::node::logs::StageLog;
use crate::node::reach::Doors;
use crate::node::route::Route;
use crate::node::runner::Runner;
use crate::node::suspicion::quarantine::Quarantine;
use crate::node::suspicion::roll_call::RollCall;
use crate::node::worker::permits::ConcurrencyLimit;

/// A hop of a revision on this node.
pub struct Hop {
    /// The route of its frames.
    pub route: Route,
    /// The connection.
    pub broker: Broker,
    /// The connection over which the messages of the chain come.
    pub line: Line,
    /// What runs the items of the stage.
    pub task: Runner,
    /// The stages that run in the same hop, in order.
    pub inline: Vec<InlineStage>,
    /// What the stages may reach, the first stage before the inline ones.
    pub(crate) doors: Doors,
    /// The log of the stage.
    pub logs: Arc<StageLog>,
    /// The counters of the stage.
    pub counters: Arc<HopCounters>,
    /// How much is requeued.
    pub backlog: Backlog,
    /// How much of that a limited stage has in its queue.
    pub(crate) moved: Moved,
    /// How far the clock of this machine is behind the server's.
    pub(crate) behind: Behind,
    /// The same in both directions, as far as records of steps need it.
    pub(crate) clock: Arc<ServerClock>,
    /// How much of the hop runs at once on this node.
    pub limit: ConcurrencyLimit,
    /// How much of the hop is on its way to the server at once.
    pub(crate) window: Window,
    /// Whether results of topics may be stored.
    pub(crate) topics: Topics,
    /// The large items of the chain.
    pub(crate) large: LargeItems,
    /// The quarantine of a limited stage.
    pub quarantine: Quarantine,
    /// The conditions that keep the hop from going on.
    pub conditions: Arc<Conditions>,
    /// Whether this node can run its items.
    pub(crate) fitness: Fitness,
    /// The threads that run tasks.
    pub executor: Handle,
    /// The registry that the revision was read from.
    pub(crate) identity: Arc<Identity>,
    /// The roll call of nodes.
    pub(crate) roll_call: Arc<RollCall>,
}

/// A stage that runs in the hop of the stage before it.
pub struct InlineStage {
    /// The name of the stage.
    pub name: StageName,
    /// What runs the items of the stage.
    pub task: Runner,
    /// The log of the stage.
    pub logs: Arc<StageLog>,
    /// The counters of the stage.
    pub counters: Arc<HopCounters>,
}

impl Hop {
    /// Returns the first stage of the hop.
    pub fn stage(&self) -> &Stage {
        self.route.stage()
    }

    /// Returns what the items of the hop must fit. `None` if they may be anything.
    pub(crate) fn accepts(&self) -> Option<&Accepts> {
        self.route.chain.accepts.as_ref().filter(|_| self.route.position == 0)
    }

    /// Returns `true` if the stage limits what runs at once in the whole cluster.
    pub fn is_limited(&self) -> bool {
        self.route.is_limited()
    }

    /// Returns a frame with what decisions about it depend on.
    pub(crate) fn frame<'a>(&'a self, inbound: &'a InboundFrame) -> FrameContext<'a> {
        FrameContext { inbound, route: &self.route, limits: self.broker.limits() }
    }

    /// Returns the time now beside the server's. `None` if the chain keeps no records.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let chain = &self.route.chain;
        chain.retention.records.are_on().then(|| self.clock.stamp(&self.broker, &chain.name))
    }

    /// Returns the stages with their counters.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&StageName, &Arc<HopCounters>)> {
        let first = std::iter::once((&self.stage().name, &self.counters));
        first.chain(self.inline.iter().map(|stage| (&stage.name, &stage.counters)))
    }

    /// Takes note that this node could not run an item. The hop takes none for a while.
    pub(crate) fn lose_fitness(&self, reason: &str) {
        self.fitness.lose();
        self.conditions.unfit(&self.stage().name, Some(reason));
    }

    /// Takes note that items which began then have run.
    pub(crate) fn prove_fitness(&self, began: Instant) {
        if self.fitness.prove(began) {
            self.conditions.unfit(&self.stage().name, None);
        }
    }

    /// Counts items that became dead letters.
    pub(crate) fn count_failed(&self, count: u64) {
        self.counters.failed.fetch_add(count, Relaxed);
        self.counters.done.fetch_add(count, Relaxed);
    }
}

/// Reads the part of a route's idempotency keys that belongs to the work stream.
pub(crate) async fn read_key(broker: &Broker, route: &Route) -> Result<(), BrokerError> {
    if route.key.is_used() {
        route.key.set(&ChainStreams::of(broker, &route.chain.name).work_key().await?);
    }
    Ok(())
}
