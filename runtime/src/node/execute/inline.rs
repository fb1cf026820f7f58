//! The walk of a frame's items through a hop with inline stages: no queue stands between the stages.
//!
//! Beside other items of a frame, a stage runs all outputs of the stage before it, and only then the next stage begins. So an
//! instance that may handle several items is entered once for all of them. An item of the frame fails as a whole: if one stage
//! fails, the walk drops all outputs that descend from the item.
//!
//! No stage gathers more outputs than a node may hold. An item that gives more is deferred to a frame of its own. There the walk
//! passes each output on through all stages before it runs the next, even while a stage still runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;
use tokio::sync::Mutex;

use crate::counted::Counted;
use crate::name::Topic;
use crate::node::execute::gauge::Gauge;
use crate::node::execute::walked::{Walked, WalkedItem, WalkedStage, keep_instance};
use crate::node::frame::steps::Measure;
use crate::run::budget::Growing;
use crate::run::call::{Call, Calls, ItemSource};
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::ItemBytes;
use crate::run::output::GATHER_BYTES;
use crate::run::output::{FrameOutputs, Outputs};
use crate::slots::SlotSet;

/// Items of a frame on their way through the stages of a hop.
struct Walk<F> {
    frame: Arc<F>,
    /// The items' positions in the frame, in ascending order.
    positions: Vec<usize>,
    /// The slots of the hop.
    slots: Option<Arc<SlotSet>>,
    /// Outputs of the last stage.
    outputs: Mutex<FrameOutputs>,
}

/// Items that one stage runs.
struct Pass<F> {
    walk: Arc<Walk<F>>,
    /// The stage's place in the hop.
    stage: usize,
    /// The pass whose outputs the items are; `None` for items of the frame.
    before: Option<Arc<Pass<F>>>,
    items: Vec<Item>,
    /// The number of the next item.
    next: AtomicUsize,
    /// Bytes that the outputs take until they are passed on.
    gathered: AtomicUsize,
    /// Measures what the items take. `None` if the chain keeps no records.
    gauge: Option<Gauge>,
}

/// An item of one stage.
struct Item {
    /// The position of the frame's item that it descends from.
    root: usize,
    /// The number of its parent in the pass before, and its own number among that one's outputs.
    parent: usize,
    child: usize,
    bytes: ItemBytes,
    topic: Option<Topic>,
    /// How many of its outputs were passed on.
    passed_on: AtomicUsize,
}

/// Runs items of a frame through all stages of the hop, and adds what the last stage gives to `outputs`.
pub(crate) async fn run<F: Walked>(
    frame: &Arc<F>,
    positions: Vec<usize>,
    slots: Option<&Arc<SlotSet>>,
    outputs: &mut FrameOutputs,
) {
    let (mut items, mut memory) = (Vec::with_capacity(positions.len()), Vec::new());
    for &root in &positions {
        match frame.input(root).await {
            Ok(input) => {
                items.push(Item::new(root, (0, 0), input.item, frame.item_topic(root).cloned()));
                memory.extend(input.memory);
            }
            Err(failure) => {
                let item = || WalkedItem { stage: 0, root, id: frame.item_id(root) };
                frame.fail(root, failure, |level, entry| frame.log_line(&item(), level, entry));
            }
        }
    }
    let outputs_before = Mutex::new(std::mem::take(outputs));
    let slots = slots.cloned();
    let walk = Arc::new(Walk { frame: Arc::clone(frame), positions, slots, outputs: outputs_before });
    Pass::new(Arc::clone(&walk), None, items).run().await;
    *outputs = std::mem::take(&mut *walk.outputs.lock().await);
    if frame.is_single() && !frame.is_settled(0) {
        outputs.end(0);
    }
}

impl Item {
    fn new(root: usize, (parent, child): (usize, usize), bytes: ItemBytes, topic: Option<Topic>) -> Self {
        Self { root, parent, child, bytes, topic, passed_on: AtomicUsize::new(0) }
    }

    /// Returns its bytes in memory.
    fn memory(&self) -> usize {
        match &self.bytes {
            ItemBytes::Whole(bytes) => bytes.len(),
            ItemBytes::File(_) => 0,
        }
    }
}

impl<F: Walked> Pass<F> {
    fn new(walk: Arc<Walk<F>>, before: Option<Arc<Self>>, items: Vec<Item>) -> Arc<Self> {
        let stage = before.as_ref().map_or(0, |before| before.stage + 1);
        let (records, exits) = (walk.frame.records(), walk.frame.stage(stage).runner.exits());
        let gauge = Gauge::new(records, items.len(), exits);
        Arc::new(Self { walk, stage, before, items, next: AtomicUsize::new(0), gathered: AtomicUsize::new(0), gauge })
    }

    /// Runs all items, and passes their outputs on.
    fn run(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            let frame = &self.walk.frame;
            let WalkedStage { runner, instances, counters, .. } = frame.stage(self.stage);
            let room = if frame.is_single() { 1 } else { self.items.len() };
            let bytes = self.items.iter().take(room).map(Item::memory).sum();
            loop {
                self.gathered.store(0, Relaxed);
                let mut outputs = FrameOutputs::with_capacity(room, bytes);
                let counted = self.is_inline().then(|| Counted::new(&counters.running));
                while let Some((position, item)) = self.begin(false, Instant::now()) {
                    let call = Call { source: Arc::clone(&self) as Arc<dyn ItemSource>, position };
                    let slots = self.walk.slots.as_ref();
                    if let Err((number, failure)) = runner.run_all(item, call, slots, instances, &mut outputs).await {
                        self.fail(number, failure);
                    }
                }
                drop(counted);
                self.pass_on(outputs).await;
                if self.next.load(Relaxed) >= self.items.len() {
                    break;
                }
            }
        }
        .boxed()
    }

    /// Returns the next item, which begins now. `None` if there is none, or if it is in a file and only `in_memory` will do.
    fn begin(&self, in_memory: bool, now: Instant) -> Option<(usize, ItemBytes)> {
        let frame = &self.walk.frame;
        let is_full = self.gathered.load(Relaxed) >= GATHER_BYTES;
        if frame.is_single() {
            if is_full {
                return None;
            }
            // One at a time, so that its outputs go on before the next begins: they are streamed in the order of the walk, which
            // the keys of streamed messages depend on.
            self.gathered.store(GATHER_BYTES, Relaxed);
        }
        loop {
            let number = self.next.load(Relaxed);
            let item = self.items.get(number)?;
            if in_memory && matches!(item.bytes, ItemBytes::File(_)) {
                return None;
            }
            self.next.store(number + 1, Relaxed);
            if frame.is_settled(item.root) {
                continue;
            }
            if !is_full {
                if let Some(gauge) = &self.gauge {
                    gauge.began(number, now);
                }
                return Some((number, item.bytes.clone()));
            }
            frame.defer(item.root);
        }
    }

    /// Runs outputs of the stage through the stages after it.
    async fn pass_on(self: &Arc<Self>, outputs: FrameOutputs) {
        self.show(&outputs);
        if self.stage == self.walk.frame.inline_stages() {
            return self.deliver(&outputs).await;
        }
        let mut topics = outputs.topics().into_iter().peekable();
        let items = outputs.into_items().enumerate().map(|(output, (number, bytes))| {
            let parent = &self.items[number];
            let topic =
                topics.next_if(|(of, _)| *of == output).map_or_else(|| parent.topic.clone(), |(_, topic)| topic);
            Item::new(parent.root, (number, parent.passed_on.fetch_add(1, Relaxed)), bytes, topic)
        });
        let items = items.collect();
        Self::new(Arc::clone(&self.walk), Some(Arc::clone(self)), items).run().await;
    }

    /// Shows outputs of the stage to who watches.
    fn show(&self, outputs: &FrameOutputs) {
        let Some(watch) = self.walk.frame.watch() else { return };
        for (number, outputs) in outputs.items() {
            outputs.items().for_each(|output| watch.gave(self.stage, self.items[number].root, output));
        }
    }

    /// Adds outputs of the last stage to the walk's. Those of a single item are streamed once they are too many to hold.
    async fn deliver(&self, outputs: &FrameOutputs) {
        let frame = &self.walk.frame;
        let mut all = self.walk.outputs.lock().await;
        self.append(outputs, &mut all);
        if frame.is_single()
            && all.open().is_full()
            && let Err(failure) = frame.stream_outputs(all.take_open()).await
        {
            let item = || WalkedItem { stage: 0, root: 0, id: frame.item_id(0) };
            frame.fail(0, failure, |level, entry| frame.log_line(&item(), level, entry));
        }
    }

    /// Appends what descends from each of the walk's items, and ends the item. A single item ends with the walk.
    fn append(&self, outputs: &FrameOutputs, all: &mut FrameOutputs) {
        let frame = &self.walk.frame;
        let mut outputs = outputs.items().map(|(number, outputs)| (&self.items[number], number, outputs)).peekable();
        for position in &self.walk.positions {
            let is_settled = frame.is_settled(*position);
            while let Some((item, number, outputs)) = outputs.next_if(|(item, ..)| item.root == *position) {
                if is_settled {
                    continue;
                }
                if item.topic.as_ref() == frame.item_topic(*position) {
                    all.append(outputs);
                } else {
                    all.append_to(&item.topic, outputs);
                }
                if self.gauge.is_some() {
                    frame.came(*position, outputs.items().count(), self.way(number, None).into());
                }
            }
            if !is_settled && !frame.is_single() {
                all.end(*position);
                frame.forget_calls(*position);
            }
        }
    }

    /// Notes that the frame's item has failed that this one descends from.
    fn fail(&self, number: usize, failure: Failure) {
        let frame = &self.walk.frame;
        if let Some(watch) = frame.watch() {
            watch.failed_in(self.stage, self.items[number].root);
        }
        let failure = if self.is_inline() {
            let name = frame.stage(self.stage).name;
            Failure { reason: format!("inline stage `{name}`: {}", failure.reason), ..failure }
        } else {
            failure
        };
        let steps = self.gauge.as_ref().and_then(|gauge| {
            let way = self.way(number, failure.exit).into();
            frame.steps(&way, &failure, gauge.take_lines(number))
        });
        let failure = Failure { steps, ..failure };
        frame.fail(self.items[number].root, failure, |level, entry| self.log(number, level, entry));
    }

    /// Returns what the item and its ancestors in the hop have taken, the first stage first.
    fn way(&self, number: usize, exit: Option<i32>) -> Vec<Measure> {
        let item = &self.items[number];
        let mut way = self.before.as_ref().map_or_else(Vec::new, |before| before.way(item.parent, None));
        way.extend(self.gauge.as_ref().map(|gauge| gauge.measure(number, item.bytes.size(), exit)));
        way
    }

    /// Returns `true` if the stage is not the first of its hop.
    fn is_inline(&self) -> bool {
        self.stage > 0
    }

    /// Returns an item as the frame sees it.
    fn walked(&self, number: usize) -> WalkedItem {
        WalkedItem { stage: self.stage, root: self.items[number].root, id: self.id(number) }
    }
}

impl<F: Walked> ItemSource for Pass<F> {
    fn id(&self, number: usize) -> String {
        let item = &self.items[number];
        match &self.before {
            Some(before) => format!("{}.{}", before.id(item.parent), item.child),
            None => self.walk.frame.item_id(item.root),
        }
    }

    fn attempt(&self) -> u64 {
        self.walk.frame.attempt_number()
    }

    fn topic(&self, number: usize) -> Option<Topic> {
        self.items[number].topic.clone()
    }

    fn log(&self, number: usize, level: Level, line: String) {
        if let Some(gauge) = &self.gauge {
            gauge.line(number, &line);
        }
        self.walk.frame.log_line(&self.walked(number), level, line);
    }

    fn filed(&self, number: usize, bytes: u64) {
        if let Some(gauge) = &self.gauge {
            gauge.filed(number, bytes);
        }
    }

    fn ended(&self, number: usize, outputs: usize, bytes: u64, began: Instant, now: Instant) {
        if let Some(gauge) = &self.gauge {
            gauge.ended(number, bytes, began, now);
        }
        if let Some(watch) = self.walk.frame.watch() {
            watch.ended(self.stage, outputs);
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.gathered.fetch_add(bytes.saturating_add(outputs * size_of::<Item>()), Relaxed);
        if self.is_inline() {
            self.walk.frame.stage(self.stage).counters.done.fetch_add(1, Relaxed);
        }
    }

    fn next(&self, now: Instant) -> Option<(usize, Bytes)> {
        match self.begin(true, now)? {
            (number, ItemBytes::Whole(bytes)) => Some((number, bytes)),
            (_, ItemBytes::File(_)) => None,
        }
    }

    fn calls(&self, number: usize) -> Option<Arc<dyn Calls>> {
        let spent = self.gauge.as_ref().and_then(|gauge| gauge.spent(number));
        self.walk.frame.calls_of(self.walked(number), spent)
    }

    fn stand_in(&self, _: usize, item: &Bytes) -> Option<Result<Vec<Bytes>, Failure>> {
        self.walk.frame.watch()?.stand_in(self.stage, item)
    }

    fn memory(&self) -> Option<Arc<Growing>> {
        self.walk.frame.memory()
    }

    fn stream(self: Arc<Self>, number: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        async move {
            let (frame, root) = (&self.walk.frame, self.items[number].root);
            let _permit = keep_instance(&**frame, self.stage, root).await?;
            self.pass_on((number, outputs).into()).await;
            if frame.is_settled(root) {
                return Err(Failure::transient(FailureKind::Output, "a later stage has failed"));
            }
            Ok(())
        }
        .boxed()
    }
}
