//! The functions of pcluster that a guest may call: the import module `pcluster_v1`.

mod calls;
pub(super) mod imports;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pcluster_abi as abi;
use tokio::time::Instant;
use wasmtime::{Caller, Extern, Memory, UpdateDeadline};

use super::clock::Clock;
use super::limits::{Limits, MemoryLimiter, OutOfTime};
use super::static_context::StaticContext;
use super::wasi::state::Wasi;
use crate::dead::calls::CallRecord;
use crate::frame::cbor;
use crate::name::{Topic, TopicError};
use crate::run::budget::{Budget, Reservation};
use crate::run::call::Call;
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::{FrameOutputs, MAX_OUTPUT_BYTES, MAX_OUTPUTS, NewTopic};
use calls::Called;

/// The most bytes of a log line. Longer lines are cut.
const LOG_LINE_MAX: usize = 16 << 10;
/// The most bytes of the text of a failure. Longer texts are cut, so that they fit into a header.
const FAILURE_MAX: usize = 16 << 10;

/// The host's state of an instance and of its items.
pub struct Host {
    pub(super) memory: MemoryLimiter,
    pub(super) wasi: Wasi,
    pub(super) clock: Clock,
    /// The guest's memory, once the instance has started.
    pub(super) guest: Option<Memory>,
    /// The outputs of the items so far.
    pub(super) given: FrameOutputs,
    /// Why the item is about to fail, as the guest reports it.
    pub(super) failure: Option<String>,
    /// Why the run has failed, as the guest reports it.
    failed: Option<Failure>,
    phase: Phase,
    /// `true` if the guest takes its items itself.
    takes: bool,
    /// The call of the item. `None` between two runs, so that an idle instance keeps no frame alive.
    call: Option<Call>,
    item: Bytes,
    /// How many more items the run may take.
    more: u32,
    /// When the item began.
    began: Instant,
    /// The number of outputs of the item. `bytes` is their size.
    count: usize,
    bytes: u64,
    limits: Limits,
    static_context: Arc<StaticContext>,
    /// The number of stages after the task's.
    after: usize,
    context: Option<Bytes>,
    /// What the item has called.
    called: Called,
}

/// The state of an instance between and during items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// An item is set, but the guest does not have it yet. Code that runs now starts the instance.
    Ready,
    /// The guest handles the item.
    Running,
    /// No other item begins.
    Over,
}

/// An output that is not valid or exceeds a limit.
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
    #[error("an output has no topic that can be: {0}")]
    Topic(#[from] TopicError),
}

/// Streamed outputs could not be published.
#[derive(Debug, thiserror::Error)]
#[error("the outputs cannot be published")]
pub(super) struct NotStreamed;

/// A pointer or length outside of the guest's memory.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` was called with a pointer or length outside of the guest's memory")]
pub(super) struct OutOfBounds(pub(super) &'static str);

impl Host {
    /// Creates the host of an instance. Its stage has this many stages `after` it. `clock` is the start of the guest's clock.
    pub(super) fn new(
        limits: Limits,
        static_context: Arc<StaticContext>,
        clock: Option<std::time::Instant>,
        after: usize,
        counted: Reservation,
    ) -> Self {
        Self {
            memory: MemoryLimiter::new(limits.memory, counted),
            wasi: Wasi { started: clock, ..Wasi::default() },
            clock: Clock::default(),
            guest: None,
            given: FrameOutputs::default(),
            failure: None,
            failed: None,
            phase: Phase::Over,
            takes: false,
            call: None,
            item: Bytes::new(),
            more: 0,
            began: Instant::now(),
            count: 0,
            bytes: 0,
            limits,
            static_context,
            after,
            context: None,
            called: Called::default(),
        }
    }

    /// Becomes as it was before the first item of the instance. The memory of the guest has not grown.
    pub(super) fn restart(&mut self, clock: Option<std::time::Instant>) {
        let none = self.memory.counted.budget.reserve(0);
        let counted = std::mem::replace(&mut self.memory.counted, none);
        let (grown, guest) = (self.memory.grown, self.guest);
        *self = Self::new(self.limits, Arc::clone(&self.static_context), clock, self.after, counted);
        (self.memory.grown, self.memory.most, self.guest) = (grown, grown, guest);
    }

    /// Creates a host without a guest. The linker needs one to list its functions.
    pub(super) fn idle() -> Self {
        let limits = Limits { timeout: Duration::ZERO, memory: 0, output_item_bytes: 0 };
        Self::new(limits, Arc::default(), None, 0, Budget::new(0).reserve(0))
    }

    /// Begins a run of this item and up to `more` others. Their outputs are appended to `given`.
    pub(super) fn begin(&mut self, item: Bytes, call: Call, more: u32, given: FrameOutputs) {
        self.given = given;
        self.more = more;
        self.failed = None;
        self.takes = false;
        self.begin_item(item, call, Instant::now());
    }

    /// Begins an item. Clears the state of the item before.
    fn begin_item(&mut self, item: Bytes, call: Call, now: Instant) {
        self.phase = Phase::Ready;
        self.item = item;
        self.call = Some(call);
        self.context = None;
        self.called = Called::default();
        self.failure = None;
        self.wasi.last.clear();
        self.memory.exceeded = false;
        self.began = now;
        self.clock.begin(now.checked_add(self.limits.timeout));
        (self.count, self.bytes) = (0, 0);
    }

    /// Returns the item to run.
    pub(super) fn item(&self) -> Bytes {
        self.item.clone()
    }

    /// Lets the guest take its items itself.
    pub(super) fn let_take(&mut self) {
        self.takes = true;
    }

    /// Marks the item as running: the guest has it.
    pub(super) fn hand_over(&mut self) {
        self.phase = Phase::Running;
    }

    /// Ends the running item with the guest's status. Returns `true` if the item has succeeded.
    pub(super) fn end_item(&mut self, status: Option<abi::Status>, now: Instant) -> bool {
        self.phase = Phase::Over;
        self.flush_output();
        self.failed = match status {
            Some(abi::Status::Done) => self.clock.failure(),
            status => Some(Failure { retry_after: self.called.retry_after(), ..said(status, self.failure.take()) }),
        };
        if self.failed.is_none()
            && let Some(call) = &self.call
        {
            self.given.end(call.position);
            call.source.ended(call.position, self.count, self.bytes, self.began.into_std(), now.into_std());
        }
        self.failed.is_none()
    }

    /// Ends a run. Returns the outputs, and the failure that the guest has reported, if any.
    pub(super) fn end(&mut self) -> (FrameOutputs, Option<Failure>) {
        self.flush_output();
        self.phase = Phase::Over;
        // An idle instance must not keep this item alive.
        self.call = None;
        self.item = Bytes::new();
        self.context = None;
        self.called = Called::default();
        self.given.drop_open();
        self.memory.release_outputs();
        (std::mem::take(&mut self.given), self.failed.take())
    }

    /// Returns what the running item has called. `None` if nothing.
    pub(super) fn called(&self) -> Option<Arc<CallRecord>> {
        self.called.record()
    }

    /// Returns `true` if every item that has begun has ended.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Returns the position of the running item, or of the last one.
    pub(super) fn position(&self) -> usize {
        self.call.as_ref().map_or(0, |call| call.position)
    }

    /// Ends the running item, if any, and takes the next. Returns its length, or -1 if there is none. Called by guests that take
    /// their items themselves.
    fn next(&mut self, status: i32) -> i32 {
        const NONE: i32 = -1;
        if self.phase == Phase::Running && self.takes {
            let now = Instant::now();
            if self.end_item(abi::Status::from_i32(status), now) && self.more > 0 {
                let next = self
                    .call
                    .as_ref()
                    .and_then(|call| call.source.next(now.into_std()).zip(Some(Arc::clone(&call.source))));
                if let Some(((position, item), source)) = next {
                    self.more -= 1;
                    self.begin_item(item, Call { source, position }, now);
                }
            }
        }
        if self.phase == Phase::Over || !self.takes {
            return NONE;
        }
        self.hand_over();
        i32::try_from(self.item.len()).unwrap_or(NONE)
    }

    /// Returns the environment variables of the guest, each as `NAME=value`.
    pub(super) fn environment(&self) -> &[String] {
        &self.static_context.environment
    }

    pub(super) fn log(&self, level: abi::Level, bytes: &[u8]) {
        if let Some(call) = &self.call {
            call.source.log(call.position, level, cut(bytes, LOG_LINE_MAX));
        }
    }

    /// Takes an output with another topic. An empty text stands for none.
    fn emit_to(&mut self, topic: &[u8], item: &[u8]) -> Result<(), OutputError> {
        let topic = match str::from_utf8(topic).unwrap_or("\u{fffd}") {
            "" => None,
            text => Some(text.parse::<Topic>()?),
        };
        let own = self.call.as_ref().and_then(|call| call.source.topic(call.position));
        self.take_output(if topic == own { None } else { Some(topic) }, item)
    }

    fn emit(&mut self, item: &[u8]) -> Result<(), OutputError> {
        self.take_output(None, item)
    }

    fn take_output(&mut self, topic: Option<NewTopic>, item: &[u8]) -> Result<(), OutputError> {
        if self.phase != Phase::Running {
            return Err(OutputError::TooEarly);
        }
        if item.len() > self.limits.output_item_bytes {
            return Err(OutputError::ItemTooLarge(item.len(), self.limits.output_item_bytes));
        }
        cbor::check_one(item).map_err(OutputError::NotAnItem)?;
        self.count += 1;
        self.bytes += item.len() as u64;
        if self.count > MAX_OUTPUTS {
            return Err(OutputError::TooMany);
        }
        if self.bytes > MAX_OUTPUT_BYTES {
            return Err(OutputError::TooLarge);
        }
        match topic {
            None => self.given.push(item),
            Some(topic) => self.given.push_to(topic, item),
        }
        self.memory.hold_outputs(self.given.open().payload().len() as u64);
        Ok(())
    }

    /// Handles a tick. The guest ends if its time is up, yields to others, and waits while outputs that are too many to hold are
    /// published.
    pub(super) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.clock.failure().is_some() {
            return Err(NotStreamed.into());
        }
        if self.clock.is_overdue() {
            return Err(OutOfTime.into());
        }
        if self.phase != Phase::Running || !self.given.open().is_full() {
            // The engine's own way to yield would not let the runtime handle its timers and connections.
            return Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())));
        }
        let Some(Call { source, position }) = self.call.clone() else { return Err(NotStreamed.into()) };
        let (outputs, clock) = (self.given.take_open(), self.clock.clone());
        self.memory.release_outputs();
        let (budget, after) = (Arc::clone(&self.memory.counted.budget), self.after);
        let bytes = self.memory.counted.bytes() + outputs.bytes() as u64;
        clock.stop();
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(async move {
                let held = (budget.reserve(outputs.bytes() as u64), budget.pause(after, bytes));
                let ended = source.stream(position, outputs).await;
                drop(held);
                clock.go_on(ended);
            }),
        ))
    }

    fn context(&mut self) -> Bytes {
        let (static_context, call) = (&self.static_context, &self.call);
        let encode = || match call {
            Some(Call { source, position }) => {
                static_context.context(source.topic(*position).as_ref(), &source.id(*position), source.attempt())
            }
            None => static_context.context(None, "", 0),
        };
        self.context.get_or_insert_with(encode).clone()
    }
}

/// Returns the failure that the guest reports by this status and reason.
fn said(status: Option<abi::Status>, reason: Option<String>) -> Failure {
    let reason = reason.unwrap_or_else(|| "the task failed without saying why".to_owned());
    match status {
        Some(abi::Status::Fatal) => Failure::fatal(FailureKind::Error, reason),
        Some(_) => Failure::transient(FailureKind::Error, reason),
        None => Failure::transient(FailureKind::Trap, "the task returned a status that ABI 1 does not have"),
    }
}

fn cut(bytes: &[u8], max: usize) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into_owned();
    if bytes.len() > max {
        text.push('…');
    }
    text
}

/// Returns the guest's memory and the host's state.
pub(super) fn parts<'a>(
    caller: &'a mut Caller<'_, Host>,
    function: &'static str,
) -> Result<(&'a mut [u8], &'a mut Host), OutOfBounds> {
    let memory: Memory = match caller.data().guest {
        Some(memory) => memory,
        // The start function of the module calls, before the memory is known.
        None => caller.get_export(abi::MEMORY).and_then(Extern::into_memory).ok_or(OutOfBounds(function))?,
    };
    Ok(memory.data_and_store_mut(caller))
}

/// Returns the range `pointer..pointer + length`. Both are unsigned, though wasm passes them as `i32`.
pub(super) fn range(pointer: i32, length: i32) -> std::ops::Range<usize> {
    let start = pointer.cast_unsigned() as usize;
    start..start.saturating_add(length.cast_unsigned() as usize)
}
