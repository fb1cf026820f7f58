//! Running the items of a frame.
//!
//! One turn runs them one after the other. When that takes long, others are asked for help: first this node's free turns, then
//! the other nodes, by leaving the items that nobody has begun.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::catalog::Phase;
use super::commit::to_u32;
use super::demand::SHARE_AFTER;
use super::fault::{self, Point};
use super::inline;
use super::outcome::Hop;
use super::taken::Taken;
use super::together;
use super::turns::{Turn, Turns};
use super::worker::reached;
use crate::engine::budget::Growing;
use crate::engine::idle::Instances;
use crate::engine::limits::GATHER_BYTES;
use crate::engine::output::{Given, Outputs};
use crate::engine::stalls::Stalled;
use crate::engine::task::{Caller, Failure, FailureKind, Task};

/// A frame that takes longer than this asks for the node's other turns.
const HELP_AFTER: Duration = Duration::from_millis(2);
/// Items go together through inline stages for about this long, so that others can take the rest.
const TOGETHER: Duration = Duration::from_millis(10);
/// How long an item keeps an instance that it may not keep while it waits.
const STALL_PATIENCE: Duration = Duration::from_secs(1);

/// A frame while its items run.
pub(super) struct Running {
    hop: Arc<Hop>,
    taken: Arc<Taken>,
    turns: Arc<Turns>,
    /// For each stage of the hop, the instances that may run the next item.
    instances: Vec<Instances>,
    started: Instant,
    /// The item that is next.
    next: AtomicUsize,
    /// No more items shall begin.
    stopped: AtomicBool,
    /// Bytes of outputs so far.
    gathered: AtomicUsize,
    /// What is counted for them.
    memory: Arc<Growing>,
    ended: Mutex<Ended>,
    /// Messages that were made of outputs while their item still ran.
    carried: AtomicUsize,
    /// Leave of an item that is by itself to keep its instance while it waits, until it ends: one that had to make way after its
    /// first outputs have gone on would give them again.
    leave: tokio::sync::OnceCell<Stalled>,
}

#[derive(Default)]
struct Ended {
    given: Vec<Given>,
    failed: Vec<(usize, Failure)>,
    /// Items to be run each in a frame of its own, or another time.
    left: Vec<usize>,
}

/// What came of a frame's items.
pub(super) struct Ran {
    /// What those have given that have ended well.
    pub(super) given: Vec<Given>,
    /// Those that have failed.
    pub(super) failed: Vec<(usize, Failure)>,
    /// Items to be run each in a frame of its own; one that is in such a frame already, another time.
    pub(super) left: Vec<usize>,
    /// Messages made of a single item's outputs so far.
    pub(super) carried: usize,
    /// What is counted for all this, until it is stored.
    pub(super) memory: Arc<Growing>,
}

/// Runs the items of a frame, until all have ended or the rest is to be left.
pub(super) async fn run(
    hop: &Arc<Hop>,
    taken: &Arc<Taken>,
    turns: &Arc<Turns>,
    turn: Turn,
    phase: &mut watch::Receiver<Phase>,
) -> Ran {
    // There is as much room for outputs from the start.
    let bytes: usize = taken.frame.items.iter().map(Bytes::len).sum();
    let memory = Arc::new(hop.task.budget().growing(bytes as u64));
    let running = Arc::new(Running {
        hop: Arc::clone(hop),
        taken: Arc::clone(taken),
        turns: Arc::clone(turns),
        instances: std::iter::once(&hop.task)
            .chain(hop.inline.iter().map(|stage| &stage.task))
            .map(Task::instances)
            .collect(),
        started: Instant::now(),
        next: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        gathered: AtomicUsize::new(0),
        memory: Arc::clone(&memory),
        ended: Mutex::default(),
        carried: AtomicUsize::new(0),
        leave: tokio::sync::OnceCell::new(),
    });
    let _message = hop.stats.run_message();
    let mut helpers = JoinSet::new();
    let (begun, all_begun) = watch::channel(false);
    let all = async {
        {
            let mut own = std::pin::pin!(running.work());
            let help = tokio::time::sleep(HELP_AFTER);
            tokio::select! {
                biased;
                () = &mut own => return,
                () = help, if taken.len() > 1 => running.call_for_help(&all_begun, &mut helpers),
            }
            own.await;
        }
        // Helpers that still wait for a turn may be waiting for this one.
        drop(turn);
        begun.send_replace(true);
        while helpers.join_next().await.is_some() {}
    };
    tokio::select! {
        biased;
        () = all => {}
        () = reached(phase, Phase::Interrupt) => {}
    }
    helpers.shutdown().await;
    let Ended { given, mut failed, left } = std::mem::take(&mut *running.ended());
    failed.sort_by_key(|(position, _)| *position);
    Ran { given, failed, left, carried: running.carried.load(Relaxed), memory }
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
    fn gather(&self, bytes: usize) {
        let before = self.gathered.fetch_add(bytes, Relaxed);
        self.memory.cover(before.saturating_add(bytes) as u64);
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs items as long as there are some that nobody has begun. If dropped, what they have given so far is as if they had not
    /// run.
    async fn work(self: &Arc<Self>) {
        let items = &self.taken.frame.items;
        let mut given = Given::with_capacity(items.len(), items.iter().map(Bytes::len).sum());
        let _running = self.hop.stats.run();
        loop {
            let started = Instant::now();
            let Some(position) = self.begin(started) else { break };
            if self.taken.len() > 1 && !self.hop.inline.is_empty() {
                self.work_together(position, started, &mut given).await;
                continue;
            }
            let before = given.ended();
            if let Err((position, failure)) = inline::run(self, position, &mut given).await {
                if given.ended() == before {
                    // Otherwise others ran in the same go, and nobody knows when this one began.
                    self.turns.ran(started, Instant::now());
                }
                let mut ended = self.ended();
                if !ended.left.contains(&position) {
                    ended.failed.push((position, failure));
                }
            }
        }
        self.ended().given.push(given);
    }

    /// Runs this item and others through several stages, as many as take a moment.
    async fn work_together(self: &Arc<Self>, first: usize, started: Instant, given: &mut Given) {
        let most = self.turns.time().map_or(1, |time| TOGETHER.as_nanos() / time.as_nanos().max(1));
        let mut positions = vec![first];
        while (positions.len() as u128) < most {
            let Some(position) = self.begin(started) else { break };
            positions.push(position);
        }
        let before = given.bytes();
        let lost = together::run(self, &positions, given).await;
        let now = Instant::now();
        let each = now.saturating_duration_since(started) / to_u32(positions.len() as u64);
        self.turns.ran(now.checked_sub(each).unwrap_or(started), now);
        self.gather(given.bytes() - before);
        let mut ended = self.ended();
        ended.failed.extend(lost.failed);
        ended.left.extend(lost.large);
    }

    /// Lets free turns run items of the frame, until all have begun.
    fn call_for_help(self: &Arc<Self>, begun: &watch::Receiver<bool>, helpers: &mut JoinSet<()>) {
        let left = self.taken.len().saturating_sub(self.next.load(Relaxed));
        for _ in 0..left.min(usize::try_from(self.turns.concurrency()).unwrap_or(usize::MAX) - 1) {
            let (running, mut begun) = (Arc::clone(self), begun.clone());
            helpers.spawn(async move {
                let turn = tokio::select! {
                    turn = running.turns.take() => turn,
                    _ = begun.wait_for(|begun| *begun) => return,
                };
                running.work().await;
                drop(turn);
            });
        }
    }

    /// The next item that nobody has begun, unless it shall be left.
    fn begin(&self, now: Instant) -> Option<usize> {
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
    pub(super) async fn hand_on(&self, outputs: Outputs) -> Result<(), Failure> {
        let first = self.carried.load(Relaxed);
        let messages = self.hop.carried_messages(&self.taken, outputs, first);
        let stored = self.hop.store_each(self.taken.sequence, &self.taken.held, &messages).await;
        self.carried.fetch_add(messages.len(), Relaxed);
        fault::point(Point::Carried, &self.taken);
        stored.map_err(|error| Failure::fatal(FailureKind::Output, error.to_string()))
    }

    /// Waits for leave to keep the instance of the hop's stage at this place while its outputs go through the stages after it.
    pub(super) async fn stall(&self, stage: usize, position: usize) -> Result<Stalled, Failure> {
        let task = stage.checked_sub(1).map_or(&self.hop.task, |stage| &self.hop.inline[stage].task);
        let (after, places) = (task.after(), task.places());
        if places <= after {
            let reason = format!(
                "it gives so much that its outputs go on while it runs: here that takes {} instances at once, and the node has \
                 {places}; start it with a larger `--instances`",
                after + 1
            );
            return Err(Failure::fatal(FailureKind::Output, reason));
        }
        task.stall(STALL_PATIENCE).await.ok_or_else(|| self.make_way(position))
    }

    /// The same for the hop's first stage, until the item ends.
    pub(super) async fn keep_instance(&self, position: usize) -> Result<(), Failure> {
        self.leave.get_or_try_init(|| self.stall(0, position)).await.map(drop)
    }

    /// Leaves an item for later, so that later stages can have its instance.
    fn make_way(&self, position: usize) -> Failure {
        tracing::debug!(stage = %self.hop.stage().name, "an item makes way for the stages that it waits for");
        self.leave(position);
        Failure::passing(FailureKind::Output, "it waits for later stages, and all instances are taken")
    }

    fn leave(&self, position: usize) {
        self.ended().left.push(position);
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

impl Caller for Running {
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

    fn carry(self: Arc<Self>, position: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        async move {
            if self.taken.len() > 1 {
                // Its neighbours would have to wait for it: it is left for later.
                self.leave(position);
                return Err(Failure::passing(FailureKind::Output, "too many outputs to run beside others"));
            }
            if self.hop.task.after() > 0 {
                self.keep_instance(position).await?;
            }
            self.hand_on(outputs).await
        }
        .boxed()
    }
}
