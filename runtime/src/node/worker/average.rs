//! A moving average that several threads add to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A moving average; 0 at the start.
#[derive(Default)]
pub(super) struct Average(AtomicU64);

impl Average {
    /// The average is kept in these parts of a unit, so that small values are not rounded away.
    const PARTS: u64 = 64;

    /// Returns the average, rounded up.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed).div_ceil(Self::PARTS)
    }

    /// Adds a value.
    pub(super) fn add(&self, value: u64) {
        /// The newest value weighs one part in this many.
        const WEIGHT: u64 = 16;
        let (before, value) = (self.0.load(Relaxed), value.saturating_mul(Self::PARTS));
        let after = if before == 0 { value } else { before - before / WEIGHT + value / WEIGHT };
        self.0.store(after, Relaxed);
    }
}
