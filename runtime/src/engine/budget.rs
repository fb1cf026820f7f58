//! The memory that a node gives to items, one budget for all chains.
//!
//! Frames that were asked for or are in hand, the outputs of items and the guests' memory are counted here. A [`Reservation`] is
//! a part of it, given back when it is dropped. Nothing that runs is ever refused: what has begun grows as it must, and past the
//! budget nothing new begins. Two gates see to that: [`Budget::begin`] before an item runs, [`Budget::ask`] before frames are
//! asked for. Instances that wait for an item give way first.
//!
//! Nobody waits for ever: at each place in a chain one item may begin whatever is counted, and one lane may ask for a frame
//! whose hop has none, as `excess` says. Later stages may go further than earlier ones, so that what waits for room in the next
//! queue mostly finds it emptied without that.
//!
//! So what is counted goes past the budget by no more than one frame and one item for each stage of the longest chain, and by
//! what items that have begun grow beyond those of their stage before them: each no further than its stage's `memory`.

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
pub(super) use reservation::STEP;
pub use reservation::{Growing, Reservation};

/// The part of the budget that each stage leaves to the one after it.
const LEVEL_PART: u64 = 16;
/// The part of the budget up to which frames are asked for: with more in use, what is in hand comes first.
const ASK_PART: u64 = 2;
/// The part of the budget above which lanes ask for little at once, and not for long.
const TIGHT_PART: u64 = 4;
/// The part of what is free that one lane may ask for at once when the budget is tight.
const SHARE: u64 = 16;
/// The part of the budget that items always have, however much the process takes for other things.
const LEAST_PART: u64 = 4;
/// How often to look again without having been told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A lane that has waited for so long asks past the budget though others make progress: what runs may do so for hours.
const PATIENCE: Duration = Duration::from_secs(5);

/// The memory of a node.
pub struct Budget {
    limit: u64,
    /// What the process takes for other things, in bytes.
    beside: AtomicU64,
    used: AtomicU64,
    /// What those have who wait for others, on each level.
    held_up: [AtomicU64; LEVELS],
    /// Items that run on each level, but for those that wait for others.
    active: [AtomicUsize; LEVELS],
    excess: Excess,
    /// Frames whose outputs were counted so far.
    frames: AtomicU64,
    items: Line,
    lanes: Line,
    /// How many wait in both lines.
    waiting: AtomicUsize,
    /// Ends an instance that waits for an item, if there is one.
    give_way: OnceLock<GiveWay>,
}

type GiveWay = Box<dyn Fn() -> bool + Send + Sync>;

/// Counts an item as running, until it is dropped.
pub struct Active {
    budget: Arc<Budget>,
    after: usize,
    /// Whether it goes past the budget.
    exceeds: bool,
}

/// Counts an item that runs as waiting for others, until it is dropped.
pub struct Paused(HeldUp);

/// Counts memory as that of somebody who waits for later stages, until it is dropped.
pub struct HeldUp {
    budget: Arc<Budget>,
    level: usize,
    bytes: u64,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Budget").field("limit", &self.limit).field("used", &self.used).finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            beside: AtomicU64::new(0),
            used: AtomicU64::new(0),
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

    /// How many bytes there are.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many bytes are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(SeqCst)
    }

    /// What the process takes for other things, in bytes: that much less is given out.
    pub fn set_beside(&self, bytes: u64) {
        self.beside.store(bytes, Relaxed);
    }

    /// What the process takes for other things, in bytes.
    #[must_use]
    pub fn beside(&self) -> u64 {
        self.beside.load(Relaxed)
    }

    /// Sets what ends an instance that waits for an item, and tells whether there was one.
    pub(super) fn on_need(&self, give_way: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.give_way.set(Box::new(give_way));
    }

    /// Whether someone waits for memory.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Takes a part, whatever is left.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.used.fetch_add(bytes, SeqCst);
        Reservation { budget: Arc::clone(self), bytes }
    }

    /// Takes a part for the outputs of a frame that grows, whatever is left.
    #[must_use]
    pub fn growing(self: &Arc<Self>, bytes: u64) -> Growing {
        self.used.fetch_add(bytes, SeqCst);
        let frame = self.frames.fetch_add(1, Relaxed);
        Growing { budget: Arc::clone(self), bytes: AtomicU64::new(bytes), frame, exceeds: AtomicBool::new(false) }
    }

    /// Waits until an item of a stage with so many stages `after` it may begin, and adds the bytes that it is expected to need to
    /// `reservation`. `frame` is what is counted for the outputs of its frame, if it has one.
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
                    // There may be room for more.
                    self.wake();
                    return active;
                }
                if !self.give_way() {
                    break;
                }
            }
            if is_told {
                // There is room, but not as much as it needs.
                self.wake_from(level + 1);
            }
            is_told = tokio::time::timeout(LOOK_AGAIN, turn).await.is_ok();
        }
    }

    /// The same, if it need not wait.
    pub fn try_begin(
        self: &Arc<Self>,
        after: usize,
        need: u64,
        reservation: &mut Reservation,
        frame: Option<&Growing>,
    ) -> Option<Active> {
        let exceeds = self.used().saturating_add(need) > self.most(level(after));
        if exceeds {
            if !self.excess.try_begin(after, frame.map(|frame| frame.frame)) {
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

    /// An item that runs, of a stage with so many stages `after` it, waits for later ones, as for room in the next queue. So
    /// many `bytes` are counted for it.
    pub(super) fn pause(self: &Arc<Self>, after: usize, bytes: u64) -> Paused {
        self.active[level(after)].fetch_sub(1, SeqCst);
        Paused(self.hold_up(after, bytes))
    }

    /// What has so many bytes, of a stage with so many stages `after` it, waits for later ones: these may ask for frames as if
    /// it were not there.
    pub fn hold_up(self: &Arc<Self>, after: usize, bytes: u64) -> HeldUp {
        let level = level(after);
        self.held_up[level].fetch_add(bytes, SeqCst);
        self.wake();
        HeldUp { budget: Arc::clone(self), level, bytes }
    }

    /// Lets a lane ask for frames, if it may, and adds what they are expected to have to `asked`. A lane that has not waited in
    /// the line may not pass those who do.
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
                    // It would keep what others can use at once.
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

    /// Waits until a lane whose stage has so many stages `after` it should try to ask again.
    pub async fn may_ask(&self, after: usize) {
        let level = level(after);
        let _waiting = self.wait(&self.lanes, level);
        let _ = tokio::time::timeout(LOOK_AGAIN, self.lanes.turn[level].notified()).await;
    }

    /// Whether nothing makes progress on this level or a later one: no item runs there or is about to.
    fn is_still(&self, level: usize) -> bool {
        (0..=level).all(|level| self.active[level].load(SeqCst) == 0 && !self.items.is_wanted_at(level))
    }

    /// What may be in use before nothing new begins on this level.
    fn most(&self, level: usize) -> u64 {
        let capacity = self.capacity();
        capacity - capacity / LEVEL_PART * level as u64
    }

    /// What may be asked for on this level. What waits for it does not stand in its way, so long as there is room at all.
    fn free_to_ask(&self, level: usize) -> u64 {
        let (most, used) = (self.most(level), self.used());
        let held_up: u64 = self.held_up[level + 1..].iter().map(|bytes| bytes.load(SeqCst)).sum();
        (most / ASK_PART).saturating_sub(used.saturating_sub(held_up)).min(most.saturating_sub(used))
    }

    /// What there is for items.
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

    /// Tells one who waits that there may be room: an item first, the later its stage the sooner, then a lane.
    pub fn wake(&self) {
        self.wake_from(0);
    }

    /// The same, but for items of later stages than these.
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
            // Whoever waits may be of the same frame, which alone can go on.
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
