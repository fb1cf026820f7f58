//! Which secrets a stage may use, and where they may be sent.

use std::fmt;

use crate::calls::http::target::{Origin, TargetProblem};
use crate::calls::message::quoted;
use crate::name::nearest;

/// The most characters of the name of a secret.
const NAME_MAX: usize = 64;
/// The word of a manifest for a secret that its task may read.
const REVEAL: &str = "reveal";

/// The name of a secret: lower-case letters, digits, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SecretName(Box<str>);

/// What a stage may do with a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretUse {
    /// The node sends it to this origin. The task does not see it.
    Origin(Origin),
    /// The task may read it, and send it wherever it may send requests.
    Reveal,
}

/// Why a secret cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretProblem {
    /// No secret can have this name.
    #[error("`{0}` cannot be the name of a secret; write lower-case letters, digits, `_` and `-`, at most {NAME_MAX}")]
    Name(String),
    /// It is nearly the word `reveal`.
    #[error("`{0}` is not known; did you mean `reveal`?")]
    Reveal(String),
    /// It would be for more than one origin.
    #[error("`{0}` is more than one origin, and a secret is for one; write one like `https://api.example.com`")]
    Wildcard(String),
    /// The origin is malformed.
    #[error("{0}; a secret is for an origin, as `https://api.example.com`, or \"reveal\"")]
    Origin(#[from] TargetProblem),
}

impl SecretName {
    /// Parses a name.
    pub(crate) fn parse(text: &str) -> Result<Self, SecretProblem> {
        let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        let is_name = (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(of_name);
        if is_name { Ok(Self(text.into())) } else { Err(SecretProblem::Name(quoted(text))) }
    }

    /// Returns the name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

// So that secrets can be looked up by the name that a task has sent.
impl std::borrow::Borrow<str> for SecretName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl SecretUse {
    /// Parses an origin or `reveal`.
    pub(crate) fn parse(text: &str) -> Result<Self, SecretProblem> {
        if text == REVEAL {
            return Ok(Self::Reveal);
        }
        if !text.contains(['.', ':', '/']) && nearest(text, [REVEAL]).is_some() {
            return Err(SecretProblem::Reveal(quoted(text)));
        }
        if text.contains('*') {
            return Err(SecretProblem::Wildcard(quoted(text)));
        }
        Ok(Self::Origin(Origin::parse(text)?))
    }

    /// Returns what a manifest says: an origin or `reveal`.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Origin(origin) => origin.to_string(),
            Self::Reveal => REVEAL.to_owned(),
        }
    }
}

impl fmt::Display for SecretUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin(origin) => write!(formatter, "for {origin}"),
            Self::Reveal => formatter.write_str("revealed to the task"),
        }
    }
}
