//! Running one task on one item, in a fresh instance or one that has handled others before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use ciborium::Value;
use futures_util::future::BoxFuture;
use pcluster_abi as abi;
use wasmtime::InstancePre;

use super::budget::{Active, Budget, Growing};
use super::host::Host;
use super::idle::{Instances, Waiting};
use super::instance::{Exports, Instance};
use super::limits::Limits;
use super::output::{Given, Outputs};
use super::stalls::Stalled;
use super::{Engine, EngineError, Plugin};
use crate::chain::isolation::{Isolation, Reuse};
pub use crate::dead::FailureKind;
use crate::frame::format::to_cbor;

/// What all executions of a stage have in common.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The context's constant entries, back to back as in a CBOR map.
    constant: Bytes,
    /// How many they are.
    entries: u8,
    /// Environment variables, each as `NAME=value`.
    pub environment: Vec<String>,
}

impl Surroundings {
    /// Surroundings with these context entries, of which there may be twenty; see [`pcluster_abi::context`] for the keys.
    #[must_use]
    pub fn new(constant: Vec<(&'static str, Value)>, environment: Vec<String>) -> Self {
        let (mut bytes, mut entries) = (BytesMut::new(), 0);
        for (key, value) in constant {
            bytes.put(to_cbor(&key));
            bytes.put(to_cbor(&value));
            entries += 1;
        }
        Self { constant: bytes.freeze(), entries, environment }
    }

    /// The context of one execution.
    pub(super) fn context(&self, id: &str, attempt: u64) -> Bytes {
        /// The first byte of a map of up to 23 entries, less their number.
        const MAP: u8 = 0xa0;
        let mut context = BytesMut::with_capacity(self.constant.len() + id.len() + 32);
        context.put_u8(MAP + self.entries + 2);
        context.put_slice(&self.constant);
        for part in [to_cbor(&abi::context::ID), to_cbor(&id), to_cbor(&abi::context::ATTEMPT), to_cbor(&attempt)] {
            context.put(part);
        }
        context.freeze()
    }
}

/// What executions belong to, such as a frame: it tells them who they are and takes what they say while they run.
pub trait Caller: Send + Sync {
    /// The id of the item at this position.
    fn id(&self, position: usize) -> String;

    /// Which attempt this is; 1 is the first.
    fn attempt(&self) -> u64;

    /// Takes a line that the guest logged or printed. It must not block.
    fn log(&self, position: usize, level: abi::Level, line: String);

    /// An item that began then has ended well now, and has given so many bytes.
    fn ended(&self, bytes: u64, began: Instant, now: Instant) {
        let _ = (bytes, began, now);
    }

    /// The next item that shall run in the same instance, with its position, if there is one. It begins now.
    fn next(&self, now: Instant) -> Option<(usize, Bytes)> {
        let _ = now;
        None
    }

    /// What is counted for the outputs of the frame that it is, if it is one.
    fn memory(&self) -> Option<Arc<Growing>> {
        None
    }

    /// Takes outputs of an item that still runs because they have become too many to hold; the guest waits meanwhile. An
    /// error ends the execution.
    fn carry(self: Arc<Self>, position: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>>;
}

/// Which execution this is.
#[derive(Clone)]
pub struct Call {
    /// What it belongs to.
    pub of: Arc<dyn Caller>,
    /// Which of the items there it runs.
    pub position: usize,
}

impl Call {
    /// A call that belongs to nothing.
    #[must_use]
    pub fn idle() -> Self {
        struct Nobody;
        impl Caller for Nobody {
            fn id(&self, _: usize) -> String {
                String::new()
            }
            fn attempt(&self) -> u64 {
                0
            }
            fn log(&self, _: usize, _: abi::Level, _: String) {}
            fn carry(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
                Box::pin(std::future::ready(Ok(())))
            }
        }
        Self { of: Arc::new(Nobody), position: 0 }
    }
}

/// Why an item gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// In words.
    pub reason: String,
    /// Whether another attempt is in vain.
    pub fatal: bool,
    /// The functions that the guest was in, the innermost first, one a line; `None` if it was in none.
    pub backtrace: Option<String>,
}

impl Failure {
    /// A failure that another attempt may mend.
    #[must_use]
    pub fn passing(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), fatal: false, backtrace: None }
    }

    /// A failure for good.
    #[must_use]
    pub fn fatal(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), fatal: true, backtrace: None }
    }
}

/// A task of a loaded plugin with its limits and surroundings. Cheap to clone.
#[derive(Clone)]
pub struct Task {
    pub(super) engine: Engine,
    pub(super) pre: Arc<InstancePre<Host>>,
    pub(super) exports: Exports,
    pub(super) limits: Limits,
    pub(super) surroundings: Arc<Surroundings>,
    /// Since when the guest's clock runs, if its instances start from an image in which it runs already.
    pub(super) clock: Option<Instant>,
    reuse: Reuse,
    /// How many stages come after it.
    pub(super) after: usize,
    /// How large the memory of its instances and the outputs of an item have grown lately, in bytes.
    size: Arc<AtomicU64>,
    /// The instances that wait for their next item, if those of all frames wait together.
    waiting: Option<Arc<Waiting>>,
}

impl Plugin {
    /// One of the plugin's tasks.
    ///
    /// # Errors
    ///
    /// If the plugin has no such task, or cannot start within the limits.
    pub fn task(
        &self,
        name: &str,
        limits: Limits,
        surroundings: Surroundings,
        reuse: Reuse,
    ) -> Result<Task, EngineError> {
        self.inspection.task(name)?;
        self.inspection.check_memory(limits.memory)?;
        Ok(Task {
            exports: Exports::find(self.pre.module(), name)?,
            engine: self.engine.clone(),
            pre: Arc::clone(&self.pre),
            limits,
            surroundings: Arc::new(surroundings),
            clock: None,
            reuse,
            after: 0,
            // As much as it starts with, as long as nothing is known.
            size: Arc::new(AtomicU64::new(self.inspection.memory)),
            waiting: (reuse.isolation == Isolation::Worker).then(|| self.engine.slots.wait()),
        })
    }
}

impl Task {
    /// Where the instances of one frame's items wait between two items.
    #[must_use]
    pub fn instances(&self) -> Instances {
        match self.reuse.isolation {
            Isolation::Item => Instances::none(),
            Isolation::Frame => Instances::of(self.engine.slots.wait()),
            Isolation::Worker => {
                self.waiting.as_ref().map_or_else(Instances::none, |all| Instances::of(Arc::clone(all)))
            }
        }
    }

    /// Runs the task on one item: its outputs, or why there are none. As [`Self::run_all`], with a caller that has no other.
    ///
    /// # Errors
    ///
    /// Whatever went wrong within the guest; the host is never harmed.
    pub async fn run(&self, item: Bytes, call: Call, instances: &Instances) -> Result<Outputs, Failure> {
        let mut given = Given::default();
        self.run_all(item, call, instances, &mut given).await.map_err(|(_, failure)| failure)?;
        Ok(given.into_outputs())
    }

    /// Runs the task on an item, in an instance that waits among these or else in a fresh one, and in the same instance on as
    /// many others as it may have and the caller gives. What they give is added to `given`; items that have ended well are
    /// there whatever becomes of the next. Dropping the future interrupts the guest at its next tick, and loses `given`. An
    /// instance is used again only after all its items have succeeded.
    ///
    /// # Errors
    ///
    /// Which item failed, and why: whatever went wrong within the guest; the host is never harmed.
    pub async fn run_all(
        &self,
        item: Bytes,
        call: Call,
        instances: &Instances,
        given: &mut Given,
    ) -> Result<(), (usize, Failure)> {
        let memory = call.of.memory();
        let (mut instance, _active) = match self.idle(instances, memory.as_deref()) {
            Some(ready) => ready,
            None => self.fresh(instances, memory.as_deref()).await.map_err(|failure| (call.position, failure))?,
        };
        let ran = instance.run(self, item, call, given).await;
        self.grew(instance.most());
        ran?;
        if instance.has_room(self) {
            instances.put(instance);
        }
        Ok(())
    }

    /// An instance that waits for an item, if there is one and the item may begin at once.
    fn idle(&self, instances: &Instances, frame: Option<&Growing>) -> Option<(Instance, Active)> {
        let budget = &self.engine.budget;
        let mut instance = instances.take()?;
        let mut counted = budget.reserve(0);
        let need = self.size().saturating_sub(instance.grown());
        // One that cannot begin gives way: it would keep its place and its memory from those who can.
        let active = budget.try_begin(self.after, need, &mut counted, frame)?;
        instance.expect(counted);
        Some((instance, active))
    }

    /// A fresh instance, once there is memory for it and then a place. Whoever has a place never waits for memory.
    async fn fresh(&self, instances: &Instances, frame: Option<&Growing>) -> Result<(Instance, Active), Failure> {
        let budget = &self.engine.budget;
        let mut counted = budget.reserve(0);
        let active = budget.begin(self.after, self.size(), &mut counted, frame).await;
        if let Some(instance) = instances.take() {
            return Ok((instance, active));
        }
        let place = Instance::place(self).await?;
        Ok((Instance::new(self, place, counted), active))
    }

    /// How much memory the next instance is expected to need, in bytes, the outputs of an item included.
    fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// An instance and its outputs have grown to so many bytes: what is expected of the next rises at once and falls slowly.
    fn grew(&self, bytes: u64) {
        /// What is expected falls by this part of it each time.
        const FALL: u64 = 16;
        let before = self.size();
        let after = bytes.max(before - before / FALL);
        if after != before {
            self.size.store(after, Relaxed);
        }
    }

    /// The memory of the node.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.engine.budget
    }

    /// The same task as a stage with so many stages `after` it.
    #[must_use]
    pub fn with_after(self, after: usize) -> Self {
        Self { after, ..self }
    }

    /// How many stages come after it.
    #[must_use]
    pub fn after(&self) -> usize {
        self.after
    }

    /// Leave to keep an instance while one waits for the stages after its own, if there is some within this time.
    pub async fn stall(&self, patience: Duration) -> Option<Stalled> {
        self.engine.slots.stalls.stall(self.after, patience).await
    }

    /// How many instances may exist at once.
    #[must_use]
    pub fn places(&self) -> usize {
        self.engine.slots.stalls.places()
    }

    /// How many items an instance may have.
    pub(super) fn items_max(&self) -> u32 {
        match self.reuse.isolation {
            Isolation::Item => 1,
            Isolation::Frame | Isolation::Worker => self.reuse.items.unwrap_or(u32::MAX),
        }
    }
}
