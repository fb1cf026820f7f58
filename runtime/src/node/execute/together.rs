//! The items of a frame on their way through inline stages, together: a stage runs all that the one before has given before the
//! next begins. So an instance that may handle several items is entered once for all of them, and not once for each.
//!
//! An item whose descendant fails has failed itself, and what else came of it is dropped. One that gives very much is left to a
//! frame of its own, where [`crate::node::execute::inline`] takes it through the stages bit by bit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;

use crate::engine::budget::Growing;
use crate::engine::call::{Call, ItemSource};
use crate::engine::failure::{Failure, FailureKind};
use crate::engine::limits::GATHER_BYTES;
use crate::engine::output::{FrameOutputs, Outputs};
use crate::engine::task::Task;
use crate::node::execute::inline::within;
use crate::node::execute::running::Running;
use crate::node::hop::InlineStage;

/// The items of one stage.
struct Pass {
    running: Arc<Running>,
    /// The stage's place in the hop.
    stage: usize,
    before: Option<Arc<Pass>>,
    items: Vec<Item>,
    /// The item that is next.
    next: AtomicUsize,
    /// Bytes that the stage has given.
    gathered: AtomicUsize,
    lost: Arc<Mutex<Lost>>,
}

/// An item of a stage.
struct Item {
    /// The item of the frame that it descends from.
    root: usize,
    /// Which of the stage before it comes from, and which of that one's outputs it is.
    parent: usize,
    number: usize,
    bytes: Bytes,
}

/// Items of the frame of which nothing shall go on.
#[derive(Default)]
pub(crate) struct Lost {
    /// Those that failed.
    pub(crate) failed: BTreeMap<usize, Failure>,
    /// Those that give too much to run beside others.
    pub(crate) large: BTreeSet<usize>,
}

impl Lost {
    fn has(&self, root: usize) -> bool {
        self.failed.contains_key(&root) || self.large.contains(&root)
    }
}

/// Runs items of a frame through all stages of the hop, and adds what the last gives to `given`. Tells of which nothing was given.
pub(crate) async fn run(running: &Arc<Running>, positions: &[usize], given: &mut FrameOutputs) -> Lost {
    let hop = running.hop();
    let mut pass = Arc::new(Pass::first(running, positions));
    let mut outputs = pass.run(&hop.task).await;
    for stage in &hop.inline {
        pass = Arc::new(Pass::after(pass, outputs));
        let _running = stage.stats.run();
        outputs = pass.run(&stage.task).await;
    }
    let lost = std::mem::take(&mut *pass.lost());
    let mut ended = outputs.items().map(|(number, outputs)| (pass.items[number].root, outputs)).peekable();
    for position in positions {
        let is_lost = lost.has(*position);
        while let Some((_, outputs)) = ended.next_if(|(root, _)| root == position) {
            if !is_lost {
                given.append(outputs);
            }
        }
        if !is_lost {
            given.end(*position);
        }
    }
    lost
}

impl Pass {
    /// The items of the first stage.
    fn first(running: &Arc<Running>, positions: &[usize]) -> Self {
        let item = |position: &usize| Item { root: *position, parent: 0, number: 0, bytes: running.item(*position) };
        Self {
            running: Arc::clone(running),
            stage: 0,
            before: None,
            items: positions.iter().map(item).collect(),
            next: AtomicUsize::new(0),
            gathered: AtomicUsize::new(0),
            lost: Arc::default(),
        }
    }

    /// The items of the next stage, which are what this one has given.
    fn after(before: Arc<Self>, outputs: FrameOutputs) -> Self {
        let items = outputs.into_items().map(|(parent, number, bytes)| {
            let root = before.items[parent].root;
            Item { root, parent, number, bytes }
        });
        Self {
            running: Arc::clone(&before.running),
            stage: before.stage + 1,
            items: items.collect(),
            next: AtomicUsize::new(0),
            gathered: AtomicUsize::new(0),
            lost: Arc::clone(&before.lost),
            before: Some(before),
        }
    }

    /// Runs all items, and gives what they have given.
    async fn run(self: &Arc<Self>, task: &Task) -> FrameOutputs {
        let bytes = self.items.iter().map(|item| item.bytes.len()).sum();
        let mut given = FrameOutputs::with_capacity(self.items.len(), bytes);
        while let Some((position, item)) = self.next(Instant::now()) {
            let call = Call { source: Arc::clone(self) as Arc<dyn ItemSource>, position };
            let ran = task.run_all(item, call, self.running.instances(self.stage), &mut given).await;
            if let Err((number, failure)) = ran {
                self.lose(number, failure);
            }
        }
        given
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, number: usize, failure: Failure) {
        let root = self.items[number].root;
        let failure = match self.inline() {
            Some(stage) => within(&stage.name, failure),
            None => failure,
        };
        let mut lost = self.lost();
        if !lost.has(root) {
            lost.failed.insert(root, failure);
        }
    }

    /// The stage, if it is an inline one.
    fn inline(&self) -> Option<&InlineStage> {
        self.running.hop().inline.get(self.stage.checked_sub(1)?)
    }
}

impl ItemSource for Pass {
    fn id(&self, number: usize) -> String {
        let item = &self.items[number];
        match &self.before {
            Some(before) => format!("{}.{}", before.id(item.parent), item.number),
            None => self.running.id(item.root),
        }
    }

    fn attempt(&self) -> u64 {
        self.running.attempt()
    }

    fn log(&self, number: usize, level: Level, line: String) {
        match self.inline() {
            Some(stage) => stage.logs.log(&self.id(number), level, line),
            None => self.running.log(self.items[number].root, level, line),
        }
    }

    fn ended(&self, bytes: u64, _: Instant, _: Instant) {
        self.gathered.fetch_add(usize::try_from(bytes).unwrap_or(usize::MAX), Relaxed);
        if let Some(stage) = self.inline() {
            stage.stats.done.fetch_add(1, Relaxed);
        }
    }

    fn next(&self, _: Instant) -> Option<(usize, Bytes)> {
        loop {
            let number = self.next.fetch_add(1, Relaxed);
            let item = self.items.get(number)?;
            let mut lost = self.lost();
            if lost.has(item.root) {
                continue;
            }
            if self.gathered.load(Relaxed) < GATHER_BYTES {
                return Some((number, item.bytes.clone()));
            }
            lost.large.insert(item.root);
        }
    }

    fn memory(&self) -> Option<Arc<Growing>> {
        self.running.memory()
    }

    fn stream(self: Arc<Self>, number: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        async move {
            self.lost().large.insert(self.items[number].root);
            Err(Failure::transient(FailureKind::Output, "too many outputs to run beside others"))
        }
        .boxed()
    }
}
