//! Those who wait for memory.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

use super::Budget;

/// So many stages at the end of a chain are told apart; those before count as the first of these.
pub(super) const LEVELS: usize = 8;

/// Those who wait, apart by how many stages come after theirs.
#[derive(Default)]
pub(super) struct Line {
    pub(super) waiting: [AtomicUsize; LEVELS],
    pub(super) turn: [Notify; LEVELS],
    /// The level that is looked at first, where all have the same right.
    pub(super) next: AtomicUsize,
}

/// Someone in a line, until this is dropped.
pub(super) struct Waiting<'a> {
    pub(super) budget: &'a Budget,
    pub(super) level: &'a AtomicUsize,
}

/// The level of a stage with so many stages `after` it: the later, the lower.
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
