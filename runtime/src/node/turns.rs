//! How much of a hop runs at once on this node, and how much more the node should hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::subject::Lane;

/// Frames wait in hand for about this long, in nanoseconds, so that the next is there when one ends.
const AHEAD: u64 = 20_000_000;
/// Items that take less than this are taken to compute all the time, in nanoseconds.
const BUSY: u64 = 1_000_000;
/// The most frames that wait in hand. With 32 in hand one echo stage did 18 thousand items a second, with 512 it did 28.
const AHEAD_MAX: u64 = 512;
/// The most bytes that wait in hand.
const AHEAD_BYTES: u64 = 64 << 20;

/// Lets as many items of a hop run at once as its stage allows, and knows how long they take.
pub struct Turns {
    permits: Arc<Semaphore>,
    concurrency: u64,
    processors: u64,
    /// Frames in hand.
    held: AtomicU64,
    /// Those of them that have a turn.
    running: Arc<AtomicU64>,
    /// Time that an item runs, in nanoseconds.
    time: Average,
    /// Items of a frame.
    items: Average,
    /// Bytes of a frame.
    bytes: Average,
    /// When an item last ended, in nanoseconds since `opened`.
    ended: AtomicU64,
    opened: Instant,
    hungry: [Hungry; Lane::ALL.len()],
}

/// Whether a lane waits for room, and how to tell it that there may be some.
#[derive(Default)]
struct Hungry {
    waits: AtomicBool,
    fed: Notify,
}

/// Leave to run items one after the other, until it is dropped.
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
    /// Counts frames, if it is a frame's own.
    frames: Option<Arc<AtomicU64>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(frames) = &self.frames {
            frames.fetch_sub(1, Relaxed);
        }
    }
}

/// Counts a frame as being in hand until it is dropped.
pub struct Held<'a>(&'a AtomicU64);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A moving average; 0 at the start.
#[derive(Default)]
struct Average(AtomicU64);

impl Average {
    /// It is kept in parts of a whole, so that small values are not rounded away.
    const PARTS: u64 = 64;

    fn get(&self) -> u64 {
        self.0.load(Relaxed).div_ceil(Self::PARTS)
    }

    fn add(&self, value: u64) {
        /// The newest value counts for one part in this many.
        const WEIGHT: u64 = 16;
        let (before, value) = (self.0.load(Relaxed), value.saturating_mul(Self::PARTS));
        let after = if before == 0 { value } else { before - before / WEIGHT + value / WEIGHT };
        self.0.store(after, Relaxed);
    }
}

impl Turns {
    /// Turns for a stage of this concurrency.
    #[must_use]
    pub fn new(concurrency: u32) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(concurrency as usize)),
            concurrency: concurrency.into(),
            processors: std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64),
            held: AtomicU64::new(0),
            running: Arc::default(),
            time: Average::default(),
            items: Average::default(),
            bytes: Average::default(),
            ended: AtomicU64::new(0),
            opened: Instant::now(),
            hungry: Default::default(),
        }
    }

    /// A lane finds no room. It looks again after this, as there may be some by now.
    pub fn starve(&self, lane: Lane) {
        self.hungry[lane as usize].waits.store(true, SeqCst);
        // Either this lane sees the room, or whoever makes it sees that it waits.
        fence(SeqCst);
    }

    /// Waits until there may be room for a lane that has found none.
    pub async fn fed(&self, lane: Lane) {
        self.hungry[lane as usize].fed.notified().await;
    }

    /// A frame is no longer in hand, so there may be room.
    pub fn ease(&self) {
        fence(SeqCst);
        for hungry in &self.hungry {
            if hungry.waits.load(SeqCst) && hungry.waits.swap(false, SeqCst) {
                hungry.fed.notify_one();
            }
        }
    }

    /// Items that may run at once.
    #[must_use]
    pub fn concurrency(&self) -> u64 {
        self.concurrency
    }

    /// Counts a frame that was handed out.
    pub fn hold(&self, items: usize, bytes: usize) -> Held<'_> {
        self.items.add(items as u64);
        self.bytes.add(bytes as u64);
        self.held.fetch_add(1, Relaxed);
        Held(&self.held)
    }

    /// How many bytes a frame has, as far as is known.
    #[must_use]
    pub fn frame_bytes(&self) -> Option<u64> {
        Some(self.bytes.get()).filter(|bytes| *bytes > 0)
    }

    /// Whether no frame is in hand.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.load(Relaxed) == 0
    }

    /// Waits for leave to run.
    pub async fn take(&self) -> Turn {
        Turn { _permit: Arc::clone(&self.permits).acquire_owned().await.ok(), frames: None }
    }

    /// Waits for leave to run a frame that is in hand.
    pub async fn take_frame(&self) -> Turn {
        let mut turn = self.take().await;
        self.running.fetch_add(1, Relaxed);
        turn.frames = Some(Arc::clone(&self.running));
        turn
    }

    /// An item has run from then until now.
    pub fn ran(&self, began: Instant, now: Instant) {
        self.time.add(nanos(now.saturating_duration_since(began)));
        self.ended.store(nanos(now.saturating_duration_since(self.opened)), Relaxed);
    }

    /// How long an item takes, as far as is known.
    #[must_use]
    pub fn time(&self) -> Option<Duration> {
        match self.time.get() {
            0 => None,
            time => Some(Duration::from_nanos(time)),
        }
    }

    /// How long so many items take, one after the other, as far as is known. `None` too if what runs now takes much longer than
    /// what ran before.
    #[must_use]
    pub fn expected(&self, items: usize) -> Option<Duration> {
        let time = self.time()?;
        let since = nanos(self.opened.elapsed()).saturating_sub(self.ended.load(Relaxed));
        let is_stuck = since > AHEAD && self.running.load(Relaxed) > 1;
        if is_stuck { None } else { Some(time * u32::try_from(items).unwrap_or(u32::MAX)) }
    }

    /// How many more frames the node should hold: those that free turns ask for, and as many more as keep the node busy for a
    /// moment. Frames that take long are better left to other nodes.
    #[must_use]
    pub fn room(&self) -> u64 {
        if self.time.get() == 0 && self.items.get() != 1 {
            // A frame of many items is better shared as long as nobody knows how long they take. One is enough to find out.
            return 1_u64.saturating_sub(self.held.load(Relaxed));
        }
        self.room_for_shared()
    }

    /// The same for frames that are shared already, and small.
    #[must_use]
    pub fn room_for_shared(&self) -> u64 {
        let items = self.items.get().max(1);
        let free = (self.permits.available_permits() as u64).div_ceil(items);
        let time = match self.time.get() {
            0 => 0,
            // When all turns are taken and none has ended for a while, what runs now takes longer than what ran before.
            time if free == 0 => time.max(nanos(self.opened.elapsed()).saturating_sub(self.ended.load(Relaxed))),
            time => time,
        };
        // What is done in no time keeps a processor busy meanwhile; what takes longer mostly waits for something.
        let at_once = if time < BUSY { self.concurrency.min(self.processors) } else { self.concurrency };
        let ahead = AHEAD.saturating_mul(at_once).checked_div(time.saturating_mul(items)).unwrap_or(0);
        let ahead = ahead.min(AHEAD_MAX).min(AHEAD_BYTES / self.bytes.get().max(1));
        (free + ahead).saturating_sub(self.idle())
    }

    /// The most frames that it would hold now without a turn.
    #[must_use]
    pub fn reach(&self) -> u64 {
        self.room() + self.idle()
    }

    /// Frames in hand that wait for their turn, or for what they leave behind to be stored.
    fn idle(&self) -> u64 {
        self.held.load(Relaxed).saturating_sub(self.running.load(Relaxed))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item has just ended that took this long.
    fn ran(turns: &Turns, took: Duration) {
        let now = turns.opened + took;
        turns.ran(turns.opened, now);
    }

    #[tokio::test]
    async fn a_node_asks_for_what_its_free_turns_can_run_and_a_little_more() {
        let turns = Turns::new(8);
        ran(&turns, Duration::from_secs(1));
        assert_eq!(turns.room(), 8);
        let held = turns.hold(4, 100);
        let turn = turns.take_frame().await;
        assert_eq!(turns.room(), 2, "seven free turns are filled by two frames of four");
        drop(turn);
        assert_eq!(turns.room(), 1, "what the frame leaves behind is not stored yet");
        drop(held);
        turns.time.0.store(0, Relaxed);
        ran(&turns, Duration::from_millis(1));
        // 20 ms of 8 turns are 160 items of 1 ms.
        assert_eq!(turns.room(), 2 + 40);
    }

    #[test]
    fn one_frame_of_many_items_is_enough_to_find_out_how_long_they_take() {
        let turns = Turns::new(8);
        assert_eq!((turns.room(), turns.room_for_shared()), (1, 8));
        let held = turns.hold(256, 100);
        assert_eq!(turns.room(), 0);
        drop(held);
        assert_eq!(turns.room(), 1, "another node has what it was shared into");
        let turns = Turns::new(8);
        let _held = turns.hold(1, 100);
        assert_eq!(turns.room(), 7, "frames of one item may fill all turns");
    }

    #[tokio::test]
    async fn a_lane_that_found_no_room_is_told_when_there_may_be_some() {
        let turns = Turns::new(1);
        turns.ease();
        turns.starve(Lane::Retry);
        turns.ease();
        turns.ease();
        turns.fed(Lane::Retry).await;
        let again = tokio::time::timeout(Duration::from_millis(1), turns.fed(Lane::Retry)).await;
        assert!(again.is_err(), "it is told once each time that it waits");
    }

    #[tokio::test]
    async fn nothing_is_asked_for_ahead_of_long_items() {
        let turns = Turns::new(2);
        ran(&turns, Duration::from_secs(1));
        let _held = (turns.hold(1, 1), turns.hold(1, 1));
        let _turns = (turns.take_frame().await, turns.take_frame().await);
        assert_eq!(turns.room(), 0);
    }
}
