//! The error of a call.

use std::fmt;
use std::time::Duration;

use pcluster_abi::call::FailureKind;

use crate::cbor::fields::{Field, entries};
use crate::error::Delay;

/// The error of a call, such as a request or the reading of an entry.
///
/// A task may handle it. With `?` it becomes an [`Error`](crate::Error). The item is tried again if the error [is
/// transient](Self::is_transient), not before [`retry_after`](Self::retry_after), or if it is a [`Conflict`](FailureKind::Conflict),
/// because the next attempt reads anew. Otherwise the error is fatal. This also holds for an error of the author's own that has this
/// one as its `source`.
///
/// ```
/// use pcluster_sdk::{CallError, Error, FailureKind};
///
/// let denied = CallError::for_test(FailureKind::Denied, "the stage is not granted `https://api.example.com`");
/// assert!(Error::from(denied).is_fatal());
/// assert!(!Error::from(CallError::for_test(FailureKind::Timeout, "no answer in time")).is_fatal());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    message: String,
    cause: Cause,
}

/// What an [`Error`](crate::Error) keeps of the error of a call. As a source it is found within any other error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    kind: FailureKind,
    transient: bool,
    delay: Option<Delay>,
}

impl Cause {
    /// Returns `true` if no other attempt on the item can succeed.
    pub(crate) fn is_fatal(&self) -> bool {
        !self.transient && self.kind != FailureKind::Conflict
    }

    /// Returns how long the next attempt waits. `None` if that is unknown.
    pub(crate) const fn delay(&self) -> Option<Delay> {
        self.delay
    }
}

impl CallError {
    /// Creates the error of a call for a test, as a node would.
    ///
    /// Time-outs and what is unavailable are transient.
    pub fn for_test(kind: FailureKind, message: &str) -> Self {
        Self::new(kind, message.to_owned())
    }

    /// Sets how long the next attempt waits at least, for a test.
    pub fn with_retry_after(self, delay: Duration) -> Self {
        self.delayed(Some(delay))
    }

    /// Creates an error.
    pub(crate) fn new(kind: FailureKind, message: String) -> Self {
        let transient = matches!(kind, FailureKind::Timeout | FailureKind::Unavailable);
        Self { message, cause: Cause { kind, transient, delay: None } }
    }

    /// Sets how long the next attempt waits.
    pub(crate) fn delayed(mut self, delay: Option<Duration>) -> Self {
        self.cause.delay = delay.map(Delay::new);
        self
    }

    /// Reads a failure as the node writes it.
    pub(crate) fn read(failure: &[u8]) -> Self {
        let mut error = Self::new(FailureKind::Unavailable, String::new());
        for (key, field) in entries(failure) {
            match (key, field) {
                // A kind of a later version is one of those that it is like, as `transient` says.
                ("kind", Field::Text(name)) => {
                    let kind = FailureKind::ALL.into_iter().find(|kind| kind.name() == name);
                    error.cause.kind = kind.unwrap_or(FailureKind::Unavailable);
                }
                ("message", Field::Text(message)) => message.clone_into(&mut error.message),
                ("transient", Field::Flag(transient)) => error.cause.transient = transient,
                ("retry_after_ms", Field::Number(millis)) => {
                    error.cause.delay = Some(Delay::new(Duration::from_millis(millis)));
                }
                _ => {}
            }
        }
        if error.message.is_empty() {
            "the call failed, and the node does not say why".clone_into(&mut error.message);
        }
        error
    }

    /// Returns the kind.
    pub const fn kind(&self) -> FailureKind {
        self.cause.kind
    }

    /// Returns what failed and why.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns `true` if the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        self.cause.transient
    }

    /// Returns how long to wait at least, such as an API's `Retry-After`. `None` if that is unknown. At most an hour.
    pub fn retry_after(&self) -> Option<Duration> {
        self.cause.delay.map(Delay::duration)
    }

    /// Returns `true` if an entry or an object is not there. A bucket or a store may be made yet, so its absence is transient.
    pub(crate) fn is_absence(&self) -> bool {
        self.cause.kind == FailureKind::NotFound && !self.cause.transient
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind.name())
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::cbor::fields::Writer;

    #[derive(Debug)]
    struct Wrapped(CallError);

    impl fmt::Display for Wrapped {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("no price")
        }
    }

    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_failure_is_read_as_the_contract_writes_it() {
        for kind in FailureKind::ALL {
            let mut failure = Writer::new();
            failure.text("kind", kind.name());
            failure.text("message", "why");
            failure.flag("transient", true);
            failure.number("retry_after_ms", 1500);
            let error = CallError::read(&failure.finish());
            assert_eq!((error.kind(), error.message(), error.is_transient()), (kind, "why", true));
            assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
        }
        for (transient, absence) in [(true, false), (false, true)] {
            let mut failure = Writer::new();
            failure.text("kind", "not_found");
            failure.flag("transient", transient);
            assert_eq!(CallError::read(&failure.finish()).is_absence(), absence);
        }
        let error = CallError::read(b"garbage");
        assert_eq!((error.kind(), error.is_transient()), (FailureKind::Unavailable, true));
        assert!(!error.message().is_empty());
    }

    #[test]
    fn whether_another_attempt_is_made_and_when_survives_the_conversion() {
        let busy = || CallError::for_test(FailureKind::Unavailable, "busy").with_retry_after(Duration::from_secs(2));
        let denied = || CallError::for_test(FailureKind::Denied, "not granted");
        let error = Error::from(busy());
        assert_eq!((error.message(), error.is_fatal(), error.delay()), ("busy", false, Some(Duration::from_secs(2))));
        let error = Error::from(denied());
        assert_eq!((error.message(), error.is_fatal(), error.delay()), ("not granted", true, None));
        let error = Error::from(Wrapped(busy()));
        assert_eq!((error.message(), error.is_fatal()), ("no price: busy", false));
        assert_eq!(error.delay(), Some(Duration::from_secs(2)));
        assert!(Error::from(Wrapped(denied())).is_fatal());
        let conflict = CallError::for_test(FailureKind::Conflict, "another revision");
        assert!(!conflict.is_transient() && !Error::from(conflict).is_fatal());
    }
}
