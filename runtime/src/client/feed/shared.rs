//! State that a feeder shares with its messages on their way.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::Fed;
use super::pack::Pack;
use crate::client::ClientError;

/// State that a feeder shares with its messages on their way.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) pack: Pack,
    /// Messages that the server has not answered for.
    pub(super) open: u64,
    pub(super) fed: Fed,
    /// When the last item was stored.
    pub(super) taken: Option<Instant>,
    /// Errors of messages that could not be fed, until they are returned.
    pub(super) failures: VecDeque<ClientError>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the fed items, the time of the last, and the unanswered messages.
    pub(super) fn progress(&self) -> (Fed, Option<Instant>, u64) {
        let state = self.lock();
        (state.fed, state.taken, state.open)
    }
}
