//! One at a time for items that nodes died with, where they come by the same consumer as all others.
//!
//! In most stages such items have a consumer of their own, of which a node asks for one message at a time. A stage that limits
//! what is in flight has one consumer for all, and nobody can say what it hands out next. So the item runs once nothing else of
//! its kind is in hand and nothing more can come: the node asks for no more meanwhile, and puts back what came beside it. A death
//! is then counted against no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::subject::Lane;

/// How often to look whether anything else may still come.
const LOOK: Duration = Duration::from_millis(10);

/// What of a limited stage this node must not have in hand twice.
#[derive(Debug)]
pub struct Quarantine {
    permit: Arc<Semaphore>,
    /// Items of this kind in hand.
    in_hand: AtomicUsize,
    /// Messages that were asked for and have not come.
    asked: AtomicU64,
}

/// Counts an item as being in hand until it is dropped.
#[derive(Debug)]
pub struct InHand<'a>(&'a AtomicUsize);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Leave to run the item, until it is dropped.
#[derive(Debug)]
pub struct Quarantined(#[expect(dead_code, reason = "gives the leave back when dropped")] OwnedSemaphorePermit);

impl Default for Quarantine {
    fn default() -> Self {
        Self { permit: Arc::new(Semaphore::new(1)), in_hand: AtomicUsize::new(0), asked: AtomicU64::new(0) }
    }
}

impl Quarantine {
    /// Says that an item has come.
    pub fn hold(&self) -> InHand<'_> {
        self.in_hand.fetch_add(1, SeqCst);
        InHand(&self.in_hand)
    }

    /// Says how much of a lane was asked for and has not come.
    pub fn asked(&self, lane: Lane, messages: u64) {
        if lane == Lane::Work {
            self.asked.store(messages, SeqCst);
        }
    }

    /// Whether an item runs or waits to, so that no more must be asked for.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.permit.available_permits() == 0
    }

    /// Waits until the item in hand is the only one. Returns `None` if another one runs or waits to.
    pub async fn enter(&self) -> Option<Quarantined> {
        let permit = Arc::clone(&self.permit).try_acquire_owned().ok()?;
        while self.asked.load(SeqCst) > 0 || self.in_hand.load(SeqCst) > 1 {
            tokio::time::sleep(LOOK).await;
        }
        Some(Quarantined(permit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_item_runs_once_no_other_is_in_hand_and_none_can_come() {
        let quarantine = Quarantine::default();
        let (_first, second) = (quarantine.hold(), quarantine.hold());
        quarantine.asked(Lane::Work, 3);
        let mut entering = std::pin::pin!(quarantine.enter());
        let soon = Duration::from_millis(30);
        assert!(tokio::time::timeout(soon, &mut entering).await.is_err());
        assert!(quarantine.is_taken() && quarantine.enter().await.is_none(), "the second is put back");
        drop(second);
        assert!(tokio::time::timeout(soon, &mut entering).await.is_err(), "more can come");
        quarantine.asked(Lane::Work, 0);
        let entered = entering.await;
        assert!(entered.is_some() && quarantine.is_taken());
        drop(entered);
        assert!(!quarantine.is_taken());
    }
}
