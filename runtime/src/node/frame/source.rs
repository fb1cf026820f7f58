//! Where something that a node stores comes from.

use crate::held::HeldSince;
use crate::subject::Lane;

/// The queued message that something is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// Its place in the work stream.
    pub(crate) sequence: u64,
    /// Since when it is held.
    pub(crate) held: &'a HeldSince,
    /// The lane that it came by.
    pub(crate) lane: Lane,
}
