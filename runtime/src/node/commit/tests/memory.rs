//! Streams in memory that do what JetStream does with keys, and stop a run wherever a test wants.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

use super::*;
use crate::frame::large::names_in;

/// A stream: its messages by place, and the place of each key.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) messages: BTreeMap<u64, Outgoing>,
    keys: BTreeMap<String, u64>,
    last: u64,
}

/// The record of who refers to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Record {
    /// The frame in hand that makes it.
    Making(u64),
    /// A message.
    Message(Place),
}

/// The streams of a chain, and its object store.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) work: RefCell<Stream>,
    pub(super) results: RefCell<Stream>,
    pub(super) dead: RefCell<Stream>,
    /// The objects whose bytes are stored.
    pub(super) objects: RefCell<BTreeSet<String>>,
    /// The records of each object.
    pub(super) records: RefCell<BTreeMap<String, BTreeSet<Record>>>,
    /// Effects that may happen before the run that asks is stopped.
    pub(super) steps: Cell<u32>,
    /// `true` if each batch is refused after its first message.
    pub(super) halves: Cell<bool>,
    /// `true` if reading a message is an effect of its own.
    pub(super) looks: Cell<bool>,
}

/// The streams, as the node of one hop sees them.
pub(super) struct MemoryOutbox<'a> {
    pub(super) streams: &'a Memory,
}

impl Stream {
    /// Stores all or none. As on the server, the key of any of them that is known refuses all.
    fn store(&mut self, messages: &[Outgoing]) -> Receipt {
        if messages.iter().any(|message| self.keys.contains_key(&message.message_id)) {
            // As `ServerStreams` finds it.
            let decided = messages.last().and_then(|last| self.keys.get(&last.message_id));
            return Receipt::of(Published::Duplicate, decided.copied().unwrap_or(0));
        }
        for message in messages {
            self.last += 1;
            assert!(self.keys.insert(message.message_id.clone(), self.last).is_none(), "two messages have one key");
            self.messages.insert(self.last, message.clone());
        }
        Receipt::of(Published::Stored, self.last)
    }

    /// Stores the first message of what [`Self::store`] would store.
    fn store_half(&mut self, messages: &[Outgoing]) -> Receipt {
        if messages.iter().any(|message| self.keys.contains_key(&message.message_id)) {
            return self.store(messages);
        }
        self.store(&messages[..1])
    }
}

impl Memory {
    /// Queues a message, and returns its place.
    pub(super) fn queue(&self) -> u64 {
        let mut work = self.work.borrow_mut();
        work.last += 1;
        work.last
    }

    fn stream(&self, kind: StreamKind) -> &RefCell<Stream> {
        match kind {
            StreamKind::Work => &self.work,
            StreamKind::Results => &self.results,
            StreamKind::Dead => &self.dead,
        }
    }

    /// Records who refers to an object.
    pub(super) fn record(&self, name: &str, record: Record) {
        self.records.borrow_mut().entry(name.to_owned()).or_default().insert(record);
    }

    /// Takes a record back.
    pub(super) fn take_back(&self, name: &str, record: Record) {
        if let Some(records) = self.records.borrow_mut().get_mut(name) {
            records.remove(&record);
        }
    }

    /// Returns `true` if an object has no record.
    pub(super) fn is_free(&self, name: &str) -> bool {
        self.records.borrow().get(name).is_none_or(BTreeSet::is_empty)
    }

    /// Removes an object with its records.
    pub(super) fn remove(&self, name: &str) {
        self.objects.borrow_mut().remove(name);
        self.records.borrow_mut().remove(name);
    }

    /// Stores a message, and returns its place. One with its key may be there.
    pub(super) fn put(&self, message: &Outgoing) -> Place {
        let kind = StreamKind::of(&message.subject);
        let receipt = self.stream(kind).borrow_mut().store(std::slice::from_ref(message));
        kind.at(receipt.last().expect("a message by itself has a place"))
    }

    /// Returns the message at a place.
    pub(super) fn stored(&self, place: Place) -> Option<Outgoing> {
        self.stream(place.kind).borrow().messages.get(&place.sequence).cloned()
    }

    /// Removes a message. Its key stays known.
    pub(super) fn forget(&self, place: Place) {
        self.stream(place.kind).borrow_mut().messages.remove(&place.sequence);
    }

    /// Returns all messages that refer to objects, with the names of these.
    pub(super) fn references(&self) -> Vec<(Place, Vec<String>)> {
        let kinds = [StreamKind::Work, StreamKind::Results, StreamKind::Dead];
        let mut found = Vec::new();
        for kind in kinds {
            for (sequence, message) in &self.stream(kind).borrow().messages {
                let names = names_in(&message.headers, &message.payload);
                if !names.is_empty() {
                    found.push((kind.at(*sequence), names));
                }
            }
        }
        found
    }

    /// Drops the records of messages that are gone. Returns `true` if the object has none left.
    pub(super) fn drop_stale(&self, name: &str) -> bool {
        let is_live = |record: &Record| match record {
            Record::Making(sequence) => self.stored(StreamKind::Work.at(*sequence)).is_some(),
            Record::Message(place) => self.stored(*place).is_some(),
        };
        if let Some(records) = self.records.borrow_mut().get_mut(name) {
            records.retain(is_live);
        }
        self.is_free(name)
    }

    /// Waits until one more effect may happen, if the order of reads matters too.
    async fn look(&self) {
        if self.looks.get() {
            self.step().await;
        }
    }

    /// Waits until one more effect may happen.
    pub(super) async fn step(&self) {
        std::future::poll_fn(|context| {
            if let Some(left) = self.steps.get().checked_sub(1) {
                self.steps.set(left);
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Returns where every item and output is.
    pub(super) fn places(&self) -> Vec<String> {
        let streams = [(&self.work, "queued"), (&self.results, "result"), (&self.dead, "dead")];
        let mut places = Vec::new();
        for (stream, name) in streams {
            for message in stream.borrow().messages.values() {
                places.extend(place(&message.headers, &message.payload, name));
            }
        }
        places.sort();
        places
    }
}

/// Drops a future after so many of its effects.
pub(super) async fn interrupt(future: impl Future<Output = ()>, effects: usize) {
    let (mut future, mut polls) = (std::pin::pin!(future), 0);
    std::future::poll_fn(|context| {
        polls += 1;
        let is_done = future.as_mut().poll(context) == Poll::Ready(());
        if is_done || polls > effects { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Outbox for MemoryOutbox<'_> {
    async fn store(&self, _: Source<'_>, messages: &[Outgoing]) -> Result<Receipt, PublishError> {
        let Some(first) = messages.first() else { return Ok(Receipt::of_nothing()) };
        let stream = self.streams.stream(StreamKind::of(&first.subject));
        self.streams.step().await;
        if !self.streams.halves.get() || messages.len() == 1 {
            return Ok(stream.borrow_mut().store(messages));
        }
        // As `ServerStreams` does with a batch that was refused halfway.
        let mut receipt = stream.borrow_mut().store_half(messages);
        if receipt.published == Published::Stored {
            let mut places = vec![receipt.last().expect("it is stored")];
            for message in &messages[1..] {
                self.streams.step().await;
                receipt = stream.borrow_mut().store(std::slice::from_ref(message));
                places.push(receipt.last().expect("a message by itself has a place"));
            }
            if receipt.published == Published::Stored {
                return Ok(Receipt::of_each(places));
            }
            for place in &places[..places.len() - 1] {
                self.streams.step().await;
                stream.borrow_mut().messages.remove(place);
            }
        }
        Ok(receipt)
    }

    async fn find(&self, subject: &str, key: &str) -> Result<Option<u64>, PublishError> {
        self.streams.step().await;
        Ok(self.streams.stream(StreamKind::of(subject)).borrow().keys.get(key).copied())
    }

    async fn message(&self, place: Place) -> Result<Option<(Headers, Bytes)>, PublishError> {
        self.streams.look().await;
        let stream = self.streams.stream(place.kind).borrow();
        Ok(stream.messages.get(&place.sequence).map(|message| (message.headers.clone(), message.payload.clone())))
    }

    async fn hold(&self, name: &str, place: Place) -> Result<(), PublishError> {
        self.streams.step().await;
        self.streams.record(name, Record::Message(place));
        Ok(())
    }

    async fn result_headers(&self, sequence: u64) -> Result<Option<Headers>, PublishError> {
        self.streams.step().await;
        Ok(self.streams.results.borrow().messages.get(&sequence).map(|message| message.headers.clone()))
    }

    fn parks(&self) -> bool {
        false
    }

    fn requeued(&self, _: &[Outgoing]) {}

    fn buried(&self, _: u64) {}
}
