//! Room in a store with a limit: who may fill how much of it.
//!
//! Feeders stop at three quarters. The rest is for nodes, and later hops may fill more than earlier ones, so that what is in the
//! chain can leave it. The server's own limit lies above, because a record must always find room.
//!
//! What takes room goes once its message is handled, so an upload may wait only if nothing that it waits for waits for it. Items of
//! a message that has others do not wait: their node stores what it has, and requeues the rest. An item that is alone waits. Once
//! nothing has happened in the store for long, it may take a reserve: perhaps all wait for each other. If that is not enough, it is
//! requeued too, so that others can have its place in the node. An item of which outputs have gone on waits on: another run would
//! give these again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::BrokerError;
use super::{LargeError, LargeStore};
use crate::backoff::Backoff;

/// The waits for room.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// Room for records beyond the limit.
const RECORDS: u64 = 16 << 20;
/// What an object takes besides its bytes: its description and records, and for each of these many bytes the frame of a chunk.
const OBJECT: u64 = 2 << 10;
const FRAMES: u64 = 256;
/// The longest time between two looks at a store.
const UNSEEN: Duration = Duration::from_secs(8);
/// The bytes of a store change by less while no object comes or goes: leases and turns are renewed.
const STILL: u64 = 512;

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
        /// The bytes of the large item that the output comes of. It goes when the output is stored.
        holding: u64,
        /// How long it waits in a store in which nothing happens.
        patience: Patience,
    },
}

/// How long an output waits for room in a store in which nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all: the node has other outputs to store first.
    None,
    /// This long. Then it takes the reserve, or its item is requeued.
    Until(Duration),
    /// As long as it takes. It takes the reserve after this long.
    Endless(Duration),
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
        let output = match self {
            // What a stage makes of the item is likely to be as large, and must have room beside it.
            Self::Feeder => cost,
            Self::Hop { .. } => 0,
        };
        let others = taken.saturating_sub(cost_of(self.holding()));
        // An object beside which nothing but records is stored may have all the room: nothing that goes would make it more.
        taken.saturating_add(cost).saturating_add(output) <= self.of(limit) || others < OBJECT
    }
}

/// Returns the bytes that an object takes on the server.
pub(super) fn cost_of(size: u64) -> u64 {
    if size == 0 { 0 } else { size + size / FRAMES + OBJECT }
}

/// Returns the server's own limit for a store with this limit.
pub(in crate::broker) fn on_server(limit: u64) -> i64 {
    i64::try_from(with_reserve(limit).saturating_add(RECORDS)).unwrap_or(i64::MAX)
}

/// Returns the limit of a store whose own limit on the server is this. `None` if it has none.
fn from_server(max_bytes: i64) -> Option<u64> {
    let max_bytes = u64::try_from(max_bytes).ok().filter(|max| *max > 0)?;
    let limit = u64::try_from(u128::from(max_bytes.saturating_sub(RECORDS)) * 8 / 9).unwrap_or(u64::MAX);
    // The division of a limit by eight drops its fraction.
    Some(if on_server(limit + 1).unsigned_abs() <= max_bytes { limit + 1 } else { limit })
}

/// Returns a limit with the reserve for those that hold each other up.
fn with_reserve(limit: u64) -> u64 {
    limit.saturating_add(limit / 8)
}

/// What a store holds, and the most that it may hold.
#[derive(Debug, Clone, Copy)]
struct Filling {
    taken: u64,
    limit: Option<u64>,
}

/// Since when a store is as it is.
#[derive(Debug)]
struct Still {
    taken: u64,
    since: Instant,
    seen: Instant,
}

impl Still {
    fn new() -> Self {
        let now = Instant::now();
        Self { taken: 0, since: now, seen: now }
    }

    /// Returns how long no object has come or gone.
    fn look(&mut self, taken: u64) -> Duration {
        // Nothing is known of a time in which the server was away.
        if self.taken.abs_diff(taken) >= STILL || self.seen.elapsed() > UNSEEN {
            *self = Self { taken, ..Self::new() };
        }
        self.seen = Instant::now();
        self.since.elapsed()
    }
}

/// Room that an upload has. Given back when dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    store: &'a LargeStore,
    cost: u64,
    /// The most bytes that the store may hold beside it. `None` if the store has no limit.
    until: Option<u64>,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.store.0.reserved.fetch_sub(self.cost, Ordering::SeqCst);
    }
}

impl LargeStore {
    /// Returns `true` if the store has a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.0.settings.max_bytes.is_some()
    }

    /// Fails if an object never fits beside what its maker holds.
    pub(crate) async fn check_limit(&self, size: u64, share: Share) -> Result<(), LargeError> {
        if !self.is_limited() {
            return Ok(());
        }
        let Filling { limit: Some(limit), .. } = insist!(self, "tell the limit of large items", self.filling())? else {
            return Ok(());
        };
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
    ///
    /// # Errors
    ///
    /// [`LargeError::NoRoom`] once its patience is at an end.
    pub(super) async fn room(&self, size: u64, share: Share) -> Result<Room<'_>, LargeError> {
        let (cost, mut backoff, mut still) = (cost_of(size), Backoff::new(AGAIN, AGAIN_MAX), Still::new());
        let mut is_told = false;
        while self.is_limited() {
            let Filling { taken, limit } = insist!(self, "tell what large items take", self.filling())?;
            let Some(limit) = limit else { break };
            let reserved = self.0.reserved.load(Ordering::SeqCst);
            let all = taken.saturating_add(reserved);
            let (mut is_free, mut until) = (share.admits(cost, all, limit), share.of(limit));
            if let (false, Share::Hop { patience, .. }) = (is_free, share) {
                let quiet = still.look(all);
                if let Patience::Until(most) | Patience::Endless(most) = patience
                    && quiet > most
                {
                    until = with_reserve(limit);
                    is_free = all.saturating_add(cost) <= until;
                }
                let is_over = match patience {
                    Patience::None => true,
                    Patience::Until(most) => quiet > most,
                    Patience::Endless(_) => false,
                };
                if is_over && !is_free {
                    return Err(LargeError::NoRoom { size, taken, limit });
                }
            }
            if is_free && self.reserve(reserved, cost) {
                return Ok(Room { store: self, cost, until: Some(until) });
            }
            if !is_free {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::debug!(chain = %self.0.chain, taken, "waiting for room for a large item");
                }
                backoff.wait().await;
            }
        }
        self.0.reserved.fetch_add(cost, Ordering::SeqCst);
        Ok(Room { store: self, cost, until: None })
    }

    /// Returns `true` if nobody else has reserved room since.
    fn reserve(&self, before: u64, cost: u64) -> bool {
        let reserved = &self.0.reserved;
        reserved.compare_exchange(before, before + cost, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Returns `true` if others have filled the store beyond the room of an upload that has sent this much.
    pub(super) async fn is_overfull(&self, room: &Room<'_>, share: Share, sent: u64) -> Result<bool, BrokerError> {
        let Some(until) = room.until else { return Ok(false) };
        let taken = self.filling().await?.taken;
        let others = taken.saturating_sub(cost_of(share.holding())).saturating_sub(cost_of(sent));
        Ok(taken > until && others >= OBJECT)
    }

    /// Looks at what the store holds. Its limit there may have been raised since this revision was deployed.
    async fn filling(&self) -> Result<Filling, BrokerError> {
        let own = self.0.settings.max_bytes;
        match self.stream().state(None).await {
            Ok(info) if Some(info.config.max_bytes) == own.map(on_server) => {
                Ok(Filling { taken: info.state.bytes, limit: own })
            }
            Ok(info) => Ok(Filling { taken: info.state.bytes, limit: from_server(info.config.max_bytes) }),
            Err(error) if error.is_not_found() => Ok(Filling { taken: 0, limit: own }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(position: usize, of: usize, holding: u64) -> Share {
        Share::Hop { position, of, holding, patience: Patience::None }
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
        let limit = 1_000_000;
        assert!(Share::Feeder.admits(900_000, OBJECT - 1, limit) && !Share::Feeder.admits(900_000, OBJECT, limit));
        let held = cost_of(400_000);
        assert!(hop(0, 2, 400_000).admits(500_000, held, limit));
        assert!(!hop(0, 2, 400_000).admits(500_000, held + OBJECT, limit));
    }

    #[test]
    fn a_feeder_leaves_room_for_what_comes_of_an_item() {
        let (cost, limit) = (300_000, 1_000_000);
        assert!(Share::Feeder.admits(cost, 150_000, limit) && !Share::Feeder.admits(cost, 150_001, limit));
    }

    #[test]
    fn the_limit_on_the_server_tells_that_of_the_store() {
        for limit in [1, 7, 8, 9, 1_000, 1 << 20, (1 << 30) - 1, 5_000_000_001] {
            assert_eq!(from_server(on_server(limit)), Some(limit));
        }
        assert_eq!((from_server(-1), from_server(0)), (None, None));
    }
}
