//! The table `[queue]`.

use serde::{Deserialize, Serialize};

/// `[queue]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Queue {
    /// The most frames in the queue of each stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How soon other nodes receive the items of a dead node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_wait: Option<String>,
    /// How long the server remembers message ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_window: Option<String>,
    /// The bytes from which on an item goes to the object store, as CBOR. Without it, only an item that no message takes does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large: Option<String>,
    /// The most bytes of all items in the object store. Without it there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large_bytes: Option<String>,
}
