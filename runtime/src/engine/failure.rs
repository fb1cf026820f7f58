//! Why an item failed.

pub use crate::dead::FailureKind;

/// Why an item gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// In words.
    pub reason: String,
    /// Whether another attempt is in vain.
    pub fatal: bool,
    /// The functions that the guest was in, the innermost first, one a line; `None` if it was in none.
    pub backtrace: Option<String>,
}

impl Failure {
    /// A failure that another attempt may mend.
    #[must_use]
    pub fn transient(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), fatal: false, backtrace: None }
    }

    /// A failure for good.
    #[must_use]
    pub fn fatal(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), fatal: true, backtrace: None }
    }
}
