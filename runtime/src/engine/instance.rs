//! An instance of a plugin. It handles one item after the other, and is dropped once an item has failed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pcluster_abi as abi;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use wasmtime::{Extern, Memory, ModuleExport, Store, Trap, TypedFunc};

use super::host::{Host, NotStreamed, OutOfBounds, OutputError};
use super::limits::{Limits, OutOfTime};
use super::parts::Value;
use super::renew::{self, Own};
use super::task::Task;
use super::template::{Made, Template};
use super::wasi::state::Exit;
use super::{EngineError, backtrace};
use crate::run::budget::Reservation;
use crate::run::call::Call;
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::FrameOutputs;

/// The indices of a plugin's exports. Finding an export by index is faster than by name.
#[derive(Clone)]
pub(super) struct Exports {
    memory: ModuleExport,
    start: Option<ModuleExport>,
    initialize: Option<ModuleExport>,
    /// Makes the state of the task.
    pub(super) init: Option<ModuleExport>,
    alloc: ModuleExport,
    task: ModuleExport,
    each: Option<ModuleExport>,
}

impl Exports {
    /// Returns the exports for instances that start from a snapshot. What runs before its first item has run already.
    pub(super) fn started(self) -> Self {
        Self { start: None, initialize: None, init: None, ..self }
    }

    /// Returns `true` if instances start from a snapshot.
    pub(super) fn are_started(&self) -> bool {
        self.start.is_none() && self.initialize.is_none() && self.init.is_none()
    }

    /// Finds the exports that this task needs.
    pub(super) fn find(template: &Template, task: &str) -> Result<Self, EngineError> {
        let lacks = |name: &str| EngineError::Load(format!("it exports no `{name}`"));
        let of_task =
            |prefixes: [&str; 2]| prefixes.iter().find_map(|prefix| template.export(&format!("{prefix}{task}")));
        Ok(Self {
            memory: template.memory().ok_or_else(|| lacks(abi::MEMORY))?,
            start: template.start(),
            initialize: template.export(abi::INITIALIZE),
            init: of_task(abi::INIT_PREFIXES),
            alloc: template.export(abi::ALLOC).ok_or_else(|| lacks(abi::ALLOC))?,
            task: of_task(abi::TASK_PREFIXES).ok_or_else(|| lacks(&format!("{}{task}", abi::TASK_PREFIX)))?,
            each: of_task(abi::EACH_PREFIXES),
        })
    }
}

/// An instance of a plugin.
pub(super) struct Instance {
    store: Store<Host>,
    /// The functions to call. `None` before the first item.
    entry: Option<Entry>,
    handled: u32,
    /// `true` unless a run was interrupted or ended by a trap.
    is_sound: bool,
    /// The pages to put back after the next item. `None` if that must be found out.
    own: Option<Own>,
    /// Must be dropped after the store.
    _slot: OwnedSemaphorePermit,
}

/// The functions to call in an instance.
struct Entry {
    made: Made,
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    run: Run,
}

/// How an instance receives its items.
enum Run {
    /// The guest takes its items itself.
    Each(TypedFunc<(), i32>),
    /// The host calls the guest for each item.
    One(TypedFunc<(i32, i32), i32>),
}

impl Instance {
    /// Waits for a slot for an instance.
    pub(super) async fn slot(task: &Task) -> Result<OwnedSemaphorePermit, Failure> {
        let slot = task.engine.slots.take(task.after).await;
        slot.ok_or_else(|| Failure::transient(FailureKind::Node, "the engine is closed"))
    }

    /// Creates an instance in this slot, with the memory counted for it. It starts with its first item, and the start counts
    /// toward the time of that item.
    pub(super) fn new(task: &Task, slot: OwnedSemaphorePermit, counted: Reservation) -> Self {
        let mut store = Store::new(
            &task.engine.inner,
            Host::new(task.limits, Arc::clone(&task.static_context), task.clock, task.after, counted),
        );
        store.limiter(|host| &mut host.memory);
        store.epoch_deadline_callback(|mut context| context.data_mut().tick());
        Self { store, entry: None, handled: 0, is_sound: true, own: None, _slot: slot }
    }

    /// Returns the size of the guest's memory in bytes.
    pub(super) fn grown(&self) -> u64 {
        self.store.data().memory.grown
    }

    /// Returns the peak of memory and outputs together, in bytes.
    pub(super) fn most(&self) -> u64 {
        self.store.data().memory.most
    }

    /// Adds the memory counted for the next item.
    pub(super) fn expect(&mut self, counted: Reservation) {
        self.store.data_mut().memory.counted.absorb(counted);
    }

    /// Returns `true` if the instance may handle another item.
    pub(super) fn has_room(&self, task: &Task) -> bool {
        self.is_sound && self.handled < task.items_max()
    }

    /// Returns how many pages are put back. `None` if that is not known.
    pub(super) fn pages_put_back(&self) -> Option<usize> {
        self.own.as_ref().map(Own::len)
    }

    /// Puts the instance back to its start. Returns `false` if it cannot be: then it must be dropped.
    pub(super) async fn renew(&mut self, task: &Task) -> bool {
        let (Some(split), Some(entry), true) = (task.renewable(), &self.entry, self.is_sound) else { return false };
        let started = (entry.made, entry.memory);
        self.own = renew::restore(&task.engine, split, &mut self.store, started, self.own.take()).await;
        self.store.data_mut().restart(task.clock);
        self.handled = 0;
        self.own.is_some()
    }

    /// Runs the task on an item. If the guest takes its items itself, it also runs others of the call's frame, while none fails
    /// and the instance may take more. Outputs are appended to `given`. The error names the item that failed.
    pub(super) async fn run(
        &mut self,
        task: &Task,
        item: Bytes,
        call: Call,
        given: &mut FrameOutputs,
    ) -> Result<(), (usize, Failure)> {
        let most = task.items_max().saturating_sub(self.handled);
        let before = given.ended();
        self.begin(item, call, most.saturating_sub(1), std::mem::take(given));
        let clock = self.store.data().clock.clone();
        let (ended, has_faulted) = {
            let run = pin!(self.enter(task));
            let run = pin!(renew::watched(task.renewable().is_some(), run));
            clock.limit(run).await.unzip()
        };
        if has_faulted.unwrap_or(true) {
            self.own = None;
        }
        let (all, failed) = self.end(task, ended.as_ref());
        self.handled = self.handled.saturating_add(u32::try_from(all.ended() - before).unwrap_or(u32::MAX));
        *given = all;
        failed.map_or(Ok(()), Err)
    }

    /// Makes the state of the task, before any item.
    pub(super) async fn initialize(&mut self, task: &Task, call: Call) -> Result<(), Failure> {
        self.begin(Bytes::new(), call, 0, FrameOutputs::default());
        let clock = self.store.data().clock.clone();
        let ended = clock.limit(pin!(self.enter_init(task))).await;
        self.end(task, ended.as_ref()).1.map_or(Ok(()), |(_, failure)| Err(failure))
    }

    /// Returns the guest's memory.
    pub(super) fn memory(&self) -> &[u8] {
        self.entry.as_ref().map_or(&[], |entry| entry.memory.data(&self.store))
    }

    /// Returns the number of a global that may change. `None` if there is none with this index.
    pub(super) fn global(&mut self, index: usize) -> Option<Value> {
        let made = self.entry.as_ref()?.made;
        made.global(&mut self.store, index)
    }

    /// Returns the start of the guest's clock. `None` if the guest has never asked for the time.
    pub(super) fn clock(&self) -> Option<std::time::Instant> {
        self.store.data().wasi.started
    }

    /// Returns `true` if all that the guest has done follows from its plugin, limits, context and environment, and nobody has seen it.
    pub(super) fn is_unworldly(&self) -> bool {
        !self.store.data().wasi.is_worldly
    }

    fn begin(&mut self, item: Bytes, call: Call, more: u32, given: FrameOutputs) {
        self.store.data_mut().begin(item, call, more, given);
        self.store.set_epoch_deadline(1);
    }

    async fn enter(&mut self, task: &Task) -> Entered {
        let (store, entry) = self.entered(task).await?;
        let task = match &entry.run {
            Run::Each(each) => {
                store.data_mut().let_take();
                each.call_async(&mut *store, ()).await?;
                return if store.data().is_over() { Ok(()) } else { Err(NotEnded.into()) };
            }
            Run::One(task) => task,
        };
        let item = store.data().item();
        let length = i32::try_from(item.len())?;
        let pointer = entry.alloc.call_async(&mut *store, length).await?;
        let start = pointer.cast_unsigned() as usize;
        let target = entry.memory.data_mut(&mut *store).get_mut(start..start.saturating_add(item.len()));
        target.ok_or(NoRoom)?.copy_from_slice(&item);
        store.data_mut().hand_over();
        let status = task.call_async(&mut *store, (pointer, length)).await?;
        store.data_mut().end_item(abi::Status::from_i32(status), Instant::now());
        Ok(())
    }

    async fn enter_init(&mut self, task: &Task) -> Entered {
        let (store, entry) = self.entered(task).await?;
        let Some(init) = &task.exports.init else { return Ok(()) };
        let init = function(store, &entry.made.code, init)?.typed::<(), i32>(&*store)?;
        let status = init.call_async(&mut *store, ()).await?;
        store.data_mut().end_item(abi::Status::from_i32(status), Instant::now());
        Ok(())
    }

    /// Returns the functions to call. Starts the instance if it has not started.
    async fn entered(&mut self, task: &Task) -> wasmtime::Result<(&mut Store<Host>, &Entry)> {
        let entry = match &mut self.entry {
            Some(entry) => entry,
            // Boxed, so that the state of the items after the first stays small.
            none => none.insert(Box::pin(Entry::start(&mut self.store, task)).await?),
        };
        Ok((&mut self.store, entry))
    }

    /// Ends a run. Returns the outputs, and the item that failed, if any. `ended` is `None` if the time was up.
    fn end(&mut self, task: &Task, ended: Option<&Entered>) -> (FrameOutputs, Option<(usize, Failure)>) {
        self.is_sound = matches!(ended, Some(Ok(())));
        let host = self.store.data_mut();
        let failure = match ended {
            // After its last item, a guest can no longer fail an item.
            _ if host.is_over() => None,
            None => Some(timed_out(task.limits.timeout)),
            Some(Err(error)) => {
                host.flush_output();
                Some(Failure { backtrace: backtrace::of(error), ..trapped(error, host, task.limits) })
            }
            Some(Ok(())) => None,
        };
        let (position, calls) = (host.position(), host.called());
        let (given, said) = host.end();
        (given, failure.or(said).map(|failure| (position, Failure { calls, ..failure })))
    }
}

/// The result of a call to the guest. An error is a trap.
type Entered = wasmtime::Result<()>;

impl Entry {
    /// Starts an instance.
    async fn start(store: &mut Store<Host>, task: &Task) -> wasmtime::Result<Self> {
        let exports = &task.exports;
        let made = task.template.instantiate(store).await?;
        let memory = made.memory(store, &exports.memory);
        store.data_mut().guest = memory;
        let instance = made.code;
        for first in [&exports.start, &exports.initialize].into_iter().flatten() {
            function(store, &instance, first)?.typed::<(), ()>(&*store)?.call_async(&mut *store, ()).await?;
        }
        Ok(Self {
            made,
            memory: memory.ok_or(OutOfBounds(abi::MEMORY))?,
            alloc: function(store, &instance, &exports.alloc)?.typed(&*store)?,
            run: match &exports.each {
                Some(each) => Run::Each(function(store, &instance, each)?.typed(&*store)?),
                None => Run::One(function(store, &instance, &exports.task)?.typed(&*store)?),
            },
        })
    }
}

/// The guest's allocation for the item is not in its memory.
#[derive(Debug, thiserror::Error)]
#[error("the pointer that `{}` returned has no room for the item", abi::ALLOC)]
struct NoRoom;

/// The guest returned before it had ended its item.
#[derive(Debug, thiserror::Error)]
#[error("the task returned without having ended its item")]
struct NotEnded;

fn function(
    store: &mut Store<Host>,
    instance: &wasmtime::Instance,
    export: &ModuleExport,
) -> wasmtime::Result<wasmtime::Func> {
    let found = instance.get_module_export(store, export).and_then(Extern::into_func);
    found.ok_or_else(|| wasmtime::Error::msg("an export that must be a function is none"))
}

fn timed_out(timeout: Duration) -> Failure {
    let timeout = humantime::format_duration(timeout);
    Failure::transient(FailureKind::Timeout, format!("the task took longer than its timeout of {timeout}"))
}

fn trapped(error: &wasmtime::Error, host: &Host, limits: Limits) -> Failure {
    if error.is::<OutOfTime>() {
        return timed_out(limits.timeout);
    }
    let said = |reason: String| match &host.failure {
        Some(failure) => format!("{failure} ({reason})"),
        None => host.wasi.last.behind(reason),
    };
    if let Some(output) = error.downcast_ref::<OutputError>() {
        // Another attempt would give the same outputs.
        return Failure::fatal(FailureKind::Output, output.to_string());
    }
    if error.is::<NotStreamed>() {
        return host.clock.failure().unwrap_or_else(|| Failure::transient(FailureKind::Output, error.to_string()));
    }
    if host.memory.exceeded {
        let memory = bytesize::ByteSize(limits.memory).display().iec();
        return Failure::transient(
            FailureKind::Memory,
            said(format!("the task wanted more than its memory of {memory}")),
        );
    }
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return Failure::transient(FailureKind::Trap, said(exit.to_string()));
    }
    let reason = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    Failure::transient(FailureKind::Trap, said(reason))
}
