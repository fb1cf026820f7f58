//! The node's side of its memory budget: what the lanes ask for, what the process takes besides, and how much the machine has.
//!
//! [`crate::engine::budget`] holds the rules.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Sleep;

use crate::engine::budget::{Budget, Exceeding, Reservation, Stands, Wish};

/// What a frame is expected to have of which nothing is known, in bytes: as much as a message of a server with usual settings.
const UNKNOWN: u64 = 1 << 20;
/// A frame in hand may be there as often: the message as it came, and its items as they are decoded.
const COPIES: u64 = 2;
/// What a frame in hand takes besides its payload, in bytes.
const FRAME: u64 = 4 << 10;
/// A request allows for so many times the bytes that its frames are expected to have, as these are not all of one size.
const SPREAD: u64 = 2;
/// The subjects and headers that the server counts with each frame of a request, in bytes.
const AROUND: u64 = 1 << 10;
/// The least that a request allows for, in bytes: a frame that is larger than those before costs a request of its own.
const LEAST: u64 = 64 << 10;
/// The part of the machine's memory that a node gives to items unless it is told otherwise.
const MACHINE_PART: u64 = 2;
/// What is taken to be there where nothing tells.
const MACHINE_UNKNOWN: u64 = 2 << 30;

/// The budget is eased while the process stays this part of it below. Nearer to it, memory that was freed is given back.
const SLACK: u64 = 16;

/// The shortest and the longest that a lane rests that has looked and found nothing while memory is short.
const REST: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// What a lane has asked for and not got, as far as memory goes.
pub(crate) struct Asked {
    budget: Arc<Budget>,
    after: usize,
    counted: Reservation,
    exceeding: Option<Exceeding>,
    /// How the request stands that is open, if one is.
    open: Option<Stands>,
    /// Whether nothing has come of the last.
    is_idle: bool,
    rest: Duration,
    waits: Option<Waits>,
    has_waited: bool,
    /// Since when it waits in the line.
    since: Option<Instant>,
    /// The most bytes that a frame can have.
    max: u64,
    /// Requests that ended one after the other because the next frame is larger than they allowed for.
    oversized: u32,
    /// Frames that have yet to come.
    expected: u64,
}

/// What a lane may ask for.
pub(crate) struct Request {
    pub(crate) frames: u64,
    /// What these may have together, in bytes; `None` if any size will do.
    pub(crate) bytes: Option<u64>,
    pub(crate) stands: Stands,
}

/// Until when a lane does not ask.
enum Waits {
    /// Until it is its turn.
    InLine(BoxFuture<'static, ()>),
    /// For a while.
    Rests(Pin<Box<Sleep>>),
}

impl Asked {
    /// Nothing was asked for yet by a lane whose stage has so many stages `after` it. `max`: the most bytes of a message.
    pub(crate) fn new(budget: &Arc<Budget>, after: usize, max: usize) -> Self {
        Self {
            budget: Arc::clone(budget),
            after,
            counted: budget.reserve(0),
            exceeding: None,
            open: None,
            is_idle: true,
            rest: Duration::ZERO,
            waits: None,
            has_waited: false,
            since: None,
            max: max as u64,
            oversized: 0,
            expected: 0,
        }
    }

    /// Frames have come.
    pub(crate) fn came(&mut self) {
        (self.is_idle, self.rest, self.oversized) = (false, Duration::ZERO, 0);
    }

    /// A request has ended as the next frame has more bytes than it had left.
    pub(crate) fn found_large(&mut self) {
        self.oversized += 1;
    }

    /// Whether the next frame is known to be larger than those before. The first request that ends for its size may have had little
    /// left; the second, with nothing that came between, had all.
    fn is_large(&self) -> bool {
        self.oversized > 1
    }

    /// So many frames that were asked for have yet to come.
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
            self.waits = Some(Waits::Rests(Box::pin(tokio::time::sleep(self.rest))));
        }
    }

    /// What the lane may ask for now, if it wants so many frames. `is_empty`: its hop has nothing in hand.
    pub(crate) fn ask(&mut self, frames: u64, each: Option<u64>, is_empty: bool) -> Option<Request> {
        // A large one comes by itself, behind all that was asked for before.
        if self.waits.is_some() || self.is_large() && self.expected > 0 {
            return None;
        }
        let (frames, each) = if self.is_large() { (frames.min(1), Some(self.max)) } else { (frames, each) };
        let has_waited = std::mem::take(&mut self.has_waited);
        let waited = self.since.filter(|_| has_waited).map(|since| since.elapsed());
        let wish = Wish { after: self.after, frames, each: size(each), is_empty, is_idle: self.is_idle, waited };
        let Some(leave) = self.budget.ask(wish, &mut self.counted) else {
            self.since.get_or_insert_with(Instant::now);
            let (budget, after) = (Arc::clone(&self.budget), self.after);
            self.waits = Some(Waits::InLine(async move { budget.may_ask(after).await }.boxed()));
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

    /// The leave of a frame that has come to go past the budget, if it has one.
    pub(crate) fn take_exceeding(&mut self) -> Option<Exceeding> {
        self.exceeding.take()
    }

    /// Leaves its turn to others, as it wants nothing.
    pub(crate) fn pass_on(&mut self) {
        self.since = None;
        if std::mem::take(&mut self.has_waited) {
            self.budget.wake();
        }
    }

    /// Whether it has to wait before it asks.
    pub(crate) fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// Waits until it may try to ask again.
    pub(crate) async fn turn(&mut self) {
        match &mut self.waits {
            Some(Waits::InLine(permit)) => {
                permit.await;
                self.has_waited = true;
            }
            Some(Waits::Rests(rest)) => rest.await,
            None => {}
        }
        self.waits = None;
    }
}

/// What is counted for a frame in hand, until it is done.
pub(crate) struct FrameMemory {
    /// Released before the rest, which notifies the waiting lanes.
    _exceeding: Option<Exceeding>,
    _counted: Reservation,
}

/// Counts a frame that has come, and keeps its leave to go past the budget, if it has one.
pub(crate) fn hold(budget: &Arc<Budget>, payload: usize, exceeding: Option<Exceeding>) -> FrameMemory {
    FrameMemory { _exceeding: exceeding, _counted: budget.reserve(size(Some(payload as u64))) }
}

fn size(each: Option<u64>) -> u64 {
    FRAME + COPIES * each.unwrap_or(UNKNOWN)
}

/// Keeps the process as a whole within its node's budget.
#[derive(Default)]
pub(crate) struct Beside {
    /// What the process takes besides what is counted, as far as was seen, in bytes.
    least: Option<u64>,
}

impl Beside {
    /// Looks at what the process takes, and gives out less if it is too much.
    pub(crate) fn look(&mut self, budget: &Budget) {
        let near = budget.limit() - budget.limit() / SLACK;
        if resident().is_some_and(|resident| resident > near) {
            give_back();
        }
        if let Some(resident) = resident() {
            budget.set_beside(self.next(budget.limit(), budget.used(), budget.beside(), resident));
        }
    }

    /// What shall not be given out. Memory that was freed and is kept by the process for what comes next is no reason to give
    /// out less as long as the process is within the budget.
    fn next(&mut self, limit: u64, used: u64, beside: u64, resident: u64) -> u64 {
        let uncounted = resident.saturating_sub(used);
        let least = self.least.map_or(uncounted, |least| least.min(uncounted));
        self.least = Some(least);
        if resident > limit {
            return beside.saturating_add(resident - limit).min(limit);
        }
        let eased = if resident < limit - limit / SLACK { beside - beside / SLACK } else { beside };
        eased.max(least)
    }
}

/// The memory of this process that is in the machine's, in bytes.
pub(crate) fn resident() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Lets large memory go back to the machine as soon as it is freed. Otherwise glibc learns from each large piece that is freed to
/// keep those of its size, up to 32 MiB, and each thread's keep is no use to the others: a process with many chains took twice
/// its budget. What was in small pieces is kept, up to a bound: with glibc's own of 128 KiB, much that is freed and taken again at
/// once goes to the machine and back, which cost the text chain 5 % of its throughput in packed frames. [`give_back`] gives that back
/// where memory is short.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep_nothing_large() {
    /// Where glibc starts, in bytes: what is larger is mapped by itself.
    const LARGE: libc::c_int = 128 << 10;
    /// What each arena may keep at its top, in bytes.
    const KEPT: libc::c_int = 8 << 20;
    #[expect(unsafe_code, reason = "the allocator has no other interface")]
    // SAFETY: it takes two numbers and locks what it changes.
    let set = [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEPT)]
        .map(|(name, value)| unsafe { libc::mallopt(name, value) });
    if set.contains(&0) {
        tracing::debug!("the allocator decides by itself what it keeps");
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_nothing_large() {}

/// Gives memory that was freed back to the machine.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    #[expect(unsafe_code, reason = "the allocator has no other interface")]
    // SAFETY: it takes a number, and touches what is free and locked by it.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

/// The memory that a node gives to items unless it is told otherwise, in bytes: half of what the machine has, or the control
/// group that this process is in.
#[must_use]
pub fn default_budget() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = limit_files(Path::new("/sys/fs/cgroup"), &groups).into_iter().filter_map(|file| limit(&file)).min();
    machine.into_iter().chain(group).min().unwrap_or(MACHINE_UNKNOWN) / MACHINE_PART
}

/// The line `MemTotal:  24684096 kB`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// A limit that a control group has; the word `max` stands for none.
fn limit(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The files that hold the limits of the control groups that a process is in, of both versions. A group is bound by those that
/// it is part of. In a container the path may be one that is seen from outside only, so the root is looked at too.
fn limit_files(root: &Path, groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            several if several.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        files.extend(group.ancestors().take_while(|folder| folder.starts_with(&root)).map(|folder| folder.join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemTotal:       24684096 kB\nMemFree:  1 kB\n"), Some(24_684_096 << 10));
        assert_eq!(total("nothing"), None);
        assert!(default_budget() > 0);
    }

    #[test]
    fn what_is_asked_for_is_bounded_in_bytes_and_a_frame_that_is_larger_comes_by_itself() {
        let mut asked = Asked::new(&Budget::new(1 << 30), 0, 8 << 20);
        let ask = |asked: &mut Asked, frames, each| {
            let request = asked.ask(frames, each, true).expect("there is room");
            (request.frames, request.bytes)
        };
        assert_eq!(ask(&mut asked, 1, None), (1, None), "of the first nobody knows");
        asked.came();
        asked.expect(0, Some(200));
        assert_eq!(ask(&mut asked, 10, Some(200)), (10, Some(LEAST)));
        assert_eq!(ask(&mut asked, 500, Some(200)), (500, Some(500 * (400 + AROUND))));
        asked.came();
        asked.found_large();
        asked.expect(0, Some(200));
        assert_eq!(ask(&mut asked, 500, Some(200)).0, 500, "those before it were small");
        asked.expect(500, Some(200));
        asked.found_large();
        assert!(asked.ask(500, Some(200), true).is_none(), "what was asked for ends first");
        asked.expect(0, Some(200));
        assert_eq!(ask(&mut asked, 500, Some(200)), (1, None));
        asked.expect(1, Some(200));
        assert!(asked.ask(500, Some(200), true).is_none(), "one at a time");
        assert_eq!(asked.counted.bytes(), size(Some(8 << 20)));
        asked.came();
        asked.expect(0, Some(60_000));
        assert_eq!(ask(&mut asked, 4, Some(60_000)), (4, Some(4 * (120_000 + AROUND))));
    }

    #[test]
    fn the_process_stays_within_the_budget_as_a_whole() {
        let mut beside = Beside::default();
        assert_eq!(beside.next(1_600, 0, 0, 100), 100, "what it takes at the start");
        assert_eq!(beside.next(1_600, 1_500, 100, 1_800), 300, "it takes more than is counted");
        assert_eq!(beside.next(1_600, 200, 300, 1_550), 300, "what was freed is kept for what comes");
        assert_eq!(beside.next(1_600, 200, 320, 800), 300);
        assert_eq!(beside.next(1_600, 200, 100, 800), 100, "no less than it takes for itself");
    }

    #[test]
    fn the_groups_of_both_versions_and_those_above_them_are_looked_at() {
        let files = |groups| -> Vec<String> {
            let files = limit_files(Path::new("/g"), groups);
            files.iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(files("0::/a/b\n"), ["/g/a/b/memory.max", "/g/a/memory.max", "/g/memory.max"]);
        let old = ["/g/memory/x/memory.limit_in_bytes", "/g/memory/memory.limit_in_bytes"];
        assert_eq!(files("3:cpuset:/\n4:memory:/x\n"), old);
        assert!(files("1:cpu:/\nrubbish\n").is_empty());
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("memory.max");
        for (text, read) in [("max\n", None), ("1048576\n", Some(1 << 20))] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(limit(&file), read);
        }
    }
}
