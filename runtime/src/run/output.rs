//! The outputs of tasks: items back to back in one buffer, as in a frame.

use bytes::Bytes;

use super::item::{ItemBytes, ItemFile};
use crate::frame::large::Reference;
use crate::name::Topic;

/// The most outputs of one item.
pub const MAX_OUTPUTS: usize = 1_000_000;
/// The most bytes of all outputs of one item.
pub const MAX_OUTPUT_BYTES: u64 = 1 << 30;
/// A running item streams its outputs once they have this many bytes.
pub const GATHER_BYTES: usize = 4 << 20;
/// A running item streams its outputs once there are this many.
pub const GATHER_ITEMS: usize = 50_000;

/// Items in the order in which a task returned them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs {
    payload: Vec<u8>,
    /// The end of each item in the payload.
    ends: Vec<usize>,
    /// The numbers of the items that are references to large items, rising.
    large: Vec<usize>,
    /// The items that are in files, by their numbers, rising. They have no bytes in the payload.
    files: Vec<(usize, ItemFile)>,
    /// The items that have another topic than the item that they come of, by their numbers, rising.
    topics: Vec<(usize, NewTopic)>,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given<'a> {
    /// One CBOR data item.
    Whole(&'a [u8]),
    /// A reference to an item whose bytes are in the chain's object store.
    Reference(&'a [u8]),
    /// An item in a file.
    File(&'a ItemFile),
}

/// The topic of an output that has another than its item. `None` if it has no topic.
pub(crate) type NewTopic = Option<Topic>;

impl Outputs {
    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns `true` if there are no items.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the size of all items in bytes, except those in files.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// Returns `true` if an item is in a file.
    pub fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Adds an item, which must be one CBOR data item.
    pub fn push(&mut self, item: &[u8]) {
        self.payload.extend_from_slice(item);
        self.ends.push(self.payload.len());
    }

    /// Adds a reference to an item whose bytes are in the chain's object store.
    pub fn push_large(&mut self, reference: &Reference) {
        self.large.push(self.ends.len());
        self.push(&reference.to_cbor());
    }

    /// Adds an item in a file.
    pub fn push_file(&mut self, file: ItemFile) {
        self.files.push((self.ends.len(), file));
        self.push(&[]);
    }

    /// Adds an item with another topic than that of the item that it comes of.
    pub(crate) fn push_to(&mut self, topic: NewTopic, item: &[u8]) {
        self.topics.push((self.ends.len(), topic));
        self.push(item);
    }

    /// Gives the last item another topic than that of the item that it comes of.
    pub(crate) fn send_last_to(&mut self, topic: NewTopic) {
        if let Some(last) = self.ends.len().checked_sub(1) {
            self.topics.push((last, topic));
        }
    }

    /// Adds several items.
    pub fn append(&mut self, more: Slice<'_>) {
        let (start, first) = (self.payload.len(), self.ends.len());
        self.files.extend(more.files.iter().map(|(number, file)| (first + number - more.first, file.clone())));
        self.large.extend(more.large().map(|number| first + number));
        self.topics.extend(more.topics.iter().map(|(number, topic)| (first + number - more.first, topic.clone())));
        self.payload.extend_from_slice(more.payload);
        self.ends.extend(more.ends.iter().map(|end| start + end - more.start));
    }

    /// Keeps the first `len` items.
    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.large.truncate(self.large.partition_point(|number| *number < len));
        self.files.truncate(self.files.partition_point(|(number, _)| *number < len));
        self.topics.truncate(self.topics.partition_point(|(number, _)| *number < len));
        self.payload.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Removes and returns the items from this number on.
    pub fn split_off(&mut self, from: usize) -> Self {
        let mut rest = Self::default();
        rest.append(self.slice(from..self.len()));
        self.truncate(from);
        rest
    }

    /// Returns some of the items.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Slice<'_> {
        let place = |number: usize| number.checked_sub(1).map_or(0, |before| self.ends[before]);
        let start = place(range.start);
        let within = |number: usize| self.large.partition_point(|each| *each < number);
        let large = &self.large[within(range.start)..within(range.end)];
        let in_file = |number: usize| self.files.partition_point(|(each, _)| *each < number);
        let files = &self.files[in_file(range.start)..in_file(range.end)];
        let has_topic = |number: usize| self.topics.partition_point(|(each, _)| *each < number);
        let topics = &self.topics[has_topic(range.start)..has_topic(range.end)];
        Slice {
            payload: &self.payload[start..place(range.end)],
            start,
            large,
            files,
            topics,
            first: range.start,
            ends: &self.ends[range],
        }
    }

    /// Returns all items.
    pub fn all(&self) -> Slice<'_> {
        self.slice(0..self.len())
    }

    /// Returns the items that have another topic than the item that they come of, by their numbers.
    pub(crate) fn topics(&self) -> &[(usize, NewTopic)] {
        &self.topics
    }

    /// Returns all items back to back, without a copy. Those in files are not among them.
    pub fn into_payload(self) -> Bytes {
        self.payload.into()
    }

    /// Returns the items. Those in memory share one buffer.
    pub fn into_items(self) -> Vec<ItemBytes> {
        let payload = Bytes::from(self.payload);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let whole = self.ends.iter().zip(starts).map(|(end, start)| payload.slice(start..*end).into());
        let mut items: Vec<ItemBytes> = whole.collect();
        for (number, file) in self.files {
            items[number] = ItemBytes::File(file);
        }
        items
    }
}

/// Some items of [`Outputs`].
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    payload: &'a [u8],
    ends: &'a [usize],
    /// Where the payload begins in the outputs.
    start: usize,
    /// The numbers of references, among all outputs.
    large: &'a [usize],
    /// The items in files, with their numbers among all outputs.
    files: &'a [(usize, ItemFile)],
    /// The items that have another topic, among all outputs.
    topics: &'a [(usize, NewTopic)],
    /// The number of the first item, among all outputs.
    first: usize,
}

impl<'a> Slice<'a> {
    /// Returns all items back to back. Those in files are not among them.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Returns some of the items back to back.
    pub fn part(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        let place = |number: usize| number.checked_sub(1).map_or(0, |before| self.ends[before] - self.start);
        &self.payload[place(range.start)..place(range.end)]
    }

    /// Returns the numbers of the items that are references to large items, from 0 in this slice.
    pub fn large(self) -> impl Iterator<Item = usize> {
        self.large.iter().map(move |number| number - self.first)
    }

    /// Returns `true` if an item is in a file.
    pub fn has_files(self) -> bool {
        !self.files.is_empty()
    }

    /// Returns `true` if any item has another topic than the item that it comes of.
    pub(crate) fn has_topics(self) -> bool {
        !self.topics.is_empty()
    }

    /// Returns the topic of the item with this number, from 0 in this slice. `None` if it is that of the item that it comes of.
    pub(crate) fn topic(self, number: usize) -> Option<&'a NewTopic> {
        let found = self.topics.binary_search_by_key(&(self.first + number), |(each, _)| *each).ok()?;
        Some(&self.topics[found].1)
    }

    /// Returns `true` if there are too many to hold in memory. A single one is not, however large.
    pub fn is_full(&self) -> bool {
        self.ends.len() > 1 && self.payload.len() >= GATHER_BYTES || self.ends.len() >= GATHER_ITEMS
    }

    /// Returns the outputs one by one, each as what it is.
    pub fn given(self) -> impl Iterator<Item = Given<'a>> {
        let (mut large, mut files) = (self.large.iter().peekable(), self.files.iter().peekable());
        (self.first..).zip(self.items()).map(move |(number, item)| {
            if let Some((_, file)) = files.next_if(|(each, _)| *each == number) {
                return Given::File(file);
            }
            match large.next_if_eq(&&number) {
                Some(_) => Given::Reference(item),
                None => Given::Whole(item),
            }
        })
    }

    /// Returns the items one by one. One in a file has no bytes here.
    pub fn items(self) -> impl Iterator<Item = &'a [u8]> {
        let starts = std::iter::once(self.start).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(move |(end, start)| &self.payload[start - self.start..end - self.start])
    }
}

/// The outputs of a frame's items that ran one after the other.
#[derive(Debug, Default)]
pub struct FrameOutputs {
    outputs: Outputs,
    /// The position of each successful item. The second number counts the outputs up to its end.
    ended: Vec<(usize, usize)>,
}

impl FrameOutputs {
    /// Creates an empty value with room for outputs. `bytes` is their size together.
    pub fn with_capacity(items: usize, bytes: usize) -> Self {
        let (payload, ends) = (Vec::with_capacity(bytes), Vec::with_capacity(items));
        let outputs = Outputs { payload, ends, ..Outputs::default() };
        Self { outputs, ended: Vec::with_capacity(items) }
    }

    /// Adds an output of the running item.
    pub(crate) fn push(&mut self, item: &[u8]) {
        self.outputs.push(item);
    }

    /// Adds a large output of the running item.
    pub(crate) fn push_large(&mut self, reference: &Reference) {
        self.outputs.push_large(reference);
    }

    /// Adds an output of the running item that is in a file.
    pub(crate) fn push_file(&mut self, file: ItemFile) {
        self.outputs.push_file(file);
    }

    /// Adds an output of the running item with another topic than the item's.
    pub(crate) fn push_to(&mut self, topic: NewTopic, item: &[u8]) {
        self.outputs.push_to(topic, item);
    }

    /// Gives the last output another topic than its item's.
    pub(crate) fn send_last_to(&mut self, topic: NewTopic) {
        self.outputs.send_last_to(topic);
    }

    /// Adds outputs of the running item.
    pub fn append(&mut self, outputs: Slice<'_>) {
        self.outputs.append(outputs);
    }

    /// Adds outputs of the running item. Those that have no topic of their own get this one.
    pub(crate) fn append_to(&mut self, topic: &NewTopic, outputs: Slice<'_>) {
        let (first, topics) = (self.outputs.len(), self.outputs.topics.len());
        self.outputs.append(outputs);
        self.outputs.topics.truncate(topics);
        for number in 0..outputs.ends.len() {
            let topic = outputs.topic(number).unwrap_or(topic).clone();
            self.outputs.topics.push((first + number, topic));
        }
    }

    /// Ends the running item, which has succeeded. The outputs since the item before are its own.
    pub fn end(&mut self, position: usize) {
        self.ended.push((position, self.outputs.len()));
    }

    /// Returns the outputs of the running item.
    pub fn open(&self) -> Slice<'_> {
        self.outputs.slice(self.begin()..self.outputs.len())
    }

    /// Removes and returns the outputs of the running item.
    pub fn take_open(&mut self) -> Outputs {
        let begin = self.begin();
        if begin == 0 { std::mem::take(&mut self.outputs) } else { self.outputs.split_off(begin) }
    }

    /// Drops the outputs of the running item.
    pub fn drop_open(&mut self) {
        self.outputs.truncate(self.begin());
    }

    /// Returns `true` if an output is in a file.
    pub(crate) fn has_files(&self) -> bool {
        self.outputs.has_files()
    }

    /// Returns the size of all outputs in bytes, except those in files.
    pub fn bytes(&self) -> usize {
        self.outputs.bytes()
    }

    /// Returns the number of items that have ended.
    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Returns the outputs of each ended item, with its position.
    pub fn items(&self) -> impl Iterator<Item = (usize, Slice<'_>)> {
        let begins = std::iter::once(0).chain(self.ended.iter().map(|(_, end)| *end));
        self.ended.iter().zip(begins).map(|((position, end), begin)| (*position, self.outputs.slice(begin..*end)))
    }

    /// Returns the outputs that have another topic than the item that they come of, by their numbers.
    pub(crate) fn topics(&self) -> Vec<(usize, NewTopic)> {
        self.outputs.topics().to_vec()
    }

    /// Returns each output of the ended items. The number is the position of its item. Those in memory share one buffer.
    pub fn into_items(mut self) -> impl Iterator<Item = (usize, ItemBytes)> {
        self.drop_open();
        let begins = std::iter::once(0).chain(self.ended.iter().map(|(_, end)| *end));
        let positions: Vec<usize> = (self.ended.iter().zip(begins))
            .flat_map(|((position, end), begin)| std::iter::repeat_n(*position, end - begin))
            .collect();
        positions.into_iter().zip(self.outputs.into_items())
    }

    /// Returns the outputs of all ended items.
    pub fn into_outputs(mut self) -> Outputs {
        self.drop_open();
        self.outputs
    }

    /// Returns where the outputs of the running item begin.
    fn begin(&self) -> usize {
        self.ended.last().map_or(0, |(_, end)| *end)
    }
}

/// Holds the outputs of one item.
impl From<(usize, Outputs)> for FrameOutputs {
    fn from((position, outputs): (usize, Outputs)) -> Self {
        let ended = vec![(position, outputs.len())];
        Self { outputs, ended }
    }
}

#[cfg(test)]
mod tests;
