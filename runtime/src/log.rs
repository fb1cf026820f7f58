//! A log line of a task. Nodes store it and clients read it.

use serde::{Deserialize, Serialize};

/// A log line, stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogRecord {
    /// The time, as RFC 3339 in UTC.
    pub time: String,
    /// The chain.
    pub chain: String,
    /// The revision's number.
    pub revision: u64,
    /// The stage.
    pub stage: String,
    /// The level in lower case.
    pub level: String,
    /// The node.
    pub node: String,
    /// The id of the item. Empty if the line belongs to no item.
    pub item: String,
    /// The line.
    pub message: String,
}
