//! Permits to keep an instance while waiting for later stages.
//!
//! An item with very many outputs streams them: they are published while the item runs. When the next queue is full, or the next
//! stage is inline, the item waits for later stages, which need instances too. For each later stage one slot stays reserved, so
//! the last stage can always run, then the one before it, and in the end the item that waits. While any item streams, no
//! execution takes a slot that a later stage would then miss.
//!
//! One permit for the whole node would not do: when an inline stage streams behind a stage that streams, it would wait for the permit
//! of the earlier stage, which waits for it. With one permit the test `generators_in_a_row_pass_their_outputs_on_while_they_run` does
//! not end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts the executions that keep a slot while they wait.
pub struct StreamingPermits {
    slots: usize,
    now: AtomicUsize,
    /// Notified when a permit is dropped.
    released: Notify,
}

/// Permit to keep a slot while waiting for later stages. Released on drop.
pub struct StreamingPermit(Arc<StreamingPermits>);

impl Drop for StreamingPermit {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
        self.0.released.notify_waiters();
    }
}

impl StreamingPermits {
    /// Creates the permits of a node with this many slots.
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, now: AtomicUsize::new(0), released: Notify::new() }
    }

    /// Returns the number of slots.
    pub(super) const fn slots(&self) -> usize {
        self.slots
    }

    /// Returns `true` if a stage may take a slot now. It has this many stages `after` it.
    pub(super) fn admits(&self, after: usize) -> bool {
        let now = self.now.load(SeqCst);
        now == 0 || now + 1 + after <= self.slots
    }

    /// Waits until [`Self::admits`] holds.
    pub(super) async fn admitted(&self, after: usize) {
        self.until(|| self.admits(after).then_some(())).await;
    }

    /// Waits for a permit for a stage. It has this many stages `after` it. `None` if `patience` ends first.
    pub(super) async fn acquire(self: &Arc<Self>, after: usize, patience: Duration) -> Option<StreamingPermit> {
        let permit = self.until(|| self.try_acquire(after));
        tokio::time::timeout(patience, permit).await.ok()
    }

    fn try_acquire(self: &Arc<Self>, after: usize) -> Option<StreamingPermit> {
        let one_more = |now: usize| (now + 1 + after <= self.slots).then_some(now + 1);
        self.now.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        Some(StreamingPermit(Arc::clone(self)))
    }

    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        if let Some(found) = look() {
            return found;
        }
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            released.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[tokio::test]
    async fn a_permit_leaves_a_slot_to_each_later_stage() {
        let permits = Arc::new(StreamingPermits::new(3));
        let first = permits.acquire(2, NOW).await.expect("two slots are left");
        assert!(permits.acquire(2, NOW).await.is_none());
        let second = permits.acquire(1, NOW).await.expect("one slot is left");
        assert!(permits.acquire(1, NOW).await.is_none());
        let (waited, ()) = tokio::join!(permits.acquire(2, Duration::from_secs(30)), async {
            tokio::task::yield_now().await;
            drop(second);
            drop(first);
        });
        assert!(waited.is_some(), "a released permit goes to the waiting execution");
        assert!(Arc::new(StreamingPermits::new(1)).acquire(1, NOW).await.is_none());
    }

    #[tokio::test]
    async fn while_an_item_streams_no_execution_takes_the_slot_of_a_later_stage() {
        let permits = Arc::new(StreamingPermits::new(3));
        assert!(permits.admits(9), "no item streams");
        let permit = permits.acquire(2, NOW).await.expect("two slots are left");
        assert!(!permits.admits(2) && permits.admits(1) && permits.admits(0));
        let next = permits.acquire(1, NOW).await.expect("one is left");
        assert!(!permits.admits(1) && permits.admits(0));
        drop(next);
        let ((), ()) = tokio::join!(permits.admitted(2), async {
            tokio::task::yield_now().await;
            drop(permit);
        });
    }
}
