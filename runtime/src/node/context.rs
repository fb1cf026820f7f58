//! What all revisions of a node share.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::runtime::Handle;

use super::lines::Lines;
use super::logs::LogQueue;
use super::roll_call::RollCall;
use super::stats::{Board, HopKey, HopStats};
use crate::broker::Broker;
use crate::broker::registry::Registry;
use crate::engine::Engine;
use crate::subject::Count;

/// Hops whose counts are sent side by side.
const COUNTS: usize = 16;

/// What serving a revision takes.
pub(super) struct Context {
    pub(super) broker: Broker,
    pub(super) lines: Lines,
    pub(super) registry: Registry,
    pub(super) engine: Engine,
    pub(super) node: String,
    /// Which run of the node's program this is.
    pub(super) incarnation: String,
    pub(super) roll_call: Arc<RollCall>,
    pub(super) logs: LogQueue,
    pub(super) guests: Handle,
    pub(super) board: Arc<Board>,
}

impl Context {
    pub(super) async fn send_all_counts(&self, all: Vec<(HopKey, Arc<HopStats>)>) {
        futures_util::stream::iter(all)
            .for_each_concurrent(COUNTS, async |(key, stats)| self.send_counts(&key, &stats).await)
            .await;
    }

    /// Tells the server what was counted, and keeps it to be told again if there is no answer.
    pub(super) async fn send_counts(&self, (chain, revision, stage): &HopKey, stats: &HopStats) {
        let Some(more) = stats.more() else { return };
        for (what, number) in [(Count::Done, more.done), (Count::Failed, more.failed)] {
            if number > 0
                && let Err(error) = self.broker.count(chain, *revision, stage, what, number, &more.id).await
            {
                tracing::debug!(%error, "counters were not sent");
                return;
            }
        }
        stats.known(&more);
    }
}
