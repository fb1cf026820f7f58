//! The workers of a stage: which takes an item, and when another is started.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::{Bound, Cause, Place, Stage, Worker};
use crate::backoff::Backoff;
use crate::counted::Counted;
use crate::lock::lock;
use crate::run::failure::{Failure, FailureKind};

/// The first and the longest wait after a start that failed.
const START_AGAIN: Duration = Duration::from_secs(1);
const START_AGAIN_MAX: Duration = Duration::from_secs(30);

/// All workers that live, and how starts go.
pub(super) struct Pool {
    /// In the order of their starts. The first with room takes an item, so that the last are idle.
    pub(super) workers: Vec<Arc<Worker>>,
    /// What the workers are bound to that are being started.
    pub(super) starting: Vec<Bound>,
    /// What the items that wait for a worker want it to be bound to.
    waiting: Vec<Bound>,
    /// How many items a worker takes at once, as the last one has said.
    pub(super) at_once: Option<u32>,
    pub(super) backoff: Backoff,
    /// When the next may be started, and why the last has not. `None` if the last has started well.
    pub(super) again: Option<(Instant, String)>,
    /// The number of starts that have failed.
    pub(super) failed: u64,
    /// `true` once the stage is left.
    pub(super) is_closed: bool,
}

/// What an item without a worker does next.
enum Next {
    /// It takes this place.
    Take(Place),
    /// It waits for a change.
    Wait,
    /// It is left to another time or another node.
    Leave(Failure),
}

/// Counts a worker that is being started.
pub(super) struct Starting(pub(super) Arc<Stage>, pub(super) Bound);

impl Drop for Starting {
    fn drop(&mut self) {
        remove(&mut lock(&self.0.pool).starting, &self.1);
        self.0.changed.notify_waiters();
    }
}

/// Counts an item that waits for a worker.
struct Waits<'a> {
    stage: &'a Stage,
    bound: &'a Bound,
    _count: Counted<&'a AtomicU64>,
}

impl<'a> Waits<'a> {
    fn new(stage: &'a Stage, bound: &'a Bound) -> Self {
        lock(&stage.pool).waiting.push(bound.clone());
        Self { stage, bound, _count: Counted::new(&stage.waiting) }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        remove(&mut lock(&self.stage.pool).waiting, self.bound);
    }
}

impl Stage {
    /// Returns a place for an item. Starts a worker if none has room. Fails as a node does if none starts.
    pub(super) async fn place(self: &Arc<Self>, bound: &Bound) -> Result<Place, Failure> {
        if let Some(place) = self.free(bound) {
            return Ok(place);
        }
        let _waiting = Waits::new(self, bound);
        let failed = lock(&self.pool).failed;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Whatever changes from here on is noticed.
            changed.as_mut().enable();
            match self.next(bound, failed) {
                Next::Take(place) => return Ok(place),
                Next::Wait => changed.await,
                Next::Leave(failure) => return Err(failure),
            }
        }
    }

    /// Returns a place in a worker that has room.
    pub(super) fn free(self: &Arc<Self>, bound: &Bound) -> Option<Place> {
        let pool = lock(&self.pool);
        let worker = pool.workers.iter().find(|worker| worker.bound == *bound && worker.take())?;
        Some(Place { stage: Arc::clone(self), worker: Arc::clone(worker), request: None })
    }

    /// Decides about an item that waits since so many starts had `failed`. Starts a worker if it must.
    fn next(self: &Arc<Self>, bound: &Bound, failed: u64) -> Next {
        if let Some(place) = self.free(bound) {
            return Next::Take(place);
        }
        let mut pool = lock(&self.pool);
        if let Some((again, reason)) = &pool.again
            && (pool.failed != failed || *again > Instant::now())
        {
            let reason = format!("its worker does not start: {reason}");
            return Next::Leave(Failure::transient(FailureKind::Node, reason));
        }
        if *self.settings.executable.processes.must_end.borrow() {
            return Next::Wait;
        }
        if pool.wants_another(bound) {
            if pool.workers.len() + pool.starting.len() >= self.settings.most {
                pool.end_an_idle_one();
            }
            pool.starting.push(bound.clone());
            self.begin(Starting(Arc::clone(self), bound.clone()));
        }
        Next::Wait
    }

    /// Takes note that a worker has started well: it has answered.
    pub(super) fn started(&self) {
        let mut pool = lock(&self.pool);
        pool.again = None;
        pool.backoff.reset();
    }

    /// Takes note that a worker has not started.
    pub(super) fn not_started(&self, reason: String) {
        let mut pool = lock(&self.pool);
        pool.again = Some((Instant::now() + pool.backoff.next(), reason));
        pool.failed += 1;
        drop(pool);
        self.changed.notify_waiters();
    }
}

/// Removes one of the elements that are equal to this one.
fn remove(all: &mut Vec<Bound>, one: &Bound) {
    if let Some(place) = all.iter().position(|other| other == one) {
        all.swap_remove(place);
    }
}

impl Pool {
    /// Creates a pool without workers.
    pub(super) fn new() -> Self {
        Self {
            workers: Vec::new(),
            starting: Vec::new(),
            waiting: Vec::new(),
            at_once: None,
            backoff: Backoff::new(START_AGAIN, START_AGAIN_MAX),
            again: None,
            failed: 0,
            is_closed: false,
        }
    }

    /// Returns `true` if another worker must be started for items with these slots.
    fn wants_another(&self, bound: &Bound) -> bool {
        if self.again.is_some() {
            return self.starting.is_empty();
        }
        if self.workers.iter().any(|worker| worker.ends_unproven()) {
            // It is about to be a start that has failed.
            return false;
        }
        let count = |all: &[Bound]| all.iter().filter(|other| *other == bound).count();
        let (starting, waiting) = (count(&self.starting), count(&self.waiting));
        // Before the first has said how many items it takes, a second may be one too many.
        let expected = self.at_once.map_or(usize::MAX, |at_once| starting.saturating_mul(at_once as usize));
        starting == 0 || expected < waiting
    }

    /// Ends a worker that has no item.
    pub(super) fn end_an_idle_one(&self) {
        if let Some(idle) = self.workers.iter().rev().find(|worker| worker.close_if_idle()) {
            idle.end(Cause::Retired);
        }
    }
}
