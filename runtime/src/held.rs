//! How long the server has waited for an acknowledgement.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// A time shortly before the server began to wait for an acknowledgement.
///
/// It is the time when the message was requested, or when an answered progress ack was sent. So a time limit that is counted from
/// here ends early and never late, even if this process was paused or cut off.
#[derive(Debug)]
pub struct HeldSince(Mutex<Instant>);

impl HeldSince {
    /// Creates the value. The server has waited since this moment or a later one.
    pub fn new(moment: Instant) -> Self {
        Self(Mutex::new(moment))
    }

    /// Moves the moment later. A moment before the known one is ignored.
    pub fn renew(&self, moment: Instant) {
        let mut since = lock(&self.0);
        *since = moment.max(*since);
    }

    /// Returns the longest time that the server may have waited.
    pub fn age(&self) -> Duration {
        lock(&self.0).elapsed()
    }
}
