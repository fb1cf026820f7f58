//! Streams in memory that do what JetStream does with keys, and stop a run wherever a test wants.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Poll;

use super::*;

/// A stream: its messages by place, and the place of each key.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) messages: BTreeMap<u64, Outgoing>,
    keys: BTreeMap<String, u64>,
    last: u64,
}

/// The streams of a chain.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) work: RefCell<Stream>,
    pub(super) results: RefCell<Stream>,
    pub(super) dead: RefCell<Stream>,
    /// Effects that may happen before the run that asks is stopped.
    pub(super) steps: Cell<u32>,
    /// `true` if each batch is refused after its first message.
    pub(super) halves: Cell<bool>,
}

/// The streams, as the node of one hop sees them.
pub(super) struct MemoryOutbox<'a> {
    pub(super) streams: &'a Memory,
    pub(super) route: &'a Route,
}

impl Stream {
    /// Stores all or none. As on the server, the key of any of them that is known refuses all.
    fn store(&mut self, messages: &[Outgoing]) -> Published {
        if messages.iter().any(|message| self.keys.contains_key(&message.message_id)) {
            return Published::Duplicate;
        }
        for message in messages {
            self.last += 1;
            assert!(self.keys.insert(message.message_id.clone(), self.last).is_none(), "two messages have one key");
            self.messages.insert(self.last, message.clone());
        }
        Published::Stored
    }

    /// Stores the first message of what [`Self::store`] would store.
    fn store_half(&mut self, messages: &[Outgoing]) -> Published {
        if messages.iter().any(|message| self.keys.contains_key(&message.message_id)) {
            return Published::Duplicate;
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

impl MemoryOutbox<'_> {
    fn stream(&self, subject: &str) -> &RefCell<Stream> {
        let chain = &self.route.chain.name;
        if [subject::results(chain), subject::notes(chain)].iter().any(|each| each == subject) {
            &self.streams.results
        } else if subject == subject::dead(chain, &self.route.stage().name) || subject == subject::dead_item(chain) {
            &self.streams.dead
        } else {
            &self.streams.work
        }
    }
}

impl Outbox for MemoryOutbox<'_> {
    async fn store(&self, _: Source<'_>, messages: &[Outgoing]) -> Result<Published, PublishError> {
        let Some(first) = messages.first() else { return Ok(Published::Stored) };
        let stream = self.stream(&first.subject);
        self.streams.step().await;
        if !self.streams.halves.get() || messages.len() == 1 {
            return Ok(stream.borrow_mut().store(messages));
        }
        // As `ServerStreams` does with a batch that was refused halfway.
        let mut published = stream.borrow_mut().store_half(messages);
        if published == Published::Stored {
            for message in &messages[1..] {
                self.streams.step().await;
                published = stream.borrow_mut().store(std::slice::from_ref(message));
            }
        }
        Ok(published)
    }

    async fn find(&self, key: &str) -> Result<Option<u64>, PublishError> {
        self.streams.step().await;
        Ok(self.stream(&self.route.target).borrow().keys.get(key).copied())
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
