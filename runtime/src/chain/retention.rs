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
        let default = default::RESULTS_MAX_AGE.max(Queue::needs(queue.ack_wait));
        let max_age = bounds::MAX_AGE.duration(reader, raw.max_age.as_ref(), default)?;
        let why = " below `[queue]`: a removed result could be stored a second time, because the server forgets its message id";
        let max_age = reader.outlasting("max_age", max_age, queue.ack_wait, why)?;
        let max_bytes = raw.max_bytes.as_ref().map(|text| bounds::MAX_BYTES.size(reader, text)).transpose()?;
        Ok(Self { max_age, max_bytes })
    }
}
