//! Permission to exceed the budget. At each position in a chain, counted from its end, one requested frame and one item may
//! exceed it.
//!
//! Each keeps the permission until its outputs are stored, also while it waits for room in the next queue. So at most one frame
//! and one item for each stage of the longest chain exceed the budget. Nothing waits forever: each waits only for later
//! positions, and the last position waits for nothing. A frame whose items pass several stages one after another takes the
//! permission for all their positions at once: two frames could else wait for each other's.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use super::{Budget, line};
use crate::lock::lock;

/// The items and frames that exceed the budget. The keys are the numbers of stages after theirs.
#[derive(Default)]
pub(super) struct Excess {
    items: Mutex<BTreeMap<usize, Holder>>,
    frames: Mutex<BTreeSet<usize>>,
}

/// The frame whose items may exceed the budget, one at a time.
struct Holder {
    frame: Option<u64>,
    /// `true` while an item of the frame exceeds the budget.
    is_running: bool,
}

impl Excess {
    /// Lets an item of this frame, whose items pass these positions, exceed the budget. Returns `false` if another frame does.
    pub(super) fn try_begin(&self, after: usize, frame: Option<(u64, RangeInclusive<usize>)>) -> bool {
        let (frame, positions) = match frame {
            Some((frame, positions)) => (Some(frame), positions),
            None => (None, after..=after),
        };
        let mut items = lock(&self.items);
        let is_own = |holder: &Holder| frame.is_some() && holder.frame == frame;
        let is_running = items.get(&after).is_some_and(|holder| holder.is_running);
        if is_running || items.range(positions.clone()).any(|(_, holder)| !is_own(holder)) {
            return false;
        }
        for position in positions.chain([after]) {
            let holder = items.entry(position).or_insert(Holder { frame, is_running: false });
            holder.is_running |= position == after;
        }
        true
    }

    /// Ends an item. Its frame keeps the permission until the outputs are stored.
    pub(super) fn end(&self, after: usize) {
        let mut items = lock(&self.items);
        if let Entry::Occupied(mut held) = items.entry(after) {
            match held.get().frame {
                Some(_) => held.get_mut().is_running = false,
                None => drop(held.remove()),
            }
        }
    }

    /// Ends a frame, because all its outputs are stored.
    pub(super) fn end_frame(&self, frame: u64) {
        lock(&self.items).retain(|_, holder| holder.frame != Some(frame));
    }

    /// Returns `true` if an item on this level may exceed the budget.
    pub(super) fn has_room_for_item(&self, level: usize) -> bool {
        level == line::LEVELS - 1 || !lock(&self.items).contains_key(&level)
    }

    /// Returns `true` if a lane on this level may exceed the budget. It may then request one frame.
    pub(super) fn has_room_for_frame(&self, level: usize) -> bool {
        level == line::LEVELS - 1 || !lock(&self.frames).contains(&level)
    }
}

/// Permit for a requested frame to exceed the budget. Released on drop.
pub struct Exceeding {
    budget: Arc<Budget>,
    after: usize,
}

impl Exceeding {
    pub(super) fn take(budget: &Arc<Budget>, after: usize) -> Option<Self> {
        let is_free = lock(&budget.excess.frames).insert(after);
        is_free.then(|| Self { budget: Arc::clone(budget), after })
    }
}

impl Drop for Exceeding {
    fn drop(&mut self) {
        lock(&self.budget.excess.frames).remove(&self.after);
        // Also if no frame came, because another lane may have one. A lane whose request found nothing pauses, so that this does
        // not keep the server busy.
        self.budget.wake();
    }
}
