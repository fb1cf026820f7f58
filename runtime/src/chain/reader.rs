//! Reads durations and sizes as people write them.

use std::time::Duration;

use super::ChainError;

/// Reads the values of one table, and names the table in errors.
pub(super) struct Reader {
    pub(super) place: String,
    /// `true` if the manifest was deployed before. Bounds may be newer.
    pub(super) is_deployed: bool,
}

impl Reader {
    pub(super) fn error(&self, key: &'static str, problem: impl Into<String>) -> ChainError {
        ChainError::Value { place: self.place.clone(), key, problem: problem.into() }
    }

    pub(super) fn duration(&self, key: &'static str, text: &str) -> Result<Duration, ChainError> {
        humantime::parse_duration(text).map_err(|_| {
            self.error(key, format!("`{text}` is not a duration; write one like \"500ms\", \"30s\" or \"5m\""))
        })
    }

    pub(super) fn size(&self, key: &'static str, text: &str) -> Result<u64, ChainError> {
        let is_number = text.trim_start().starts_with(|first: char| first.is_ascii_digit() || first == '.');
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if is_number => Ok(size.as_u64()),
            _ => Err(self.error(key, format!("`{text}` is not a size; write one like \"64MiB\" or \"1GiB\""))),
        }
    }
}
