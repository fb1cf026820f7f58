//! Executions that keep their instance while they wait for later stages, which need instances too.
//!
//! An item that gives very much hands its outputs on while it runs. With the next queue full, or the next stage inline, it waits
//! for stages that come after its own. Of the places for instances, one for each of these always stays with those who do not
//! wait: so the last of them goes on, then the one before, and in the end the one that waits. And while any wait, nobody takes
//! a place that a later stage would then miss.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;

/// How many executions keep one of the places while they wait for later stages.
pub struct Stalls {
    places: usize,
    now: AtomicUsize,
    /// Tells that there is one less.
    eased: Notify,
}

/// Leave to keep a place while one waits for later stages, until this is dropped.
pub struct Stalled(Arc<Stalls>);

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
        self.0.eased.notify_waiters();
    }
}

impl Stalls {
    /// Nobody waits for one of so many places.
    pub(super) fn new(places: usize) -> Self {
        Self { places, now: AtomicUsize::new(0), eased: Notify::new() }
    }

    /// How many places there are.
    pub(super) const fn places(&self) -> usize {
        self.places
    }

    /// Whether a stage with so many stages `after` it may take a place now.
    pub(super) fn admits(&self, after: usize) -> bool {
        let now = self.now.load(SeqCst);
        now == 0 || now + 1 + after <= self.places
    }

    /// Waits until it may.
    pub(super) async fn admitted(&self, after: usize) {
        self.until(|| self.admits(after).then_some(())).await;
    }

    /// Waits, no longer than this, for leave to keep a place while one waits for the stages `after` one's own.
    pub(super) async fn stall(self: &Arc<Self>, after: usize, patience: Duration) -> Option<Stalled> {
        let stalled = self.until(|| self.try_stall(after));
        tokio::time::timeout(patience, stalled).await.ok()
    }

    fn try_stall(self: &Arc<Self>, after: usize) -> Option<Stalled> {
        let one_more = |now: usize| (now + 1 + after <= self.places).then_some(now + 1);
        self.now.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        Some(Stalled(Arc::clone(self)))
    }

    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        if let Some(found) = look() {
            return found;
        }
        loop {
            let mut eased = std::pin::pin!(self.eased.notified());
            eased.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            eased.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[tokio::test]
    async fn those_who_wait_for_later_stages_leave_a_place_to_each() {
        let stalls = Arc::new(Stalls::new(3));
        let first = stalls.stall(2, NOW).await.expect("two places are left");
        assert!(stalls.stall(2, NOW).await.is_none());
        let second = stalls.stall(1, NOW).await.expect("the next stage has one to wait in");
        assert!(stalls.stall(1, NOW).await.is_none());
        let (waited, ()) = tokio::join!(stalls.stall(2, Duration::from_secs(30)), async {
            tokio::task::yield_now().await;
            drop(second);
            drop(first);
        });
        assert!(waited.is_some(), "whoever waits for leave gets it");
        assert!(Arc::new(Stalls::new(1)).stall(1, NOW).await.is_none());
    }

    #[tokio::test]
    async fn while_some_wait_nobody_takes_the_place_of_a_later_stage() {
        let stalls = Arc::new(Stalls::new(3));
        assert!(stalls.admits(9), "nobody waits");
        let stalled = stalls.stall(2, NOW).await.expect("two places are left");
        assert!(!stalls.admits(2) && stalls.admits(1) && stalls.admits(0));
        let next = stalls.stall(1, NOW).await.expect("one is left");
        assert!(!stalls.admits(1) && stalls.admits(0));
        drop(next);
        let ((), ()) = tokio::join!(stalls.admitted(2), async {
            tokio::task::yield_now().await;
            drop(stalled);
        });
    }
}
