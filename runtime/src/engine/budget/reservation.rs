//! Parts of the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use super::{Budget, HeldUp};

/// The step in which growing reservations grow, so that the common counter is not touched for each item.
pub(in crate::engine) const STEP: u64 = 64 << 10;

/// A part of the budget, until it is dropped.
pub struct Reservation {
    pub(super) budget: Arc<Budget>,
    pub(super) bytes: u64,
}

/// A part of the budget that several threads let grow, until it is dropped: the outputs of a frame, until they are stored.
pub struct Growing {
    pub(super) budget: Arc<Budget>,
    pub(super) bytes: AtomicU64,
    /// Tells the frame from others.
    pub(super) frame: u64,
    /// Whether an item of it has gone past the budget.
    pub(super) exceeds: AtomicBool,
}

impl Reservation {
    /// Takes more, whatever is left.
    pub fn grow(&mut self, more: u64) {
        if more > 0 {
            self.budget.used.fetch_add(more, SeqCst);
            self.bytes += more;
        }
    }

    /// Takes as much as is needed for so many bytes, in steps.
    pub(in crate::engine) fn cover(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.grow(bytes.next_multiple_of(STEP) - self.bytes);
        }
    }

    /// Gives back what is more than this.
    pub fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.budget.release(less);
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes over what another has.
    pub(in crate::engine) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Of which budget it is.
    pub(in crate::engine) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl Growing {
    /// Takes as much as is needed for so many bytes, in steps.
    pub fn cover(&self, bytes: u64) {
        let before = self.bytes.load(Relaxed);
        if bytes > before {
            let after = bytes.next_multiple_of(STEP);
            // Another thread may have done the same meanwhile.
            let before = self.bytes.fetch_max(after, SeqCst);
            self.budget.used.fetch_add(after.saturating_sub(before), SeqCst);
        }
    }
}

impl Growing {
    /// Counts it as what waits for the stages after one that has so many `after` it, until that is dropped.
    #[must_use]
    pub fn hold_up(&self, after: usize) -> HeldUp {
        self.budget.hold_up(after, self.bytes.load(SeqCst))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        let exceeds = *self.exceeds.get_mut();
        if exceeds {
            self.budget.excess.end_frame(self.frame);
        }
        self.budget.release(*self.bytes.get_mut());
        if exceeds {
            self.budget.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_counted_in_steps_and_given_back() {
        let budget = Budget::new(1 << 20);
        let growing = budget.growing(10);
        growing.cover(5);
        assert_eq!(budget.used(), 10);
        growing.cover(STEP + 1);
        assert_eq!(budget.used(), 2 * STEP);
        drop(growing);
        assert_eq!(budget.used(), 0);
    }
}
