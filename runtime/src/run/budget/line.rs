//! The lines of items and lanes that wait for memory.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

use super::Budget;

/// The number of levels. The last stages of a chain have a level each; all stages before share the highest.
pub(super) const LEVELS: usize = 8;

/// The waiters on each level.
#[derive(Default)]
pub(super) struct Line {
    pub(super) waiting: [AtomicUsize; LEVELS],
    pub(super) turn: [Notify; LEVELS],
    /// The first level to try where all levels have equal rights.
    pub(super) next: AtomicUsize,
}

/// A waiter in a line. Removed on drop.
pub(super) struct Waiting<'a> {
    pub(super) budget: &'a Budget,
    pub(super) level: &'a AtomicUsize,
}

/// Returns the level of a stage with this many stages `after` it. Later stages have lower levels.
pub(super) const fn level(after: usize) -> usize {
    if after < LEVELS { after } else { LEVELS - 1 }
}

impl Line {
    pub(super) fn is_wanted_at(&self, level: usize) -> bool {
        self.waiting[level].load(SeqCst) > 0
    }

    pub(super) fn is_wanted(&self) -> bool {
        (0..LEVELS).any(|level| self.is_wanted_at(level))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.level.fetch_sub(1, SeqCst);
        self.budget.waiting.fetch_sub(1, SeqCst);
    }
}
