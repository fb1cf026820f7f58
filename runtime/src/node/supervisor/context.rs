//! What all revisions of a node share.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Handle;
use ulid::Ulid;

use crate::broker::Broker;
use crate::broker::counters::Counters;
use crate::broker::registry::Registry;
use crate::engine::Engine;
use crate::node::health::{Board, HopCounters, HopKey};
use crate::node::large::stores::LargeStores;
use crate::node::lines::Lines;
use crate::node::logs::LogQueue;
use crate::node::programs::Programs;
use crate::node::reach::Reach;
use crate::node::suspicion::roll_call::RollCall;
use crate::slots::Slots;
use crate::slots::capacity::{Capacity, Labels};
use crate::subject::Count;

/// How often to send counters and update rates.
const COUNT_EVERY: Duration = Duration::from_millis(250);
/// Hops whose counters are sent side by side.
const COUNTS: usize = 16;

/// What all revisions of a node share.
pub(crate) struct Context {
    pub(crate) broker: Broker,
    pub(crate) lines: Lines,
    pub(crate) registry: Registry,
    pub(crate) engine: Engine,
    pub(crate) node: String,
    /// The incarnation of this node. Other nodes tell by it whether it still runs.
    pub(crate) incarnation: String,
    pub(crate) roll_call: Arc<RollCall>,
    pub(crate) logs: LogQueue,
    pub(crate) executor: Handle,
    pub(crate) board: Arc<Board>,
    pub(crate) programs: Programs,
    pub(crate) reach: Reach,
    pub(crate) slots: Arc<Slots>,
    pub(crate) large: LargeStores,
    pub(crate) labels: Labels,
}

impl Context {
    /// Creates the context of a new incarnation of a node.
    pub(crate) fn new(
        broker: Broker,
        registry: Registry,
        engine: Engine,
        node: String,
        executor: Handle,
        (logs, board): (LogQueue, Arc<Board>),
        reach: Reach,
    ) -> Self {
        let incarnation = Ulid::generate().to_string();
        let programs = Programs::default();
        let (slots, labels) = (Slots::new(Capacity::default()), Labels::default());
        let roll_call = Arc::new(RollCall::new(incarnation.clone()));
        let lines = Lines::new(&broker, &node);
        let large = LargeStores::new(&broker);
        Self {
            broker,
            lines,
            registry,
            engine,
            node,
            incarnation,
            roll_call,
            logs,
            executor,
            board,
            programs,
            reach,
            slots,
            large,
            labels,
        }
    }

    /// Updates rates and sends counters, again and again.
    pub(crate) async fn count(&self) {
        let mut count = tokio::time::interval(COUNT_EVERY);
        count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            count.tick().await;
            for (_, stats) in self.board.counters() {
                stats.keep_pace();
            }
            self.send_all_counts().await;
        }
    }

    /// Sends the counters that the server does not know yet.
    pub(crate) async fn send_all_counts(&self) {
        futures_util::stream::iter(self.board.counters())
            .for_each_concurrent(COUNTS, async |(key, stats)| self.send_counts(&key, &stats).await)
            .await;
    }

    /// Sends counters to the server. Keeps them for the next time if there is no answer.
    pub(crate) async fn send_counts(&self, (chain, revision, stage): &HopKey, stats: &HopCounters) {
        let Some(more) = stats.more() else { return };
        for (what, number) in [(Count::Done, more.done), (Count::Failed, more.failed)] {
            if number > 0
                && let Err(error) =
                    Counters::of(&self.broker).add(chain, *revision, stage, what, number, &more.id).await
            {
                tracing::debug!(%error, "counters were not sent");
                return;
            }
        }
        stats.known(&more);
    }
}
