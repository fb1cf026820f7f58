//! The queued message that stored messages are made of.

use crate::held::HeldSince;
use crate::subject::Lane;

/// The queued message that stored messages are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// Its place in the work stream.
    pub(crate) sequence: u64,
    /// Since when the server waits for its acknowledgement.
    pub(crate) held: &'a HeldSince,
    /// The lane that it came by.
    pub(crate) lane: Lane,
}
