//! The tasks that a node has for as long as it runs. One that ends or panics is started again, and the node shows meanwhile
//! that it fails.

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

/// The first wait before a task is started again; doubled each time.
const AGAIN: Duration = Duration::from_millis(250);
/// The longest wait.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// A task that has run for this long works again.
const WORKS: Duration = Duration::from_secs(2);

/// A task that runs as long as the node does.
#[derive(Clone)]
pub(crate) struct Keeper {
    board: Arc<Board>,
    /// What it is for, as in `follow what is deployed`.
    what: &'static str,
    /// The revision that it serves, if it serves one.
    of: Option<(ChainName, Revision)>,
}

impl Keeper {
    /// Keeps a task of the node itself running.
    pub(crate) fn new(board: Arc<Board>, what: &'static str) -> Self {
        Self { board, what, of: None }
    }

    /// Keeps a task of a revision running.
    pub(crate) fn of(board: Arc<Board>, what: &'static str, chain: &ChainName, revision: Revision) -> Self {
        Self { board, what, of: Some((chain.clone(), revision)) }
    }

    /// Runs a task until it says that it is done: `make` starts it, and starts it again after a panic.
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

    /// The same in a task of its own.
    pub(crate) fn spawn<F>(self, make: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.keep(make))
    }

    fn fails(&self, message: &str) {
        let (chain, revision) = self.place();
        let problem = format!("the task to {} failed and is started again: {message}", self.what);
        self.board.task(self.what, chain, revision, Some(&problem));
        tracing::error!(chain, problem, "a task of this node panicked");
    }

    fn works(&self) {
        let (chain, revision) = self.place();
        if self.board.task(self.what, chain, revision, None) {
            tracing::warn!(chain, "the task to {} works again", self.what);
        }
    }

    fn place(&self) -> (&str, Option<Revision>) {
        self.of.as_ref().map_or(("", None), |(chain, revision)| (chain.as_str(), Some(*revision)))
    }
}

/// What a panic says.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it does not say why".to_owned())
}
