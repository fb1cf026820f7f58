//! The messages of a feeder: those on their way, the outcome of others, and the open pack.
//!
//! All of them are counted under one lock and without waiting. So a feeder that is dropped while it waits leaves no message half
//! sent.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Fed;
use super::delivery::{Delivered, Delivery, Tries, Waits};
use super::large::{Large, Room as LargeRoom, Source};
use super::pack::Pack;
use super::shared::{Shared, State};
use crate::broker::publish::Published;
use crate::client::large::LargeItems;
use crate::client::{Client, ClientError};
use crate::frame::large::{Form, Positions, Reference};
use crate::frame::outgoing::{Outgoing, header_size};
use crate::frame::{Headers, header};
use crate::name::{ChainName, Topic};
use crate::subject;

/// The most data on its way at once, in KiB. A message counts for at least [`MESSAGE`].
const WINDOW: usize = 4 << 10;
/// The size that a small message counts for, in KiB. So 512 of them are on their way at once.
const MESSAGE: usize = 8;
/// The content type of the messages.
const CONTENT_TYPE: &str = "application/cbor-seq";

/// Sends messages, with a limit on those on their way.
#[derive(Clone)]
pub(super) struct Sender {
    subject: Arc<str>,
    max_item: usize,
    window: Arc<Semaphore>,
    delivery: Arc<Delivery>,
    large: Arc<Large>,
    shared: Arc<Shared>,
    /// The headers of each message, besides its own.
    headers: Arc<Headers>,
}

/// Permit to send a message.
pub(super) type Room = OwnedSemaphorePermit;

/// The key of a message, which the server stores once.
#[derive(Clone)]
pub(super) struct Key {
    id: String,
    /// The last sequence of the work stream before the id was used. A message with the same id at or before it came from another
    /// feeder.
    before: u64,
}

impl Key {
    /// Creates a key that no other client uses.
    pub(super) fn new() -> Self {
        Self::own(ulid::Ulid::generate().to_string())
    }

    /// Creates a key from an id that no other client uses.
    pub(super) fn own(id: String) -> Self {
        Self { id, before: 0 }
    }
}

/// The open pack of a feeder, locked.
pub(super) struct Packing<'a>(MutexGuard<'a, State>);

impl Deref for Packing<'_> {
    type Target = Pack;

    fn deref(&self) -> &Pack {
        &self.0.pack
    }
}

impl DerefMut for Packing<'_> {
    fn deref_mut(&mut self) -> &mut Pack {
        &mut self.0.pack
    }
}

impl Sender {
    pub(super) fn new(client: Client, chain: ChainName, items: LargeItems) -> Self {
        let shared: Arc<Shared> = Arc::default();
        Self {
            large: Arc::new(Large::new(client.clone(), chain.clone(), items)),
            subject: subject::intake(&chain).into(),
            max_item: client.broker().limits().max_item(),
            window: Arc::new(Semaphore::new(WINDOW)),
            delivery: Arc::new(Delivery::new(client, chain, Arc::clone(&shared))),
            shared,
            headers: Arc::default(),
        }
    }

    /// Sets the headers of each message from now on.
    pub(super) fn set_headers(&mut self, headers: Headers) {
        // They leave less room for an item.
        self.max_item = self.max_item.saturating_sub(header_size(headers.iter()));
        self.headers = Arc::new(headers);
    }

    /// Returns the most bytes of an item.
    pub(super) fn max_item(&self) -> usize {
        self.max_item
    }

    /// Returns what puts items beside the queue.
    pub(super) fn large(&self) -> &Large {
        &self.large
    }

    /// Returns the items that wait for others.
    pub(super) fn pack(&self) -> Packing<'_> {
        Packing(self.shared.lock())
    }

    /// Returns the error of a message that could not be fed, once.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        self.shared.lock().failures.pop_front().map_or(Ok(()), Err)
    }

    /// Returns `true` if no message is on its way and no item waits.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.open == 0 && !state.pack.is(None)
    }

    /// Waits until the server answers for a message. Answers since the last call count.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    pub(super) fn fed(&self) -> Fed {
        self.shared.lock().fed
    }

    pub(super) fn waits(&self) -> Waits {
        self.delivery.waits.clone()
    }

    /// Stops sending.
    pub(super) fn close(&self) {
        self.window.close();
        self.large.close();
    }

    /// Returns the key of an item with an id from the caller.
    pub(super) async fn given(&self, id: String) -> Key {
        Key { id, before: self.delivery.before().await }
    }

    /// Waits until a message of this size may be sent.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room, ClientError> {
        let room = Arc::clone(&self.window).acquire_many_owned(weight(bytes)).await;
        // The window is closed once the feeder is abandoned.
        room.map_err(|_| ClientError::TimedOut("feeding was given up".to_owned()))
    }

    /// Sends a message. The answer arrives later.
    pub(super) fn send(&self, room: Room, key: Key, payload: Bytes, items: u64, topic: Option<Topic>) {
        self.shared.lock().open += 1;
        self.spawn(room, key, (payload, items, topic));
    }

    /// Sends the pack once there is room. With a `number`, sends only that pack.
    pub(super) async fn send_pack(&self, number: Option<u64>) -> Result<(), ClientError> {
        let bytes = {
            let pack = self.pack();
            if !pack.is(number) {
                return Ok(());
            }
            pack.len()
        };
        // More items may join until there is room, up to the limits of a pack.
        let room = self.room(bytes).await?;
        self.send_pack_now(number, room);
        Ok(())
    }

    /// Sends the pack if there is room. Returns `true` if it was sent.
    pub(super) fn try_send_pack(&self) -> bool {
        let weight = weight(self.pack().len());
        let room = Arc::clone(&self.window).try_acquire_many_owned(weight);
        room.is_ok_and(|room| {
            self.send_pack_now(None, room);
            true
        })
    }

    fn send_pack_now(&self, number: Option<u64>, room: Room) {
        let taken = {
            let mut state = self.shared.lock();
            let taken = if state.pack.is(number) { state.pack.take() } else { None };
            state.open += u64::from(taken.is_some());
            taken
        };
        if let Some(taken) = taken {
            self.spawn(room, Key::new(), taken);
        }
    }

    /// Sends the pack with this number after `wait`, unless it was sent before.
    pub(super) fn send_in_time(&self, number: u64, wait: Duration) {
        let sender = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // A pack of an abandoned feeder is never sent.
            let _ = sender.send_pack(Some(number)).await;
        });
    }

    /// Sends a large item. The answer arrives later.
    pub(super) fn send_large(&self, room: LargeRoom, key: Key, (source, form): (Source, Form), topic: Option<Topic>) {
        self.shared.lock().open += 1;
        let sender = self.clone();
        tokio::spawn(async move {
            let published = sender.publish_large(key, source, form, topic).await;
            drop(room);
            sender.end(published, 1);
        });
    }

    fn spawn(&self, room: Room, key: Key, (payload, items, topic): (Bytes, u64, Option<Topic>)) {
        let before = key.before;
        let message = self.message(key, payload, &Positions::NONE, topic);
        tokio::spawn(self.clone().publish(message, before, items, room));
    }

    /// Returns a message with these items, of which some are references.
    fn message(&self, key: Key, payload: Bytes, large: &Positions, topic: Option<Topic>) -> Outgoing {
        let mut headers = (*self.headers).clone();
        headers.push(header::ID, key.id.as_str());
        headers.push(header::CONTENT_TYPE, CONTENT_TYPE);
        headers.extend(topic.map(|topic| (header::TOPIC, topic.into())));
        headers.extend(large.to_header().map(|large| (header::LARGE, large)));
        Outgoing { subject: self.subject.to_string(), message_id: key.id, headers, payload }
    }

    /// Publishes until the server has stored the message. The id of the message makes repetition safe.
    async fn publish(self, message: Outgoing, before: u64, items: u64, room: Room) {
        let delivered = self.deliver(&message, before).await;
        drop(room);
        self.end(delivered.map(|delivered| delivered.published), items);
    }

    async fn deliver(&self, message: &Outgoing, before: u64) -> Result<Delivered, ClientError> {
        self.delivery.deliver(message, before, || !self.window.is_closed()).await
    }

    /// Stores the bytes of an item, then a message that refers to them.
    async fn publish_large(
        &self,
        key: Key,
        source: Source,
        form: Form,
        topic: Option<Topic>,
    ) -> Result<Published, ClientError> {
        let mut tries = Tries::new();
        loop {
            let reference = self.large.upload(&source, form, &self.delivery.waits).await?;
            match self.publish_reference(&key, &reference, topic.clone(), &mut tries).await {
                Ok(Some(delivered)) => {
                    self.large.settle(&reference, delivered).await?;
                    return Ok(delivered.published);
                }
                Ok(None) => {}
                Err(error) => {
                    self.large.give_up(&reference, &error, tries.is_unanswered).await;
                    return Err(error);
                }
            }
        }
    }

    /// Publishes a message that refers to an object. `None` if the object is gone.
    async fn publish_reference(
        &self,
        key: &Key,
        reference: &Reference,
        topic: Option<Topic>,
        tries: &mut Tries,
    ) -> Result<Option<Delivered>, ClientError> {
        let message = self.message(key.clone(), reference.to_cbor().into(), &[0].into_iter().collect(), topic);
        let (is_wanted, is_held) = (|| !self.window.is_closed(), || self.large.is_held(reference));
        loop {
            let delivered = self.delivery.deliver_while(&message, key.before, tries, is_wanted, is_held).await?;
            if delivered.is_some() || !self.large.hold_again(reference).await? {
                return Ok(delivered);
            }
        }
    }

    /// Counts a message that the server has answered for.
    fn end(&self, published: Result<Published, ClientError>, items: u64) {
        let mut state = self.shared.lock();
        state.open -= 1;
        match published {
            Ok(Published::Stored) => state.fed.accepted += items,
            Ok(Published::Duplicate) => state.fed.duplicates += items,
            Err(error) => state.failures.push_back(error),
        }
        state.taken = Some(Instant::now());
        drop(state);
        self.shared.changed.notify_one();
    }
}

/// Returns the share of the window that a message takes.
fn weight(bytes: usize) -> u32 {
    u32::try_from((bytes >> 10).clamp(MESSAGE, WINDOW)).unwrap_or(u32::MAX)
}
