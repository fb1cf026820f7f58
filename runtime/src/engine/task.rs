//! Running one task on one item, in a fresh instance or one that has handled others before.
//!
//! This file, `instance` and `idle` import each other: an instance runs a task, and a task keeps the instances that wait for its
//! next item. They are one by nature.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::InstancePre;

use super::budget::{Active, Budget, Growing};
use super::call::Call;
use super::failure::Failure;
use super::host::Host;
use super::idle::{Instances, Waiting};
use super::instance::{Exports, Instance};
use super::limits::Limits;
use super::output::{FrameOutputs, Outputs};
use super::static_context::StaticContext;
use super::streaming::StreamingPermit;
use super::{Engine, EngineError, Plugin};
use crate::chain::isolation::{Isolation, Reuse};

/// A task of a loaded plugin with its limits and static context. Cheap to clone.
#[derive(Clone)]
pub struct Task {
    pub(super) engine: Engine,
    pub(super) pre: Arc<InstancePre<Host>>,
    pub(super) exports: Exports,
    pub(super) limits: Limits,
    pub(super) static_context: Arc<StaticContext>,
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
        static_context: StaticContext,
        reuse: Reuse,
    ) -> Result<Task, EngineError> {
        self.inspection.task(name)?;
        self.inspection.check_memory(limits.memory)?;
        Ok(Task {
            exports: Exports::find(self.pre.module(), name)?,
            engine: self.engine.clone(),
            pre: Arc::clone(&self.pre),
            limits,
            static_context: Arc::new(static_context),
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
        let mut given = FrameOutputs::default();
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
        given: &mut FrameOutputs,
    ) -> Result<(), (usize, Failure)> {
        let memory = call.source.memory();
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
    pub async fn streaming_permit(&self, patience: Duration) -> Option<StreamingPermit> {
        self.engine.slots.streaming.acquire(self.after, patience).await
    }

    /// How many instances may exist at once.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.engine.slots.streaming.slots()
    }

    /// How many items an instance may have.
    pub(super) fn items_max(&self) -> u32 {
        match self.reuse.isolation {
            Isolation::Item => 1,
            Isolation::Frame | Isolation::Worker => self.reuse.items.unwrap_or(u32::MAX),
        }
    }
}
