//! The messages of a feeder: those on their way, what became of the others, and the one that is being packed.
//!
//! Everything here is counted under one lock and without waiting, so that a feeder that is dropped while it waits leaves no
//! message half sent.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Fed;
use super::delivery::{Delivery, Waits};
use super::pack::Pack;
use super::shared::{Shared, State};
use crate::broker::publish::Published;
use crate::client::{Client, ClientError};
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header};
use crate::name::ChainName;
use crate::subject;

/// What may be on its way at once, in KiB; a message counts for at least [`MESSAGE`].
const WINDOW: usize = 4 << 10;
/// What a small message counts for, in KiB: with it, 512 of them are on their way at once.
const MESSAGE: usize = 8;
/// What items are sent as.
const CONTENT_TYPE: &str = "application/cbor-seq";

/// Sends messages, so many at once.
#[derive(Clone)]
pub(super) struct Sender {
    subject: Arc<str>,
    max_item: usize,
    window: Arc<Semaphore>,
    delivery: Arc<Delivery>,
    shared: Arc<Shared>,
}

/// Leave to send a message.
pub(super) type Room = OwnedSemaphorePermit;

/// The key that a message is stored under once.
#[derive(Clone)]
pub(super) struct Key {
    id: String,
    /// What the work stream had stored before the id was first used here: what it says to have under it from before was not
    /// ours.
    before: u64,
}

impl Key {
    /// A key that nobody else uses.
    pub(super) fn new() -> Self {
        Self::own(ulid::Ulid::generate().to_string())
    }

    /// A key that nobody else uses, made by the caller.
    pub(super) fn own(id: String) -> Self {
        Self { id, before: 0 }
    }
}

/// The pack of a feeder, locked.
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
    pub(super) fn new(client: Client, chain: ChainName) -> Self {
        let shared: Arc<Shared> = Arc::default();
        Self {
            subject: subject::intake(&chain).into(),
            max_item: client.broker().limits().max_item(),
            window: Arc::new(Semaphore::new(WINDOW)),
            delivery: Arc::new(Delivery::new(client, chain, Arc::clone(&shared))),
            shared,
        }
    }

    /// The most bytes of an item.
    pub(super) fn max_item(&self) -> usize {
        self.max_item
    }

    /// The items that wait for others.
    pub(super) fn pack(&self) -> Packing<'_> {
        Packing(self.shared.lock())
    }

    /// Tells of a message that could not be fed, once.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        self.shared.lock().failures.pop_front().map_or(Ok(()), Err)
    }

    /// Whether nothing is on its way and nothing waits to go.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.open == 0 && !state.pack.is(None)
    }

    /// Waits until a message has been answered for since this was last waited for.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    pub(super) fn fed(&self) -> Fed {
        self.shared.lock().fed
    }

    pub(super) fn waits(&self) -> Waits {
        self.delivery.waits.clone()
    }

    /// Sends nothing more.
    pub(super) fn close(&self) {
        self.window.close();
    }

    /// The key of an item whose id was given by whoever feeds it.
    pub(super) async fn given(&self, id: String) -> Key {
        Key { id, before: self.delivery.before().await }
    }

    /// Waits until a message of this size may go.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room, ClientError> {
        let room = Arc::clone(&self.window).acquire_many_owned(weight(bytes)).await;
        // The window is closed when the feeder has been given up.
        room.map_err(|_| ClientError::TimedOut("feeding was given up".to_owned()))
    }

    /// Sends a message; its answer comes later.
    pub(super) fn send(&self, room: Room, key: Key, payload: Bytes, items: u64) {
        self.shared.lock().open += 1;
        self.spawn(room, key, payload, items);
    }

    /// Sends the pack, or only the one of this number, once there is room.
    pub(super) async fn send_pack(&self, number: Option<u64>) -> Result<(), ClientError> {
        let bytes = {
            let pack = self.pack();
            if !pack.is(number) {
                return Ok(());
            }
            pack.len()
        };
        // More items may join it until there is room, up to what a pack may have.
        let room = self.room(bytes).await?;
        self.send_pack_now(number, room);
        Ok(())
    }

    /// Sends the pack if there is room for it. Says whether it has gone.
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
        if let Some((payload, items)) = taken {
            self.spawn(room, Key::new(), payload, items);
        }
    }

    /// Sends the pack with this number when its time is over, unless it has gone before.
    pub(super) fn send_in_time(&self, number: u64, wait: Duration) {
        let sender = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // Given up meanwhile, it never goes.
            let _ = sender.send_pack(Some(number)).await;
        });
    }

    fn spawn(&self, room: Room, key: Key, payload: Bytes, items: u64) {
        let mut headers = Headers::new();
        headers.push(header::ID, key.id.as_str());
        headers.push(header::CONTENT_TYPE, CONTENT_TYPE);
        let message = Outgoing { subject: self.subject.to_string(), message_id: key.id, headers, payload };
        tokio::spawn(self.clone().publish(message, key.before, items, room));
    }

    /// Publishes until the server has the message. Its id makes that safe however often it takes.
    async fn publish(self, message: Outgoing, before: u64, items: u64, room: Room) {
        let published = self.delivery.deliver(&message, before, || !self.window.is_closed()).await;
        drop(room);
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

/// What a message of this size takes of the window.
fn weight(bytes: usize) -> u32 {
    u32::try_from((bytes >> 10).clamp(MESSAGE, WINDOW)).unwrap_or(u32::MAX)
}
