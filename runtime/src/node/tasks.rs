//! Tasks that run as long as the node. A task that panics is started again, and the node reports the failure meanwhile.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::name::{ChainName, Revision};
use crate::node::failpoint;
use crate::node::health::Board;

/// The first wait before a task is started again. Each is twice as long as the one before.
const AGAIN: Duration = Duration::from_millis(250);
/// The longest wait.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// A restarted task works once it has run for this long.
const WORKS: Duration = Duration::from_secs(2);

/// Keeps a task running as long as the node.
#[derive(Clone)]
pub(crate) struct Keeper {
    board: Arc<Board>,
    /// What the task does, as in `follow what is deployed`.
    what: &'static str,
    /// The chain that the task serves. Empty for a task of the node itself.
    chain: String,
    /// The revision that the task serves, if it serves one.
    revision: Option<Revision>,
}

impl Keeper {
    /// Creates the keeper of a task of the node itself.
    pub(crate) fn new(board: Arc<Board>, what: &'static str) -> Self {
        Self { board, what, chain: String::new(), revision: None }
    }

    /// Creates the keeper of a task of a revision.
    pub(crate) fn of(board: Arc<Board>, what: &'static str, chain: &ChainName, revision: Revision) -> Self {
        Self { board, what, chain: chain.to_string(), revision: Some(revision) }
    }

    /// Runs the task that `make` starts until it ends. Starts it again after a panic.
    pub(crate) async fn keep<F: Future<Output = ()>>(self, mut make: impl FnMut() -> F) {
        let mut backoff = Backoff::new(AGAIN, AGAIN_MAX);
        loop {
            let started = Instant::now();
            let mut task = std::pin::pin!(
                AssertUnwindSafe(async {
                    failpoint::task(self.what);
                    make().await;
                })
                .catch_unwind()
            );
            let ended = if let Ok(ended) = tokio::time::timeout(WORKS, &mut task).await {
                ended
            } else {
                self.works();
                task.await
            };
            let Err(panic) = ended else { return self.works() };
            self.fails(&panic_message(panic.as_ref()));
            if started.elapsed() > AGAIN_MAX {
                backoff.reset();
            }
            backoff.wait().await;
        }
    }

    /// Runs the task in a Tokio task of its own.
    pub(crate) fn spawn<F>(self, make: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.keep(make))
    }

    fn fails(&self, message: &str) {
        let problem = format!("the task to {} failed and is started again: {message}", self.what);
        self.board.task(self.what, &self.chain, self.revision, Some(&problem));
        tracing::error!(chain = self.chain, problem, "a task of this node panicked");
    }

    fn works(&self) {
        if self.board.task(self.what, &self.chain, self.revision, None) {
            tracing::warn!(chain = self.chain, "the task to {} works again", self.what);
        }
    }
}

/// Returns the message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it does not say why".to_owned())
}
