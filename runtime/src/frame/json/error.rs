//! Errors of the JSON reader, with their position.

use std::io::{self, Read};

use crate::frame::text::{Place, Text};

/// Why a text is not JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text breaks a rule of JSON.
    #[error("{what} at line {} column {}", place.line, place.column)]
    Invalid {
        /// The error.
        what: String,
        /// The position of the error.
        place: Place,
    },
    /// The text has a number that no item can hold.
    #[error("{what} at line {} column {}", place.line, place.column)]
    Number {
        /// The error.
        what: String,
        /// The position of the error.
        place: Place,
    },
    /// The value is larger than an item may be.
    #[error("an item of more than {max} bytes at line {}", place.line)]
    TooLarge {
        /// The most bytes of an item.
        max: usize,
        /// The position at which the reader stopped.
        place: Place,
    },
    /// The text cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl JsonError {
    /// Returns the error for a wrong byte at the current position.
    pub fn invalid<R: Read>(what: impl Into<String>, text: &Text<R>) -> Self {
        Self::Invalid { what: what.into(), place: text.place() }
    }

    /// Returns the error without its line, which the caller names itself.
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
