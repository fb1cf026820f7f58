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
    /// What they tell of their way through the chain.
    pub(crate) records: Records,
}

/// What results and dead letters tell of their way through the chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Records {
    /// Nothing.
    #[default]
    Off,
    /// Stages, nodes, attempts and times.
    Times,
    /// Sizes, times of calls, exit statuses and the last lines of failed attempts too.
    All,
}

impl Records {
    /// Returns `true` if they tell anything.
    pub(crate) fn are_on(self) -> bool {
        self != Self::Off
    }

    fn new(reader: &Reader, raw: Option<&manifest::Records>) -> Result<Self, ChainError> {
        let wrong = |found: &str| {
            let problem = format!("{found} is none of its values; write `false`, \"times\" or \"all\"");
            Err(reader.error("records", problem))
        };
        match raw {
            None => Ok(Self::default()),
            Some(manifest::Records::Switch(false)) => Ok(Self::Off),
            Some(manifest::Records::Switch(true)) => wrong("`true`"),
            Some(manifest::Records::Kind(kind)) => match kind.as_str() {
                "times" => Ok(Self::Times),
                "all" => Ok(Self::All),
                other => wrong(&format!("`{other}`")),
            },
        }
    }
}

impl Retention {
    pub(super) fn new(reader: &Reader, raw: &manifest::Results, queue: &Queue) -> Result<Self, ChainError> {
        let default = default::RESULTS_MAX_AGE.max(Queue::needs(queue.ack_wait));
        let max_age = bounds::MAX_AGE.duration(reader, raw.max_age.as_ref(), default)?;
        let why = " below `[queue]`: a removed result could be stored a second time, because the server forgets its message id";
        let max_age = reader.outlasting("max_age", max_age, queue.ack_wait, why)?;
        let max_bytes = raw.max_bytes.as_ref().map(|text| bounds::MAX_BYTES.size(reader, text)).transpose()?;
        Ok(Self { max_age, max_bytes, records: Records::new(reader, raw.records.as_ref())? })
    }
}
