//! An execution, as those see it who asked for it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pcluster_abi as abi;

use super::budget::Growing;
use super::failure::Failure;
use super::output::Outputs;

/// What executions belong to, such as a frame: it tells them who they are and takes what they say while they run.
pub trait ItemSource: Send + Sync {
    /// The id of the item at this position.
    fn id(&self, position: usize) -> String;

    /// Which attempt this is; 1 is the first.
    fn attempt(&self) -> u64;

    /// Takes a line that the guest logged or printed. It must not block.
    fn log(&self, position: usize, level: abi::Level, line: String);

    /// An item that began then has ended well now, and has given so many outputs of so many bytes together.
    fn ended(&self, outputs: usize, bytes: u64, began: Instant, now: Instant) {
        let _ = (outputs, bytes, began, now);
    }

    /// Returns the next item for the same instance, with its position. It begins now.
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
    fn stream(self: Arc<Self>, position: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>>;
}

/// Which execution this is.
#[derive(Clone)]
pub struct Call {
    /// What it belongs to.
    pub source: Arc<dyn ItemSource>,
    /// Which of the items there it runs.
    pub position: usize,
}

impl Call {
    /// A call that belongs to nothing.
    #[must_use]
    pub fn idle() -> Self {
        struct Nobody;
        impl ItemSource for Nobody {
            fn id(&self, _: usize) -> String {
                String::new()
            }
            fn attempt(&self) -> u64 {
                0
            }
            fn log(&self, _: usize, _: abi::Level, _: String) {}
            fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
                Box::pin(std::future::ready(Ok(())))
            }
        }
        Self { source: Arc::new(Nobody), position: 0 }
    }
}
