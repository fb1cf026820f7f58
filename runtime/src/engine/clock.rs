//! The time limit of an item. The clock stops while outputs of the item are published, because the guest waits for that.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;
use crate::run::failure::Failure;

/// How long after its time a guest is ended from outside. A running guest ends before, at its next tick, and its backtrace is
/// known.
const BACKSTOP: Duration = Duration::from_millis(100);
/// The interval at which to check a waiting guest.
const LOOK: Duration = Duration::from_millis(100);

/// The time limit of an item. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The time at which the item ends, not counting stops. `None` if it has no limit.
    deadline: Option<Instant>,
    /// The time at which the clock was stopped. `None` if it runs.
    since: Option<Instant>,
    /// The time for which the clock was stopped before.
    waited: Duration,
    /// Why streamed outputs could not be published.
    failure: Option<Failure>,
}

impl State {
    /// Returns when the time is up, as far as is known now. `None` if there is no limit.
    fn ends(&self) -> Option<Instant> {
        let waited = self.waited + self.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.deadline?.checked_add(waited)
    }
}

impl Clock {
    /// Begins an item.
    pub(super) fn begin(&self, deadline: Option<Instant>) {
        *lock(&self.0) = State { deadline, ..State::default() };
    }

    /// Stops the clock.
    pub(super) fn stop(&self) {
        lock(&self.0).since = Some(Instant::now());
    }

    /// Starts the clock again, once outputs were published or could not be.
    pub(super) fn go_on(&self, ended: Result<(), Failure>) {
        let mut state = lock(&self.0);
        let since = state.since.take();
        state.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
        state.failure = ended.err();
    }

    /// Returns why streamed outputs could not be published.
    pub(super) fn failure(&self) -> Option<Failure> {
        lock(&self.0).failure.clone()
    }

    /// Returns when the time is up, as far as is known now. `None` if there is no limit.
    pub(super) fn ends(&self) -> Option<Instant> {
        lock(&self.0).ends()
    }

    /// Returns `true` if the time is up.
    pub(super) fn is_overdue(&self) -> bool {
        self.ends().is_some_and(|ends| ends <= Instant::now())
    }

    /// Runs a guest until it ends. `None` if the time of its items is up before.
    ///
    /// By reference, so that the state of the guest's run is held once: a future keeps its arguments beside what it makes of them.
    pub(super) async fn limit<T>(&self, mut run: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        // Most guests end at once and need no timer.
        if let Poll::Ready(ended) = futures_util::poll!(run.as_mut()) {
            return Some(ended);
        }
        loop {
            let (ends, waits) = {
                let state = lock(&self.0);
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
