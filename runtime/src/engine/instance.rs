//! One instance of a plugin. It handles items one after the other, and is of no more use once one has failed.

use std::time::Duration;

use pcluster_abi as abi;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use wasmtime::{Extern, Memory, Module, ModuleExport, Store, Trap, TypedFunc, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType};

use super::host::{Carried, Host, NotCarried, OutOfBounds, OutputError};
use super::limits::{Limits, OutOfTime};
use super::output::Outputs;
use super::task::{Call, Failure, FailureKind, Task};
use super::wasi::Exit;
use super::{EngineError, backtrace};

/// A guest ends itself when its time is up, and can tell where it was; this much later it is ended from outside.
const BACKSTOP: Duration = Duration::from_millis(100);

/// Where in the module the exports are; finding them by place is quicker than by name.
#[derive(Clone)]
pub(super) struct Exports {
    memory: ModuleExport,
    initialize: Option<ModuleExport>,
    /// Makes the task's state.
    pub(super) init: Option<ModuleExport>,
    alloc: ModuleExport,
    task: ModuleExport,
}

impl Exports {
    /// The same of an image, in which all that comes before the first item was done.
    pub(super) fn started(self) -> Self {
        Self { initialize: None, init: None, ..self }
    }

    /// Those of a module that are needed to run this task.
    pub(super) fn find(module: &Module, task: &str) -> Result<Self, EngineError> {
        let export = |name: &str| {
            module.get_export_index(name).ok_or_else(|| EngineError::Load(format!("it exports no `{name}`")))
        };
        Ok(Self {
            memory: export(abi::MEMORY)?,
            initialize: module.get_export_index(abi::INITIALIZE),
            init: module.get_export_index(&format!("{}{task}", abi::INIT_PREFIX)),
            alloc: export(abi::ALLOC)?,
            task: export(&format!("{}{task}", abi::TASK_PREFIX))?,
        })
    }
}

/// An instance.
pub(super) struct Instance {
    store: Store<Host>,
    /// What is called of it; `None` before the first item.
    entry: Option<Entry>,
    handled: u32,
    /// Given up after the store.
    _slot: OwnedSemaphorePermit,
}

/// What is called of an instance.
struct Entry {
    instance: wasmtime::Instance,
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    task: TypedFunc<(i32, i32), i32>,
}

impl Instance {
    /// A place for an instance. It begins with its first item, whose time that takes.
    pub(super) async fn new(task: &Task) -> Result<Self, Failure> {
        let slot = task.engine.slots.take().await;
        let slot = slot.ok_or_else(|| Failure::passing(FailureKind::Node, "the engine is closed"))?;
        let mut store = Store::new(&task.engine.inner, Host::new(task));
        store.limiter(|host| &mut host.memory);
        store.epoch_deadline_callback(|mut context| context.data_mut().tick());
        Ok(Self { store, entry: None, handled: 0, _slot: slot })
    }

    /// How many items it has been given.
    pub(super) fn handled(&self) -> u32 {
        self.handled
    }

    /// Runs the task on one item.
    pub(super) async fn run(&mut self, task: &Task, item: &[u8], call: Call) -> Result<Outputs, Failure> {
        let carried = self.begin(task, call);
        let ended = within(task.limits.timeout.saturating_add(BACKSTOP), &carried, self.enter(task, item)).await;
        self.end(task, ended)
    }

    /// Makes the task's state, before any item.
    pub(super) async fn initialise(&mut self, task: &Task, call: Call) -> Result<(), Failure> {
        let carried = self.begin(task, call);
        let ended = within(task.limits.timeout.saturating_add(BACKSTOP), &carried, self.enter_init(task)).await;
        self.end(task, ended).map(drop)
    }

    /// Since when the guest's clock runs, if it has asked for the time.
    pub(super) fn clock(&self) -> Option<std::time::Instant> {
        self.store.data().wasi.clock()
    }

    fn begin(&mut self, task: &Task, call: Call) -> Carried {
        self.store.data_mut().begin(call, Instant::now().checked_add(task.limits.timeout));
        self.store.set_epoch_deadline(1);
        self.handled = self.handled.saturating_add(1);
        self.store.data().carried.clone()
    }

    async fn enter(&mut self, task: &Task, item: &[u8]) -> Entered {
        let (store, entry) = self.entered(task).await?;
        let length = i32::try_from(item.len())?;
        let pointer = entry.alloc.call_async(&mut *store, length).await?;
        let start = pointer.cast_unsigned() as usize;
        let target = entry.memory.data_mut(&mut *store).get_mut(start..start.saturating_add(item.len()));
        target.ok_or(NoRoom)?.copy_from_slice(item);
        store.data_mut().started = true;
        let status = entry.task.call_async(&mut *store, (pointer, length)).await?;
        Ok(abi::Status::from_i32(status))
    }

    async fn enter_init(&mut self, task: &Task) -> Entered {
        let (store, entry) = self.entered(task).await?;
        let Some(init) = &task.exports.init else { return Ok(Some(abi::Status::Done)) };
        let init = function(store, &entry.instance, init)?.typed::<(), i32>(&*store)?;
        Ok(abi::Status::from_i32(init.call_async(&mut *store, ()).await?))
    }

    /// What is called of the instance, which is started if need be.
    async fn entered(&mut self, task: &Task) -> wasmtime::Result<(&mut Store<Host>, &Entry)> {
        let entry = match &mut self.entry {
            Some(entry) => entry,
            none => none.insert(Entry::start(&mut self.store, task).await?),
        };
        Ok((&mut self.store, entry))
    }

    /// How an execution has ended; `None` if its time was over.
    fn end(&mut self, task: &Task, ended: Option<Entered>) -> Result<Outputs, Failure> {
        let host = self.store.data_mut();
        let outputs = host.end();
        match ended {
            None => Err(timed_out(task.limits.timeout)),
            Some(Err(error)) => Err(Failure { backtrace: backtrace::of(&error), ..trapped(&error, host, task.limits) }),
            Some(Ok(Some(abi::Status::Done))) => host.carried.failure().map_or(Ok(outputs), Err),
            Some(Ok(status)) => Err(failed(status, host.failure.take())),
        }
    }
}

/// The status that the guest returned, if it is one, or how it came to an end.
type Entered = wasmtime::Result<Option<abi::Status>>;

/// The state of an instance of an instrumented module, which exports all globals and memories.
impl InstanceState for Instance {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.entry.as_ref().and_then(|entry| entry.instance.get_global(&mut self.store, name));
        match global.map(|global| global.get(&mut self.store)) {
            Some(Val::I32(value)) => SnapshotVal::I32(value),
            Some(Val::I64(value)) => SnapshotVal::I64(value),
            Some(Val::F32(value)) => SnapshotVal::F32(value),
            Some(Val::F64(value)) => SnapshotVal::F64(value),
            Some(Val::V128(value)) => SnapshotVal::V128(value.as_u128()),
            // Plugins with other globals that can change are refused before they are instrumented.
            _ => unreachable!("`{name}` is not an exported global with a number"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.entry.as_ref().and_then(|entry| entry.instance.get_memory(&mut self.store, name));
        contents(memory.map_or(&[], |memory| memory.data(&self.store)));
    }
}

impl Entry {
    /// Starts an instance.
    async fn start(store: &mut Store<Host>, task: &Task) -> wasmtime::Result<Self> {
        let exports = &task.exports;
        let instance = task.pre.instantiate_async(&mut *store).await?;
        if let Some(initialize) = &exports.initialize {
            function(store, &instance, initialize)?.typed::<(), ()>(&*store)?.call_async(&mut *store, ()).await?;
        }
        let memory = instance.get_module_export(&mut *store, &exports.memory).and_then(Extern::into_memory);
        Ok(Self {
            instance,
            memory: memory.ok_or(OutOfBounds(abi::MEMORY))?,
            alloc: function(store, &instance, &exports.alloc)?.typed(&*store)?,
            task: function(store, &instance, &exports.task)?.typed(&*store)?,
        })
    }
}

/// What the guest gave as room for the item is not in its memory.
#[derive(Debug, thiserror::Error)]
#[error("the pointer that `{}` returned has no room for the item", abi::ALLOC)]
struct NoRoom;

/// Runs a guest, but no longer than this. While it waits for its outputs to be handed on, its clock stands still.
async fn within<T>(timeout: Duration, carried: &Carried, run: impl Future<Output = T>) -> Option<T> {
    /// How often to look whether a guest that waits has gone on.
    const LOOK: Duration = Duration::from_millis(100);
    let mut run = std::pin::pin!(run);
    let started = Instant::now();
    let mut patience = timeout;
    loop {
        if let Ok(ended) = tokio::time::timeout(patience, &mut run).await {
            return Some(ended);
        }
        let (waited, waits) = carried.waited();
        let left = timeout.saturating_sub(started.elapsed().saturating_sub(waited));
        if left.is_zero() && !waits {
            return None;
        }
        patience = left.max(LOOK);
    }
}

fn function(
    store: &mut Store<Host>,
    instance: &wasmtime::Instance,
    export: &ModuleExport,
) -> wasmtime::Result<wasmtime::Func> {
    let found = instance.get_module_export(store, export).and_then(Extern::into_func);
    found.ok_or_else(|| wasmtime::Error::msg("an export that must be a function is none"))
}

fn failed(status: Option<abi::Status>, reason: Option<String>) -> Failure {
    let reason = reason.unwrap_or_else(|| "the task failed without saying why".to_owned());
    match status {
        Some(abi::Status::Fatal) => Failure::fatal(FailureKind::Error, reason),
        Some(_) => Failure::passing(FailureKind::Error, reason),
        None => Failure::passing(FailureKind::Trap, "the task returned a status that ABI 1 does not have"),
    }
}

fn timed_out(timeout: Duration) -> Failure {
    let timeout = humantime::format_duration(timeout);
    Failure::passing(FailureKind::Timeout, format!("the task took longer than its timeout of {timeout}"))
}

fn trapped(error: &wasmtime::Error, host: &Host, limits: Limits) -> Failure {
    if error.is::<OutOfTime>() {
        return timed_out(limits.timeout);
    }
    let said = |reason: String| match &host.failure {
        Some(failure) => format!("{failure} ({reason})"),
        None => reason,
    };
    if let Some(output) = error.downcast_ref::<OutputError>() {
        return Failure::passing(FailureKind::Output, output.to_string());
    }
    if error.is::<NotCarried>() {
        return host.carried.failure().unwrap_or_else(|| Failure::passing(FailureKind::Output, error.to_string()));
    }
    if host.memory.exceeded() {
        let memory = bytesize::ByteSize(limits.memory).display().iec();
        return Failure::passing(
            FailureKind::Memory,
            said(format!("the task wanted more than its memory of {memory}")),
        );
    }
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return Failure::passing(FailureKind::Trap, said(exit.to_string()));
    }
    let reason = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    Failure::passing(FailureKind::Trap, said(reason))
}
