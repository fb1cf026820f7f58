//! Quarantine in a limited stage: items that may have killed their nodes run one at a time.
//!
//! In other stages such items have a consumer of their own, of which a node asks for one message at a time. A limited stage has
//! one consumer for all items. So the item runs once no other of its kind is in hand and no more can come: meanwhile the node
//! asks for no more, and requeues what comes beside it. Then a death counts against no other item.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::counted::Counted;
use crate::subject::Lane;

/// How often to look whether more messages may come.
const LOOK: Duration = Duration::from_millis(10);

/// The quarantine of one hop on this node.
#[derive(Debug)]
pub struct Quarantine {
    permit: Semaphore,
    /// Quarantined items in hand.
    in_hand: AtomicU64,
    /// Messages that were requested and have not come.
    asked: AtomicU64,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { permit: Semaphore::new(1), in_hand: AtomicU64::new(0), asked: AtomicU64::new(0) }
    }
}

impl Quarantine {
    /// Counts a quarantined item that has come.
    pub(crate) fn hold(&self) -> Counted<&AtomicU64> {
        Counted::new(&self.in_hand)
    }

    /// Sets how many messages of a lane were requested and have not come.
    pub fn asked(&self, lane: Lane, messages: u64) {
        if lane == Lane::Work {
            self.asked.store(messages, SeqCst);
        }
    }

    /// Returns `true` if an item runs or waits to run. The node must not request more then.
    pub fn is_taken(&self) -> bool {
        self.permit.available_permits() == 0
    }

    /// Waits until the item in hand is the only one. Returns the permit to run it. `None` if another item runs or waits to run.
    pub async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.permit.try_acquire().ok()?;
        while self.asked.load(SeqCst) > 0 || self.in_hand.load(SeqCst) > 1 {
            tokio::time::sleep(LOOK).await;
        }
        Some(permit)
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
        assert!(quarantine.is_taken() && quarantine.enter().await.is_none(), "the second is requeued");
        drop(second);
        assert!(tokio::time::timeout(soon, &mut entering).await.is_err(), "more can come");
        quarantine.asked(Lane::Work, 0);
        let entered = entering.await;
        assert!(entered.is_some() && quarantine.is_taken());
        drop(entered);
        assert!(!quarantine.is_taken());
    }
}
