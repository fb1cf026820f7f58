//! The node's side of the memory budget: requests of lanes, overhead of the process, memory of the machine.
//!
//! [`crate::run::budget`] holds the rules.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Sleep;

use crate::machine;
use crate::run::budget::{Budget, Exceeding, Reservation, Stands, Wish};

/// Expected bytes of a frame before any has come: the largest message of a server with default settings.
const UNKNOWN: u64 = 1 << 20;
/// Copies of a frame in hand: the message as it came, and its decoded items.
const COPIES: u64 = 2;
/// Bytes that a frame in hand takes besides its payload.
const FRAME: u64 = 4 << 10;
/// A request allows for this many times the expected bytes, because frames differ in size.
const SPREAD: u64 = 2;
/// Bytes of subject and headers that the server counts with each frame of a request.
const AROUND: u64 = 1 << 10;
/// The fewest bytes that a request allows for. A frame that does not fit costs a request of its own.
const LEAST: u64 = 64 << 10;
/// A node gives this part of the machine's memory to items by default.
const MACHINE_PART: u64 = 2;

/// Below the budget by this part of it, the overhead may fall. Above, the process returns freed memory to the machine.
const SLACK: u64 = 16;

/// How long a request stands while other lanes wait for memory.
const STANDS_BRIEFLY: Duration = Duration::from_millis(250);
/// The shortest and the longest rest of a lane that found its queue empty while memory is short.
const REST: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// A lane's requests for frames, within the memory budget.
pub(crate) struct FrameRequests {
    budget: Arc<Budget>,
    after: usize,
    /// Memory for the frames that have yet to come.
    counted: Reservation,
    exceeding: Option<Exceeding>,
    /// How long the open request stands; `None` if none is open.
    open: Option<Stands>,
    /// `true` if the last request brought no frame.
    is_idle: bool,
    rest: Duration,
    pause: Option<Pause>,
    has_waited: bool,
    /// When the lane began to wait in line.
    since: Option<Instant>,
    /// The most bytes of a message.
    max: u64,
    /// Requests in a row that ended because the next frame is larger than they allowed for.
    oversized: u32,
    /// Requested frames that have yet to come.
    expected: u64,
}

/// A request that a lane may send.
pub(crate) struct Request {
    pub(crate) frames: u64,
    /// The most bytes of all frames together; `None` for no bound.
    pub(crate) bytes: Option<u64>,
    pub(crate) stands: Stands,
}

impl Request {
    /// Returns how long the request stands at most. `None` for as long as any.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.stands {
            Stands::Long => None,
            Stands::Briefly => Some(STANDS_BRIEFLY),
            Stands::Not => Some(Duration::ZERO),
        }
    }
}

/// Why a lane may not send a request.
enum Pause {
    /// Other lanes are before it in line.
    InLine(BoxFuture<'static, ()>),
    /// It found its queue empty while memory is short.
    Resting(Pin<Box<Sleep>>),
}

impl FrameRequests {
    /// Creates the requests of a lane whose stage has this many stages `after` it. `max` is the most bytes of a message.
    pub(crate) fn new(budget: &Arc<Budget>, after: usize, max: usize) -> Self {
        Self {
            budget: Arc::clone(budget),
            after,
            counted: budget.reserve_for_requests(),
            exceeding: None,
            open: None,
            is_idle: true,
            rest: Duration::ZERO,
            pause: None,
            has_waited: false,
            since: None,
            max: max as u64,
            oversized: 0,
            expected: 0,
        }
    }

    /// Notes that frames have come.
    pub(crate) fn came(&mut self) {
        (self.is_idle, self.rest, self.oversized) = (false, Duration::ZERO, 0);
    }

    /// Notes that a request has ended because the next frame has more bytes than were left of it.
    pub(crate) fn found_large(&mut self) {
        self.oversized += 1;
    }

    /// Returns `true` if the next frame is known to be large. The first request that ends for its size may have had few bytes
    /// left. The second had all of them, as no frame came in between.
    fn is_large(&self) -> bool {
        self.oversized > 1
    }

    /// Notes how many requested frames have yet to come, and how many bytes each is expected to have.
    pub(crate) fn expect(&mut self, frames: u64, each: Option<u64>) {
        self.expected = frames;
        let each = if self.is_large() { Some(self.max) } else { each };
        self.counted.shrink(frames.saturating_mul(size(each)));
        if frames > 0 {
            return;
        }
        self.exceeding = None;
        if self.open.take() == Some(Stands::Not) && self.is_idle {
            self.rest = (self.rest * 2).clamp(REST[0], REST[1]);
            self.pause = Some(Pause::Resting(Box::pin(tokio::time::sleep(self.rest))));
        }
    }

    /// Returns the request that a lane may send which wants this many frames. `None` if it must wait. `is_empty` is `true` if
    /// the hop has no frame in hand.
    pub(crate) fn next(&mut self, frames: u64, each: Option<u64>, is_empty: bool) -> Option<Request> {
        // A large frame is requested by itself, once all other requests have ended.
        if self.pause.is_some() || self.is_large() && self.expected > 0 {
            return None;
        }
        let (frames, each) = if self.is_large() { (frames.min(1), Some(self.max)) } else { (frames, each) };
        let has_waited = std::mem::take(&mut self.has_waited);
        let waited = self.since.filter(|_| has_waited).map(|since| since.elapsed());
        let wish = Wish { after: self.after, frames, each: size(each), is_empty, is_idle: self.is_idle, waited };
        let Some(leave) = self.budget.ask(wish, &mut self.counted) else {
            self.since.get_or_insert_with(Instant::now);
            let (budget, after) = (Arc::clone(&self.budget), self.after);
            self.pause = Some(Pause::InLine(async move { budget.may_ask(after).await }.boxed()));
            return None;
        };
        self.since = None;
        if leave.exceeding.is_some() {
            self.exceeding = leave.exceeding;
        }
        if self.open.is_none() {
            self.is_idle = true;
        }
        self.open = Some(leave.stands);
        let bytes = each.filter(|_| !self.is_large()).map(|each| {
            let all = leave.frames.saturating_mul(each.saturating_mul(SPREAD).saturating_add(AROUND));
            all.max(LEAST)
        });
        Some(Request { frames: leave.frames, bytes, stands: leave.stands })
    }

    /// Takes the permit of the frame that has come to exceed the budget, if it has one.
    pub(crate) fn take_exceeding(&mut self) -> Option<Exceeding> {
        self.exceeding.take()
    }

    /// Lets the next lane in line try, because this one wants no frames.
    pub(crate) fn pass_on(&mut self) {
        self.since = None;
        if std::mem::take(&mut self.has_waited) {
            self.budget.wake();
        }
    }

    /// Returns `true` if the lane must wait before its next request.
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Waits until the lane may try again.
    pub(crate) async fn resumed(&mut self) {
        match &mut self.pause {
            Some(Pause::InLine(permit)) => {
                permit.await;
                self.has_waited = true;
            }
            Some(Pause::Resting(rest)) => rest.await,
            None => {}
        }
        self.pause = None;
    }
}

/// Memory that is counted for a frame in hand. Released on drop.
pub(crate) struct FrameMemory {
    /// Dropped first: the drop of the other field notifies the waiting lanes.
    _exceeding: Option<Exceeding>,
    _counted: Reservation,
}

/// Counts a frame that has come, and keeps its permit to exceed the budget, if it has one.
pub(crate) fn hold(budget: &Arc<Budget>, payload: usize, exceeding: Option<Exceeding>) -> FrameMemory {
    FrameMemory { _exceeding: exceeding, _counted: budget.reserve(size(Some(payload as u64))) }
}

fn size(each: Option<u64>) -> u64 {
    FRAME + COPIES * each.unwrap_or(UNKNOWN)
}

/// Keeps the whole process within the budget of its node.
#[derive(Default)]
pub(crate) struct Beside {
    /// The fewest uncounted bytes that the process was seen to take.
    least: Option<u64>,
}

impl Beside {
    /// Measures the process, and sets its overhead aside from the budget.
    pub(crate) fn look(&mut self, budget: &Budget) {
        let near = budget.limit() - budget.limit() / SLACK;
        if resident().is_some_and(|resident| resident > near) {
            trim();
        }
        if let Some(resident) = resident() {
            budget.set_beside(self.overhead(budget.limit(), budget.held(), budget.beside(), resident));
        }
    }

    /// Returns the bytes that items may not have. While the process is within the budget, freed memory that the allocator keeps
    /// does not count.
    ///
    /// `held` are the counted bytes without those of requested frames: these would hide that much of the overhead.
    fn overhead(&mut self, limit: u64, held: u64, beside: u64, resident: u64) -> u64 {
        let uncounted = resident.saturating_sub(held);
        let least = self.least.map_or(uncounted, |least| least.min(uncounted));
        self.least = Some(least);
        if resident > limit {
            return beside.saturating_add(resident - limit).min(limit);
        }
        let eased = if resident < limit - limit / SLACK { beside - beside / SLACK } else { beside };
        eased.max(least)
    }
}

/// Returns the resident memory of this process, in bytes.
pub(crate) fn resident() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Makes glibc return large blocks to the machine as soon as they are freed.
///
/// By default glibc raises its threshold with each large block that is freed, up to 32 MiB, and a thread cannot use what another
/// one keeps: a process with many chains took twice its budget. Small blocks are kept up to a bound. With glibc's own bound of
/// 128 KiB, memory that is freed and allocated again at once goes to the machine and back, which cost the text chain 5 % of its
/// throughput in packed frames. [`trim`] returns the small blocks when memory is short.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep_nothing_large() {
    /// The initial threshold of glibc, in bytes: larger blocks are mapped one by one.
    const LARGE: libc::c_int = 128 << 10;
    /// Bytes that each arena may keep at its top.
    const KEPT: libc::c_int = 8 << 20;
    #[expect(unsafe_code, reason = "the allocator has no other interface")]
    // SAFETY: it takes two numbers and locks what it changes.
    let set = [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEPT)]
        .map(|(name, value)| unsafe { libc::mallopt(name, value) });
    if set.contains(&0) {
        tracing::debug!("the allocator cannot be told what to keep");
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_nothing_large() {}

/// Returns freed memory to the machine.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    #[expect(unsafe_code, reason = "the allocator has no other interface")]
    // SAFETY: it takes a number, and touches what is free and locked by it.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

/// Returns the bytes that a node gives to items by default.
///
/// That is half of what this process may use.
pub fn default_budget() -> u64 {
    machine::memory() / MACHINE_PART
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_in_bytes_and_a_larger_frame_comes_by_itself() {
        let mut requests = FrameRequests::new(&Budget::new(1 << 30), 0, 8 << 20);
        let ask = |requests: &mut FrameRequests, frames, each| {
            let request = requests.next(frames, each, true).expect("there is room");
            (request.frames, request.bytes)
        };
        assert_eq!(ask(&mut requests, 1, None), (1, None), "nothing is known of the first frame");
        requests.came();
        requests.expect(0, Some(200));
        assert_eq!(ask(&mut requests, 10, Some(200)), (10, Some(LEAST)));
        assert_eq!(ask(&mut requests, 500, Some(200)), (500, Some(500 * (400 + AROUND))));
        requests.came();
        requests.found_large();
        requests.expect(0, Some(200));
        assert_eq!(ask(&mut requests, 500, Some(200)).0, 500, "those before it were small");
        requests.expect(500, Some(200));
        requests.found_large();
        assert!(requests.next(500, Some(200), true).is_none(), "earlier requests end first");
        requests.expect(0, Some(200));
        assert_eq!(ask(&mut requests, 500, Some(200)), (1, None));
        requests.expect(1, Some(200));
        assert!(requests.next(500, Some(200), true).is_none(), "one at a time");
        assert_eq!(requests.counted.bytes(), size(Some(8 << 20)));
        requests.came();
        requests.expect(0, Some(60_000));
        assert_eq!(ask(&mut requests, 4, Some(60_000)), (4, Some(4 * (120_000 + AROUND))));
    }

    #[test]
    fn the_process_stays_within_the_budget_as_a_whole() {
        let mut beside = Beside::default();
        assert_eq!(beside.overhead(1_600, 0, 0, 100), 100, "its use at the start");
        assert_eq!(beside.overhead(1_600, 1_500, 100, 1_800), 300, "it takes more than is counted");
        assert_eq!(beside.overhead(1_600, 200, 300, 1_550), 300, "freed memory is kept for later items");
        assert_eq!(beside.overhead(1_600, 200, 320, 800), 300);
        assert_eq!(beside.overhead(1_600, 200, 100, 800), 100, "no less than it takes for itself");
    }
}
