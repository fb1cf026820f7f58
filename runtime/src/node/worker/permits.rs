//! Limits how much of a hop runs at once on this node, and knows how many more frames the node should hold.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::chain::needs::Needs;
use crate::chain::{Stage, Work};
use crate::counted::Counted;
use crate::node::worker::average::Average;
use crate::node::worker::demand::{AHEAD, Evidence, KNOWN_AFTER, PIECES, Pace, SHARE_AFTER, Shared, nanos, share};
use crate::slots::{SlotNeeds, SlotSet, Slots};
use crate::subject::Lane;

/// After a node has cut a frame on a guess, it waits this long for one of the pieces before it cuts another.
const FIND_OUT: Duration = Duration::from_millis(500);

/// Lets as many items of a hop run at once as its stage allows, and knows how long they take.
pub struct ConcurrencyLimit {
    permits: Arc<Semaphore>,
    /// The slots that each item that runs needs besides. `None` if it needs none.
    needs: Option<SlotNeeds>,
    concurrency: u64,
    processors: u64,
    /// Frames in hand.
    held: Arc<AtomicU64>,
    /// Frames in hand that want no permit, because it is not known whether they may run.
    aside: AtomicU64,
    /// Frames in hand that have a permit.
    running: Arc<AtomicU64>,
    /// Frames in hand that have a permit, and items that have yet to begin.
    unbegun: Arc<AtomicU64>,
    /// Time of an item, in nanoseconds.
    time: Average,
    /// Items of a frame.
    items: Average,
    /// Items of a frame of the retry lane.
    requeued: Average,
    /// Bytes of a frame.
    bytes: Average,
    /// When an item last ended, in nanoseconds since `opened`.
    ended: AtomicU64,
    /// When a frame last began while no other ran, in nanoseconds since `opened`.
    began: AtomicU64,
    /// When a frame was last cut on a guess, in nanoseconds since `opened`; 0 if never.
    cut: AtomicU64,
    /// Total time of items that have ended, in nanoseconds, less what was spent on cuts.
    spent: AtomicU64,
    opened: Instant,
    parking: [Parking; Lane::ALL.len()],
}

/// A lane that may wait for room.
#[derive(Default)]
struct Parking {
    waits: AtomicBool,
    room: Notify,
}

/// Permit to run items one after the other. Released on drop.
pub struct Permit {
    _running: Option<OwnedSemaphorePermit>,
    slots: Option<Arc<SlotSet>>,
    /// The count of running frames, if the permit is a frame's own.
    frames: Option<Arc<AtomicU64>>,
    /// Counts the frame among those with items that have yet to begin.
    unbegun: Option<Counted<Arc<AtomicU64>>>,
}

impl Permit {
    /// Returns the slots of the items.
    pub(crate) fn slots(&self) -> Option<&Arc<SlotSet>> {
        self.slots.as_ref()
    }

    /// Returns what counts its frame among those with items that have yet to begin. To be dropped when the last one begins.
    pub(crate) fn take_unbegun(&mut self) -> Option<Counted<Arc<AtomicU64>>> {
        self.unbegun.take()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(frames) = &self.frames {
            frames.fetch_sub(1, Relaxed);
        }
    }
}

impl ConcurrencyLimit {
    /// Creates the limit of a stage with this concurrency.
    pub(crate) fn new(concurrency: u32, needs: Option<SlotNeeds>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(concurrency as usize)),
            needs,
            concurrency: concurrency.into(),
            processors: std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64),
            held: Arc::default(),
            aside: AtomicU64::new(0),
            running: Arc::default(),
            unbegun: Arc::default(),
            time: Average::default(),
            items: Average::default(),
            requeued: Average::default(),
            bytes: Average::default(),
            ended: AtomicU64::new(0),
            began: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            opened: Instant::now(),
            parking: Default::default(),
        }
    }

    /// Creates the limit of a hop with these stages. An item takes what they need in one step.
    pub(crate) fn of(slots: &Arc<Slots>, stages: &[Stage]) -> Self {
        let needs = stages.iter().fold(Needs::default(), |needs, stage| needs.max(&stage.needs));
        let fits = slots.capacity().fits(&needs);
        let concurrency = match &stages[0].work {
            Work::Program(program) if program.concurrency.is_none() => {
                let processors = || std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
                u32::try_from(fits.unwrap_or_else(processors)).unwrap_or(u32::MAX)
            }
            _ => stages[0].concurrency,
        };
        let most = fits.and_then(|fits| u32::try_from(fits).ok()).unwrap_or(u32::MAX);
        let needs = fits.map(|_| SlotNeeds { slots: Arc::clone(slots), needs: Arc::new(needs) });
        Self::new(concurrency.clamp(1, most.max(1)), needs)
    }

    /// Notes that a lane has found no room. The lane must look again after this: there may be some by now.
    pub fn park(&self, lane: Lane) {
        self.parking[lane as usize].waits.store(true, SeqCst);
        // Either this lane sees the room, or the task that makes room sees that the lane waits.
        fence(SeqCst);
    }

    /// Waits until there may be room for a lane that was parked.
    pub async fn notified(&self, lane: Lane) {
        self.parking[lane as usize].room.notified().await;
    }

    /// Notifies the parked lanes that there may be room.
    pub fn notify(&self) {
        fence(SeqCst);
        for parking in &self.parking {
            if parking.waits.load(SeqCst) && parking.waits.swap(false, SeqCst) {
                parking.room.notify_one();
            }
        }
    }

    /// Returns how many items may run at once.
    pub fn concurrency(&self) -> u64 {
        self.concurrency
    }

    /// Counts a frame that was delivered.
    pub(crate) fn hold(&self, bytes: usize) -> Counted<Arc<AtomicU64>> {
        self.bytes.add(bytes as u64);
        Counted::new(Arc::clone(&self.held))
    }

    /// Counts a frame in hand as one that wants no permit, while it is not known whether it may run.
    pub(crate) fn set_aside(&self) -> Counted<&AtomicU64> {
        let aside = Counted::new(&self.aside);
        self.notify();
        aside
    }

    /// Returns the average bytes of a frame. `None` if no frame has come.
    pub fn frame_bytes(&self) -> Option<u64> {
        Some(self.bytes.get()).filter(|bytes| *bytes > 0)
    }

    /// Returns `true` if no frame is in hand.
    pub fn is_empty(&self) -> bool {
        self.held.load(Relaxed) == 0
    }

    /// Returns what the items need in slots. `None` if they need nothing.
    pub(crate) fn needs(&self) -> Option<&SlotNeeds> {
        self.needs.as_ref()
    }

    /// Waits for a permit. `slots` are those that were taken for it before.
    pub(crate) async fn take(&self, slots: Option<SlotSet>) -> Permit {
        // First the slots: whoever waits for slots must not have a permit that one with slots waits for.
        let slots = match (&self.needs, slots) {
            (None, _) => None,
            (Some(_), Some(slots)) => Some(slots),
            (Some(SlotNeeds { slots, needs }), None) => Some(slots.take(needs).await),
        };
        let slots = slots.map(Arc::new);
        Permit { _running: Arc::clone(&self.permits).acquire_owned().await.ok(), slots, frames: None, unbegun: None }
    }

    /// Waits for the permit of a frame in hand, which has this many items.
    pub(crate) async fn take_frame(&self, items: usize, lane: Lane, slots: Option<SlotSet>) -> Permit {
        let mut permit = self.take(slots).await;
        self.items.add(items as u64);
        if lane == Lane::Retry {
            self.requeued.add(items as u64);
        }
        permit.unbegun = Some(Counted::new(Arc::clone(&self.unbegun)));
        if self.running.fetch_add(1, Relaxed) == 0 {
            self.began.store(self.now(), Relaxed);
        }
        permit.frames = Some(Arc::clone(&self.running));
        permit
    }

    /// Records that an item ran from `began` until `now`.
    pub fn ran(&self, began: Instant, now: Instant) {
        let time = nanos(now.saturating_duration_since(began));
        self.time.add(time);
        // Bounded: a slow moment that looks like heavy items must pay for few cuts only.
        let (spent, most) = (self.spent.load(Relaxed), nanos(SHARE_AFTER) * PIECES as u64);
        if spent < most {
            // If two tasks add at once, one of them may be lost.
            self.spent.store(spent.saturating_add(time).min(most), Relaxed);
        }
        self.ended.store(nanos(now.saturating_duration_since(self.opened)), Relaxed);
    }

    /// Returns the average time of an item. `None` if none has ended.
    pub fn time(&self) -> Option<Duration> {
        match self.time.get() {
            0 => None,
            time => Some(Duration::from_nanos(time)),
        }
    }

    /// Returns how long this many items take one after the other. `None` if that is unknown, or if the items that run now take
    /// much longer than those before.
    pub fn expected(&self, items: usize) -> Option<Duration> {
        let time = self.time()?;
        let since = nanos(self.opened.elapsed()).saturating_sub(self.ended.load(Relaxed));
        let is_stuck = since > nanos(AHEAD) && self.running.load(Relaxed) > 1;
        if is_stuck { None } else { Some(time * u32::try_from(items).unwrap_or(u32::MAX)) }
    }

    /// Returns a lower bound of the time of an item, if there is one.
    ///
    /// It is good enough to fill free permits. It is no evidence to cut a frame by: on a busy machine no item ends either.
    pub fn estimate(&self) -> Option<Duration> {
        let known = self.time();
        if self.running.load(Relaxed) == 0 || known.is_some() && self.permits.available_permits() > 0 {
            return known;
        }
        // No item has ended, or items that take longer than those before hold all permits.
        let since = self.now().saturating_sub(self.ended.load(Relaxed).max(self.began.load(Relaxed)));
        let least = Some(Duration::from_nanos(since)).filter(|since| *since >= KNOWN_AFTER);
        known.max(least)
    }

    /// Returns how many of a frame's items should stay together. `is_whole` is `true` if the frame was not requeued.
    pub(crate) fn share(&self, items: usize, is_whole: bool) -> Shared {
        let evidence = Evidence {
            concurrency: self.concurrency,
            time: self.time(),
            paid: self.spent.load(Relaxed) / nanos(SHARE_AFTER),
            may_guess: is_whole && !self.has_guessed(),
        };
        share(items, &evidence)
    }

    /// Records that a frame was cut into this many pieces on evidence.
    pub(crate) fn cut_known(&self, pieces: usize) {
        let more = (pieces as u64).saturating_sub(1).saturating_mul(nanos(SHARE_AFTER));
        if more > 0 {
            self.spent.store(self.spent.load(Relaxed).saturating_sub(more), Relaxed);
        }
    }

    /// Records that a frame was cut on a guess: one of the pieces will show how long its items take.
    pub fn cut_unknown(&self) {
        self.cut.store(self.now().max(1), Relaxed);
    }

    /// Returns `true` if a frame was cut on a guess just now.
    fn has_guessed(&self) -> bool {
        let cut = self.cut.load(Relaxed);
        cut > 0 && self.now().saturating_sub(cut) < nanos(FIND_OUT)
    }

    /// Returns how many more frames the node should hold.
    pub fn room(&self) -> u64 {
        let pace = self.pace();
        if pace.time.is_none() && self.has_guessed() {
            return 0;
        }
        pace.room()
    }

    /// Returns how many more frames the node should hold of those that are shared already, and small.
    pub fn room_for_shared(&self) -> u64 {
        let pace = self.pace();
        // Pieces of large frames are small: by the average of all, too few of them would fill the permits.
        let items =
            Some(self.requeued.get()).filter(|items| *items > 0).map_or(pace.items, |items| items.min(pace.items));
        Pace { items, ..pace }.room_for_shared()
    }

    /// Returns the most frames that the node would hold now without a permit.
    pub fn reach(&self) -> u64 {
        self.room() + self.idle()
    }

    /// Returns how many of `room` frames need slots before they are requested, and how many may be requested without. Those wait
    /// in hand for a moment, until items of the same hop have ended.
    pub(crate) fn needing_slots(&self, room: u64) -> (u64, u64) {
        let pace = self.pace();
        let unfilled = pace.free.div_ceil(pace.items.max(1)).saturating_sub(pace.idle).min(room);
        let ahead = if self.running.load(Relaxed) == 0 { 0 } else { room - unfilled };
        (unfilled, ahead)
    }

    /// Returns the number of frames in hand that are not set aside.
    fn wanting(&self) -> u64 {
        self.held.load(Relaxed).saturating_sub(self.aside.load(Relaxed))
    }

    /// Returns the number of frames in hand that wait for a permit, or until their outputs are stored.
    fn idle(&self) -> u64 {
        self.wanting().saturating_sub(self.running.load(Relaxed))
    }

    fn pace(&self) -> Pace {
        Pace {
            concurrency: self.concurrency,
            processors: self.processors,
            free: self.permits.available_permits() as u64,
            held: self.wanting(),
            idle: self.idle(),
            time: self.estimate(),
            items: self.items.get(),
            bytes: self.bytes.get(),
            is_ending: self.running.load(Relaxed) > 0 && self.unbegun.load(Relaxed) == 0,
        }
    }

    fn now(&self) -> u64 {
        nanos(self.opened.elapsed())
    }
}

#[cfg(test)]
mod tests;
