//! What all revisions of a node share.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::runtime::Handle;

use crate::broker::Broker;
use crate::broker::counters::Counters;
use crate::broker::registry::Registry;
use crate::engine::Engine;
use crate::node::health::{Board, HopCounters, HopKey};
use crate::node::lines::Lines;
use crate::node::logs::LogQueue;
use crate::node::suspicion::roll_call::RollCall;
use crate::subject::Count;

/// Hops whose counters are sent side by side.
const COUNTS: usize = 16;

/// What all revisions of a node share.
pub(crate) struct Context {
    pub(crate) broker: Broker,
    pub(crate) lines: Lines,
    pub(crate) registry: Registry,
    pub(crate) engine: Engine,
    pub(crate) node: String,
    /// The incarnation of this node.
    pub(crate) incarnation: String,
    pub(crate) roll_call: Arc<RollCall>,
    pub(crate) logs: LogQueue,
    pub(crate) executor: Handle,
    pub(crate) board: Arc<Board>,
}

impl Context {
    pub(crate) async fn send_all_counts(&self, all: Vec<(HopKey, Arc<HopCounters>)>) {
        futures_util::stream::iter(all)
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
