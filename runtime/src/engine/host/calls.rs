//! Calls of a guest: each suspends the guest until the host has an answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pcluster_abi as abi;
use tokio::time::timeout_at;
use wasmtime::{Caller, Linker};

use super::{Host, OutOfBounds, Phase, parts, range};
use crate::calls::failure::{CallFailure, FailureKind};
use crate::dead::calls::CallRecord;
use crate::engine::limits::OutOfTime;
use crate::run::call::{Answer, Calls};

/// The most bytes of the name of a call.
const NAME_MAX: usize = 64;
/// The most bytes of a request. It is read in one go, which keeps others waiting.
const REQUEST_MAX: usize = 16 << 20;
/// The longest wait for which a guest can ask.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// What an item has called.
#[derive(Default)]
pub(super) struct Called {
    /// What the item may call. `None` before its first call.
    calls: Option<Arc<dyn Calls>>,
    /// The last answer, until the guest has read it.
    answer: Bytes,
    retry_after: Option<Duration>,
}

impl Called {
    /// Returns how long the next attempt waits. `None` for as long as the stage says.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the calls so far. `None` if there were none.
    pub(super) fn record(&self) -> Option<Arc<CallRecord>> {
        self.calls.as_ref()?.record()
    }
}

impl Host {
    /// Begins a call. The future does not borrow the guest's memory.
    fn call(&mut self, name: &[u8], request: &[u8]) -> BoxFuture<'static, Answer> {
        self.wasi.is_worldly = true;
        let refuse =
            |failure: CallFailure| Box::pin(std::future::ready(failure.answer())) as BoxFuture<'static, Answer>;
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| name.len() <= NAME_MAX) else {
            return refuse(CallFailure::invalid("the name of the call is none"));
        };
        if request.len() > REQUEST_MAX {
            let problem = format!("a request of {} bytes; the most is {REQUEST_MAX}", request.len());
            return refuse(CallFailure::new(FailureKind::TooLarge, problem));
        }
        // What was not read is gone, and its memory with it.
        self.called.answer = Bytes::new();
        self.memory.counted.cover(self.memory.grown.saturating_add(request.len() as u64));
        let (is_running, source) = (self.phase == Phase::Running, self.call.as_ref());
        let calls = match (&self.called.calls, source) {
            (Some(calls), _) if is_running => Some(Arc::clone(calls)),
            (_, Some(call)) if is_running => call.source.calls(call.position),
            (_, Some(call)) => call.source.calls_of_start(),
            (_, None) => None,
        };
        let Some(calls) = calls else {
            let problem =
                if is_running { "the stage grants no calls; see `[stage.allow]`" } else { "there is no item yet" };
            return refuse(CallFailure::denied(format!("`{name}`: {problem}")));
        };
        if is_running {
            self.called.calls = Some(Arc::clone(&calls));
        }
        calls.call(name, request)
    }

    /// Keeps an answer until the guest reads it. Returns its length as the guest gets it.
    fn answered(&mut self, answer: Answer) -> i32 {
        let (bytes, is_failure) = match answer {
            Answer::Response(bytes) => (bytes, false),
            Answer::Failure(bytes) => (bytes, true),
        };
        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        self.memory.counted.cover(self.memory.grown.saturating_add(bytes.len() as u64));
        self.called.answer = bytes;
        if is_failure { !length } else { length }
    }
}

/// Defines the functions by which guests call.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        abi::MODULE,
        abi::CALL,
        |mut caller: Caller<'_, Host>, (name, name_len, pointer, length): (i32, i32, i32, i32)| {
            Box::new(async move {
                let calling = {
                    let (memory, host) = parts(&mut caller, abi::CALL)?;
                    let name = memory.get(range(name, name_len)).ok_or(OutOfBounds(abi::CALL))?;
                    let request = memory.get(range(pointer, length)).ok_or(OutOfBounds(abi::CALL))?;
                    host.call(name, request)
                };
                let answer = match caller.data().clock.ends() {
                    Some(ends) => timeout_at(ends, calling).await.map_err(|_| OutOfTime)?,
                    None => calling.await,
                };
                wasmtime::Result::<i32>::Ok(caller.data_mut().answered(answer))
            })
        },
    )?;
    linker.func_wrap(abi::MODULE, abi::CALL_READ, |mut caller: Caller<'_, Host>, pointer: i32| {
        let (memory, host) = parts(&mut caller, abi::CALL_READ)?;
        let length = i32::try_from(host.called.answer.len()).unwrap_or(i32::MAX);
        let target = memory.get_mut(range(pointer, length)).ok_or(OutOfBounds(abi::CALL_READ))?;
        target.copy_from_slice(&std::mem::take(&mut host.called.answer));
        wasmtime::Result::<()>::Ok(())
    })?;
    linker.func_wrap(abi::MODULE, abi::RETRY_AFTER, |mut caller: Caller<'_, Host>, millis: i64| {
        let wait = Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(RETRY_AFTER_MAX);
        caller.data_mut().called.retry_after = Some(wait);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
