//! Reserved parts of the budget.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use super::{Budget, HeldUp};

/// The step in which reservations grow, in bytes. So items rarely touch the shared counter.
pub(crate) const STEP: u64 = 64 << 10;

/// A part of the budget. Released on drop.
pub struct Reservation {
    pub(crate) budget: Arc<Budget>,
    pub(super) bytes: u64,
    /// `true` if it is for requested frames. They take no memory before they come.
    pub(super) is_requested: bool,
}

/// The part of the budget for the outputs of a frame. Several threads grow it. Released on drop, once the outputs are stored.
pub struct Growing {
    pub(super) budget: Arc<Budget>,
    pub(super) bytes: AtomicU64,
    /// The number of the frame.
    pub(super) frame: u64,
    /// The positions in the chain that its items pass one after another. `None` if they pass a single one.
    pub(super) positions: Option<RangeInclusive<usize>>,
    /// `true` if an item of the frame has exceeded the budget.
    pub(super) exceeds: AtomicBool,
}

impl Reservation {
    /// Reserves more bytes. Never refused.
    pub fn grow(&mut self, more: u64) {
        if more > 0 {
            self.budget.used.fetch_add(more, SeqCst);
            self.bytes += more;
            if self.is_requested {
                self.budget.requested.fetch_add(more, SeqCst);
            }
        }
    }

    /// Grows in steps until it covers this many bytes.
    pub(crate) fn cover(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.grow(bytes.next_multiple_of(STEP) - self.bytes);
        }
    }

    /// Shrinks to this many bytes.
    pub fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        if self.is_requested {
            self.budget.requested.fetch_sub(less, SeqCst);
        }
        self.budget.release(less);
    }

    /// Returns the reserved bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes over the bytes of another reservation.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Growing {
    /// Grows in steps until it covers this many bytes.
    pub fn cover(&self, bytes: u64) {
        let before = self.bytes.load(Relaxed);
        if bytes > before {
            let after = bytes.next_multiple_of(STEP);
            // Another thread may have grown it meanwhile.
            let before = self.bytes.fetch_max(after, SeqCst);
            self.budget.used.fetch_add(after.saturating_sub(before), SeqCst);
        }
    }

    /// Takes note that the items of the frame pass several stages one after another. `positions` are their numbers of stages after.
    pub(crate) fn across(mut self, positions: RangeInclusive<usize>) -> Self {
        self.positions = Some(positions);
        self
    }

    /// Returns the number of the frame, and the positions that an item of it passes which begins at this one.
    pub(super) fn place(&self, after: usize) -> (u64, RangeInclusive<usize>) {
        (self.frame, self.positions.clone().unwrap_or(after..=after))
    }

    /// Counts the bytes as waiting for later stages. Released on drop. The stage has this many stages `after` it.
    pub fn hold_up(&self, after: usize) -> HeldUp {
        self.budget.hold_up(after, self.bytes.load(SeqCst))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(0);
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
    fn a_growing_reservation_is_counted_in_steps_and_given_back() {
        let budget = Budget::new(1 << 20);
        let growing = budget.growing(10);
        growing.cover(5);
        assert_eq!(budget.used(), 10);
        growing.cover(STEP + 1);
        assert_eq!(budget.used(), 2 * STEP);
        drop(growing);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_requested_counts_as_held_only_once_it_has_come() {
        let budget = Budget::new(1 << 20);
        let _frame = budget.reserve(100);
        let mut requested = budget.reserve_for_requests();
        requested.grow(50);
        assert_eq!((budget.used(), budget.held()), (150, 100));
        requested.shrink(20);
        assert_eq!((budget.used(), budget.held()), (120, 100));
        drop(requested);
        assert_eq!((budget.used(), budget.held()), (100, 100));
    }
}
