//! Items that wait for others to share a message.

use bytes::{Bytes, BytesMut};

use crate::name::Topic;

/// The items of one message.
#[derive(Default)]
pub(super) struct Pack {
    payload: BytesMut,
    items: u64,
    /// The topic of all items.
    topic: Option<Topic>,
    /// The number of packs before this one.
    number: u64,
}

impl Pack {
    /// Adds an item, whose topic is that of the others. Returns the number of the pack if the item is the first.
    pub(super) fn add(&mut self, item: &Bytes, topic: Option<Topic>) -> Option<u64> {
        self.payload.extend_from_slice(item);
        self.items += 1;
        self.topic = topic;
        (self.items == 1).then_some(self.number)
    }

    /// Returns `true` if the pack has reached a limit. It may have at most `bytes` bytes. An empty pack is not full.
    pub(super) fn is_full(&self, items: usize, bytes: usize) -> bool {
        self.items > 0 && (self.items >= items as u64 || self.payload.len() > bytes)
    }

    /// Returns `true` if the pack takes items of this topic.
    pub(super) fn takes(&self, topic: Option<&Topic>) -> bool {
        self.items == 0 || self.topic.as_ref() == topic
    }

    /// Returns `true` if the pack has this number, and has items.
    pub(super) fn is(&self, number: Option<u64>) -> bool {
        self.items > 0 && number.is_none_or(|number| number == self.number)
    }

    /// Returns the size of the pack in bytes.
    pub(super) fn len(&self) -> usize {
        self.payload.len()
    }

    /// Takes out the items and their topic, and begins the next pack. `None` if there are no items.
    pub(super) fn take(&mut self) -> Option<(Bytes, u64, Option<Topic>)> {
        if self.items == 0 {
            return None;
        }
        self.number += 1;
        Some((self.payload.split().freeze(), std::mem::take(&mut self.items), self.topic.take()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_full_by_items_or_bytes_and_the_next_is_another() {
        let mut pack = Pack::default();
        assert!(!pack.is_full(1, 0) && !pack.is(None) && pack.take().is_none());
        let topic: Topic = "a".parse().expect("a topic");
        assert!(pack.takes(Some(&topic)) && pack.takes(None));
        assert_eq!(pack.add(&Bytes::from_static(b"ab"), Some(topic.clone())), Some(0));
        assert!(pack.takes(Some(&topic)) && !pack.takes(None));
        assert_eq!(pack.add(&Bytes::from_static(b"c"), Some(topic.clone())), None);
        assert!(pack.is_full(2, 100) && pack.is_full(100, 2) && !pack.is_full(3, 3));
        assert!(pack.is(Some(0)) && !pack.is(Some(1)));
        assert_eq!(pack.take(), Some((Bytes::from_static(b"abc"), 2, Some(topic))));
        assert_eq!(pack.add(&Bytes::from_static(b"d"), None), Some(1));
    }
}
