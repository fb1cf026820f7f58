//! Names that a task or a grant gives to NATS: buckets, keys, object stores, objects, subjects and patterns of subjects.
//!
//! A value of these types is safe in subjects, stream names and protocol lines. None of them names anything of pcluster itself or
//! of NATS: those are never granted. Deploys and calls parse with the same functions.

use std::fmt;

use super::message::quoted;
use crate::subject;

/// The most bytes of the name of a bucket or store. A stream's name has at most 255, and a prefix of four.
const STORE_MAX: usize = 250;
/// The most bytes of a key, an object's name or a subject. The server reads lines of at most 4 KiB.
const NAME_MAX: usize = 1 << 10;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameProblem {
    /// It is empty.
    #[error("a {0} must not be empty")]
    Empty(&'static str),
    /// It is too long.
    #[error("the {kind} `{name}` has {len} bytes; {max} is the most")]
    TooLong {
        /// The kind of the name.
        kind: &'static str,
        /// The beginning of the text.
        name: String,
        /// Its length in bytes.
        len: usize,
        /// The greatest length.
        max: usize,
    },
    /// A character is not allowed.
    #[error("the {kind} `{name}` has the character {found:?}; allowed are {allowed}")]
    Character {
        /// The kind of the name.
        kind: &'static str,
        /// The text.
        name: String,
        /// The first character that is not allowed.
        found: char,
        /// The allowed characters, in words.
        allowed: &'static str,
    },
    /// A dot stands at an end, or beside another one.
    #[error("the {kind} `{name}` has a part without characters; dots stand between parts")]
    EmptyPart {
        /// The kind of the name.
        kind: &'static str,
        /// The text.
        name: String,
    },
    /// A wildcard stands where none may.
    #[error("the {kind} `{name}` has a wildcard in the wrong place: {rule}")]
    Wildcard {
        /// The kind of the name.
        kind: &'static str,
        /// The text.
        name: String,
        /// Where wildcards may stand.
        rule: &'static str,
    },
    /// It belongs to pcluster or NATS itself.
    #[error("the {kind} `{name}` belongs to {owner}, and is never granted")]
    Reserved {
        /// The kind of the name.
        kind: &'static str,
        /// The text.
        name: String,
        /// `pcluster` or `NATS`.
        owner: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $type(Box<str>);

        impl $type {
            /// Parses a name.
            pub(crate) fn parse(text: &str) -> Result<Self, NameProblem> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// Returns the name as text.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a key-value bucket: letters, digits, `-` and `_`.
    BucketName, check_bucket
);
name!(
    /// The name of an object store: letters, digits, `-` and `_`.
    StoreName, check_store
);
name!(
    /// The key of an entry: letters, digits and `-/_=.`, without empty parts between dots.
    KeyName, check_key
);
name!(
    /// The beginning of keys: empty, or the characters of a key. It may end with a dot.
    KeyPrefix, check_key_prefix
);
name!(
    /// The name of an object: any text. Object stores write it in base64.
    ObjectName, check_object
);
name!(
    /// A subject that messages are published to: visible ASCII, no wildcards.
    Subject, check_subject
);
name!(
    /// A pattern of subjects. `*` stands for one part, `>` at the end for one or more. The first part is no wildcard.
    SubjectPattern, check_pattern
);

impl SubjectPattern {
    /// Returns `true` if the pattern matches a subject.
    pub(crate) fn matches(&self, subject: &Subject) -> bool {
        covers(self.as_str(), subject.as_str())
    }

    /// Returns `true` if this pattern matches every subject that the other one matches.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        covers(self.as_str(), other.as_str())
    }
}

/// Returns `true` if a pattern matches all that another pattern, or a subject, stands for.
fn covers(pattern: &str, other: &str) -> bool {
    let (mut pattern, mut other) = (pattern.split('.'), other.split('.'));
    loop {
        match (pattern.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(part)) if part != ">" => {}
            (Some(literal), Some(part)) if literal == part => {}
            _ => return false,
        }
    }
}

fn check_bucket(text: &str) -> Result<(), NameProblem> {
    check_store_name("bucket", text)
}

fn check_store(text: &str) -> Result<(), NameProblem> {
    check_store_name("object store", text)
}

fn check_store_name(kind: &'static str, text: &str) -> Result<(), NameProblem> {
    check_length(kind, text, STORE_MAX)?;
    let allows = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    check_characters(kind, text, "letters, digits, `-` and `_`", allows)?;
    if subject::is_own_bucket(text) { Err(reserved(kind, text, "pcluster")) } else { Ok(()) }
}

fn check_key(text: &str) -> Result<(), NameProblem> {
    check_length("key", text, NAME_MAX)?;
    check_key_characters("key", text)?;
    check_parts("key", text)
}

fn check_key_prefix(text: &str) -> Result<(), NameProblem> {
    const KIND: &str = "prefix of keys";
    if text.is_empty() {
        return Ok(());
    }
    check_length(KIND, text, NAME_MAX)?;
    check_key_characters(KIND, text)?;
    check_parts(KIND, text.strip_suffix('.').unwrap_or(text))
}

fn check_key_characters(kind: &'static str, text: &str) -> Result<(), NameProblem> {
    let allows = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/' | '_' | '=' | '.');
    check_characters(kind, text, "letters, digits, `-`, `/`, `_`, `=` and `.`", allows)?;
    // The convention of key-value buckets.
    if text.starts_with("_kv") { Err(reserved(kind, text, "NATS")) } else { Ok(()) }
}

fn check_object(text: &str) -> Result<(), NameProblem> {
    check_length("name of an object", text, NAME_MAX)
}

fn check_subject(text: &str) -> Result<(), NameProblem> {
    const KIND: &str = "subject";
    check_subject_text(KIND, text)?;
    if text.contains(['*', '>']) {
        return Err(wildcard(KIND, text, "a message has one subject, and a subject has none"));
    }
    check_first_part(KIND, text)
}

fn check_pattern(text: &str) -> Result<(), NameProblem> {
    const KIND: &str = "pattern of subjects";
    check_subject_text(KIND, text)?;
    if text.starts_with(['*', '>']) {
        return Err(wildcard(KIND, text, "the first part must be a word, as in `alerts.>`"));
    }
    let mut parts = text.split('.').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        if part.contains(['*', '>']) && part != "*" && !(part == ">" && is_last) {
            return Err(wildcard(KIND, text, "`*` must be a whole part, and `>` the last one"));
        }
    }
    check_first_part(KIND, text)
}

fn check_subject_text(kind: &'static str, text: &str) -> Result<(), NameProblem> {
    check_length(kind, text, NAME_MAX)?;
    // The server allows other scripts. Clients disagree on which characters of them are spaces.
    check_characters(kind, text, "the visible characters of ASCII", |c| c.is_ascii_graphic())?;
    check_parts(kind, text)
}

fn check_first_part(kind: &'static str, text: &str) -> Result<(), NameProblem> {
    let first = text.split('.').next().unwrap_or(text);
    if subject::is_own(first) {
        return Err(reserved(kind, text, "pcluster"));
    }
    if subject::is_of_nats(first) { Err(reserved(kind, text, "NATS")) } else { Ok(()) }
}

fn check_length(kind: &'static str, text: &str, max: usize) -> Result<(), NameProblem> {
    match text.len() {
        0 => Err(NameProblem::Empty(kind)),
        len if len > max => Err(NameProblem::TooLong { kind, name: quoted(text), len, max }),
        _ => Ok(()),
    }
}

fn check_characters(
    kind: &'static str,
    text: &str,
    allowed: &'static str,
    allows: impl Fn(char) -> bool,
) -> Result<(), NameProblem> {
    match text.chars().find(|&character| !allows(character)) {
        Some(found) => Err(NameProblem::Character { kind, name: quoted(text), found, allowed }),
        None => Ok(()),
    }
}

fn check_parts(kind: &'static str, text: &str) -> Result<(), NameProblem> {
    if text.split('.').any(str::is_empty) { Err(NameProblem::EmptyPart { kind, name: quoted(text) }) } else { Ok(()) }
}

fn wildcard(kind: &'static str, text: &str, rule: &'static str) -> NameProblem {
    NameProblem::Wildcard { kind, name: quoted(text), rule }
}

fn reserved(kind: &'static str, text: &str, owner: &'static str) -> NameProblem {
    NameProblem::Reserved { kind, name: quoted(text), owner }
}

#[cfg(test)]
mod tests;
