//! What a feeder and its messages on their way share.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::Fed;
use super::pack::Pack;
use crate::client::ClientError;

/// What a feeder and the messages on their way share.
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
    /// When an item was last taken.
    pub(super) taken: Option<Instant>,
    /// Why messages could not be fed, until that is told.
    pub(super) failures: VecDeque<ClientError>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much has arrived, when the last of it did, and how many messages are on their way.
    pub(super) fn progress(&self) -> (Fed, Option<Instant>, u64) {
        let state = self.lock();
        (state.fed, state.taken, state.open)
    }
}
