//! The memory that a node gives to items: one budget for all chains.
//!
//! The budget counts requested frames, frames in hand, the outputs of items and the memory of guests. A [`Reservation`] is a part
//! of it, released on drop. A running item is never refused memory; past the budget nothing new begins. Two gates ensure that:
//! [`Budget::begin`] before an item runs, and [`Budget::ask`] before a lane requests frames. Idle instances are dropped first.
//!
//! No item waits forever. At each position in a chain, one item may always begin, and one lane may request a frame if its hop has
//! none; see `excess`. Later stages may use more of the budget than earlier ones, so a full queue behind a waiting item mostly
//! empties without that exception.
//!
//! So memory exceeds the budget by at most one frame and one item for each stage of the longest chain, and by the growth of
//! running items beyond what their stage used before. No item grows beyond the `memory` of its stage.

mod excess;
mod lane;
mod line;
mod reservation;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use excess::Exceeding;
use excess::Excess;
pub use lane::{Leave, Stands, Wish};
use line::{LEVELS, Line, Waiting, level};
pub(crate) use reservation::STEP;
pub use reservation::{Growing, Reservation};

/// The fraction of the budget that each stage leaves to the next: one part in this many.
const LEVEL_PART: u64 = 16;
/// The fraction of the budget up to which lanes request frames: one part in this many. Beyond it, frames in hand come first.
const ASK_PART: u64 = 2;
/// The fraction of the budget beyond which it is tight: one part in this many. Then lanes request few frames, for a short time.
const TIGHT_PART: u64 = 4;
/// The fraction of a tight budget's free memory for one request: one part in this many.
const SHARE: u64 = 16;
/// The fraction of the budget that items always have: one part in this many, whatever else the process uses.
const LEAST_PART: u64 = 4;
/// The interval at which waiters try again without a notification.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A lane that has waited this long may exceed the budget. Until then, it may do so only if no item runs. Running items may take
/// hours.
const PATIENCE: Duration = Duration::from_secs(5);

/// The memory budget of a node.
pub struct Budget {
    limit: u64,
    /// Bytes that the process uses for other things.
    beside: AtomicU64,
    used: AtomicU64,
    /// Of these, bytes for requested frames that have yet to come.
    requested: AtomicU64,
    /// Bytes that wait for later stages, on each level.
    held_up: [AtomicU64; LEVELS],
    /// Running items on each level, except items that wait for later stages.
    active: [AtomicUsize; LEVELS],
    excess: Excess,
    /// The number of frames so far whose outputs were counted.
    frames: AtomicU64,
    items: Line,
    lanes: Line,
    /// The number of waiters in both lines.
    waiting: AtomicUsize,
    /// Drops an idle instance. Returns `true` if there was one.
    give_way: OnceLock<GiveWay>,
}

type GiveWay = Box<dyn Fn() -> bool + Send + Sync>;

/// Counts an item as running. Released on drop.
pub struct Active {
    budget: Arc<Budget>,
    after: usize,
    /// `true` if the item exceeds the budget.
    exceeds: bool,
}

impl Active {
    /// Returns `true` if the item exceeds the budget.
    pub(crate) fn exceeds(&self) -> bool {
        self.exceeds
    }
}

/// Counts a running item as waiting for later stages. Released on drop.
pub struct Paused(HeldUp);

/// Counts memory as waiting for later stages. Released on drop.
pub struct HeldUp {
    budget: Arc<Budget>,
    level: usize,
    bytes: u64,
}

impl Budget {
    /// Creates a budget of this many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            beside: AtomicU64::new(0),
            used: AtomicU64::new(0),
            requested: AtomicU64::new(0),
            held_up: Default::default(),
            active: Default::default(),
            excess: Excess::default(),
            frames: AtomicU64::new(0),
            items: Line::default(),
            lanes: Line::default(),
            waiting: AtomicUsize::new(0),
            give_way: OnceLock::new(),
        })
    }

    /// Returns the size of the budget in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(SeqCst)
    }

    /// Returns the bytes in use, except those for requested frames. They take no memory before they come.
    pub(crate) fn held(&self) -> u64 {
        let requested = self.requested.load(SeqCst);
        self.used().saturating_sub(requested)
    }

    /// Sets the bytes that the process uses for other things. They are not given to items.
    pub fn set_beside(&self, bytes: u64) {
        self.beside.store(bytes, Relaxed);
    }

    /// Returns the bytes that the process uses for other things.
    pub fn beside(&self) -> u64 {
        self.beside.load(Relaxed)
    }

    /// Sets the function that drops an idle instance. It returns `true` if there was one.
    pub(crate) fn on_need(&self, give_way: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.give_way.set(Box::new(give_way));
    }

    /// Returns `true` if an item or a lane waits for memory.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Reserves bytes. Never refused.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.used.fetch_add(bytes, SeqCst);
        Reservation { budget: Arc::clone(self), bytes, is_requested: false }
    }

    /// Returns an empty reservation for frames that are requested.
    pub(crate) fn reserve_for_requests(self: &Arc<Self>) -> Reservation {
        Reservation { budget: Arc::clone(self), bytes: 0, is_requested: true }
    }

    /// Reserves bytes for the growing outputs of a frame. Never refused.
    pub fn growing(self: &Arc<Self>, bytes: u64) -> Growing {
        self.used.fetch_add(bytes, SeqCst);
        let frame = self.frames.fetch_add(1, Relaxed);
        let (bytes, exceeds) = (AtomicU64::new(bytes), AtomicBool::new(false));
        Growing { budget: Arc::clone(self), bytes, frame, positions: None, exceeds }
    }

    /// Waits until an item may begin. Adds the bytes that the item needs to `reservation`. The item is of a stage with this many
    /// stages `after` it. `frame` counts the outputs of its frame, if it has one.
    pub async fn begin(
        self: &Arc<Self>,
        after: usize,
        need: u64,
        reservation: &mut Reservation,
        frame: Option<&Growing>,
    ) -> Active {
        if let Some(active) = self.try_begin(after, need, reservation, frame) {
            return active;
        }
        let level = level(after);
        let _waiting = self.wait(&self.items, level);
        let mut is_told = false;
        loop {
            let mut turn = std::pin::pin!(self.items.turn[level].notified());
            turn.as_mut().enable();
            loop {
                if let Some(active) = self.try_begin(after, need, reservation, frame) {
                    // Another item may have room too.
                    self.wake();
                    return active;
                }
                if !self.give_way() {
                    break;
                }
            }
            if is_told {
                // There is room, but not enough for this item: let an item of a later stage try.
                self.wake_from(level + 1);
            }
            is_told = tokio::time::timeout(LOOK_AGAIN, turn).await.is_ok();
        }
    }

    /// Returns `true` if an item of a stage with this many stages `after` it may begin within the budget.
    pub(crate) fn has_room(&self, after: usize, need: u64) -> bool {
        self.used().saturating_add(need) <= self.most(level(after))
    }

    /// Begins an item as [`Self::begin`] does. `None` if it would have to wait.
    pub fn try_begin(
        self: &Arc<Self>,
        after: usize,
        need: u64,
        reservation: &mut Reservation,
        frame: Option<&Growing>,
    ) -> Option<Active> {
        let exceeds = !self.has_room(after, need);
        if exceeds {
            if !self.excess.try_begin(after, frame.map(|frame| frame.place(after))) {
                return None;
            }
            if let Some(frame) = frame {
                frame.exceeds.store(true, SeqCst);
            }
        }
        self.active[level(after)].fetch_add(1, SeqCst);
        reservation.grow(need);
        Some(Active { budget: Arc::clone(self), after, exceeds })
    }

    /// Counts a running item as waiting for later stages. An example is a full queue of the next stage. `bytes` is the memory of
    /// the item. Its stage has this many stages `after` it.
    pub(crate) fn pause(self: &Arc<Self>, after: usize, bytes: u64) -> Paused {
        self.active[level(after)].fetch_sub(1, SeqCst);
        Paused(self.hold_up(after, bytes))
    }

    /// Counts `bytes` as waiting for later stages. These may request frames as if the bytes were free. The bytes are of a stage
    /// with this many stages `after` it.
    pub fn hold_up(self: &Arc<Self>, after: usize, bytes: u64) -> HeldUp {
        let level = level(after);
        self.held_up[level].fetch_add(bytes, SeqCst);
        self.wake();
        HeldUp { budget: Arc::clone(self), level, bytes }
    }

    /// Permits a lane to request frames. Adds their expected bytes to `asked`. `None` if the lane must wait. A lane that has not
    /// waited in line must not pass waiting lanes.
    pub fn ask(self: &Arc<Self>, wish: Wish, asked: &mut Reservation) -> Option<Leave> {
        if wish.waited.is_none() && self.lanes.is_wanted() {
            return None;
        }
        let level = level(wish.after);
        let each = wish.each.max(1);
        loop {
            let (used, free) = (self.used(), self.free_to_ask(level));
            if free >= each {
                let is_tight = used > self.capacity() / TIGHT_PART || self.lanes.is_wanted();
                let share = if is_tight { (free / SHARE / each).max(1) } else { free / each };
                let frames = wish.frames.min(share);
                asked.grow(frames * each);
                let stands = match (is_tight, wish.is_idle) {
                    (false, _) => Stands::Long,
                    (true, false) => Stands::Briefly,
                    // A longer request would keep memory that other lanes can use at once.
                    (true, true) => Stands::Not,
                };
                self.wake();
                return Some(Leave { frames, stands, exceeding: None });
            }
            if !self.give_way() {
                break;
            }
        }
        let may_exceed = self.is_still(level) || wish.waited.is_some_and(|waited| waited >= PATIENCE);
        if !wish.is_empty || !may_exceed {
            return None;
        }
        let exceeding = Exceeding::take(self, wish.after)?;
        asked.grow(each);
        Some(Leave { frames: 1, stands: Stands::Not, exceeding: Some(exceeding) })
    }

    /// Waits until a lane should ask again. Its stage has this many stages `after` it.
    pub async fn may_ask(&self, after: usize) {
        let level = level(after);
        let _waiting = self.wait(&self.lanes, level);
        let _ = tokio::time::timeout(LOOK_AGAIN, self.lanes.turn[level].notified()).await;
    }

    /// Returns `true` if no item runs or waits to begin. Only this level and later stages count.
    fn is_still(&self, level: usize) -> bool {
        (0..=level).all(|level| self.active[level].load(SeqCst) == 0 && !self.items.is_wanted_at(level))
    }

    /// Returns the bytes beyond which nothing new begins on this level.
    fn most(&self, level: usize) -> u64 {
        let capacity = self.capacity();
        capacity - capacity / LEVEL_PART * level as u64
    }

    /// Returns the bytes that lanes of this level may request. Memory that waits for this level does not count, as long as there
    /// is room.
    fn free_to_ask(&self, level: usize) -> u64 {
        let (most, used) = (self.most(level), self.used());
        let held_up: u64 = self.held_up[level + 1..].iter().map(|bytes| bytes.load(SeqCst)).sum();
        (most / ASK_PART).saturating_sub(used.saturating_sub(held_up)).min(most.saturating_sub(used))
    }

    /// Returns the bytes for items.
    fn capacity(&self) -> u64 {
        self.limit.saturating_sub(self.beside.load(Relaxed)).max(self.limit / LEAST_PART)
    }

    fn give_way(&self) -> bool {
        self.give_way.get().is_some_and(|give_way| give_way())
    }

    fn release(&self, bytes: u64) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, SeqCst);
            self.wake();
        }
    }

    fn wait<'a>(&'a self, line: &'a Line, level: usize) -> Waiting<'a> {
        line.waiting[level].fetch_add(1, SeqCst);
        self.waiting.fetch_add(1, SeqCst);
        Waiting { budget: self, level: &line.waiting[level] }
    }

    /// Notifies one waiter that there may be room. Items come first, those of later stages before others, then lanes.
    pub fn wake(&self) {
        self.wake_from(0);
    }

    /// Notifies as [`Self::wake`] does, but no items on levels below `first`.
    fn wake_from(&self, first: usize) {
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let used = self.used();
        for level in first..LEVELS {
            if self.items.is_wanted_at(level) && (used < self.most(level) || self.excess.has_room_for_item(level)) {
                return self.items.turn[level].notify_one();
            }
        }
        let first = self.lanes.next.fetch_add(1, Relaxed);
        for level in (0..LEVELS).map(|level| (first + level) % LEVELS) {
            let has_room = || self.free_to_ask(level) > 0;
            let may_exceed = || self.is_still(level) && self.excess.has_room_for_frame(level);
            if self.lanes.is_wanted_at(level) && (has_room() || may_exceed()) {
                return self.lanes.turn[level].notify_one();
            }
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.budget.active[level(self.after)].fetch_sub(1, SeqCst);
        if self.exceeds {
            self.budget.excess.end(self.after);
            // The waiting items may be of the same frame, and only they may begin now.
            self.budget.items.turn[level(self.after)].notify_waiters();
        }
        self.budget.wake();
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.budget.active[self.0.level].fetch_add(1, SeqCst);
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        self.budget.held_up[self.level].fetch_sub(self.bytes, SeqCst);
    }
}
