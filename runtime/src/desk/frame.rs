//! Items that walk through the stages of a hop together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pcluster_abi::Level;
use tokio::sync::OnceCell;

use super::flow::{Gathering, Own};
use super::outlet::{Gone, Outlet};
use super::stage::DeskHop;
use super::{Around, DeskItem};
use crate::chain::Records;
use crate::engine::idle::Instances;
use crate::engine::streaming::StreamingPermit;
use crate::frame::steps::Row;
use crate::lock::lock;
use crate::name::Topic;
use crate::node::execute::large::Input;
use crate::node::execute::walked::{Spent, Walked, WalkedItem, WalkedStage, Watch, check_accepted};
use crate::node::frame::attempts;
use crate::node::frame::steps::Way;
use crate::node::worker::permits::Permit;
use crate::run::budget::Growing;
use crate::run::call::Calls;
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::ItemBytes;
use crate::run::output::Outputs;

/// Items that walk through the stages of a hop together.
pub(super) struct DeskFrame<A: Around> {
    /// The items.
    pub(super) items: Vec<DeskItem>,
    /// The number of the attempt.
    pub(super) attempt: u64,
    /// Where results go.
    pub(super) outlet: Arc<Outlet<A::Output>>,
    /// The frames of the next hop.
    pub(super) next: tokio::sync::Mutex<Gathering<A>>,
    desk: Own<A>,
    hop: usize,
    instances: Vec<Instances>,
    failures: Mutex<BTreeMap<usize, Failure>>,
    deferred: Mutex<BTreeSet<usize>>,
    /// How many outputs of a single item were passed on while it ran.
    streamed: AtomicUsize,
    /// What stages gave for each item, by their places, and in which one it failed. Nothing if nobody watches.
    watched: Mutex<Watched>,
    memory: Arc<Growing>,
    instance: OnceCell<StreamingPermit>,
    /// The permit to run. `None` while the frame waits for others, and after its items have run.
    permit: tokio::sync::Mutex<Option<Permit>>,
}

/// What was watched of a frame.
#[derive(Default)]
struct Watched {
    /// The outputs, by the item's position and the stage's place.
    given: BTreeMap<(usize, usize), Vec<Bytes>>,
    failed: BTreeMap<usize, usize>,
}

impl<A: Around> DeskFrame<A> {
    /// Creates a frame that may run.
    pub(super) fn new(
        desk: Own<A>,
        hop: usize,
        items: Vec<DeskItem>,
        attempt: u64,
        next: Gathering<A>,
        permit: Permit,
    ) -> Self {
        let stages = &desk.hops[hop].stages;
        let bytes = items.iter().map(|item| item.bytes.size()).sum();
        let (first, last) = (&stages[0].runner, stages.last().map_or(0, |stage| stage.runner.after()));
        let memory = Arc::new(first.budget().growing(bytes).across(last..=first.after()));
        Self {
            instances: stages.iter().map(|stage| stage.runner.instances()).collect(),
            outlet: next.outlet(),
            items,
            attempt,
            next: next.into(),
            hop,
            failures: Mutex::default(),
            deferred: Mutex::default(),
            streamed: AtomicUsize::new(0),
            watched: Mutex::default(),
            memory,
            instance: OnceCell::new(),
            permit: Some(permit).into(),
            desk,
        }
    }

    fn hop(&self) -> &DeskHop {
        &self.desk.hops[self.hop]
    }

    /// Gives the permit to run back.
    pub(super) async fn release(&self) {
        self.permit.lock().await.take();
    }

    /// Returns how many outputs of an item were passed on while it ran.
    pub(super) fn streamed(&self, position: usize) -> usize {
        if position == 0 { self.streamed.load(Relaxed) } else { 0 }
    }

    /// Removes and returns the failures by position, and the positions of items that must run by themselves.
    pub(super) fn take_outcomes(&self) -> (BTreeMap<usize, Failure>, BTreeSet<usize>) {
        (std::mem::take(&mut lock(&self.failures)), std::mem::take(&mut lock(&self.deferred)))
    }

    /// Returns the place of the stage in which an item has failed. That of the first unless somebody watches.
    pub(super) fn failed_stage(&self, position: usize) -> usize {
        lock(&self.watched).failed.get(&position).copied().unwrap_or(0)
    }

    /// Tells what the stages gave for an item, unless it is tried again.
    pub(super) fn tell(&self, position: usize, is_tried_again: bool) {
        let Some(stand_in) = self.desk.around.stand_in().filter(|_| !is_tried_again) else { return };
        let mut watched = lock(&self.watched);
        for (place, stage) in self.hop().stages.iter().enumerate() {
            if let Some(outputs) = watched.given.remove(&(position, place)) {
                stand_in.gave(&stage.name, &self.items[position], outputs);
            }
        }
    }

    /// Passes outputs of an item on that still runs.
    async fn pass_on(&self, outputs: Outputs) -> Result<(), Gone> {
        let mut next = self.next.lock().await;
        let item = &self.items[0];
        let mut topics = outputs.topics().to_vec().into_iter().peekable();
        for (output, bytes) in outputs.into_items().into_iter().enumerate() {
            let changed = topics.next_if(|(of, _)| *of == output);
            let topic = changed.map_or_else(|| item.topic.clone(), |(_, topic)| topic);
            let number = self.streamed.fetch_add(1, Relaxed);
            next.add(DeskItem { bytes, topic, origin: item.origin.child(number) }).await?;
        }
        next.flush().await
    }
}

impl<A: Around> Walked for DeskFrame<A> {
    fn inline_stages(&self) -> usize {
        self.hop().stages.len() - 1
    }

    fn stage(&self, place: usize) -> WalkedStage<'_> {
        let stage = &self.hop().stages[place];
        let (name, runner, counters) = (&stage.name, &stage.runner, &stage.counters);
        WalkedStage { name, runner, instances: &self.instances[place], counters }
    }

    fn records(&self) -> Records {
        Records::Off
    }

    fn is_single(&self) -> bool {
        self.items.len() == 1
    }

    fn item_id(&self, position: usize) -> String {
        let origin = &self.items[position].origin;
        self.desk.around.stand_in().map_or_else(|| origin.to_string(), |stand_in| stand_in.id(origin))
    }

    fn item_topic(&self, position: usize) -> Option<&Topic> {
        self.items[position].topic.as_ref()
    }

    fn attempt_number(&self) -> u64 {
        self.attempt
    }

    async fn input(&self, position: usize) -> Result<Input, Failure> {
        let item = self.items[position].bytes.clone();
        if let (Some(accepts), ItemBytes::Whole(bytes)) = (&self.hop().accepts, &item) {
            check_accepted(accepts, bytes)?;
        }
        Ok(Input { item, memory: None })
    }

    fn is_settled(&self, position: usize) -> bool {
        lock(&self.failures).contains_key(&position) || lock(&self.deferred).contains(&position)
    }

    fn fail(&self, position: usize, failure: Failure, log: impl FnOnce(Level, String)) {
        if self.is_settled(position) {
            return;
        }
        let most = self.hop().retry.attempts;
        // The last failure is told as what became of the item.
        if !failure.fatal && self.attempt < u64::from(most) {
            let (level, entry) = attempts::log_entry(most, self.attempt, &failure);
            log(level, entry);
        }
        lock(&self.failures).insert(position, failure);
    }

    fn defer(&self, position: usize) {
        lock(&self.deferred).insert(position);
    }

    fn log_line(&self, item: &WalkedItem, level: Level, line: String) {
        self.desk.around.log(&self.hop().stages[item.stage].name, &item.id, level, line);
    }

    fn calls_of(&self, item: WalkedItem, _: Option<Spent>) -> Option<Arc<dyn Calls>> {
        self.desk.around.calls(&self.hop().stages[item.stage], &self.items[item.root], item.id)
    }

    fn forget_calls(&self, _: usize) {}

    fn memory(&self) -> Option<Arc<Growing>> {
        Some(Arc::clone(&self.memory))
    }

    async fn stream_outputs(&self, outputs: Outputs) -> Result<(), Failure> {
        let permit = self.permit.lock().await.take();
        let slots = permit.as_ref().and_then(|permit| permit.slots().cloned());
        drop(permit);
        let passing = self.pass_on(outputs);
        let passed = match slots {
            Some(slots) => slots.lend_while(passing).await,
            None => passing.await,
        };
        let permit = self.hop().limit.take(None).await;
        self.permit.lock().await.replace(permit);
        passed.map_err(|Gone| Failure::fatal(FailureKind::Node, "nobody takes the results any longer"))
    }

    fn permit(&self) -> &OnceCell<StreamingPermit> {
        &self.instance
    }

    fn came(&self, _: usize, _: usize, _: Way) {}

    fn steps(&self, _: &Way, _: &Failure, _: Vec<String>) -> Option<Arc<Vec<Row>>> {
        None
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.desk.around.stand_in().map(|_| self as &dyn Watch)
    }
}

impl<A: Around> Watch for DeskFrame<A> {
    fn gave(&self, stage: usize, root: usize, output: &[u8]) {
        lock(&self.watched).given.entry((root, stage)).or_default().push(Bytes::copy_from_slice(output));
    }

    fn ended(&self, stage: usize, outputs: usize) {
        if let Some(stand_in) = self.desk.around.stand_in() {
            stand_in.ended(&self.hop().stages[stage].name, outputs);
        }
    }

    fn failed_in(&self, stage: usize, root: usize) {
        lock(&self.watched).failed.entry(root).or_insert(stage);
    }

    fn stand_in(&self, stage: usize, item: &Bytes) -> Option<Result<Vec<Bytes>, Failure>> {
        self.desk.around.stand_in()?.program(&self.hop().stages[stage].name, item)
    }
}
