//! A frame while its items run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;
use tokio::sync::OnceCell;

use crate::calls::door::Notes;
use crate::counted::Counted;
use crate::dead::calls::CallRecord;
use crate::engine::idle::Instances;
use crate::engine::streaming::StreamingPermit;
use crate::lock::lock;
use crate::name::Topic;
use crate::node::commit::outbox::ServerOutbox;
use crate::node::commit::store_each;
use crate::node::execute::gauge::Gauge;
use crate::node::failpoint::{self, Point};
use crate::node::frame::attempts;
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::outputs;
use crate::node::frame::steps::{Measured, Stamp};
use crate::node::hop::Hop;
use crate::node::runner::Runner;
use crate::node::worker::demand::SHARE_AFTER;
use crate::run::budget::Growing;
use crate::run::call::{Calls, ItemSource};
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::GATHER_BYTES;
use crate::run::output::{FrameOutputs, Outputs};
use crate::slots::SlotSet;

/// How long an execution waits for the permit to keep its instance.
const STREAMING_PATIENCE: Duration = Duration::from_secs(1);

/// A frame while its items run.
pub(crate) struct Running {
    pub(crate) hop: Arc<Hop>,
    pub(crate) inbound: Arc<InboundFrame>,
    /// For each stage of the hop, the instances that may run the next item.
    pub(crate) instances: Vec<Instances>,
    pub(crate) started: Instant,
    /// The position of the next item.
    pub(crate) next: AtomicUsize,
    /// Counts the frame among those with items that have yet to begin.
    pub(crate) unbegun: Mutex<Option<Counted<Arc<AtomicU64>>>>,
    /// Set once no more items may begin.
    pub(crate) stopped: AtomicBool,
    /// Bytes of outputs so far.
    pub(crate) gathered: AtomicUsize,
    /// Of these, bytes of large outputs that are about to be stored.
    pub(crate) unkept: AtomicUsize,
    /// The most bytes of an output that stays in a message.
    pub(crate) most: usize,
    /// Memory that is counted for these bytes.
    pub(crate) memory: Arc<Growing>,
    /// Held by the large item that exceeds the memory budget, until it has run.
    pub(crate) exceeding: Arc<tokio::sync::Mutex<()>>,
    pub(crate) outcomes: Mutex<Outcomes>,
    /// Number of messages made of outputs while their item still ran.
    pub(crate) streamed: AtomicUsize,
    /// Permit for a single-item frame to hold its instance while it waits. Held until the item ends: an item that yields after
    /// streaming some outputs would stream them twice.
    pub(crate) permit: OnceCell<StreamingPermit>,
    /// The calls of items whose hop has inline stages, by position. All stages of the hop note them in one record.
    pub(crate) records: Mutex<BTreeMap<usize, Arc<Mutex<CallRecord>>>>,
    /// Measures what the items of the first stage take. `None` if the chain keeps no records.
    pub(crate) gauge: Option<Gauge>,
    /// When the frame began.
    pub(crate) stamp: Option<Stamp>,
    /// The slots of the frame, for as long as its permit lives. `None` if it needs none.
    pub(crate) slots: Option<Weak<SlotSet>>,
}

/// What has become of a frame's items. Items that are in none of the lists have not ended.
#[derive(Default)]
pub(crate) struct Outcomes {
    /// Outputs of the items that have ended well.
    pub(crate) outputs: Vec<FrameOutputs>,
    /// Failures by position.
    pub(crate) failures: BTreeMap<usize, Failure>,
    /// Positions of items to run each in a frame of its own. An item that has one already runs at another time.
    pub(crate) deferred: BTreeSet<usize>,
    /// Positions of items that this node could not run. They have not ended.
    pub(crate) left: BTreeSet<usize>,
    /// What the items have taken. `None` if the chain keeps no records.
    pub(crate) measured: Option<Measured>,
}

impl Running {
    /// Returns the task of the hop's stage at this place.
    pub(crate) fn task(&self, stage: usize) -> &Runner {
        stage.checked_sub(1).map_or(&self.hop.task, |inline| &self.hop.inline[inline].task)
    }

    /// Returns the instances that may run the next item of the hop's stage at this place.
    pub(crate) fn instances(&self, stage: usize) -> &Instances {
        &self.instances[stage]
    }

    pub(crate) fn item(&self, position: usize) -> Bytes {
        self.inbound.frame.items[position].clone()
    }

    /// Returns `true` if the frame has only one item.
    pub(crate) fn is_single(&self) -> bool {
        self.inbound.len() == 1
    }

    /// Counts bytes of outputs.
    pub(crate) fn gather(&self, bytes: usize) {
        let before = self.gathered.fetch_add(bytes, Relaxed);
        self.memory.cover(before.saturating_add(bytes) as u64);
    }

    /// Counts bytes of outputs no longer: they are stored. `run` bytes were given together with them.
    pub(crate) fn ungather(&self, bytes: usize, run: usize) {
        let less = |counter: &AtomicUsize, bytes| {
            let _ = counter.fetch_update(Relaxed, Relaxed, |before| Some(before.saturating_sub(bytes)));
        };
        less(&self.gathered, bytes);
        less(&self.unkept, run);
    }

    /// Logs a line of an item.
    pub(crate) fn log_of(&self, position: usize, level: Level, line: String) {
        self.hop.logs.log(&self.inbound.item_id(position), level, line);
    }

    pub(crate) fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        lock(&self.outcomes)
    }

    /// Returns `true` if the item has failed, is deferred, or is left to other nodes.
    pub(crate) fn is_settled(&self, position: usize) -> bool {
        let Outcomes { failures, deferred, left, .. } = &*self.outcomes();
        failures.contains_key(&position) || deferred.contains(&position) || left.contains(&position)
    }

    /// Notes the failure of an item, unless it is settled already. A failure of the node is none of the item: the frame goes back
    /// with all items that have not ended. A failed attempt is told to `log`.
    pub(crate) fn fail(&self, position: usize, failure: Failure, log: impl FnOnce(Level, String)) {
        if self.is_settled(position) {
            return;
        }
        if failure.kind == FailureKind::Node {
            self.stopped.store(true, Relaxed);
            self.outcomes().left.insert(position);
            self.hop.lose_fitness(&failure.reason);
        } else {
            let failure = self.with_steps(position, failure);
            let (level, entry) = attempts::log_entry(&self.hop.route, self.inbound.attempt, &failure);
            log(level, entry);
            let failure = self.with_calls(position, failure);
            self.outcomes().failures.insert(position, failure);
        }
    }

    /// Returns where calls are noted that are made for an item of the frame. `of` is the id of the item in an inline stage.
    pub(crate) fn notes(&self, position: usize, of: Option<String>) -> Notes {
        let spent = self.gauge.as_ref().and_then(|gauge| gauge.spent(position));
        if self.hop.inline.is_empty() {
            return Notes { of, spent, ..Notes::default() };
        }
        let record = Arc::clone(lock(&self.records).entry(position).or_default());
        Notes { record, of, spent }
    }

    /// Forgets the calls of an item that has ended well.
    pub(crate) fn forget_calls(&self, position: usize) {
        lock(&self.records).remove(&position);
    }

    /// Returns the failure with the calls of all stages of the hop.
    fn with_calls(&self, position: usize, failure: Failure) -> Failure {
        let Some(record) = lock(&self.records).remove(&position) else { return failure };
        let record = lock(&record).clone();
        let calls = (!record.calls.is_empty()).then(|| Arc::new(record));
        Failure { calls: calls.or(failure.calls), ..failure }
    }

    /// Defers an item to a frame of its own, or to another time if it has one.
    pub(crate) fn defer(&self, position: usize) {
        self.outcomes().deferred.insert(position);
    }

    /// Returns the position of the next item. `None` if the rest is left to other nodes.
    pub(crate) fn begin(&self, now: Instant) -> Option<usize> {
        if self.stopped.load(Relaxed) {
            return None;
        }
        let position = self.next.fetch_add(1, Relaxed);
        if position >= self.inbound.len() {
            return None;
        }
        if let Some(gauge) = &self.gauge {
            gauge.began(position, now);
        }
        if position > 0 && (self.takes_long(position, now) || self.holds_much()) {
            self.stopped.store(true, Relaxed);
            return None;
        }
        if position + 1 == self.inbound.len() {
            lock(&self.unbegun).take();
            // The next frame may come while this one ends.
            self.hop.limit.notify();
        }
        Some(position)
    }

    /// Returns `true` if the outputs so far take much memory. Those that are about to be stored do not count.
    fn holds_much(&self) -> bool {
        self.gathered.load(Relaxed).saturating_sub(self.unkept.load(Relaxed)) >= GATHER_BYTES
    }

    /// Publishes outputs of an item that still runs, however long the next queue is full. The stage that empties it may need the
    /// slots of the item.
    pub(crate) async fn stream_outputs(&self, outputs: Outputs) -> Result<(), Failure> {
        for part in self.parts(outputs) {
            self.stream_part(part).await?;
        }
        Ok(())
    }

    async fn stream_part(&self, outputs: Outputs) -> Result<(), Failure> {
        let outputs = self.keep_streamed(outputs).await?;
        let first = self.streamed.load(Relaxed);
        let shared = self.hop.limit.share(self.inbound.len(), false).piece;
        let measured = self.so_far(outputs.len());
        let messages = outputs::streamed(self.hop.frame(&self.inbound), outputs, first, shared, measured.as_ref());
        let outbox = ServerOutbox(&self.hop);
        let recording = self.hop.large.storing(&self.inbound);
        let storing = store_each(&outbox, self.hop.frame(&self.inbound), &messages);
        let stored = match self.slots.as_ref().and_then(Weak::upgrade) {
            // A program has ended by now, and nothing runs after it.
            Some(slots) if self.hop.inline.is_empty() && !self.hop.task.keeps_instance() => {
                slots.give_back();
                drop(slots);
                storing.await
            }
            Some(slots) => slots.lend_while(storing).await,
            None => storing.await,
        };
        self.streamed.fetch_add(messages.len(), Relaxed);
        failpoint::reach(Point::Streamed, &self.inbound);
        stored.map_err(|error| Failure::fatal(FailureKind::Output, error.to_string()))?;
        if let Some(recording) = recording {
            recording.done();
            self.hop.large.stored(self.inbound.sequence).await;
        }
        Ok(())
    }

    /// Lets an execution of the hop's stage at this place keep its instance while it waits for later stages. Returns the permit
    /// unless there is no later stage, or the frame itself holds the permit.
    ///
    /// An item beside others may not wait: it is deferred.
    pub(crate) async fn keep_instance(
        &self,
        stage: usize,
        position: usize,
    ) -> Result<Option<StreamingPermit>, Failure> {
        if !self.is_single() {
            self.defer(position);
            return Err(Failure::transient(FailureKind::Output, "too many outputs to run beside others"));
        }
        if !self.task(stage).keeps_instance() {
            return Ok(None);
        }
        match (stage, self.task(stage).after()) {
            (_, 0) => Ok(None),
            (0, _) => self.permit.get_or_try_init(|| self.streaming_permit(0, position)).await.map(|_| None),
            _ => self.streaming_permit(stage, position).await.map(Some),
        }
    }

    /// Waits for a permit; defers the item if there is none in time, so that later stages can have its instance.
    async fn streaming_permit(&self, stage: usize, position: usize) -> Result<StreamingPermit, Failure> {
        let (after, slots) = (self.task(stage).after(), self.task(stage).instances_max());
        if slots <= after {
            let reason = format!(
                "it gives so much that its outputs go on while it runs: here that takes {} instances at once, and the node has \
                 {slots}; start it with a larger `--instances`",
                after + 1
            );
            return Err(Failure::fatal(FailureKind::Output, reason));
        }
        let permit = self.task(stage).streaming_permit(STREAMING_PATIENCE).await;
        permit.ok_or_else(|| {
            tracing::debug!(stage = %self.hop.stage().name, "an item yields its slot to the stages that it waits for");
            self.defer(position);
            Failure::transient(FailureKind::Output, "it waits for later stages, and all instances are taken")
        })
    }

    /// Returns `true` if the remaining items would take long: as long as those before, which have taken long.
    fn takes_long(&self, begun: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.started);
        elapsed > SHARE_AFTER
            && elapsed.as_secs_f64() * ratio(self.inbound.len() - begun, begun) > SHARE_AFTER.as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of items in a frame are small")]
fn ratio(part: usize, of: usize) -> f64 {
    part as f64 / of as f64
}

impl ItemSource for Running {
    fn id(&self, position: usize) -> String {
        self.inbound.item_id(position)
    }

    fn attempt(&self) -> u64 {
        self.inbound.attempt
    }

    fn topic(&self, _: usize) -> Option<Topic> {
        self.inbound.topic.clone()
    }

    fn log(&self, position: usize, level: Level, line: String) {
        if let Some(gauge) = &self.gauge {
            gauge.line(position, &line);
        }
        self.log_of(position, level, line);
    }

    fn filed(&self, position: usize, bytes: u64) {
        if let Some(gauge) = &self.gauge {
            gauge.filed(position, bytes);
        }
    }

    fn ended(&self, position: usize, _: usize, bytes: u64, began: Instant, now: Instant) {
        self.hop.limit.ran(began, now);
        if let Some(gauge) = &self.gauge {
            gauge.ended(position, bytes, began, now);
            self.came(position, usize::MAX, [self.measure(gauge, position, None)].into());
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes > self.most {
            self.unkept.fetch_add(bytes, Relaxed);
        }
        self.gather(bytes);
    }

    fn next(&self, now: Instant) -> Option<(usize, Bytes)> {
        // A large item must be fetched first.
        let is_small = self.inbound.frame.large.is_empty();
        is_small.then(|| self.begin(now)).flatten().map(|position| (position, self.item(position)))
    }

    fn calls(&self, position: usize) -> Option<Arc<dyn Calls>> {
        let (hop, id) = (&self.hop, self.inbound.item_id(position));
        let notes = self.notes(position, None);
        hop.doors.open((0, &hop.stage().name), &hop.route.chain, &self.inbound, &hop.logs, (id, notes))
    }

    fn memory(&self) -> Option<Arc<Growing>> {
        Some(Arc::clone(&self.memory))
    }

    fn stream(self: Arc<Self>, position: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        async move {
            self.keep_instance(0, position).await?;
            self.stream_outputs(outputs).await
        }
        .boxed()
    }
}
