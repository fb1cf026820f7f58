//! What one execution may use up.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// The most outputs that one item may give.
pub const MAX_OUTPUTS: usize = 1_000_000;
/// The most bytes that the outputs of one item may have together.
pub const MAX_OUTPUT_BYTES: u64 = 1 << 30;
/// Outputs of an item that still runs go to the server once they have this many bytes together.
pub const GATHER_BYTES: usize = 4 << 20;
/// Outputs of an item that still runs go to the server once there are this many.
pub const GATHER_ITEMS: usize = 50_000;

/// What one execution may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall time, sleeping included; waiting for the server to take outputs is not.
    pub timeout: Duration,
    /// Linear memory in bytes.
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

    /// Begins an item.
    pub(super) fn begin(&mut self) {
        self.exceeded = false;
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
