//! What one execution may use up.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use super::budget::{Reservation, STEP};

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

/// Watches an instance's memory grow, and counts it.
pub(super) struct MemoryLimiter {
    limit: u64,
    exceeded: bool,
    /// How large the guest's memory is, in bytes.
    grown: u64,
    /// The most that it had together with the outputs of an item.
    most: u64,
    /// What the node counts of it, the outputs of the item that runs included.
    pub(super) counted: Reservation,
}

impl MemoryLimiter {
    pub(super) fn new(limit: u64, counted: Reservation) -> Self {
        Self { limit, exceeded: false, grown: 0, most: 0, counted }
    }

    /// How large the guest's memory is, in bytes.
    pub(super) fn grown(&self) -> u64 {
        self.grown
    }

    /// The most that the guest's memory and the outputs of an item had together, in bytes.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// The item that runs has given so many bytes that are still here.
    pub(super) fn hold_outputs(&mut self, bytes: u64) {
        if bytes > STEP {
            self.most = self.most.max(self.grown + bytes);
            self.counted.cover(self.grown + bytes);
        }
    }

    /// The outputs are held elsewhere from now on.
    pub(super) fn release_outputs(&mut self) {
        self.counted.shrink(self.grown.next_multiple_of(STEP));
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
        if allowed {
            // Never refused for what the node has: only what has not begun can wait.
            self.grown = self.grown.max(desired as u64);
            self.most = self.most.max(self.grown);
            self.counted.cover(self.grown);
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }
}
