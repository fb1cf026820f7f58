//! The memory of a node for the bodies of responses and the bytes of objects.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes of a body that need no reservation: what each request in flight may take anyway.
pub(crate) const SMALL: usize = 64 << 10;
/// The bytes of larger bodies of a node together, and thus the most of one.
pub(crate) const NODE_MAX: usize = 256 << 20;
/// The unit of reservations in bytes.
const UNIT: usize = 1 << 10;

/// The memory of a node for bodies that are not small.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    /// What one stage may take of it. `None` for all.
    own: Option<Arc<Semaphore>>,
}

/// A reservation. Given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    held: Option<OwnedSemaphorePermit>,
    own: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Creates the memory of a node.
    pub(crate) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(NODE_MAX / UNIT)), own: None }
    }

    /// Returns the same memory for a stage, which takes no more than half of it. A larger body takes it alone.
    pub(crate) fn share(&self) -> Self {
        Self { free: Arc::clone(&self.free), own: Some(Arc::new(Semaphore::new(NODE_MAX / UNIT / 2))) }
    }

    /// Waits for this many bytes, or for all that there are.
    ///
    /// A body reserves all that it may need at once: bodies that grow step by step could each wait for what another holds.
    pub(crate) async fn reserve(&self, bytes: usize) -> Held {
        let units = bytes.div_ceil(UNIT).min(NODE_MAX / UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let own = match &self.own {
            Some(own) => {
                let most = u32::try_from(NODE_MAX / UNIT / 2).unwrap_or(u32::MAX);
                Arc::clone(own).acquire_many_owned(units.min(most)).await.ok()
            }
            None => None,
        };
        Held { held: Arc::clone(&self.free).acquire_many_owned(units).await.ok(), own }
    }
}

impl Held {
    /// Returns `true` if nothing is reserved.
    pub(crate) const fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// Returns bytes that keep the reservation for as long as they are held.
    pub(crate) fn keep(self, bytes: Bytes) -> Bytes {
        if self.is_empty() { bytes } else { Bytes::from_owner(Kept { bytes, _held: self }) }
    }

    /// Gives back what is reserved beyond this many bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        for held in [&mut self.held, &mut self.own].into_iter().flatten() {
            let surplus = held.num_permits().saturating_sub(bytes.div_ceil(UNIT));
            drop(held.split(surplus));
        }
    }
}

/// Bytes with their reservation.
struct Kept {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_waits_for_memory_and_gives_back_what_it_does_not_need() {
        let memory = Memory::new();
        let mut all = memory.reserve(usize::MAX).await;
        assert!(memory.reserve(1).now_or_never().is_none());
        all.shrink(NODE_MAX - UNIT);
        let one = memory.reserve(1).now_or_never().expect("what was given back");
        assert!(!one.is_empty() && memory.reserve(1).now_or_never().is_none());
        drop(one);
        assert!(memory.reserve(UNIT).now_or_never().is_some());
        drop(all);
        let (one, other) = (memory.share(), memory.share());
        let mut half = one.reserve(NODE_MAX / 2).now_or_never().expect("half of it");
        assert!(one.reserve(UNIT).now_or_never().is_none());
        assert!(other.reserve(NODE_MAX / 2).now_or_never().is_some(), "the other half is for others");
        half.shrink(UNIT);
        assert!(one.reserve(UNIT).now_or_never().is_some());
    }
}
