//! Why a task failed.

use std::fmt;

/// Why a task failed, and whether another attempt may succeed.
///
/// Every error that implements [`std::error::Error`] converts into one that may succeed next time, so `?` just works. For
/// that reason this type does not implement the trait itself.
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
}

impl Error {
    /// An error that another attempt may not meet, such as a service that does not answer.
    ///
    /// The node tries again as often as the stage's `retry` says.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), fatal: false }
    }

    /// An error that every attempt would meet, such as an item that makes no sense.
    ///
    /// The item goes to the dead letters at once.
    pub fn fatal(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), fatal: true }
    }

    /// The same error, with no hope for another attempt.
    ///
    /// ```
    /// # use pcluster_sdk::Error;
    /// let error = "many".parse::<u16>().map_err(|error| Error::from(error).into_fatal());
    /// assert!(error.unwrap_err().is_fatal());
    /// ```
    #[must_use]
    pub fn into_fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// The same error, with what failed because of it in front.
    pub(crate) fn within(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Whether no attempt can succeed.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// What went wrong, with the causes: `cannot read the price: invalid digit`.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors show their cause already.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self { message, fatal: false }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Error").field("message", &self.message).field("fatal", &self.fatal).finish()
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
    fn a_cause_that_is_shown_already_is_not_told_twice() {
        assert_eq!(Error::from(layers(&["a: b", "b", "c"])).message(), "a: b: c");
    }
}
