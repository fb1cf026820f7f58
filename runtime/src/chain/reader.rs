//! Reading values as people write them.

use std::time::Duration;

use super::ChainError;

/// Reads the values of one table and remembers where it is.
pub(super) struct Reader {
    pub(super) place: String,
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

    /// A duration that must not be zero.
    pub(super) fn some_duration(
        &self,
        key: &'static str,
        text: Option<&String>,
        default: Duration,
    ) -> Result<Duration, ChainError> {
        let Some(text) = text else { return Ok(default) };
        match self.duration(key, text)? {
            Duration::ZERO => Err(self.error(key, "must be more than zero")),
            duration => Ok(duration),
        }
    }

    pub(super) fn size(&self, key: &'static str, text: Option<&String>, default: u64) -> Result<u64, ChainError> {
        let Some(text) = text else { return Ok(default) };
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
            Ok(_) => Err(self.error(key, "must be more than zero")),
            Err(_) => Err(self.error(key, format!("`{text}` is not a size; write one like \"64MiB\" or \"1GiB\""))),
        }
    }

    pub(super) fn count<N: PartialEq + Default + Copy>(
        &self,
        key: &'static str,
        value: Option<N>,
        default: N,
    ) -> Result<N, ChainError> {
        match value {
            Some(zero) if zero == N::default() => Err(self.error(key, "must be at least 1")),
            Some(count) => Ok(count),
            None => Ok(default),
        }
    }
}
