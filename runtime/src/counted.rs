//! Counts of what there is at the moment.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counts one more until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<C: Deref<Target = AtomicU64>>(C);

impl<C: Deref<Target = AtomicU64>> Counted<C> {
    /// Counts one more.
    pub(crate) fn new(count: C) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl<C: Deref<Target = AtomicU64>> Drop for Counted<C> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
