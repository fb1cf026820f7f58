//! Running one task on one item in a fresh instance.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ciborium::Value;
use pcluster_abi as abi;
use tokio::time::Instant;
use wasmtime::{Extern, Instance, InstancePre, ModuleExport, Store, Trap, UpdateDeadline};

use super::host::{Host, LogSink, OutOfBounds, OutputError};
use super::limits::{Limits, OutOfTime};
use super::wasi::Exit;
use super::{Engine, EngineError, Plugin, backtrace};

/// A guest ends itself when its time is up, and can tell where it was; this much later it is ended from outside.
const BACKSTOP: Duration = Duration::from_millis(100);

/// What all executions of a stage have in common.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The context's constant entries.
    constant: Vec<(Value, Value)>,
    /// Environment variables, each as `NAME=value`.
    pub environment: Vec<String>,
}

impl Surroundings {
    /// Surroundings with these context entries; see [`pcluster_abi::context`] for the keys.
    #[must_use]
    pub fn new(constant: Vec<(&'static str, Value)>, environment: Vec<String>) -> Self {
        let constant = constant.into_iter().map(|(key, value)| (Value::from(key), value)).collect();
        Self { constant, environment }
    }

    /// The context of one execution.
    pub(super) fn context(&self, id: &str, attempt: u64) -> Bytes {
        let mut entries = self.constant.clone();
        entries.push((Value::from(abi::context::ID), Value::from(id)));
        entries.push((Value::from(abi::context::ATTEMPT), Value::from(attempt)));
        crate::frame::format::to_cbor(&Value::Map(entries))
    }
}

/// What one execution has of its own.
#[derive(Clone)]
pub struct Call {
    /// The item's id.
    pub id: Arc<str>,
    /// 1 for the first attempt.
    pub attempt: u64,
    /// Takes what the guest logs and prints.
    pub logs: Arc<dyn LogSink>,
}

impl Call {
    /// A call that nothing comes of.
    pub(crate) fn idle() -> Self {
        struct Nowhere;
        impl LogSink for Nowhere {
            fn log(&self, _: &str, _: abi::Level, _: String) {}
        }
        Self { id: "".into(), attempt: 0, logs: Arc::new(Nowhere) }
    }
}

/// A kind of failure, in the word that dead letters carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The task said so.
    Error,
    /// The guest did what it may not, or panicked.
    Trap,
    /// It took too long.
    Timeout,
    /// It wanted more memory than it may have.
    Memory,
    /// It gave out too much, or what is not an item.
    Output,
    /// The payload is not in the chain's format.
    Undecodable,
    /// The node could not run it.
    Node,
}

impl FailureKind {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Undecodable => "undecodable",
            Self::Node => "node",
        }
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
    engine: Engine,
    pre: InstancePre<Host>,
    exports: Exports,
    limits: Limits,
    surroundings: Arc<Surroundings>,
}

/// Where in the module the exports are; finding them by place is quicker than by name.
#[derive(Clone)]
struct Exports {
    memory: ModuleExport,
    initialize: Option<ModuleExport>,
    alloc: ModuleExport,
    task: ModuleExport,
}

impl Plugin {
    /// One of the plugin's tasks.
    ///
    /// # Errors
    ///
    /// If the plugin has no such task, or cannot start within the limits.
    pub fn task(&self, name: &str, limits: Limits, surroundings: Surroundings) -> Result<Task, EngineError> {
        self.inspection.task(name)?;
        self.inspection.check_memory(limits.memory)?;
        let module = self.pre.module();
        let export = |name: &str| {
            module.get_export_index(name).ok_or_else(|| EngineError::Load(format!("it exports no `{name}`")))
        };
        Ok(Task {
            exports: Exports {
                memory: export(abi::MEMORY)?,
                initialize: module.get_export_index(abi::INITIALIZE),
                alloc: export(abi::ALLOC)?,
                task: export(&format!("{}{name}", abi::TASK_PREFIX))?,
            },
            engine: self.engine.clone(),
            pre: self.pre.clone(),
            limits,
            surroundings: Arc::new(surroundings),
        })
    }
}

impl Task {
    /// Runs the task on one item: its outputs, or why there are none. Dropping the future interrupts the guest at its next
    /// tick.
    ///
    /// # Errors
    ///
    /// Whatever went wrong within the guest; the host is never harmed.
    pub async fn run(&self, item: &[u8], call: Call) -> Result<Vec<Bytes>, Failure> {
        let slot = self.engine.slots.acquire().await;
        let _slot = slot.map_err(|_| Failure::passing(FailureKind::Node, "the engine is closed"))?;
        let mut host =
            Host::new(self.limits.memory, self.limits.output_item_bytes, Arc::clone(&self.surroundings), call);
        host.deadline = Instant::now().checked_add(self.limits.timeout);
        let mut store = Store::new(&self.engine.inner, host);
        store.limiter(|host| &mut host.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| at_tick(store.data()));
        let backstop = self.limits.timeout.saturating_add(BACKSTOP);
        let ended = tokio::time::timeout(backstop, self.enter(&mut store, item)).await;
        let mut host = store.into_data();
        host.flush_output();
        match ended {
            Err(_) => Err(timed_out(self.limits.timeout)),
            Ok(Err(error)) => Err(Failure { backtrace: backtrace::of(&error), ..trapped(&error, &host, self.limits) }),
            Ok(Ok(Some(abi::Status::Done))) => Ok(host.outputs),
            Ok(Ok(status)) => Err(failed(status, host.failure)),
        }
    }

    async fn enter(&self, store: &mut Store<Host>, item: &[u8]) -> wasmtime::Result<Option<abi::Status>> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        if let Some(initialize) = &self.exports.initialize {
            function(store, &instance, initialize)?.typed::<(), ()>(&*store)?.call_async(&mut *store, ()).await?;
        }
        let length = i32::try_from(item.len())?;
        let alloc = function(store, &instance, &self.exports.alloc)?.typed::<i32, i32>(&*store)?;
        let pointer = alloc.call_async(&mut *store, length).await?;
        let memory = instance.get_module_export(&mut *store, &self.exports.memory).and_then(Extern::into_memory);
        let start = pointer.cast_unsigned() as usize;
        let room = memory.ok_or(OutOfBounds(abi::MEMORY))?;
        let target = room.data_mut(&mut *store).get_mut(start..start.saturating_add(item.len()));
        target.ok_or(NoRoom)?.copy_from_slice(item);
        let task = function(store, &instance, &self.exports.task)?.typed::<(i32, i32), i32>(&*store)?;
        store.data_mut().started = true;
        let status = task.call_async(&mut *store, (pointer, length)).await?;
        Ok(abi::Status::from_i32(status))
    }
}

/// What the guest gave as room for the item is not in its memory.
#[derive(Debug, thiserror::Error)]
#[error("the pointer that `{}` returned has no room for the item", abi::ALLOC)]
struct NoRoom;

/// What a running guest does when the clock ticks: gives way, or ends if its time is up.
fn at_tick(host: &Host) -> wasmtime::Result<UpdateDeadline> {
    if host.is_overdue() {
        return Err(OutOfTime.into());
    }
    // Not the engine's own way to yield: with two guests that spin on each thread, the runtime then looked after its timers and
    // connections only every 305 ms (measured); with this one every 29 ms.
    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
}

fn function(store: &mut Store<Host>, instance: &Instance, export: &ModuleExport) -> wasmtime::Result<wasmtime::Func> {
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
