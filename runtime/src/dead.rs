//! What a dead letter tells of its failure: what nodes write and clients read.

use serde::{Deserialize, Serialize};

/// A kind of failure, in the word that dead letters carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The task said so.
    Error,
    /// The guest did what it may not, or panicked.
    Trap,
    /// It took too long.
    Timeout,
    /// It wanted more memory than it may have.
    Memory,
    /// It gave out too much, or what is not an item.
    Output,
    /// The payload is not in the chain's format.
    Undecodable,
    /// The node could not run it.
    Node,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Error, Self::Trap, Self::Timeout, Self::Memory, Self::Output, Self::Undecodable, Self::Node];

    /// The kind with this word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Undecodable => "undecodable",
            Self::Node => "node",
        }
    }
}

/// An attempt that failed. A letter has them in the header `Pcluster-History`, as one JSON array, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// Which one, from 1.
    pub attempt: u64,
    /// The node that made it; none if that died, and nobody knows which it was.
    pub node: Option<String>,
    /// Of an attempt that ended without a word: which run of the node's program made it, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// When it ended, as RFC 3339 in UTC.
    pub time: String,
    /// The kind of failure in one word.
    pub failure: String,
    /// The reason in words.
    pub reason: String,
}

/// Attempts as the header has them. JSON writes line breaks as two characters, so it is one line.
#[must_use]
pub fn to_header(attempts: &[Attempt]) -> String {
    serde_json::to_string(attempts).unwrap_or_else(|_| "[]".to_owned())
}

/// Reads the header; none if it cannot be read, as one that was cut to make room.
#[must_use]
pub fn from_header(header: &str) -> Vec<Attempt> {
    serde_json::from_str(header).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_survive_their_header() {
        let header = concat!(
            r#"[{"attempt":1,"node":null,"time":"2026-01-01T00:00:00.123Z","failure":"node","reason":"it died"},"#,
            r#"{"attempt":2,"node":"a","time":"2026-01-01T00:00:01.5Z","failure":"trap","reason":"a\nb\\c"}]"#
        );
        let attempts = from_header(header);
        assert_eq!(attempts.len(), 2);
        assert_eq!((attempts[0].node.as_deref(), attempts[1].node.as_deref()), (None, Some("a")));
        assert_eq!(attempts[1].reason, "a\nb\\c");
        assert_eq!(to_header(&attempts), header);
        assert!(!header.contains('\n'));
    }

    #[test]
    fn a_header_that_was_cut_tells_of_no_attempts() {
        assert!(from_header(r#"[{"attempt":1,"no"#).is_empty());
    }
}
