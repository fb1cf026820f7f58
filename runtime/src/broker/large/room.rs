//! Room in a store with a limit: who may fill how much of it.
//!
//! Feeders stop at three quarters. The rest is for nodes, and later hops may fill more than earlier ones, so that what is in the
//! chain can leave it. The server's own limit lies above, because a record must always find room.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::BrokerError;
use super::{LargeError, LargeStore, Usage};
use crate::backoff::Backoff;

/// The waits for room.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// Room for records beyond the limit.
const RECORDS: u64 = 16 << 20;
/// What an object takes besides its bytes: its description and records, and for each of these many bytes the frame of a chunk.
const OBJECT: u64 = 2 << 10;
const FRAMES: u64 = 256;

/// Who wants room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// A feeder.
    Feeder,
    /// A node, for an output of a hop.
    Hop {
        /// The position of the hop in its chain, from 0.
        position: usize,
        /// The number of hops.
        of: usize,
        /// The bytes of the large items that the node has in hand for it, which go when it is done.
        holding: u64,
    },
}

impl Share {
    /// Returns how many bytes of a limit may be taken.
    fn of(self, limit: u64) -> u64 {
        let quarter = limit / 4;
        match self {
            Self::Feeder => limit - quarter,
            Self::Hop { position, of, .. } if position + 1 < of => {
                limit - quarter
                    + u64::try_from(u128::from(quarter) * (position as u128 + 1) / of as u128).unwrap_or(quarter)
            }
            Self::Hop { .. } => limit,
        }
    }

    fn holding(self) -> u64 {
        match self {
            Self::Feeder => 0,
            Self::Hop { holding, .. } => holding,
        }
    }

    /// Returns `true` if an object of this cost may be stored beside what is taken.
    fn admits(self, cost: u64, taken: u64, limit: u64) -> bool {
        let after = taken.saturating_add(cost);
        let others = taken.saturating_sub(cost_of(self.holding()));
        // An object beside which nothing else is stored may have all the room: nobody would ever make it more.
        after <= self.of(limit) || others == 0
    }
}

/// Returns the bytes that an object takes on the server.
pub(super) fn cost_of(size: u64) -> u64 {
    if size == 0 { 0 } else { size + size / FRAMES + OBJECT }
}

/// Returns the server's own limit for a store with this limit.
pub(in crate::broker) fn on_server(limit: u64) -> i64 {
    i64::try_from(limit.saturating_add(limit / 8).saturating_add(RECORDS)).unwrap_or(i64::MAX)
}

/// Room that an upload has. Given back when dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    store: &'a LargeStore,
    cost: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.store.0.reserved.fetch_sub(self.cost, Ordering::SeqCst);
    }
}

impl LargeStore {
    /// Fails if an object of this size can never have room beside what its maker has in hand.
    pub(super) fn check_limit(&self, size: u64, share: Share) -> Result<(), LargeError> {
        let Some(limit) = self.0.settings.max_bytes else { return Ok(()) };
        let max = limit.saturating_sub(share.holding());
        if size <= max {
            return Ok(());
        }
        Err(LargeError::TooLarge {
            size,
            max,
            why: ": `large_bytes` below `[queue]` is the limit of all large items of the chain",
        })
    }

    /// Waits until an object of this size has room.
    pub(super) async fn room(&self, size: u64, share: Share) -> Result<Room<'_>, LargeError> {
        let (cost, mut backoff) = (cost_of(size), Backoff::new(AGAIN, AGAIN_MAX));
        let mut is_told = false;
        while let Some(limit) = self.0.settings.max_bytes {
            let taken = insist!(self, "tell what large items take", self.stored_bytes())?;
            let reserved = self.0.reserved.load(Ordering::SeqCst);
            let is_free = share.admits(cost, taken.saturating_add(reserved), limit);
            if is_free && self.reserve(reserved, cost) {
                return Ok(Room { store: self, cost });
            }
            if !is_free {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::debug!(chain = %self.0.chain, taken, "waiting for room for a large item");
                }
                backoff.wait().await;
            }
        }
        self.0.reserved.fetch_add(cost, Ordering::SeqCst);
        Ok(Room { store: self, cost })
    }

    /// Returns `true` if nobody else has reserved room since.
    fn reserve(&self, before: u64, cost: u64) -> bool {
        let reserved = &self.0.reserved;
        reserved.compare_exchange(before, before + cost, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Returns `true` if others have filled the store beyond a share, beside an upload that has sent this much.
    pub(super) async fn is_overfull(&self, share: Share, sent: u64) -> Result<bool, BrokerError> {
        let Some(limit) = self.0.settings.max_bytes else { return Ok(false) };
        let taken = self.stored_bytes().await?;
        let others = taken.saturating_sub(cost_of(share.holding())).saturating_sub(cost_of(sent));
        Ok(taken > share.of(limit) && others > 0)
    }

    async fn stored_bytes(&self) -> Result<u64, BrokerError> {
        match self.stream().state(None).await {
            Ok(state) => Ok(state.state.bytes),
            Err(error) if error.is_not_found() => Ok(Usage::default().bytes),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(position: usize, of: usize, holding: u64) -> Share {
        Share::Hop { position, of, holding }
    }

    #[test]
    fn later_hops_may_fill_more_of_the_store() {
        let limit = 1_000_000;
        let shares = [Share::Feeder, hop(0, 4, 0), hop(1, 4, 0), hop(2, 4, 0), hop(3, 4, 0)];
        assert_eq!(shares.map(|share| share.of(limit)), [750_000, 812_500, 875_000, 937_500, 1_000_000]);
        assert_eq!(hop(0, 1, 0).of(7), 7);
        assert_eq!((Share::Feeder.of(0), Share::Feeder.of(u64::MAX)), (0, u64::MAX - u64::MAX / 4));
    }

    #[test]
    fn what_is_alone_in_the_store_may_have_all_of_it() {
        assert!(Share::Feeder.admits(900, 0, 1_000) && !Share::Feeder.admits(900, 1, 1_000));
        let held = cost_of(400_000);
        assert!(hop(0, 2, 400_000).admits(500_000, held, 1_000_000));
        assert!(!hop(0, 2, 400_000).admits(500_000, held + 1, 1_000_000));
    }
}
