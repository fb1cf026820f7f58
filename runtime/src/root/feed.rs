//! Feeding items into a chain.

mod delivery;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Root, RootError};
use crate::broker::publish::{Outgoing, Published};
use crate::frame::{Headers, header};
use crate::name::ChainName;
use crate::subject;
use delivery::Delivery;

pub use delivery::{Waiting, Waits};

/// What may be on its way at once, in KiB; a message counts for at least [`MESSAGE`].
const WINDOW: usize = 4 << 10;
/// What a small message counts for, in KiB: with it, 512 of them are on their way at once.
const MESSAGE: usize = 8;
/// How long the items that were about to be tried again may take to end when feeding is given up.
const SETTLE: Duration = Duration::from_secs(1);
/// What items are sent as.
const CONTENT_TYPE: &str = "application/cbor-seq";

/// How items are packed into messages: a message goes as soon as one of these is reached. Items with ids of their own go in
/// messages of their own, so that feeding again drops exactly those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Items in a message.
    pub items: usize,
    /// Bytes of a message.
    pub bytes: usize,
    /// How long an item waits for others.
    pub wait: Duration,
}

impl Default for Packing {
    fn default() -> Self {
        Self { items: 256, bytes: 64 << 10, wait: Duration::from_millis(5) }
    }
}

/// An item to feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The item, one CBOR data item.
    pub cbor: Bytes,
    /// Its id. Fed twice under the same id, the server drops the second within the chain's duplicate window. `None`: a new
    /// ULID.
    pub id: Option<String>,
}

impl Item {
    /// An item of any value that can be serialized.
    ///
    /// # Errors
    ///
    /// If CBOR has no form for it.
    pub fn of(value: &impl Serialize) -> Result<Self, RootError> {
        let mut cbor = Vec::new();
        ciborium::into_writer(value, &mut cbor).map_err(|error| RootError::Encode(error.to_string()))?;
        Ok(Self { cbor: cbor.into(), id: None })
    }

    /// The same item under an id.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..self }
    }
}

/// How much was fed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fed {
    /// Items that the chain has.
    pub accepted: u64,
    /// Items that the chain had before, by their ids.
    pub duplicates: u64,
}

/// Feeds one chain. Many items are on their way at once; [`Feeder::finish`] waits for the last.
pub struct Feeder {
    sender: Sender,
    packing: Packing,
    pack: Arc<Mutex<Pack>>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// Messages that the server has not answered for.
    open: u64,
    fed: Fed,
}

/// Items that wait for others to share a message with.
#[derive(Default)]
struct Pack {
    payload: BytesMut,
    items: u64,
    /// How many packs there were before.
    number: u64,
    /// Packs that went because their time was over and that the feeder has not counted yet.
    gone: u64,
}

/// What became of a message.
struct Answer {
    items: u64,
    published: Result<Published, RootError>,
}

/// Sends messages, so many at once.
#[derive(Clone)]
struct Sender {
    subject: Arc<str>,
    max_item: usize,
    window: Arc<Semaphore>,
    delivery: Arc<Delivery>,
    answers: mpsc::UnboundedSender<Answer>,
}

impl Root {
    /// Opens the intake of a chain.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or its intake is closed.
    pub async fn feeder(&self, chain: &ChainName) -> Result<Feeder, RootError> {
        let (_, marked) = self.chain(chain).await?;
        if !marked.state.open {
            return Err(RootError::Closed(chain.clone()));
        }
        let (answers, receiver) = mpsc::unbounded_channel();
        let sender = Sender {
            subject: subject::intake(chain).into(),
            max_item: self.broker.max_item(),
            window: Arc::new(Semaphore::new(WINDOW)),
            delivery: Arc::new(Delivery::new(self.clone(), chain.clone())),
            answers,
        };
        let (packing, pack, fed) = (Packing::default(), Arc::default(), Fed::default());
        Ok(Feeder { sender, packing, pack, answers: receiver, open: 0, fed })
    }
}

impl Feeder {
    /// Packs items in this way from now on.
    #[must_use]
    pub fn with_packing(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Feeds an item. Returns once it is on its way or waits for others to share its message, which may take until the chain
    /// has room.
    ///
    /// # Errors
    ///
    /// If this item is too large ([`RootError::TooLarge`]), or one that was on its way cannot be fed. [`Feeder::fed`] tells
    /// how many were.
    pub async fn feed(&mut self, item: Item) -> Result<(), RootError> {
        let (size, max) = (item.cbor.len(), self.sender.max_item);
        if size > max {
            return Err(RootError::TooLarge { size, max });
        }
        if item.id.is_some() || self.packing.items <= 1 {
            self.flush().await;
            self.open += 1;
            self.sender.send(item.id, item.cbor, 1).await;
            return self.count_answered();
        }
        let is_full = {
            let pack = self.pack();
            pack.items > 0 && pack.payload.len() + size > self.packing.bytes.min(max)
        };
        if is_full {
            self.flush().await;
        }
        let (is_first, is_full, number) = {
            let mut pack = self.pack();
            pack.payload.extend_from_slice(&item.cbor);
            pack.items += 1;
            let is_full = pack.items >= self.packing.items as u64 || pack.payload.len() >= self.packing.bytes;
            (pack.items == 1, is_full, pack.number)
        };
        if is_full {
            self.flush().await;
        } else if is_first {
            self.send_in_time(number);
        }
        self.count_answered()
    }

    /// Feeds items that share a message already, a CBOR sequence, under an id of the message. Can be dropped: the message has
    /// gone then or never goes.
    pub(super) async fn feed_packed(&mut self, id: String, payload: Bytes, items: u64) -> Result<(), RootError> {
        self.sender.send(Some(id), payload, items).await;
        self.open += 1;
        self.count_answered()
    }

    /// Sends what waits for others to share its message. Returns once it is on its way.
    pub async fn flush(&mut self) {
        let taken = self.pack().take();
        if let Some((payload, items)) = taken {
            self.open += 1;
            self.sender.send(None, payload, items).await;
        }
    }

    /// Waits until every item has arrived.
    ///
    /// # Errors
    ///
    /// If one could not be fed. [`Feeder::fed`] tells how many were.
    pub async fn finish(&mut self) -> Result<Fed, RootError> {
        self.flush().await;
        loop {
            self.count_gone();
            if self.open == 0 {
                return Ok(self.fed);
            }
            if let Some(answer) = self.answers.recv().await {
                self.count(answer)?;
            }
        }
    }

    /// How much has arrived so far.
    #[must_use]
    pub fn fed(&self) -> Fed {
        self.fed
    }

    /// Tells what the feeder waits for, also while it feeds.
    #[must_use]
    pub fn waits(&self) -> Waits {
        self.sender.delivery.waits.clone()
    }

    /// Waits for the items on their way, but no longer than this, and takes no more. Afterwards nothing more is fed, unless the
    /// server does not answer.
    pub async fn abandon(&mut self, patience: Duration) -> Fed {
        drop(self.pack().take());
        let _ = tokio::time::timeout(patience, self.settle()).await;
        self.sender.window.close();
        // Those that were about to be tried again end now, and those that the server has got are answered.
        let _ = tokio::time::timeout(SETTLE, self.settle()).await;
        self.fed
    }

    /// Waits until all items on their way have ended, well or not.
    async fn settle(&mut self) {
        self.count_gone();
        while self.open > 0
            && let Some(answer) = self.answers.recv().await
        {
            let _ = self.count(answer);
            self.count_gone();
        }
    }

    fn pack(&self) -> MutexGuard<'_, Pack> {
        lock(&self.pack)
    }

    /// Sends the pack with this number when its time is over, unless it has gone before.
    fn send_in_time(&self, number: u64) {
        let (wait, pack, sender) = (self.packing.wait, Arc::clone(&self.pack), self.sender.clone());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let taken = {
                let mut pack = lock(&pack);
                let taken = if pack.number == number { pack.take() } else { None };
                pack.gone += u64::from(taken.is_some());
                taken
            };
            if let Some((payload, items)) = taken {
                sender.send(None, payload, items).await;
            }
        });
    }

    fn count_gone(&mut self) {
        let gone = std::mem::take(&mut self.pack().gone);
        self.open += gone;
    }

    fn count_answered(&mut self) -> Result<(), RootError> {
        while let Ok(answer) = self.answers.try_recv() {
            self.count_gone();
            self.count(answer)?;
        }
        Ok(())
    }

    fn count(&mut self, answer: Answer) -> Result<(), RootError> {
        self.open = self.open.saturating_sub(1);
        match answer.published? {
            Published::Stored => self.fed.accepted += answer.items,
            Published::Duplicate => self.fed.duplicates += answer.items,
        }
        Ok(())
    }
}

impl Pack {
    /// The items that wait, if there are any.
    fn take(&mut self) -> Option<(Bytes, u64)> {
        if self.items == 0 {
            return None;
        }
        self.number += 1;
        Some((self.payload.split().freeze(), std::mem::take(&mut self.items)))
    }
}

fn lock(pack: &Mutex<Pack>) -> MutexGuard<'_, Pack> {
    pack.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sender {
    /// Sends a message. Returns once there is room for it on the way; its answer comes later.
    async fn send(&self, id: Option<String>, payload: Bytes, items: u64) {
        let weight = (payload.len() >> 10).clamp(MESSAGE, WINDOW);
        let permits = Arc::clone(&self.window).acquire_many_owned(u32::try_from(weight).unwrap_or(u32::MAX)).await;
        // The window is closed when the feeder has been given up.
        let Ok(permit) = permits else { return };
        let id = id.unwrap_or_else(|| ulid::Ulid::generate().to_string());
        let mut headers = Headers::new();
        headers.push(header::ID, id.as_str());
        headers.push(header::CONTENT_TYPE, CONTENT_TYPE);
        let message = Outgoing { subject: self.subject.to_string(), message_id: id, headers, payload };
        tokio::spawn(self.clone().publish(message, items, permit));
    }

    /// Publishes until the server has the message. Its id makes that safe however often it takes.
    async fn publish(self, message: Outgoing, items: u64, _permit: OwnedSemaphorePermit) {
        let published = self.delivery.deliver(&message, || !self.window.is_closed()).await;
        // A feeder that is gone wants no answers.
        let _ = self.answers.send(Answer { items, published });
    }
}
