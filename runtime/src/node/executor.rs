//! The threads of the guests: as many as the machine has processors, apart from the one that talks to the server.
//!
//! A frame that takes no time at all runs where it is handled. Waking up another thread and being woken up by it would cost more:
//! single items that are echoed took 41 µs of the node's time with two threads that share everything, and 26 with one. A guest of
//! a stage whose items took no time so far can hold that one thread for as long as guests can go without a tick, which they
//! meet in each loop and call.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::node::execute;
use crate::node::execute::Execution;
use crate::node::frame::inbound::InboundFrame;
use crate::node::hop::Hop;
use crate::node::phase::Phase;
use crate::node::worker::permits::{ConcurrencyLimit, Permit};

/// A frame whose items have taken no longer than this together, on average, runs where it is handled.
const LIGHT: Duration = Duration::from_micros(100);

/// The guests' threads, until this is dropped.
pub struct Executor(Option<Runtime>);

impl Executor {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// If the machine does not allow it.
    pub fn start() -> std::io::Result<Self> {
        Builder::new_multi_thread().thread_name("guests").enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    /// To run something there.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting for threads is not allowed everywhere, and what still runs there matters no more.
            runtime.shutdown_background();
        }
    }
}

/// Runs the items of a frame where they are best run.
pub(crate) async fn run(
    hop: &Arc<Hop>,
    inbound: &Arc<InboundFrame>,
    limit: &Arc<ConcurrencyLimit>,
    permit: Permit,
    phase: &mut watch::Receiver<Phase>,
) -> Execution {
    if limit.expected(inbound.len()).is_some_and(|expected| expected <= LIGHT) {
        return execute::run(hop, inbound, limit, permit, phase).await;
    }
    let (own_hop, inbound, limit, mut phase) = (Arc::clone(hop), Arc::clone(inbound), Arc::clone(limit), phase.clone());
    let mut running = JoinSet::new();
    running.spawn_on(async move { execute::run(&own_hop, &inbound, &limit, permit, &mut phase).await }, &hop.executor);
    match running.join_next().await {
        Some(Ok(ran)) => ran,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The threads have ended, and so will this.
        _ => std::future::pending().await,
    }
}
