//! `schema = { … }` of `[[stage]]`.

use serde::{Deserialize, Serialize};

/// `schema = { … }`: what a stage takes and gives, in place of what its plugin says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StageSchemas {
    /// A JSON Schema of the items that it takes, or the path of its file, relative to the manifest. A deploy writes the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// The same for each item that it gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
}
