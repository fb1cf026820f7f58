//! What one execution may use up.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// The most outputs that one item may give.
pub const MAX_OUTPUTS: usize = 1_000_000;

/// What one execution may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall time, sleeping included.
    pub timeout: Duration,
    /// Linear memory in bytes; the outputs of one item may have as many together.
    pub memory: u64,
    /// The most bytes of one output item.
    pub output_item_bytes: usize,
}

/// The guest used up its time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("out of time")]
pub(super) struct OutOfTime;

/// Watches an instance's memory grow.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    limit: u64,
    exceeded: bool,
}

impl MemoryLimiter {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, exceeded: false }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether the guest asked for more than it may have.
    pub(super) fn exceeded(&self) -> bool {
        self.exceeded
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired as u64 <= self.limit;
        self.exceeded |= !allowed;
        Ok(allowed)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }
}
