//! A worker that has ended, and what that means for an item that it held.

use std::collections::BTreeSet;
use std::io::{self, PipeReader};
use std::time::Duration;

use rustix::io::ioctl_fionread;
use tokio::task::JoinHandle;

use crate::program::end::{self, Ending, Outcome};
use crate::program::guard::message::Ended;
use crate::program::process::DRAIN;
use crate::run::failure::{Failure, FailureKind};

/// Why nothing is heard of most workers that are silent.
pub(super) const UNHEARD: &str = "; a worker writes to the descriptor in PCLUSTER_WORKER_OUT, not to its standard output, and \
                                  flushes each line";

/// A process that has ended.
pub(super) struct Past {
    pub(super) ended: io::Result<Ended>,
    /// `false` if it had to be asked to end.
    pub(super) by_itself: bool,
    pub(super) words: String,
    /// The bytes of its channel that it has not read.
    pub(super) unread: u64,
}

impl Past {
    /// Gathers what is known of a process that has ended.
    pub(super) async fn new(
        ended: io::Result<Ended>,
        by_itself: bool,
        mut words: JoinHandle<String>,
        unread: &PipeReader,
    ) -> Self {
        let last = tokio::time::timeout(DRAIN, &mut words).await;
        words.abort();
        let words = last.ok().and_then(Result::ok).unwrap_or_default();
        Self { ended, by_itself, words, unread: ioctl_fionread(unread).unwrap_or(0) }
    }

    /// Returns the failure of an item that took longer than its timeout. `is_heard`: answers of the worker have come.
    pub(super) fn too_long(&self, timeout: Duration, is_heard: bool) -> Failure {
        let mut failure = self.end(Some(Ending::Timeout(timeout)));
        if !is_heard {
            failure.reason += UNHEARD;
        }
        failure.with_words(&self.words)
    }

    /// Returns the failure of an item that the worker held when it ended.
    pub(super) fn failure(&self) -> Failure {
        self.end(None).with_words(&self.words)
    }

    /// Returns the failure of an item whose worker broke the protocol.
    pub(super) fn fault(&self, reason: &str) -> Failure {
        Failure::transient(FailureKind::Error, reason).with_words(&self.words)
    }

    /// Returns a failure without the worker's last words. `ending` is set if this node has ended the worker for an item.
    fn end(&self, ending: Option<Ending>) -> Failure {
        let ended = match &self.ended {
            Ok(ended) => ended,
            Err(error) => {
                // The worker may have done it, so it is an attempt.
                let reason =
                    format!("the worker was ended, since the process that watches over it was killed: {error}");
                return Failure::transient(FailureKind::Trap, reason);
            }
        };
        match end::outcome(ended, ending, &BTreeSet::new()) {
            Outcome::Done => Failure::transient(
                FailureKind::Error,
                "the worker ended with status 0 before it answered; it answers on the descriptor in PCLUSTER_WORKER_OUT, not on its \
                 standard output",
            ),
            Outcome::Failed { kind, reason, fatal } => Failure { fatal, ..Failure::transient(kind.into(), reason) },
        }
    }
}
