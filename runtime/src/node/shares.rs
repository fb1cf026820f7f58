//! Shares of what many may hold for long: each may hold fewer than are free.
//!
//! So one alone takes half, two a third each, and whoever comes next finds some: an execution that waits for later stages does not
//! keep these from running.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::lock::lock;

/// What many may hold.
#[derive(Debug)]
pub(crate) struct Shares {
    state: Mutex<State>,
    released: Notify,
}

#[derive(Debug)]
struct State {
    free: usize,
    next: u64,
    held: HashMap<u64, usize>,
}

/// One of those who share.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    number: u64,
}

/// Permit to hold one. Given back on drop.
#[derive(Debug)]
pub(crate) struct SharePermit {
    shares: Arc<Shares>,
    number: u64,
}

impl Shares {
    /// Creates as many as this.
    pub(crate) fn new(all: usize) -> Self {
        Self { state: Mutex::new(State { free: all, next: 0, held: HashMap::new() }), released: Notify::new() }
    }

    /// Adds another that shares.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let mut state = lock(&self.state);
        state.next += 1;
        Share { shares: Arc::clone(self), number: state.next }
    }
}

impl Share {
    /// Waits until fewer are held than are free.
    pub(crate) async fn permit(&self) -> SharePermit {
        loop {
            let mut released = std::pin::pin!(self.shares.released.notified());
            released.as_mut().enable();
            if let Some(permit) = self.try_permit() {
                return permit;
            }
            released.await;
        }
    }

    fn try_permit(&self) -> Option<SharePermit> {
        let mut state = lock(&self.shares.state);
        let free = state.free;
        let held = state.held.entry(self.number).or_default();
        if *held >= free {
            return None;
        }
        *held += 1;
        state.free -= 1;
        Some(SharePermit { shares: Arc::clone(&self.shares), number: self.number })
    }
}

impl Drop for SharePermit {
    fn drop(&mut self) {
        let mut state = lock(&self.shares.state);
        state.free += 1;
        if let Some(held) = state.held.get_mut(&self.number) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.number);
            }
        }
        drop(state);
        self.shares.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn each_holds_fewer_than_are_free() {
        let shares = Arc::new(Shares::new(9));
        let take = |share: &Share| {
            let mut permits = Vec::new();
            while let Some(permit) = share.permit().now_or_never() {
                permits.push(permit);
            }
            permits
        };
        let (one, other, third) = (shares.share(), shares.share(), shares.share());
        let first = take(&one);
        assert_eq!((first.len(), take(&other).len()), (5, 2));
        let second = take(&other);
        assert_eq!(take(&third).len(), 1);
        let waits = one.permit();
        let ((), permit) = tokio::join!(async { drop((first, second)) }, waits);
        drop(permit);
        assert_eq!(take(&other).len(), 5, "all is given back");
    }
}
