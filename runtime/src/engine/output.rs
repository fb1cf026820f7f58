//! What tasks give out: items back to back in one buffer, as a frame holds them.

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
    pub fn append(&mut self, more: Slice<'_>) {
        let start = self.payload.len();
        self.payload.extend_from_slice(more.payload);
        self.ends.extend(more.ends.iter().map(|end| start + end - more.start));
    }

    /// Drops all but this many.
    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.payload.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Takes out those from this one on.
    #[must_use]
    pub fn split_off(&mut self, from: usize) -> Self {
        let mut rest = Self::default();
        rest.append(self.slice(from..self.len()));
        self.truncate(from);
        rest
    }

    /// Some of them.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Slice<'_> {
        let place = |number: usize| number.checked_sub(1).map_or(0, |before| self.ends[before]);
        let start = place(range.start);
        Slice { payload: &self.payload[start..place(range.end)], ends: &self.ends[range], start }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Slice<'_> {
        self.slice(0..self.len())
    }

    /// All items back to back, without copying them.
    #[must_use]
    pub fn into_payload(self) -> Bytes {
        self.payload.into()
    }

    /// The items, which share their bytes.
    #[must_use]
    pub fn into_items(self) -> Vec<Bytes> {
        let payload = Bytes::from(self.payload);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(|(end, start)| payload.slice(start..*end)).collect()
    }
}

/// Some items of [`Outputs`].
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    payload: &'a [u8],
    ends: &'a [usize],
    /// Where the payload begins among all.
    start: usize,
}

impl<'a> Slice<'a> {
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

    /// All items back to back.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Some of the items back to back.
    #[must_use]
    pub fn part(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        let place = |number: usize| number.checked_sub(1).map_or(0, |before| self.ends[before] - self.start);
        &self.payload[place(range.start)..place(range.end)]
    }

    /// Whether more should not be held in memory.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.payload.len() >= GATHER_BYTES || self.ends.len() >= GATHER_ITEMS
    }

    /// The items, each of its own.
    pub fn items(self) -> impl Iterator<Item = &'a [u8]> {
        let starts = std::iter::once(self.start).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(move |(end, start)| &self.payload[start - self.start..end - self.start])
    }
}

/// What the items of a frame have given that ran one after the other.
#[derive(Debug, Default)]
pub struct FrameOutputs {
    outputs: Outputs,
    /// The position of each item that has ended well, and how many outputs there were then.
    ended: Vec<(usize, usize)>,
}

impl FrameOutputs {
    /// None yet, and room for about so many outputs of so many bytes together.
    #[must_use]
    pub fn with_capacity(items: usize, bytes: usize) -> Self {
        let outputs = Outputs { payload: Vec::with_capacity(bytes), ends: Vec::with_capacity(items) };
        Self { outputs, ended: Vec::with_capacity(items) }
    }

    /// Adds an output of the item that runs.
    pub(super) fn push(&mut self, item: &[u8]) {
        self.outputs.push(item);
    }

    /// Adds outputs of the item that runs.
    pub fn append(&mut self, outputs: Slice<'_>) {
        self.outputs.append(outputs);
    }

    /// The item at this position has ended well: the outputs since the one before are its own.
    pub fn end(&mut self, position: usize) {
        self.ended.push((position, self.outputs.len()));
    }

    /// What the item has given that has not ended.
    #[must_use]
    pub fn open(&self) -> Slice<'_> {
        self.outputs.slice(self.begin()..self.outputs.len())
    }

    /// Takes out what the item has given that has not ended.
    pub fn take_open(&mut self) -> Outputs {
        let begin = self.begin();
        if begin == 0 { std::mem::take(&mut self.outputs) } else { self.outputs.split_off(begin) }
    }

    /// Forgets what the item has given that has not ended.
    pub fn drop_open(&mut self) {
        self.outputs.truncate(self.begin());
    }

    /// The bytes of all outputs.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.outputs.bytes()
    }

    /// How many items have ended.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// What each item has given that has ended, with its position.
    pub fn items(&self) -> impl Iterator<Item = (usize, Slice<'_>)> {
        let begins = std::iter::once(0).chain(self.ended.iter().map(|(_, end)| *end));
        self.ended.iter().zip(begins).map(|((position, end), begin)| (*position, self.outputs.slice(begin..*end)))
    }

    /// Returns each output of the items that have ended, with the item's position. The outputs share their bytes.
    pub fn into_items(mut self) -> impl Iterator<Item = (usize, Bytes)> {
        self.drop_open();
        let begins = std::iter::once(0).chain(self.ended.iter().map(|(_, end)| *end));
        let positions: Vec<usize> = (self.ended.iter().zip(begins))
            .flat_map(|((position, end), begin)| std::iter::repeat_n(*position, end - begin))
            .collect();
        positions.into_iter().zip(self.outputs.into_items())
    }

    /// All outputs, if no item is open.
    #[must_use]
    pub fn into_outputs(mut self) -> Outputs {
        self.drop_open();
        self.outputs
    }

    /// Where the outputs of the item begin that has not ended.
    fn begin(&self) -> usize {
        self.ended.last().map_or(0, |(_, end)| *end)
    }
}

/// Outputs of one item.
impl From<(usize, Outputs)> for FrameOutputs {
    fn from((position, outputs): (usize, Outputs)) -> Self {
        let ended = vec![(position, outputs.len())];
        Self { outputs, ended }
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
        assert_eq!(outputs.all().items().collect::<Vec<_>>(), [b"\x01".as_slice(), b"\x61a"]);
        assert_eq!((outputs.len(), outputs.bytes()), (2, 3));
        let mut twice = outputs.clone();
        twice.append(outputs.slice(1..2));
        assert_eq!(twice.slice(1..3).items().collect::<Vec<_>>(), [b"\x61a", b"\x61a"]);
        assert_eq!(twice.split_off(1).into_items(), [b"\x61a".as_slice(), b"\x61a"]);
        assert_eq!(twice.into_payload(), b"\x01".as_slice());
    }

    #[test]
    fn what_an_item_gave_that_did_not_end_well_is_forgotten() {
        let mut given = FrameOutputs::default();
        given.push(b"\x01");
        given.push(b"\x02");
        given.end(4);
        given.end(5);
        given.push(b"\x03");
        assert_eq!(given.open().payload(), b"\x03");
        given.drop_open();
        given.push(b"\x04");
        given.end(7);
        let items: Vec<(usize, &[u8])> = given.items().map(|(position, slice)| (position, slice.payload())).collect();
        assert_eq!(items, [(4, b"\x01\x02".as_slice()), (5, b""), (7, b"\x04")]);
        let copy = FrameOutputs { outputs: given.outputs.clone(), ended: given.ended.clone() };
        let items: Vec<(usize, u8)> = copy.into_items().map(|(position, bytes)| (position, bytes[0])).collect();
        assert_eq!(items, [(4, 1), (4, 2), (7, 4)]);
        given.push(b"\x05");
        assert_eq!(given.take_open().into_payload(), b"\x05".as_slice());
        assert_eq!(given.into_outputs().into_payload(), b"\x01\x02\x04".as_slice());
    }
}
