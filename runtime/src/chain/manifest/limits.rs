//! `limits = { … }` of `[stage.allow]`.

use serde::{Deserialize, Serialize};

/// `limits = { … }` of `[stage.allow]`: the limits of the calls of one item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CallLimits {
    /// The most calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// The most bytes sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// The most bytes received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// The most bytes of one response body after it is decompressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}
