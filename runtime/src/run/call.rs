//! The interface between an execution and its caller.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pcluster_abi as abi;

use super::budget::Growing;
use super::failure::Failure;
use super::output::Outputs;
use crate::dead::calls::CallRecord;
use crate::name::Topic;

/// How a call of a task ended, as the guest reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The response, in CBOR.
    Response(Bytes),
    /// Why the call failed, in CBOR.
    Failure(Bytes),
}

/// What a task may call while it runs an item.
pub trait Calls: Send + Sync {
    /// Calls by name. The request is read before this returns, because it lies in the guest's memory. Dropping the future ends the
    /// call.
    fn call(self: Arc<Self>, name: &str, request: &[u8]) -> BoxFuture<'static, Answer>;

    /// Returns the calls so far. `None` if there were none.
    fn record(&self) -> Option<Arc<CallRecord>> {
        None
    }
}

/// The source of the items of executions, such as a frame. It names items, and takes their logs and streamed outputs.
pub trait ItemSource: Send + Sync {
    /// Returns the id of the item at this position.
    fn id(&self, position: usize) -> String;

    /// Returns the number of the attempt. The first is 1.
    fn attempt(&self) -> u64;

    /// Returns the topic of the item at this position. `None` if it has none.
    fn topic(&self, position: usize) -> Option<Topic> {
        let _ = position;
        None
    }

    /// Takes a line that the guest has logged or printed. Must not block.
    fn log(&self, position: usize, level: abi::Level, line: String);

    /// Takes note that the item at this position has given `bytes` in a file. They take no memory.
    fn filed(&self, position: usize, bytes: u64) {
        let _ = (position, bytes);
    }

    /// Takes note that the item at this position has succeeded. `outputs` is the number of its outputs, `bytes` their size in memory.
    fn ended(&self, position: usize, outputs: usize, bytes: u64, began: Instant, now: Instant) {
        let _ = (position, outputs, bytes, began, now);
    }

    /// Returns the next item for the same instance, with its position. The item begins now.
    fn next(&self, now: Instant) -> Option<(usize, Bytes)> {
        let _ = now;
        None
    }

    /// Returns what the item at this position may call. `None` if its stage was granted nothing.
    fn calls(&self, position: usize) -> Option<Arc<dyn Calls>> {
        let _ = position;
        None
    }

    /// Returns what an instance may call before it has the item: its initializer. `None` if nothing.
    fn calls_of_start(&self) -> Option<Arc<dyn Calls>> {
        None
    }

    /// Returns what comes of an item in place of its program. `None` if nothing stands in for that.
    fn stand_in(&self, position: usize, item: &Bytes) -> Option<Result<Vec<Bytes>, Failure>> {
        let _ = (position, item);
        None
    }

    /// Returns the reservation for the outputs of the frame. `None` if the source is not a frame.
    fn memory(&self) -> Option<Arc<Growing>> {
        None
    }

    /// Publishes outputs of an item that still runs. They are too many to hold. The guest waits meanwhile. An error ends the
    /// execution.
    fn stream(self: Arc<Self>, position: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>>;
}

/// The item that an execution runs.
#[derive(Clone)]
pub struct Call {
    /// The source of the item.
    pub source: Arc<dyn ItemSource>,
    /// The position of the item in the source.
    pub position: usize,
}
