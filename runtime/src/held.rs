//! Since when the server waits for an acknowledgement.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The last moment at which the server certainly began to wait for an acknowledgement.
///
/// It is a moment before the server did: when the message was asked for, or when a renewal was sent that the server has
/// answered. So what is counted from here ends early and never late, also after this process was paused or cut off.
#[derive(Debug)]
pub struct HeldSince(Mutex<Instant>);

impl HeldSince {
    /// The server waits since this moment or a later one.
    #[must_use]
    pub fn new(moment: Instant) -> Self {
        Self(Mutex::new(moment))
    }

    /// Takes note that the server waits since this moment or a later one, if it was not known to wait so long.
    pub fn renew(&self, moment: Instant) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *since = moment.max(*since);
    }

    /// How long the server may have waited.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}
