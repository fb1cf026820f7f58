//! What a task gives out: items back to back in one buffer, as a frame holds them.

use bytes::Bytes;

use super::limits::{GATHER_BYTES, GATHER_ITEMS};

/// Items in the order in which they were given out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs {
    payload: Vec<u8>,
    /// Where each item ends.
    ends: Vec<usize>,
}

impl Outputs {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Their bytes together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// Adds an item, one CBOR data item.
    pub fn push(&mut self, item: &[u8]) {
        self.payload.extend_from_slice(item);
        self.ends.push(self.payload.len());
    }

    /// Adds all of these.
    pub fn append(&mut self, more: &Self) {
        let start = self.payload.len();
        self.payload.extend_from_slice(&more.payload);
        self.ends.extend(more.ends.iter().map(|end| start + end));
    }

    /// Whether more should not be held in memory.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.payload.len() >= GATHER_BYTES || self.ends.len() >= GATHER_ITEMS
    }

    /// The size of each item.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(|(end, start)| end - start)
    }

    /// The items, each of its own.
    pub fn items(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(|(end, start)| &self.payload[start..*end])
    }

    /// All items back to back, without copying them.
    #[must_use]
    pub fn into_payload(self) -> Bytes {
        self.payload.into()
    }

    /// All items back to back.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_went_in() {
        let mut outputs = Outputs::default();
        outputs.push(b"\x01");
        outputs.push(b"\x61a");
        assert_eq!(outputs.items().collect::<Vec<_>>(), [b"\x01".as_slice(), b"\x61a"]);
        assert_eq!(outputs.sizes().collect::<Vec<_>>(), [1, 2]);
        assert_eq!((outputs.len(), outputs.bytes()), (2, 3));
        let mut twice = outputs.clone();
        twice.append(&outputs);
        assert_eq!(twice.sizes().collect::<Vec<_>>(), [1, 2, 1, 2]);
        assert_eq!(outputs.into_payload(), b"\x01\x61a".as_slice());
    }
}
