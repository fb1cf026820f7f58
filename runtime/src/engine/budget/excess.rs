//! Who goes past the budget: at each place in a chain, counted from its end, one frame that is asked for and one item that begins.
//!
//! Either keeps that place until what it leaves behind is stored, also while it waits for room in the next queue. So no more goes
//! past the budget than one frame and one item for each stage of the longest chain. And nobody waits for ever: whatever waits
//! for room waits for a later place, and the last one waits for nothing.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Budget, line};

/// Who goes past the budget now, by how many stages come after theirs.
#[derive(Default)]
pub(super) struct Excess {
    items: Mutex<BTreeMap<usize, Holder>>,
    frames: Mutex<BTreeSet<usize>>,
}

/// The frame whose items may go past the budget, one after the other.
struct Holder {
    frame: Option<u64>,
    /// Whether one of them does now.
    is_running: bool,
}

impl Excess {
    /// Lets an item of this frame go past the budget, if no other does.
    pub(super) fn try_begin(&self, after: usize, frame: Option<u64>) -> bool {
        match lock(&self.items).entry(after) {
            Entry::Vacant(free) => {
                free.insert(Holder { frame, is_running: true });
                true
            }
            Entry::Occupied(mut held) => {
                let holder = held.get_mut();
                let is_own = frame.is_some() && holder.frame == frame && !holder.is_running;
                holder.is_running |= is_own;
                is_own
            }
        }
    }

    /// An item has ended. Its frame keeps the place until what it has given is stored.
    pub(super) fn end(&self, after: usize) {
        let mut items = lock(&self.items);
        if let Entry::Occupied(mut held) = items.entry(after) {
            match held.get().frame {
                Some(_) => held.get_mut().is_running = false,
                None => drop(held.remove()),
            }
        }
    }

    /// All that a frame has left behind is stored.
    pub(super) fn end_frame(&self, frame: u64) {
        lock(&self.items).retain(|_, holder| holder.frame != Some(frame));
    }

    /// Whether an item of a stage of this level may find a place.
    pub(super) fn has_room_for_item(&self, level: usize) -> bool {
        level == line::LEVELS - 1 || !lock(&self.items).contains_key(&level)
    }

    /// Whether a lane of this level may find a place for a frame.
    pub(super) fn has_room_for_frame(&self, level: usize) -> bool {
        level == line::LEVELS - 1 || !lock(&self.frames).contains(&level)
    }
}

/// Leave for a frame to go past the budget, from when it is asked for until this is dropped.
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
        // Also if nothing was found: another lane may have what is waited for. Each rests for a while that has found nothing, so
        // that this does not keep the server busy.
        self.budget.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
