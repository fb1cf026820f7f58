//! A hop of a revision on this node: all that its rooms share.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::Handle;

use crate::broker::Broker;
use crate::broker::line::Line;
use crate::chain::{Chain, Stage};
use crate::engine::failure::Failure;
use crate::engine::task::Task;
use crate::frame::{Headers, header};
use crate::name::{Revision, StageName};
use crate::node::backlog::Backlog;
use crate::node::commit::window::Window;
use crate::node::frame::inbound::InboundFrame;
use crate::node::health::HopStats;
use crate::node::health::conditions::Trouble;
use crate::node::identity::Identity;
use crate::node::limited::moved::Moved;
use crate::node::limited::waits::Behind;
use crate::node::logs::StageLog;
use crate::node::suspicion::quarantine::Quarantine;
use crate::node::suspicion::roll_call::RollCall;
use crate::node::work_key::WorkKey;
use crate::node::worker::permits::ConcurrencyLimit;

/// What the idempotency keys that nodes make start with.
const NODES_OWN: &str = "pcluster.";

/// A hop of a revision on this node.
pub struct Hop {
    /// The connection.
    pub broker: Broker,
    /// Over which the chain's messages come.
    pub line: Line,
    /// The chain.
    pub chain: Arc<Chain>,
    /// The revision.
    pub revision: Revision,
    /// The stage's place in the chain.
    pub position: usize,
    /// The stage's task.
    pub task: Task,
    /// The stages that run in the same hop, in order.
    pub inline: Vec<InlineStage>,
    /// Where outputs go.
    pub target: String,
    /// Whether outputs are results.
    pub is_last: bool,
    /// This node's name.
    pub node: String,
    /// Takes the stage's log lines.
    pub logs: Arc<StageLog>,
    /// Counts.
    pub stats: Arc<HopStats>,
    /// What was put back.
    pub backlog: Backlog,
    /// What of it stands in the line of a limited stage.
    pub(crate) moved: Moved,
    /// How far this machine's clock is behind the server's.
    pub(crate) behind: Behind,
    /// How much of it runs at once on this node.
    pub limit: Arc<ConcurrencyLimit>,
    /// How much it has on its way to the server at once.
    pub(crate) window: Window,
    /// Keeps items of [`Lane::Quarantine`](crate::subject::Lane::Quarantine) apart, where they come by the same consumer as others.
    pub quarantine: Quarantine,
    /// Where to tell what keeps it from going on.
    pub trouble: Arc<Trouble>,
    /// The threads of the guests.
    pub executor: Handle,
    /// The part of the idempotency keys that belongs to the work stream and to no other.
    pub key: WorkKey,
    /// Which run of the node's program this is.
    pub incarnation: String,
    /// The registry that the revision was read from.
    pub(crate) identity: Arc<Identity>,
    /// To ask which nodes answer.
    pub(crate) roll_call: Arc<RollCall>,
}

/// A stage that runs in the hop of the one before.
pub struct InlineStage {
    /// Its name.
    pub name: StageName,
    /// Its task.
    pub task: Task,
    /// Takes its log lines.
    pub logs: Arc<StageLog>,
    /// Counts.
    pub stats: Arc<HopStats>,
}

impl Hop {
    /// The hop's stage, or the first of them.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        &self.chain.stages[self.position]
    }

    /// Whether the stage limits what runs at once in the whole cluster.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.stage().max_in_flight.is_some()
    }

    /// The stages with their counters.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&StageName, &Arc<HopStats>)> {
        let first = std::iter::once((&self.stage().name, &self.stats));
        first.chain(self.inline.iter().map(|stage| (&stage.name, &stage.stats)))
    }

    /// Whether nothing is left but to bury an item.
    pub(crate) fn is_last_attempt(&self, failure: &Failure, attempt: u64) -> bool {
        failure.fatal || attempt >= u64::from(self.stage().retry.attempts)
    }

    /// Says who finished an item.
    pub(crate) fn sign(&self, headers: &mut Headers) {
        headers.push(header::VERSION, self.chain.version.as_str());
        headers.push(header::REVISION, self.revision.number().to_string());
        headers.push(header::NODE, self.node.as_str());
    }

    /// The key of the `number`th message that a frame leaves behind. The revision is part of it for the streams that outlive
    /// the work stream, the prefix for the feeders: their keys, which may look like `1.2.3`, are in the same stream.
    pub(crate) fn message_id(&self, sequence: u64, number: usize) -> String {
        format!("{NODES_OWN}{}{}.{sequence}.{number}", self.key.get(), self.revision.number())
    }

    /// The key of the `number`th message that was made of an item's outputs while it still ran: the same at each attempt.
    pub(crate) fn streamed_id(&self, inbound: &InboundFrame, number: usize) -> String {
        let (key, revision) = (self.key.get(), self.revision.number());
        format!("{NODES_OWN}{key}{revision}.{}.{}.carried.{number}", inbound.origin, inbound.part.get(0))
    }

    pub(crate) fn count_failed(&self, count: u64) {
        self.stats.failed.fetch_add(count, Relaxed);
        self.stats.done.fetch_add(count, Relaxed);
    }
}
