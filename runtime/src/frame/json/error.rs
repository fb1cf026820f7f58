//! Why a text is not JSON, and where.

use std::io::{self, Read};

use crate::frame::text::{Place, Text};

/// Why a text is not JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It breaks a rule.
    #[error("{what} at line {} column {}", place.line, place.column)]
    Invalid {
        /// What is wrong.
        what: String,
        /// Where.
        place: Place,
    },
    /// It is a number that no item can hold.
    #[error("{what} at line {} column {}", place.line, place.column)]
    Number {
        /// What is wrong.
        what: String,
        /// Where.
        place: Place,
    },
    /// The value is larger than an item may be.
    #[error("an item of more than {max} bytes at line {}", place.line)]
    TooLarge {
        /// The most bytes that an item may have.
        max: usize,
        /// Where that was noticed.
        place: Place,
    },
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl JsonError {
    /// What stands at the next byte breaks a rule.
    pub fn invalid<R: Read>(what: impl Into<String>, text: &Text<R>) -> Self {
        Self::Invalid { what: what.into(), place: text.place() }
    }

    /// What is wrong, for a reader who has been told the line.
    #[must_use]
    pub fn within_line(&self) -> String {
        match self {
            Self::Invalid { what, place } | Self::Number { what, place } => {
                format!("{what} at column {}", place.column)
            }
            Self::TooLarge { max, .. } => format!("an item of more than {max} bytes"),
            Self::Io(error) => error.to_string(),
        }
    }
}
