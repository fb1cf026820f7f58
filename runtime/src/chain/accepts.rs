//! The schema that fed items must fit.

use std::sync::Arc;

use crate::contract::{Refused, Schema};

/// The schema that fed items must fit.
#[derive(Debug, Clone)]
pub(crate) struct Accepts {
    written: serde_json::Value,
    schema: Arc<Schema>,
}

impl PartialEq for Accepts {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Accepts {
    /// Reads a schema. The error says what is wrong with it.
    pub(crate) fn new(written: &serde_json::Value) -> Result<Self, String> {
        let schema = Schema::parse(written.to_string().as_bytes()).map_err(|error| format!("the schema is {error}"))?;
        Ok(Self { written: written.clone(), schema: Arc::new(schema) })
    }

    /// Holds the bytes of an item against the schema. What cannot be decided passes.
    pub(crate) fn check(&self, item: &[u8]) -> Result<(), Refused> {
        // What is no item is told where it runs.
        let Some(value) = crate::frame::cbor::value(item) else { return Ok(()) };
        self.schema.validate(&value)
    }
}
