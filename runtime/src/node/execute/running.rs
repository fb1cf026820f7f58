//! A frame while its items run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;

use crate::engine::budget::Growing;
use crate::engine::call::ItemSource;
use crate::engine::failure::{Failure, FailureKind};
use crate::engine::idle::Instances;
use crate::engine::limits::GATHER_BYTES;
use crate::engine::output::{FrameOutputs, Outputs};
use crate::engine::streaming::StreamingPermit;
use crate::node::commit::outbox::ServerOutbox;
use crate::node::commit::store_each;
use crate::node::failpoint::{self, Point};
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::outputs;
use crate::node::hop::Hop;
use crate::node::worker::demand::SHARE_AFTER;
use crate::node::worker::permits::ConcurrencyLimit;

/// How long an item keeps an instance that it may not keep while it waits.
const STREAMING_PATIENCE: Duration = Duration::from_secs(1);

/// A frame while its items run.
pub(crate) struct Running {
    pub(crate) hop: Arc<Hop>,
    pub(crate) inbound: Arc<InboundFrame>,
    pub(crate) limit: Arc<ConcurrencyLimit>,
    /// For each stage of the hop, the instances that may run the next item.
    pub(crate) instances: Vec<Instances>,
    pub(crate) started: Instant,
    /// The item that is next.
    pub(crate) next: AtomicUsize,
    /// No more items shall begin.
    pub(crate) stopped: AtomicBool,
    /// Bytes of outputs so far.
    pub(crate) gathered: AtomicUsize,
    /// What is counted for them.
    pub(crate) memory: Arc<Growing>,
    pub(crate) ended: Mutex<Ended>,
    /// Messages that were made of outputs while their item still ran.
    pub(crate) streamed: AtomicUsize,
    /// Leave of an item that is by itself to keep its instance while it waits, until it ends: one that had to make way after its
    /// first outputs have gone on would give them again.
    pub(crate) leave: tokio::sync::OnceCell<StreamingPermit>,
}

#[derive(Default)]
pub(crate) struct Ended {
    pub(crate) given: Vec<FrameOutputs>,
    pub(crate) failed: Vec<(usize, Failure)>,
    /// Items to be run each in a frame of its own, or another time.
    pub(crate) left: Vec<usize>,
}

impl Running {
    pub(crate) fn hop(&self) -> &Hop {
        &self.hop
    }

    pub(crate) fn item(&self, position: usize) -> Bytes {
        self.inbound.frame.items[position].clone()
    }

    /// Where the instances of the hop's stage at this place wait.
    pub(crate) fn instances(&self, stage: usize) -> &Instances {
        &self.instances[stage]
    }

    /// Counts outputs.
    pub(crate) fn gather(&self, bytes: usize) {
        let before = self.gathered.fetch_add(bytes, Relaxed);
        self.memory.cover(before.saturating_add(bytes) as u64);
    }

    pub(crate) fn so_far(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item that nobody has begun, unless it shall be left.
    pub(crate) fn begin(&self, now: Instant) -> Option<usize> {
        if self.stopped.load(Relaxed) {
            return None;
        }
        let position = self.next.fetch_add(1, Relaxed);
        if position >= self.inbound.len() {
            return None;
        }
        if position > 0 && (self.takes_long(position, now) || self.gathered.load(Relaxed) >= GATHER_BYTES) {
            self.stopped.store(true, Relaxed);
            return None;
        }
        Some(position)
    }

    /// Hands on outputs of an item that still runs, however long the next queue is full.
    pub(crate) async fn stream_outputs(&self, outputs: Outputs) -> Result<(), Failure> {
        let first = self.streamed.load(Relaxed);
        let shared = self.hop.limit.share(self.inbound.len(), false).piece;
        let messages = outputs::streamed(self.hop.frame(&self.inbound), outputs, first, shared);
        let stored = store_each(&ServerOutbox(&self.hop), self.inbound.source(), &messages).await;
        self.streamed.fetch_add(messages.len(), Relaxed);
        failpoint::reach(Point::Streamed, &self.inbound);
        stored.map_err(|error| Failure::fatal(FailureKind::Output, error.to_string()))
    }

    /// Waits for leave to keep the instance of the hop's stage at this place while its outputs go through the stages after it.
    pub(crate) async fn streaming_permit(&self, stage: usize, position: usize) -> Result<StreamingPermit, Failure> {
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
    pub(crate) async fn keep_instance(&self, position: usize) -> Result<(), Failure> {
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

    fn log(&self, position: usize, level: Level, line: String) {
        self.hop.logs.log(&self.inbound.item_id(position), level, line);
    }

    fn ended(&self, bytes: u64, began: Instant, now: Instant) {
        self.limit.ran(began, now);
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
            if self.inbound.len() > 1 {
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
