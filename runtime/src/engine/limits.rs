//! The limits of one execution.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::run::budget::{Reservation, STEP};

/// The limits of one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall time. It includes sleep, but not the time in which the server takes outputs.
    pub timeout: Duration,
    /// Linear memory in bytes.
    pub memory: u64,
    /// The most bytes of one output item.
    pub output_item_bytes: usize,
}

/// The time of the guest is up.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("out of time")]
pub(super) struct OutOfTime;

/// Limits the growth of an instance's memory, and counts it.
pub(super) struct MemoryLimiter {
    limit: u64,
    /// `true` if the guest has asked for too much memory for the item.
    pub(super) exceeded: bool,
    /// The size of the guest's memory in bytes.
    pub(super) grown: u64,
    /// The peak of memory and outputs together, in bytes.
    pub(super) most: u64,
    /// The reserved memory, including the outputs of the running item.
    pub(super) counted: Reservation,
}

impl MemoryLimiter {
    pub(super) fn new(limit: u64, counted: Reservation) -> Self {
        Self { limit, exceeded: false, grown: 0, most: 0, counted }
    }

    /// Counts the outputs that the running item has in memory, in bytes.
    pub(super) fn hold_outputs(&mut self, bytes: u64) {
        if bytes > STEP {
            self.most = self.most.max(self.grown + bytes);
            self.counted.cover(self.grown + bytes);
        }
    }

    /// Counts the outputs no longer: they were streamed or taken.
    pub(super) fn release_outputs(&mut self) {
        self.counted.shrink(self.grown.next_multiple_of(STEP));
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired as u64 <= self.limit;
        self.exceeded |= !allowed;
        if allowed {
            // Never refused because the node is short of memory: only new items can wait.
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
