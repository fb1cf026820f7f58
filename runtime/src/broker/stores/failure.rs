//! Errors of the server as failures of calls.

use super::super::BrokerError;
use super::super::error::{MORE_ROOM, code};
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::names::{BucketName, StoreName};
use crate::subject::stores;

/// Per-message TTL is disabled.
const NO_TTL: u64 = 10166;
/// The TTL of a message is invalid.
const BAD_TTL: u64 = 10165;

/// The bucket or object store of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A bucket.
    Bucket(&'a BucketName),
    /// An object store.
    Store(&'a StoreName),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bucket(name) => write!(formatter, "bucket `{name}`"),
            Self::Store(name) => write!(formatter, "object store `{name}`"),
        }
    }
}

impl Place<'_> {
    /// Returns the name of the stream.
    pub(super) fn stream(self) -> String {
        match self {
            Self::Bucket(name) => stores::bucket_stream(name.as_str()),
            Self::Store(name) => stores::object_stream(name.as_str()),
        }
    }

    /// Returns how to make it.
    pub(super) fn remedy(self) -> String {
        match self {
            Self::Bucket(name) => format!("`nats kv add {name}` makes it"),
            Self::Store(name) => format!("`nats object add {name}` makes it"),
        }
    }

    /// Returns the failure of a call whose bucket or store does not exist. It may be made later.
    pub(super) fn missing(self) -> CallFailure {
        let said = format!("there is no {self}; {}", self.remedy());
        CallFailure { is_transient: true, ..CallFailure::new(FailureKind::NotFound, said) }
    }

    /// Returns the failure for an error of the server.
    pub(super) fn failure(self, error: &BrokerError) -> CallFailure {
        match error {
            BrokerError::NoPermission { .. } => CallFailure::denied(error.to_string()),
            BrokerError::Timeout(_) => CallFailure::new(FailureKind::Timeout, error.to_string()),
            BrokerError::Server { code: code::STREAM_NOT_FOUND, .. } => self.missing(),
            BrokerError::Server { code, description, .. } => self.refusal(*code, 0, description),
            _ if error.is_transient() => CallFailure::unavailable(error.to_string()),
            _ => CallFailure { is_transient: false, ..CallFailure::unavailable(error.to_string()) },
        }
    }

    /// Returns the failure for an error code of JetStream. `status` is the code of HTTP beside it.
    pub(super) fn refusal(self, code: u64, status: u64, description: &str) -> CallFailure {
        match code {
            code::MESSAGE_TOO_LARGE => {
                CallFailure::new(FailureKind::TooLarge, format!("the value exceeds the limit of the {self}"))
            }
            code::STORE_FAILED => CallFailure::unavailable(format!("the {self} is full: {description}")),
            NO_TTL => CallFailure::invalid(format!(
                "the {self} does not let entries expire by themselves; `nats stream edit {} --allow-msg-ttl` allows it",
                self.stream()
            )),
            BAD_TTL => CallFailure::invalid(format!("the {self} does not take this lifetime: {description}")),
            code if code::NO_ROOM.contains(&code) => {
                CallFailure::unavailable(format!("the server has no room for the {self}: {description}; {MORE_ROOM}"))
            }
            code if code::PASSING.contains(&code) || status == 503 => {
                CallFailure::unavailable(format!("the {self} is not available now: {description}"))
            }
            _ => {
                let said = format!("the {self} refuses: {description} (error {code})");
                CallFailure { is_transient: false, ..CallFailure::unavailable(said) }
            }
        }
    }
}
