//! Why a call failed, as the task reads it.

use std::time::Duration;

use bytes::Bytes;
pub(crate) use pcluster_abi::call::FailureKind;

use super::message::Response;
use crate::run::call::Answer;

/// The most bytes of a message. Longer messages are cut: a guest may have written what they quote.
const MESSAGE_MAX: usize = 1 << 10;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CallFailure {
    /// The kind.
    pub(crate) kind: FailureKind,
    /// The reason in words, and what to do.
    pub(crate) message: String,
    /// `true` if the same call may succeed later.
    pub(crate) is_transient: bool,
    /// How long to wait at least. `None` if that is unknown.
    pub(crate) retry_after: Option<Duration>,
}

impl CallFailure {
    /// Returns a failure of this kind. Time-outs and what is unavailable are transient.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_MAX));
            message.push('…');
        }
        let is_transient = matches!(kind, FailureKind::Timeout | FailureKind::Unavailable);
        Self { kind, message, is_transient, retry_after: None }
    }

    /// Returns the failure of a call that is not allowed.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Denied, message)
    }

    /// Returns the failure of a malformed request.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }

    /// Returns the failure of a call that the other side cannot answer now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unavailable, message)
    }

    /// Returns the failure in CBOR.
    pub(crate) fn encode(&self) -> Bytes {
        let mut response = Response::new();
        response.text("kind", self.kind.name());
        response.text("message", &self.message);
        response.flag("transient", self.is_transient);
        if let Some(wait) = self.retry_after {
            response.number("retry_after_ms", u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        response.finish()
    }

    /// Returns the answer of the failed call.
    pub(crate) fn answer(&self) -> Answer {
        Answer::Failure(self.encode())
    }
}
