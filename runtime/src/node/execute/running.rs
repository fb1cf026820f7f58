//! A frame while its items run.

mod walking;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Instant;

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
use crate::node::execute::walked::{self, Walked, check_accepted};
use crate::node::failpoint::{self, Point};
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::outputs;
use crate::node::frame::steps::{Measured, Stamp};
use crate::node::hop::Hop;
use crate::node::worker::demand::SHARE_AFTER;
use crate::run::budget::Growing;
use crate::run::call::{Calls, ItemSource};
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::GATHER_BYTES;
use crate::run::output::{FrameOutputs, Outputs};
use crate::slots::SlotSet;

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
    pub(crate) fn item(&self, position: usize) -> Bytes {
        self.inbound.frame.items[position].clone()
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

    /// Returns where calls are noted that are made for an item of the frame. `of` is the id of the item in an inline stage.
    pub(crate) fn notes(&self, position: usize, of: Option<String>) -> Notes {
        let spent = self.gauge.as_ref().and_then(|gauge| gauge.spent(position));
        if self.hop.inline.is_empty() {
            return Notes { of, spent, ..Notes::default() };
        }
        let record = Arc::clone(lock(&self.records).entry(position).or_default());
        Notes { record, of, spent }
    }

    /// Returns the failure with the calls of all stages of the hop.
    fn with_calls(&self, position: usize, failure: Failure) -> Failure {
        let Some(record) = lock(&self.records).remove(&position) else { return failure };
        let record = lock(&record).clone();
        let calls = (!record.calls.is_empty()).then(|| Arc::new(record));
        Failure { calls: calls.or(failure.calls), ..failure }
    }

    /// Returns the position of the next item that the chain accepts. `None` if the rest is left to other nodes.
    pub(crate) fn begin(&self, now: Instant) -> Option<usize> {
        let Some(accepts) = self.hop.accepts() else { return self.begin_next(now) };
        loop {
            let position = self.begin_next(now)?;
            let is_large = self.inbound.reference(position).is_some();
            // A large item must be fetched first.
            match if is_large { Ok(()) } else { check_accepted(accepts, &self.item(position)) } {
                Ok(()) => return Some(position),
                Err(failure) => self.fail(position, failure, |level, entry| self.log_of(position, level, entry)),
            }
        }
    }

    fn begin_next(&self, now: Instant) -> Option<usize> {
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
            walked::keep_instance(&*self, 0, position).await?;
            self.stream_outputs(outputs).await
        }
        .boxed()
    }
}
