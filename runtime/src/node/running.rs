//! A frame while its items run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;

use super::demand::SHARE_AFTER;
use super::fault::Point;
use super::hop::Hop;
use super::taken::Taken;
use super::turns::Turns;
use super::{outputs, store};
use crate::engine::budget::Growing;
use crate::engine::call::ItemSource;
use crate::engine::failure::{Failure, FailureKind};
use crate::engine::idle::Instances;
use crate::engine::limits::GATHER_BYTES;
use crate::engine::output::{FrameOutputs, Outputs};
use crate::engine::streaming::StreamingPermit;

/// How long an item keeps an instance that it may not keep while it waits.
const STREAMING_PATIENCE: Duration = Duration::from_secs(1);

/// A frame while its items run.
pub(super) struct Running {
    pub(super) hop: Arc<Hop>,
    pub(super) taken: Arc<Taken>,
    pub(super) turns: Arc<Turns>,
    /// For each stage of the hop, the instances that may run the next item.
    pub(super) instances: Vec<Instances>,
    pub(super) started: Instant,
    /// The item that is next.
    pub(super) next: AtomicUsize,
    /// No more items shall begin.
    pub(super) stopped: AtomicBool,
    /// Bytes of outputs so far.
    pub(super) gathered: AtomicUsize,
    /// What is counted for them.
    pub(super) memory: Arc<Growing>,
    pub(super) ended: Mutex<Ended>,
    /// Messages that were made of outputs while their item still ran.
    pub(super) streamed: AtomicUsize,
    /// Leave of an item that is by itself to keep its instance while it waits, until it ends: one that had to make way after its
    /// first outputs have gone on would give them again.
    pub(super) leave: tokio::sync::OnceCell<StreamingPermit>,
}

#[derive(Default)]
pub(super) struct Ended {
    pub(super) given: Vec<FrameOutputs>,
    pub(super) failed: Vec<(usize, Failure)>,
    /// Items to be run each in a frame of its own, or another time.
    pub(super) left: Vec<usize>,
}

impl Running {
    pub(super) fn hop(&self) -> &Hop {
        &self.hop
    }

    pub(super) fn item(&self, position: usize) -> Bytes {
        self.taken.frame.items[position].clone()
    }

    /// Where the instances of the hop's stage at this place wait.
    pub(super) fn instances(&self, stage: usize) -> &Instances {
        &self.instances[stage]
    }

    /// Counts outputs.
    pub(super) fn gather(&self, bytes: usize) {
        let before = self.gathered.fetch_add(bytes, Relaxed);
        self.memory.cover(before.saturating_add(bytes) as u64);
    }

    pub(super) fn so_far(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item that nobody has begun, unless it shall be left.
    pub(super) fn begin(&self, now: Instant) -> Option<usize> {
        if self.stopped.load(Relaxed) {
            return None;
        }
        let position = self.next.fetch_add(1, Relaxed);
        if position >= self.taken.len() {
            return None;
        }
        if position > 0 && (self.takes_long(position, now) || self.gathered.load(Relaxed) >= GATHER_BYTES) {
            self.stopped.store(true, Relaxed);
            return None;
        }
        Some(position)
    }

    /// Hands on outputs of an item that still runs, however long the next queue is full.
    pub(super) async fn stream_outputs(&self, outputs: Outputs) -> Result<(), Failure> {
        let first = self.streamed.load(Relaxed);
        let messages = outputs::streamed_messages(&self.hop, &self.taken, outputs, first);
        let stored = store::store_each(&self.hop, self.taken.source(), &messages).await;
        self.streamed.fetch_add(messages.len(), Relaxed);
        self.taken.passes(Point::Streamed);
        stored.map_err(|error| Failure::fatal(FailureKind::Output, error.to_string()))
    }

    /// Waits for leave to keep the instance of the hop's stage at this place while its outputs go through the stages after it.
    pub(super) async fn streaming_permit(&self, stage: usize, position: usize) -> Result<StreamingPermit, Failure> {
        let task = stage.checked_sub(1).map_or(&self.hop.task, |stage| &self.hop.inline[stage].task);
        let (after, places) = (task.after(), task.slots());
        if places <= after {
            let reason = format!(
                "it gives so much that its outputs go on while it runs: here that takes {} instances at once, and the node has \
                 {places}; start it with a larger `--instances`",
                after + 1
            );
            return Err(Failure::fatal(FailureKind::Output, reason));
        }
        task.streaming_permit(STREAMING_PATIENCE).await.ok_or_else(|| self.yield_slot(position))
    }

    /// The same for the hop's first stage, until the item ends.
    pub(super) async fn keep_instance(&self, position: usize) -> Result<(), Failure> {
        self.leave.get_or_try_init(|| self.streaming_permit(0, position)).await.map(drop)
    }

    /// Leaves an item for later, so that later stages can have its instance.
    fn yield_slot(&self, position: usize) -> Failure {
        tracing::debug!(stage = %self.hop.stage().name, "an item makes way for the stages that it waits for");
        self.leave(position);
        Failure::transient(FailureKind::Output, "it waits for later stages, and all instances are taken")
    }

    fn leave(&self, position: usize) {
        self.so_far().left.push(position);
    }

    /// Whether the rest would take long: as long as the items before, which have taken long.
    fn takes_long(&self, begun: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.started);
        elapsed > SHARE_AFTER
            && elapsed.as_secs_f64() * ratio(self.taken.len() - begun, begun) > SHARE_AFTER.as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of items in a frame are small")]
fn ratio(part: usize, of: usize) -> f64 {
    part as f64 / of as f64
}

impl ItemSource for Running {
    fn id(&self, position: usize) -> String {
        self.taken.item_id(position)
    }

    fn attempt(&self) -> u64 {
        self.taken.attempt
    }

    fn log(&self, position: usize, level: Level, line: String) {
        self.hop.logs.log(&self.taken.item_id(position), level, line);
    }

    fn ended(&self, bytes: u64, began: Instant, now: Instant) {
        self.turns.ran(began, now);
        self.gather(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    fn next(&self, now: Instant) -> Option<(usize, Bytes)> {
        self.begin(now).map(|position| (position, self.item(position)))
    }

    fn memory(&self) -> Option<Arc<Growing>> {
        Some(Arc::clone(&self.memory))
    }

    fn stream(self: Arc<Self>, position: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        async move {
            if self.taken.len() > 1 {
                // Its neighbours would have to wait for it: it is left for later.
                self.leave(position);
                return Err(Failure::transient(FailureKind::Output, "too many outputs to run beside others"));
            }
            if self.hop.task.after() > 0 {
                self.keep_instance(position).await?;
            }
            self.stream_outputs(outputs).await
        }
        .boxed()
    }
}
