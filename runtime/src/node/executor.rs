//! The guest threads: one for each processor, apart from the thread that talks to the server.
//!
//! A light frame runs on the thread that handles it, because to wake another thread and to be woken by it costs more: an echoed
//! single item took 41 µs of the node's time with two threads that share all work, and 26 µs with one. A guest of a stage whose
//! items were light so far can block that thread until its next tick. Guests meet ticks in each loop and call.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::node::execute::{self, Execution};
use crate::node::frame::inbound::InboundFrame;
use crate::node::hop::Hop;
use crate::node::phase::Phase;
use crate::node::worker::permits::Permit;

/// A frame is light if its items are expected to take no longer than this together.
const LIGHT: Duration = Duration::from_micros(100);

/// The guest threads. They end when this is dropped.
pub struct Executor(Option<Runtime>);

impl Executor {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Self> {
        Builder::new_multi_thread().thread_name("guests").enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    /// Returns a handle to spawn tasks on the guest threads.
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Async code must not wait for threads, and no task that still runs there is needed.
            runtime.shutdown_background();
        }
    }
}

/// Runs the items of a frame: on this thread if the frame is light, else on the guest threads.
pub(crate) async fn run(
    hop: &Arc<Hop>,
    inbound: &Arc<InboundFrame>,
    permit: Permit,
    phase: &mut watch::Receiver<Phase>,
) -> Execution {
    if hop.limit.expected(inbound.len()).is_some_and(|expected| expected <= LIGHT) {
        return execute::run(hop, inbound, permit, phase).await;
    }
    let (own_hop, inbound, mut phase) = (Arc::clone(hop), Arc::clone(inbound), phase.clone());
    let mut running = JoinSet::new();
    running.spawn_on(async move { execute::run(&own_hop, &inbound, permit, &mut phase).await }, &hop.executor);
    match running.join_next().await {
        Some(Ok(ran)) => ran,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The threads have ended, and so will this task.
        _ => std::future::pending().await,
    }
}
