//! Why an item failed.

use std::sync::Arc;
use std::time::Duration;

use crate::dead::calls::CallRecord;
use crate::frame::steps::Row;

pub use crate::dead::FailureKind;

/// Why an item has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// The reason in words.
    pub reason: String,
    /// The reason without the last words of a program, which the log has already. `None` if the reason has none.
    pub brief: Option<String>,
    /// `true` if another attempt cannot succeed.
    pub fatal: bool,
    /// The functions that the guest was in, one a line. The innermost comes first. `None` if it was in none.
    pub backtrace: Option<String>,
    /// How long the next attempt waits, in place of the back-off of its stage. `None` for the back-off.
    pub retry_after: Option<Duration>,
    /// What the item had called. `None` if nothing.
    pub calls: Option<Arc<CallRecord>>,
    /// The exit status of the program. `None` if there was none.
    pub exit: Option<i32>,
    /// The steps of the hop up to the failure. `None` if the chain keeps no records.
    pub(crate) steps: Option<Arc<Vec<Row>>>,
}

impl Failure {
    /// Returns a failure after which another attempt may succeed.
    pub fn transient(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            brief: None,
            fatal: false,
            backtrace: None,
            retry_after: None,
            calls: None,
            exit: None,
            steps: None,
        }
    }

    /// Returns a failure after which no attempt can succeed.
    pub fn fatal(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::transient(kind, reason) }
    }

    /// Adds the last lines that a program wrote to standard error.
    pub(crate) fn with_words(self, words: &str) -> Self {
        match words.trim_end() {
            "" => self,
            words => Self { reason: format!("{}; it said: {words}", self.reason), brief: Some(self.reason), ..self },
        }
    }

    /// Returns the reason without what the log has already.
    pub(crate) fn brief(&self) -> &str {
        self.brief.as_ref().unwrap_or(&self.reason)
    }
}
