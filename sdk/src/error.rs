//! The error of a task.

use std::fmt;
use std::time::Duration;

use crate::call::Cause;
use crate::host;

/// The error of a task, which may be final.
///
/// Every error that implements [`std::error::Error`] converts into this one, so that `?` works. For that reason this type does not
/// implement the trait itself. The result is not final, except for a [`CallError`](crate::CallError) that no other attempt can
/// escape.
///
/// ```
/// use pcluster_sdk::Error;
///
/// fn port(text: &str) -> Result<u16, Error> {
///     let port: u16 = text.parse()?;
///     if port == 0 {
///         return Err(Error::fatal("there is no port 0"));
///     }
///     Ok(port)
/// }
///
/// assert!(!port("many").unwrap_err().is_fatal());
/// assert!(port("0").unwrap_err().is_fatal());
/// ```
pub struct Error {
    message: String,
    fatal: bool,
    delay: Option<Delay>,
}

/// The longest time that the next attempt may wait, in milliseconds.
const DELAY_MAX: u32 = 60 * 60 * 1000;

/// How long the next attempt waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delay {
    millis: u32,
    /// Tells the node. A pointer, so that only plugins that make a delay import the function.
    tell: fn(u64),
}

impl PartialEq for Delay {
    fn eq(&self, other: &Self) -> bool {
        self.millis == other.millis
    }
}

impl Eq for Delay {}

impl Delay {
    /// Creates a delay of at most an hour.
    pub(crate) fn new(delay: Duration) -> Self {
        let millis = u32::try_from(delay.as_millis()).unwrap_or(DELAY_MAX).min(DELAY_MAX);
        Self { millis, tell: host::retry_after }
    }

    /// Tells the node.
    fn tell(self) {
        (self.tell)(self.millis.into());
    }

    /// Returns the time.
    pub(crate) const fn duration(self) -> Duration {
        Duration::from_millis(self.millis as u64)
    }
}

impl Error {
    /// Creates an error that another attempt may not meet.
    ///
    /// An example is a service that does not answer. The node tries again as often as the stage's `retry` says.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), fatal: false, delay: None }
    }

    /// Creates an error that every attempt would meet.
    ///
    /// An example is an invalid item. The item goes to the dead letters at once.
    pub fn fatal(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), fatal: true, delay: None }
    }

    /// Makes the error final: no other attempt is made.
    ///
    /// ```
    /// # use pcluster_sdk::Error;
    /// let error = "many".parse::<u16>().map_err(|error| Error::from(error).into_fatal());
    /// assert!(error.unwrap_err().is_fatal());
    /// ```
    pub fn into_fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// Sets how long the next attempt waits, in place of the stage's back-off. At most an hour.
    ///
    /// The attempt counts as any other. A fatal error has no next attempt.
    ///
    /// ```
    /// # use pcluster_sdk::Error;
    /// # use std::time::Duration;
    /// let error = Error::new("the shop opens at nine").retry_after(Duration::from_secs(20 * 60));
    /// assert_eq!(error.delay(), Some(Duration::from_secs(1200)));
    /// ```
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { delay: Some(Delay::new(delay)), ..self }
    }

    /// Returns how long the next attempt waits. `None` if the stage's back-off decides.
    pub fn delay(&self) -> Option<Duration> {
        self.delay.map(Delay::duration)
    }

    /// Tells the node why the item failed, and how long the next attempt waits.
    pub(crate) fn tell(&self) {
        host::fail(&self.message);
        if let Some(delay) = self.delay {
            delay.tell();
        }
    }

    /// Puts the operation that failed in front of the message.
    pub(crate) fn within(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Returns `true` if no attempt can succeed.
    pub const fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// Returns the message with its causes: `cannot read the price: invalid digit`.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(call) = cause.downcast_ref::<Cause>() {
                return Self { message, fatal: call.is_fatal(), delay: call.delay() };
            }
            let text = cause.to_string();
            // Many errors already show their cause.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self { message, fatal: false, delay: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, fatal, delay } = self;
        let delay = delay.map(Delay::duration);
        let mut error = formatter.debug_struct("Error");
        error.field("message", message).field("fatal", fatal).field("delay", &delay).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.0)
        }
    }

    impl std::error::Error for Layer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    fn layers(texts: &[&'static str]) -> Layer {
        Layer(texts[0], (texts.len() > 1).then(|| Box::new(layers(&texts[1..]))))
    }

    #[test]
    fn a_converted_error_tells_its_causes_and_may_be_tried_again() {
        let error = Error::from(layers(&["a", "b", "c"]));
        assert_eq!(error.to_string(), "a: b: c");
        assert!(!error.is_fatal());
    }

    #[test]
    fn a_delay_is_told_and_lasts_at_most_an_hour() {
        Error::new("busy").retry_after(Duration::from_millis(1500)).tell();
        let recorded = host::recorded();
        assert_eq!((recorded.failure.as_deref(), recorded.retry_after), (Some("busy"), Some(1500)));
        Error::new("busy").tell();
        assert_eq!(host::recorded().retry_after, None);
        let error = Error::new("busy").retry_after(Duration::MAX);
        assert_eq!(error.delay(), Some(Duration::from_hours(1)));
    }

    #[test]
    fn a_cause_that_is_shown_already_is_not_told_twice() {
        assert_eq!(Error::from(layers(&["a: b", "b", "c"])).message(), "a: b: c");
    }
}
