//! The time that an item has. The clock stands still while the item's outputs are handed on, which the guest waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;

/// A guest ends itself when its time is up, and can tell where it was; this much later it is ended from outside.
const BACKSTOP: Duration = Duration::from_millis(100);
/// How often to look whether a guest that waits has gone on.
const LOOK: Duration = Duration::from_millis(100);

/// When an item's time is up. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// `None`: never.
    deadline: Option<Instant>,
    /// Since when the clock stands still.
    since: Option<Instant>,
    /// For how long it stood still before.
    waited: Duration,
    /// What went wrong with the outputs that were handed on.
    failure: Option<Failure>,
}

impl State {
    /// When the time is up, as far as can be said now.
    fn ends(&self) -> Option<Instant> {
        let waited = self.waited + self.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.deadline?.checked_add(waited)
    }
}

impl Clock {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an item.
    pub(super) fn begin(&self, deadline: Option<Instant>) {
        *self.lock() = State { deadline, ..State::default() };
    }

    /// Stands still from now on.
    pub(super) fn stop(&self) {
        self.lock().since = Some(Instant::now());
    }

    /// Goes on, now that outputs were handed on or could not be.
    pub(super) fn go_on(&self, ended: Result<(), Failure>) {
        let mut state = self.lock();
        let since = state.since.take();
        state.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
        state.failure = ended.err();
    }

    /// What went wrong with the outputs that were handed on.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    /// When the time is up, as far as can be said now; `None`: never.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.lock().ends()
    }

    /// Whether the time is up.
    pub(super) fn is_overdue(&self) -> bool {
        self.ends().is_some_and(|ends| ends <= Instant::now())
    }

    /// Runs a guest, but no longer than its items may take.
    pub(super) async fn limit<T>(&self, run: impl Future<Output = T>) -> Option<T> {
        let mut run = std::pin::pin!(run);
        // Most guests are done at once, and need no timer.
        if let Poll::Ready(ended) = futures_util::poll!(run.as_mut()) {
            return Some(ended);
        }
        loop {
            let (ends, waits) = {
                let state = self.lock();
                (state.ends(), state.since.is_some())
            };
            let Some(ends) = ends.and_then(|ends| ends.checked_add(BACKSTOP)) else { return Some(run.await) };
            let now = Instant::now();
            if ends <= now && !waits {
                return None;
            }
            let until = if waits { ends.max(now + LOOK) } else { ends };
            if let Ok(ended) = tokio::time::timeout_at(until, &mut run).await {
                return Some(ended);
            }
        }
    }
}
