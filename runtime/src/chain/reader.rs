//! Reads durations and sizes as people write them.

use std::time::Duration;

use super::{ChainError, Queue};

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

    /// Returns a time that must be at least [`Queue::needs`]. A deployed one is raised to that.
    ///
    /// `why` completes the sentence "must be at least … with an `ack_wait` of …".
    pub(super) fn outlasting(
        &self,
        key: &'static str,
        time: Duration,
        ack_wait: Duration,
        why: &str,
    ) -> Result<Duration, ChainError> {
        let needs = Queue::needs(ack_wait);
        if time < needs && !self.is_deployed {
            let (ack_wait, needs) = (humantime::format_duration(ack_wait), humantime::format_duration(needs));
            let problem = format!("must be at least \"{needs}\" with an `ack_wait` of \"{ack_wait}\"{why}");
            return Err(self.error(key, problem));
        }
        Ok(time.max(needs))
    }

    pub(super) fn size(&self, key: &'static str, text: &str) -> Result<u64, ChainError> {
        let is_number = text.trim_start().starts_with(|first: char| first.is_ascii_digit() || first == '.');
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if is_number => Ok(size.as_u64()),
            _ => Err(self.error(key, format!("`{text}` is not a size; write one like \"64MiB\" or \"1GiB\""))),
        }
    }
}
