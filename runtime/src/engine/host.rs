//! What a guest may call of pcluster: the functions of the import module `pcluster_v1`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pcluster_abi as abi;
use tokio::time::Instant;
use wasmtime::{AsContextMut, Caller, Extern, Linker, Memory, UpdateDeadline};

use super::limits::{MAX_OUTPUT_BYTES, MAX_OUTPUTS, MemoryLimiter, OutOfTime};
use super::output::Outputs;
use super::task::{Call, Failure, Surroundings, Task};
use super::wasi::Wasi;
use crate::frame::cbor;

/// A log line is cut after this many bytes.
const LOG_LINE_MAX: usize = 16 << 10;
/// The text of a failure is cut after this many bytes, so that it fits into a header.
const FAILURE_MAX: usize = 16 << 10;

/// The state of an instance and of the execution that it is in, on the host's side.
pub struct Host {
    pub(super) memory: MemoryLimiter,
    /// When its time is up; `None`: never.
    pub(super) deadline: Option<Instant>,
    pub(super) wasi: Wasi,
    pub(super) outputs: Outputs,
    pub(super) failure: Option<String>,
    pub(super) carried: Carried,
    given: usize,
    given_bytes: u64,
    /// Whether the task itself was called; what runs before it makes the instance ready.
    pub(super) started: bool,
    output_item_max: usize,
    surroundings: Arc<Surroundings>,
    /// What it runs for; `None` between two items, when nothing shall be held on to.
    call: Option<Call>,
    context: Option<Bytes>,
}

/// The guest gave out more than it may, or what is not an item.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error("an output was given before the task was called")]
    TooEarly,
    #[error("more than {MAX_OUTPUTS} outputs from one item")]
    TooMany,
    #[error("the outputs of one item have more than {} together", bytesize::ByteSize(MAX_OUTPUT_BYTES).display().iec())]
    TooLarge,
    #[error("an output of {0} bytes; the server takes {1} bytes in one message")]
    ItemTooLarge(usize, usize),
    #[error("an output is not one CBOR item: {0}")]
    NotAnItem(cbor::CborError),
}

/// Outputs that were handed on while the guest runs: how long it had to wait for that, and what went wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried(Arc<Mutex<Carrying>>);

#[derive(Debug, Default)]
struct Carrying {
    since: Option<Instant>,
    waited: Duration,
    failure: Option<Failure>,
}

/// Outputs could not be handed on.
#[derive(Debug, thiserror::Error)]
#[error("the outputs cannot be handed on")]
pub(super) struct NotCarried;

impl Carried {
    fn lock(&self) -> MutexGuard<'_, Carrying> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the guest had to wait so far, and whether it waits now.
    pub(super) fn waited(&self) -> (Duration, bool) {
        let carrying = self.lock();
        (carrying.waited + carrying.since.map_or(Duration::ZERO, |since| since.elapsed()), carrying.since.is_some())
    }

    /// What went wrong.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    fn begin(&self) {
        self.lock().since = Some(Instant::now());
    }

    fn forget(&self) {
        *self.lock() = Carrying::default();
    }

    fn end(&self, carried: Result<(), Failure>) {
        let mut carrying = self.lock();
        let since = carrying.since.take();
        carrying.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
        carrying.failure = carried.err();
    }
}

/// A pointer or length that lies outside of the guest's memory.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` was called with a pointer or length outside of the guest's memory")]
pub(super) struct OutOfBounds(pub(super) &'static str);

impl Host {
    /// The host of an instance of this task.
    pub(super) fn new(task: &Task) -> Self {
        let limits = task.limits;
        let surroundings = Arc::clone(&task.surroundings);
        let host = Self::of(limits.memory, limits.output_item_bytes, surroundings);
        Self { wasi: Wasi::since(task.clock), ..host }
    }

    /// A host that no guest runs on, to ask the linker what it holds.
    pub(super) fn idle() -> Self {
        Self::of(0, 0, Arc::new(Surroundings::default()))
    }

    fn of(memory: u64, output_item_max: usize, surroundings: Arc<Surroundings>) -> Self {
        Self {
            memory: MemoryLimiter::new(memory),
            deadline: None,
            wasi: Wasi::default(),
            outputs: Outputs::default(),
            failure: None,
            carried: Carried::default(),
            given: 0,
            given_bytes: 0,
            started: false,
            output_item_max,
            surroundings,
            call: None,
            context: None,
        }
    }

    /// Begins an execution; nothing of the one before is left on this side.
    pub(super) fn begin(&mut self, call: Call, deadline: Option<Instant>) {
        self.call = Some(call);
        self.deadline = deadline;
        self.context = None;
        self.failure = None;
        self.outputs = Outputs::default();
        self.carried.forget();
        (self.given, self.given_bytes) = (0, 0);
        self.started = false;
    }

    /// Ends an execution: what it has given out and not handed on.
    pub(super) fn end(&mut self) -> Outputs {
        self.flush_output();
        self.call = None;
        std::mem::take(&mut self.outputs)
    }

    /// The environment variables that the guest sees, each as `NAME=value`.
    pub(super) fn environment(&self) -> &[String] {
        &self.surroundings.environment
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline + self.carried.waited().0 <= Instant::now())
    }

    pub(super) fn log(&self, level: abi::Level, bytes: &[u8]) {
        if let Some(call) = &self.call {
            call.of.log(call.position, level, cut(bytes, LOG_LINE_MAX));
        }
    }

    fn emit(&mut self, item: &[u8]) -> Result<(), OutputError> {
        if !self.started {
            return Err(OutputError::TooEarly);
        }
        if item.len() > self.output_item_max {
            return Err(OutputError::ItemTooLarge(item.len(), self.output_item_max));
        }
        cbor::check_one(item).map_err(OutputError::NotAnItem)?;
        self.given += 1;
        self.given_bytes += item.len() as u64;
        if self.given > MAX_OUTPUTS {
            return Err(OutputError::TooMany);
        }
        if self.given_bytes > MAX_OUTPUT_BYTES {
            return Err(OutputError::TooLarge);
        }
        self.outputs.push(item);
        Ok(())
    }

    /// What happens at each tick: the guest ends if its time is up, gives way to others, and waits until outputs that are too
    /// many to hold are handed on.
    pub(super) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.carried.lock().failure.is_some() {
            return Err(NotCarried.into());
        }
        if self.is_overdue() {
            return Err(OutOfTime.into());
        }
        if !self.outputs.is_full() {
            // Unlike the engine's own way to yield, this one lets the runtime look after its timers and connections.
            return Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())));
        }
        let Some(Call { of, position }) = self.call.clone() else { return Err(NotCarried.into()) };
        let (outputs, carried) = (std::mem::take(&mut self.outputs), self.carried.clone());
        carried.begin();
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(async move {
                let ended = of.carry(position, outputs).await;
                carried.end(ended);
            }),
        ))
    }

    fn context(&mut self) -> Bytes {
        let (surroundings, call) = (&self.surroundings, &self.call);
        let encode = || match call {
            Some(call) => surroundings.context(&call.of.id(call.position), call.of.attempt()),
            None => surroundings.context("", 0),
        };
        self.context.get_or_insert_with(encode).clone()
    }
}

fn cut(bytes: &[u8], max: usize) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into_owned();
    if bytes.len() > max {
        text.push('…');
    }
    text
}

/// The guest's memory and the host's state.
pub(super) fn parts<'a>(
    caller: &'a mut Caller<'_, Host>,
    function: &'static str,
) -> Result<(&'a mut [u8], &'a mut Host), OutOfBounds> {
    let memory: Memory = caller.get_export(abi::MEMORY).and_then(Extern::into_memory).ok_or(OutOfBounds(function))?;
    Ok(memory.data_and_store_mut(caller))
}

/// The range `pointer..pointer + length` of the guest's memory. Both are unsigned numbers that wasm hands over as `i32`.
pub(super) fn range(pointer: i32, length: i32) -> std::ops::Range<usize> {
    let start = pointer.cast_unsigned() as usize;
    start..start.saturating_add(length.cast_unsigned() as usize)
}

/// Offers the functions of this module to guests.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(abi::MODULE, abi::EMIT, |mut caller: Caller<'_, Host>, pointer: i32, length: i32| {
        let (memory, host) = parts(&mut caller, abi::EMIT)?;
        let item = memory.get(range(pointer, length)).ok_or(OutOfBounds(abi::EMIT))?;
        host.emit(item)?;
        if host.outputs.is_full() {
            // The guest meets the tick at its next loop or call.
            caller.as_context_mut().set_epoch_deadline(0);
        }
        wasmtime::Result::<()>::Ok(())
    })?;
    linker.func_wrap(abi::MODULE, abi::FAIL, |mut caller: Caller<'_, Host>, pointer: i32, length: i32| {
        let (memory, host) = parts(&mut caller, abi::FAIL)?;
        let text = memory.get(range(pointer, length)).ok_or(OutOfBounds(abi::FAIL))?;
        host.failure = Some(cut(text, FAILURE_MAX));
        wasmtime::Result::<()>::Ok(())
    })?;
    linker.func_wrap(
        abi::MODULE,
        abi::LOG,
        |mut caller: Caller<'_, Host>, level: i32, pointer: i32, length: i32| {
            let (memory, host) = parts(&mut caller, abi::LOG)?;
            let line = memory.get(range(pointer, length)).ok_or(OutOfBounds(abi::LOG))?;
            host.log(abi::Level::from_i32(level), line);
            wasmtime::Result::<()>::Ok(())
        },
    )?;
    linker.func_wrap(abi::MODULE, abi::CONTEXT_LEN, |mut caller: Caller<'_, Host>| {
        i32::try_from(caller.data_mut().context().len()).unwrap_or(i32::MAX)
    })?;
    linker.func_wrap(abi::MODULE, abi::CONTEXT_READ, |mut caller: Caller<'_, Host>, pointer: i32| {
        let (memory, host) = parts(&mut caller, abi::CONTEXT_READ)?;
        let context = host.context();
        let length = i32::try_from(context.len()).unwrap_or(i32::MAX);
        let target = memory.get_mut(range(pointer, length)).ok_or(OutOfBounds(abi::CONTEXT_READ))?;
        target.copy_from_slice(&context);
        wasmtime::Result::<()>::Ok(())
    })?;
    Ok(())
}
