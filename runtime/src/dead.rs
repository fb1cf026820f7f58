//! The failure in a dead letter. Nodes write it and clients read it.

pub mod calls;

use serde::{Deserialize, Serialize};

/// The kind of a failure, as a word in dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The task has returned an error.
    Error,
    /// The guest trapped or panicked.
    Trap,
    /// The item took longer than its timeout.
    Timeout,
    /// The guest wanted more memory than its limit.
    Memory,
    /// An output is not valid or exceeds a limit.
    Output,
    /// The payload is not in the chain's format.
    Undecodable,
    /// The node could not run the item.
    Node,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Error, Self::Trap, Self::Timeout, Self::Memory, Self::Output, Self::Undecodable, Self::Node];

    /// Returns the kind of this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the word of the kind.
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

/// A failed attempt. The header `Pcluster-History` lists them as a JSON array, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of the attempt, from 1.
    pub attempt: u64,
    /// The node that made the attempt. `None` if that node died and is not known.
    pub node: Option<String>,
    /// The incarnation of the node, for a lost attempt. `None` if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// The time at which the attempt ended, as RFC 3339 in UTC.
    pub time: String,
    /// The kind of failure in one word.
    pub failure: String,
    /// The reason in words.
    pub reason: String,
}

/// Writes attempts as the value of the header. JSON escapes line breaks, so the value is one line.
pub fn to_header(attempts: &[Attempt]) -> String {
    serde_json::to_string(attempts).unwrap_or_else(|_| "[]".to_owned())
}

/// Reads the value of the header. Returns no attempts if it cannot be read, for example because it was cut to make room.
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
