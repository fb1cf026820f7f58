//! How long results and dead letters are kept.

use std::time::Duration;

use super::{ChainError, Queue, Reader, bounds, default, manifest};

/// How long results and dead letters are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The greatest age of a message.
    pub max_age: Duration,
    /// The room in bytes for results, and as much for dead letters. The server reserves it. `None` sets no limit and reserves
    /// nothing.
    pub max_bytes: Option<u64>,
}

impl Retention {
    pub(super) fn new(reader: &Reader, raw: &manifest::Results, queue: &Queue) -> Result<Self, ChainError> {
        let needs = Queue::needs(queue.ack_wait);
        let default = default::RESULTS_MAX_AGE.max(needs);
        let mut max_age = bounds::MAX_AGE.duration(reader, raw.max_age.as_ref(), default)?;
        if max_age < needs && reader.is_deployed {
            max_age = needs;
        } else if max_age < needs {
            let (ack_wait, needs) = (humantime::format_duration(queue.ack_wait), humantime::format_duration(needs));
            let problem = format!(
                "must be at least \"{needs}\" with an `ack_wait` of \"{ack_wait}\" below `[queue]`: a removed \
                 result could be stored a second time, because the server forgets its message id"
            );
            return Err(reader.error("max_age", problem));
        }
        let max_bytes = raw.max_bytes.as_ref().map(|text| bounds::MAX_BYTES.size(reader, text)).transpose()?;
        Ok(Self { max_age, max_bytes })
    }
}
