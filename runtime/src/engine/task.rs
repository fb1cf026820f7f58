//! Runs a task on items, in a fresh or an idle instance.
//!
//! This file, `instance` and `idle` import each other: an instance runs a task, and a task keeps its idle instances. They belong
//! together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::idle::{Instances, Waiting};
use super::instance::{Exports, Instance};
use super::limits::Limits;
use super::static_context::StaticContext;
use super::streaming::StreamingPermit;
use super::template::{Split, Template};
use super::{Engine, EngineError, Plugin, renew};
use crate::chain::isolation::{Isolation, Reuse};
use crate::run::budget::{Active, Budget, Growing};
use crate::run::call::Call;
use crate::run::failure::Failure;
use crate::run::output::FrameOutputs;

/// A task of a loaded plugin with its limits and static context. Cheap to clone.
#[derive(Clone)]
pub struct Task {
    pub(super) engine: Engine,
    pub(super) template: Arc<Template>,
    pub(super) exports: Exports,
    pub(super) limits: Limits,
    pub(super) static_context: Arc<StaticContext>,
    /// The start of the guest's clock in the snapshot. `None` without a snapshot, or if the guest has not asked for the time.
    pub(super) clock: Option<Instant>,
    reuse: Reuse,
    /// The number of stages after it.
    pub(super) after: usize,
    /// The expected bytes of an instance with its outputs, from the latest runs.
    size: Arc<AtomicU64>,
    /// `true` if instances are put back to their start after their last item.
    is_renewable: bool,
    /// The idle instances, if all frames share them.
    waiting: Option<Arc<Waiting>>,
}

impl Plugin {
    /// Returns a task of the plugin.
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
            exports: Exports::find(&self.template, name)?,
            engine: self.engine.clone(),
            template: Arc::clone(&self.template),
            limits,
            static_context: Arc::new(static_context),
            clock: None,
            reuse,
            after: 0,
            // Until the first run, the memory that an instance starts with.
            size: Arc::new(AtomicU64::new(self.inspection.memory)),
            is_renewable: false,
            waiting: (reuse.isolation == Isolation::Worker).then(|| self.engine.slots.wait()),
        })
    }
}

impl Task {
    /// Returns the task with instances that start from a snapshot.
    pub(super) fn started(mut self, template: Arc<Template>, exports: Exports, clock: Option<Instant>) -> Self {
        let is_possible = template.split().is_some() && exports.are_started() && renew::is_supported();
        self.is_renewable = is_possible && self.items_max() < u32::MAX;
        if self.is_renewable && self.reuse.isolation == Isolation::Item {
            self.waiting = Some(self.engine.slots.wait());
        }
        Self { template, exports, clock, ..self }
    }

    /// Returns what instances are put back to. `None` if they cannot be.
    pub(super) fn renewable(&self) -> Option<&Split> {
        self.template.split().filter(|_| self.is_renewable)
    }

    /// Returns where the instances of one frame become idle.
    pub fn instances(&self) -> Instances {
        Instances(match self.reuse.isolation {
            Isolation::Frame => Some(self.engine.slots.wait()),
            Isolation::Item | Isolation::Worker => self.waiting.clone(),
        })
    }

    /// Runs the task on an item and on more of its caller's. It uses an idle instance or a fresh one, and takes further items
    /// while the caller has some and the instance may handle more.
    ///
    /// Outputs are appended to `given`. Outputs of items that have succeeded stay there, even if the next item fails. Dropping
    /// the future interrupts the guest at its next tick and loses `given`. An instance becomes idle only if all its items have
    /// succeeded.
    ///
    /// # Errors
    ///
    /// The position of the item that failed, and why. The host is never harmed.
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
        if instance.has_room(self) || instances.keeps() && instance.renew(self).await {
            instances.put(instance);
        }
        Ok(())
    }

    /// Returns an idle instance. `None` if there is none, or if the item must wait for memory.
    fn idle(&self, instances: &Instances, frame: Option<&Growing>) -> Option<(Instance, Active)> {
        let budget = &self.engine.budget;
        let mut instance = instances.take()?;
        let mut counted = budget.reserve(0);
        let need = self.size().saturating_sub(instance.grown());
        // If the item must wait, the instance is dropped: it would keep its slot and memory from other items.
        let active = budget.try_begin(self.after, need, &mut counted, frame)?;
        instance.expect(counted);
        Some((instance, active))
    }

    /// Returns a fresh instance. Waits for its memory first and then for a slot, so that no item holds a slot while it waits for
    /// memory.
    async fn fresh(&self, instances: &Instances, frame: Option<&Growing>) -> Result<(Instance, Active), Failure> {
        let budget = &self.engine.budget;
        let mut counted = budget.reserve(0);
        let active = budget.begin(self.after, self.size(), &mut counted, frame).await;
        if let Some(instance) = instances.take() {
            return Ok((instance, active));
        }
        let slot = Instance::slot(self).await?;
        Ok((Instance::new(self, slot, counted), active))
    }

    /// Returns the expected bytes of the next instance with its outputs.
    fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Takes note of the bytes that a run has used. The expectation rises at once and falls slowly.
    fn grew(&self, bytes: u64) {
        /// The expectation falls by one part in this many each time.
        const FALL: u64 = 16;
        let before = self.size();
        let after = bytes.max(before - before / FALL);
        if after != before {
            self.size.store(after, Relaxed);
        }
    }

    /// Returns how many pages of memory an idle instance puts back after its items. `None` if there is none that does.
    pub fn pages_put_back(&self) -> Option<usize> {
        let instances = self.instances();
        let instance = instances.take()?;
        let pages = instance.pages_put_back();
        instances.put(instance);
        pages
    }

    /// Returns the memory budget of the node.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.engine.budget
    }

    /// Returns `true` if the task has a state that is made before its first item.
    pub fn has_state(&self) -> bool {
        self.exports.init.is_some()
    }

    /// Returns the same task for a stage with this many `after` it.
    pub fn with_after(self, after: usize) -> Self {
        Self { after, ..self }
    }

    /// Returns the number of stages after the task's.
    pub fn after(&self) -> usize {
        self.after
    }

    /// Waits for a permit to keep an instance for later stages. `None` if `patience` ends first.
    pub async fn streaming_permit(&self, patience: Duration) -> Option<StreamingPermit> {
        self.engine.slots.streaming.acquire(self.after, patience).await
    }

    /// Returns the most instances that may exist at once.
    pub fn slots(&self) -> usize {
        self.engine.slots.streaming.slots()
    }

    /// Returns the most items that an instance may handle.
    pub(super) fn items_max(&self) -> u32 {
        match self.reuse.isolation {
            Isolation::Item => 1,
            Isolation::Frame | Isolation::Worker => self.reuse.items.unwrap_or(u32::MAX),
        }
    }
}
