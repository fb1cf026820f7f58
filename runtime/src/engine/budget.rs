//! The memory that a node gives to items, one budget for all chains.
//!
//! Frames that were asked for or are in hand, the outputs of items and the guests' memory are counted here. A [`Reservation`] is
//! a part of it, given back when it is dropped. Nothing that runs is ever refused: what has begun grows as it must, and past the
//! budget nothing new begins. Two gates see to that: [`Budget::begin`] before an item runs, [`Budget::ask`] before frames are
//! asked for. Instances that wait for an item give way first.
//!
//! Nobody waits for ever. While no item runs, one may begin whatever is counted, and one lane may ask for a frame whose hop has
//! none. Later stages may go further than earlier ones, so that what waits for room in the next queue finds it emptied.

mod lane;
mod line;
mod reservation;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use lane::{Exceeding, Leave, Stands, Wish};
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

/// The memory of a node.
pub struct Budget {
    limit: u64,
    /// What the process takes for other things, in bytes.
    beside: AtomicU64,
    used: AtomicU64,
    /// Items that run, but for those that wait for others.
    active: AtomicUsize,
    /// Whether a lane asks for a frame past the budget.
    exceeding: AtomicBool,
    items: Line,
    lanes: Line,
    /// How many wait in both lines.
    waiting: AtomicUsize,
    /// Ends an instance that waits for an item, if there is one.
    give_way: OnceLock<GiveWay>,
}

type GiveWay = Box<dyn Fn() -> bool + Send + Sync>;

/// Counts an item as running, until it is dropped.
pub struct Active(Arc<Budget>);

/// Counts an item that runs as waiting for others, until it is dropped.
pub struct Paused(Arc<Budget>);

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
            active: AtomicUsize::new(0),
            exceeding: AtomicBool::new(false),
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

    /// Takes a part that grows, whatever is left.
    #[must_use]
    pub fn growing(self: &Arc<Self>, bytes: u64) -> Growing {
        self.used.fetch_add(bytes, SeqCst);
        Growing { budget: Arc::clone(self), bytes: AtomicU64::new(bytes) }
    }

    /// Waits until an item of a stage with so many stages `after` it may begin, and adds the bytes that its instance is expected
    /// to need to `reservation`.
    pub async fn begin(self: &Arc<Self>, after: usize, need: u64, reservation: &mut Reservation) -> Active {
        let level = level(after);
        if let Some(active) = self.try_begin(level, need, reservation) {
            return active;
        }
        let _waiting = self.wait(&self.items, level);
        loop {
            let mut turn = std::pin::pin!(self.items.turn[level].notified());
            turn.as_mut().enable();
            loop {
                if let Some(active) = self.try_begin(level, need, reservation) {
                    // There may be room for more.
                    self.wake();
                    return active;
                }
                if !self.give_way() {
                    break;
                }
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, turn).await;
        }
    }

    fn try_begin(self: &Arc<Self>, level: usize, need: u64, reservation: &mut Reservation) -> Option<Active> {
        if self.used().saturating_add(need) <= self.most(level) {
            self.active.fetch_add(1, SeqCst);
        } else {
            self.active.compare_exchange(0, 1, SeqCst, SeqCst).ok()?;
        }
        reservation.grow(need);
        Some(Active(Arc::clone(self)))
    }

    /// An item that runs waits for others, as for room in the next queue.
    pub(super) fn pause(self: &Arc<Self>) -> Paused {
        self.end();
        Paused(Arc::clone(self))
    }

    /// Lets a lane ask for frames, if it may, and adds what they are expected to have to `asked`. A lane that has not waited in
    /// the line may not pass those who do.
    pub fn ask(self: &Arc<Self>, wish: Wish, has_waited: bool, asked: &mut Reservation) -> Option<Leave> {
        if !has_waited && self.lanes.is_wanted() {
            return None;
        }
        let most = self.most(level(wish.after)) / ASK_PART;
        let each = wish.each.max(1);
        loop {
            let used = self.used();
            let free = most.saturating_sub(used);
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
        let nobody_moves = self.active.load(SeqCst) == 0 && !self.items.is_wanted();
        if !wish.is_empty || !nobody_moves || self.exceeding.swap(true, SeqCst) {
            return None;
        }
        asked.grow(each);
        let exceeding = Some(Exceeding(Arc::clone(self)));
        Some(Leave { frames: 1, stands: Stands::Not, exceeding })
    }

    /// Waits until a lane whose stage has so many stages `after` it should try to ask again.
    pub async fn may_ask(&self, after: usize) {
        let level = level(after);
        let _waiting = self.wait(&self.lanes, level);
        let _ = tokio::time::timeout(LOOK_AGAIN, self.lanes.turn[level].notified()).await;
    }

    /// What may be in use before nothing new begins on this level.
    fn most(&self, level: usize) -> u64 {
        let capacity = self.capacity();
        capacity - capacity / LEVEL_PART * level as u64
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

    fn end(&self) {
        self.active.fetch_sub(1, SeqCst);
        self.wake();
    }

    fn wait<'a>(&'a self, line: &'a Line, level: usize) -> Waiting<'a> {
        line.waiting[level].fetch_add(1, SeqCst);
        self.waiting.fetch_add(1, SeqCst);
        Waiting { budget: self, level: &line.waiting[level] }
    }

    /// Tells one who waits that there may be room: an item first, the later its stage the sooner, then a lane.
    pub fn wake(&self) {
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let (used, is_still) = (self.used(), self.active.load(SeqCst) == 0);
        for level in 0..LEVELS {
            if self.items.is_wanted_at(level) && (is_still || used < self.most(level)) {
                return self.items.turn[level].notify_one();
            }
        }
        let first = self.lanes.next.fetch_add(1, Relaxed);
        for level in (0..LEVELS).map(|level| (first + level) % LEVELS) {
            if self.lanes.is_wanted_at(level) && (is_still || used < self.most(level) / ASK_PART) {
                return self.lanes.turn[level].notify_one();
            }
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.active.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn wish(after: usize, frames: u64, each: u64) -> Wish {
        Wish { after, frames, each, is_empty: true, is_idle: false }
    }

    #[tokio::test]
    async fn past_the_budget_nothing_begins_but_the_first() {
        let budget = Budget::new(16 * MIB);
        let mut large = budget.reserve(0);
        let first = budget.begin(0, 20 * MIB, &mut large).await;
        assert_eq!(budget.used(), 20 * MIB, "one item begins, however large it is");
        let mut small = budget.reserve(0);
        let mut second = std::pin::pin!(budget.begin(0, MIB, &mut small));
        assert!(poll!(second.as_mut()).is_pending());
        large.shrink(15 * MIB);
        assert!(poll!(second.as_mut()).is_ready(), "there is room for one more");
        drop(first);
    }

    #[tokio::test]
    async fn what_waits_for_others_does_not_keep_them_from_beginning() {
        let budget = Budget::new(16 * MIB);
        let mut large = budget.reserve(0);
        let _first = budget.begin(1, 20 * MIB, &mut large).await;
        let mut small = budget.reserve(0);
        let mut second = std::pin::pin!(budget.begin(0, MIB, &mut small));
        assert!(poll!(second.as_mut()).is_pending());
        let paused = budget.pause();
        let Poll::Ready(second) = poll!(second.as_mut()) else { panic!("nothing else runs") };
        drop((paused, second));
        assert_eq!(budget.active.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn later_stages_begin_where_earlier_ones_wait() {
        let budget = Budget::new(16 * MIB);
        let _held = budget.reserve(14 * MIB);
        let (mut one, mut other, mut last) = (budget.reserve(0), budget.reserve(0), budget.reserve(0));
        let running = budget.begin(0, MIB, &mut one).await;
        let mut early = std::pin::pin!(budget.begin(2, MIB, &mut other));
        assert!(poll!(early.as_mut()).is_pending());
        let late = budget.begin(0, MIB, &mut last).await;
        drop((running, late));
        assert!(poll!(early.as_mut()).is_ready(), "nothing else runs");
    }

    #[tokio::test]
    async fn what_is_asked_for_counts_until_it_comes() {
        let budget = Budget::new(16 * MIB);
        let mut asked = budget.reserve(0);
        let leave = budget.ask(wish(0, 3, MIB), false, &mut asked).expect("nothing is in use");
        assert_eq!((leave.frames, leave.stands, asked.bytes()), (3, Stands::Long, 3 * MIB));
        let _held = budget.reserve(4 * MIB);
        let leave = budget.ask(wish(0, 9, MIB), false, &mut asked).expect("one has room");
        assert_eq!((leave.frames, leave.stands), (1, Stands::Briefly));
        asked.shrink(3 * MIB);
        let idle = Wish { is_idle: true, ..wish(0, 9, MIB) };
        assert_eq!(budget.ask(idle, false, &mut asked).expect("one has room").stands, Stands::Not);
        // Half of it is kept for what runs.
        let leave = budget.ask(wish(0, 9, MIB), false, &mut asked).expect("nothing runs");
        assert_eq!((leave.frames, leave.stands), (1, Stands::Not));
        assert!(budget.ask(wish(0, 9, MIB), false, &mut asked).is_none(), "one at a time exceeds the budget");
        drop(leave);
        let busy = Wish { is_empty: false, ..wish(0, 1, MIB) };
        assert!(budget.ask(busy, false, &mut asked).is_none(), "its hop has something in hand");
        asked.shrink(0);
        assert_eq!(budget.used(), 4 * MIB);
    }

    #[tokio::test]
    async fn a_lane_that_waits_is_told_of_room_and_not_passed() {
        let budget = Budget::new(16 * MIB);
        let held = budget.reserve(8 * MIB);
        let mut asked = budget.reserve(0);
        let mut running = budget.reserve(0);
        let _active = budget.begin(0, 0, &mut running).await;
        assert!(budget.ask(wish(3, 1, MIB), false, &mut asked).is_none());
        let mut turn = std::pin::pin!(budget.may_ask(3));
        assert!(poll!(turn.as_mut()).is_pending());
        drop(held);
        assert!(budget.ask(wish(0, 1, MIB), false, &mut asked).is_none(), "another waits");
        assert!(poll!(turn.as_mut()).is_ready());
        assert!(budget.ask(wish(3, 1, MIB), true, &mut asked).is_some());
    }

    #[tokio::test]
    async fn instances_that_wait_give_way_first() {
        let budget = Budget::new(16 * MIB);
        let idle = std::sync::Mutex::new(vec![budget.reserve(9 * MIB), budget.reserve(7 * MIB)]);
        budget.on_need(move || idle.lock().expect("nobody panicked").pop().is_some());
        let mut asked = budget.reserve(0);
        assert_eq!(budget.ask(wish(0, 9, MIB), false, &mut asked).expect("they give way").frames, 8);
        assert_eq!(budget.used(), 8 * MIB);
    }

    #[test]
    fn what_the_process_takes_beside_is_not_given_out_twice() {
        let budget = Budget::new(16 * MIB);
        budget.set_beside(6 * MIB);
        assert_eq!(budget.capacity(), 10 * MIB);
        budget.set_beside(60 * MIB);
        assert_eq!(budget.capacity(), 4 * MIB, "something is always left for items");
    }
}
