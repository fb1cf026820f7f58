//! A frame that a node was handed, as the walk through the stages of its hop sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pcluster_abi::Level;
use tokio::sync::OnceCell;

use super::{Outcomes, Running};
use crate::calls::door::Notes;
use crate::chain::Records;
use crate::engine::streaming::StreamingPermit;
use crate::frame::steps::Row;
use crate::lock::lock;
use crate::name::Topic;
use crate::node::execute::large::Input;
use crate::node::execute::walked::{Spent, Walked, WalkedItem, WalkedStage};
use crate::node::frame::attempts;
use crate::node::frame::steps::{self, Way};
use crate::run::budget::Growing;
use crate::run::call::Calls;
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::Outputs;

impl Walked for Running {
    fn inline_stages(&self) -> usize {
        self.hop.inline.len()
    }

    fn stage(&self, place: usize) -> WalkedStage<'_> {
        let (hop, instances) = (&self.hop, &self.instances[place]);
        match place.checked_sub(1).map(|inline| &hop.inline[inline]) {
            Some(stage) => WalkedStage { name: &stage.name, runner: &stage.task, instances, counters: &stage.counters },
            None => WalkedStage { name: &hop.stage().name, runner: &hop.task, instances, counters: &hop.counters },
        }
    }

    fn records(&self) -> Records {
        self.hop.route.chain.retention.records
    }

    fn is_single(&self) -> bool {
        self.inbound.len() == 1
    }

    fn item_id(&self, position: usize) -> String {
        self.inbound.item_id(position)
    }

    fn item_topic(&self, _: usize) -> Option<&Topic> {
        self.inbound.topic.as_ref()
    }

    fn attempt_number(&self) -> u64 {
        self.inbound.attempt
    }

    async fn input(&self, position: usize) -> Result<Input, Failure> {
        match self.inbound.reference(position) {
            None => Ok(Input { item: self.item(position).into(), memory: None }),
            // Boxed, so that the state of other items stays small.
            Some(reference) => Box::pin(self.large_input(reference)).await,
        }
    }

    fn is_settled(&self, position: usize) -> bool {
        let Outcomes { failures, deferred, left, .. } = &*self.outcomes();
        failures.contains_key(&position) || deferred.contains(&position) || left.contains(&position)
    }

    /// Notes the failure of an item. A failure of the node is none of the item: the frame goes back with all items that have not
    /// ended.
    fn fail(&self, position: usize, failure: Failure, log: impl FnOnce(Level, String)) {
        if self.is_settled(position) {
            return;
        }
        if failure.kind == FailureKind::Node {
            self.stopped.store(true, Relaxed);
            self.outcomes().left.insert(position);
            self.hop.lose_fitness(&failure.reason);
        } else {
            let failure = self.with_steps(position, failure);
            let stage = self.hop.route.stage();
            let (level, entry) = attempts::log_entry(stage.retry.attempts, self.inbound.attempt, &failure);
            log(level, entry);
            let failure = self.with_calls(position, failure);
            self.outcomes().failures.insert(position, failure);
        }
    }

    fn defer(&self, position: usize) {
        self.outcomes().deferred.insert(position);
    }

    fn log_line(&self, item: &WalkedItem, level: Level, line: String) {
        let hop = &self.hop;
        let logs = item.stage.checked_sub(1).map_or(&hop.logs, |inline| &hop.inline[inline].logs);
        logs.log(&item.id, level, line);
    }

    fn calls_of(&self, item: WalkedItem, spent: Option<Spent>) -> Option<Arc<dyn Calls>> {
        let WalkedItem { stage, root, id } = item;
        let hop = &self.hop;
        let (name, logs, of) = match stage.checked_sub(1).map(|inline| &hop.inline[inline]) {
            Some(inline) => (&inline.name, &inline.logs, Some(id.clone())),
            None => (&hop.stage().name, &hop.logs, None),
        };
        let notes = Notes { spent, ..self.notes(root, of) };
        hop.doors.open((stage, name), &hop.route.chain, &self.inbound, logs, (id, notes))
    }

    fn forget_calls(&self, position: usize) {
        lock(&self.records).remove(&position);
    }

    fn memory(&self) -> Option<Arc<Growing>> {
        Some(Arc::clone(&self.memory))
    }

    /// Publishes outputs of an item that still runs, however long the next queue is full. The stage that empties it may need the
    /// slots of the item.
    async fn stream_outputs(&self, outputs: Outputs) -> Result<(), Failure> {
        for part in self.parts(outputs) {
            self.stream_part(part).await?;
        }
        Ok(())
    }

    fn permit(&self) -> &OnceCell<StreamingPermit> {
        &self.permit
    }

    fn came(&self, position: usize, outputs: usize, way: Way) {
        if let Some(measured) = &mut self.outcomes().measured {
            measured.ways.entry(position).or_default().push((outputs, way));
        }
    }

    fn steps(&self, way: &Way, failure: &Failure, lines: Vec<String>) -> Option<Arc<Vec<Row>>> {
        Some(steps::failed(self.hop.frame(&self.inbound), self.stamp?, way, failure, lines))
    }
}
