//! Feeding items into a chain.
//!
//! [`Feeder`] decides which message an item goes in, `sender` has the messages that are open, `delivery` brings each to the
//! server. What takes time can be dropped at any point, as a timeout around it does: an item that was taken is not lost by it.

mod delivery;
mod pack;
mod sender;
mod shared;

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::{Client, ClientError};
use crate::frame::id::check_fed_id;
use crate::name::ChainName;
use sender::{Key, Sender};

pub use delivery::{Waiting, Waits};

/// How long the items that were about to be tried again may take to end when feeding is given up.
const SETTLE: Duration = Duration::from_secs(1);

/// How items are packed into messages: a message goes as soon as one of these is reached. Items with ids of their own go in
/// messages of their own, so that feeding again drops exactly those that are there.
///
/// ```
/// let mut packing = pcluster::client::Packing::default();
/// packing.items = 16;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
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
///
/// ```
/// use pcluster::client::Item;
///
/// let item = Item::of(&[1, 2, 3])?.with_id("order-17");
/// assert_eq!(item.cbor, Item::from_cbor(*b"\x83\x01\x02\x03").cbor);
/// # Ok::<_, pcluster::client::ClientError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The item, one CBOR data item.
    pub cbor: Bytes,
    /// Its id. Fed twice under the same id, the server drops the second within the chain's duplicate window. It has no spaces
    /// or control characters and does not begin with `pcluster.`. `None`: a new ULID.
    pub id: Option<String>,
}

impl Item {
    /// An item of any value that can be serialized.
    ///
    /// # Errors
    ///
    /// If CBOR has no form for it.
    pub fn of(value: &impl Serialize) -> Result<Self, ClientError> {
        let mut cbor = Vec::new();
        ciborium::into_writer(value, &mut cbor).map_err(|error| ClientError::Encode(error.to_string()))?;
        Ok(Self { cbor: cbor.into(), id: None })
    }

    /// Takes one CBOR data item as it is.
    #[must_use]
    pub fn from_cbor(cbor: impl Into<Vec<u8>>) -> Self {
        Self { cbor: Bytes::from(cbor.into()), id: None }
    }

    /// The same item under an id.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..self }
    }
}

/// How much was fed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fed {
    /// Items that the chain has.
    pub accepted: u64,
    /// Items that the chain had before, by their ids. What was sent again because no answer came is none of them.
    pub duplicates: u64,
}

/// Feeds one chain. Many items are on their way at once; [`Feeder::finish`] waits for the last.
///
/// [`Feeder::feed`], [`Feeder::flush`] and [`Feeder::finish`] can be dropped before they are done, as `tokio::time::timeout`
/// and `tokio::select!` do, and called again. Nothing that was taken is lost by that.
pub struct Feeder {
    sender: Sender,
    packing: Packing,
}

impl Client {
    /// Opens the intake of a chain.
    ///
    /// # Errors
    ///
    /// If there is no such chain, its intake is closed, or another stream listens to it too.
    pub async fn feeder(&self, chain: &ChainName) -> Result<Feeder, ClientError> {
        let (_, marked) = self.chain(chain).await?;
        if !marked.state.open {
            return Err(ClientError::Closed(chain.clone()));
        }
        self.check_intake_to_feed(chain).await?;
        Ok(Feeder { sender: Sender::new(self.clone(), chain.clone()), packing: Packing::default() })
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
    /// The item is taken when this returns `Ok`, and only then: if it fails, or is dropped before it has returned, the item is
    /// not fed and can be handed in again.
    ///
    /// # Errors
    ///
    /// If this item is too large ([`ClientError::TooLarge`]) or its id cannot be one ([`ClientError::Id`]), or one that was on its
    /// way cannot be fed. [`Feeder::fed`] tells how many were.
    pub async fn feed(&mut self, item: Item) -> Result<(), ClientError> {
        let (size, max) = (item.cbor.len(), self.sender.max_item());
        if size > max {
            return Err(ClientError::TooLarge { size, max });
        }
        self.sender.check()?;
        if item.id.is_some() || self.packing.items <= 1 {
            let key = match item.id {
                None => Key::new(),
                Some(id) => {
                    check_fed_id(&id)?;
                    self.sender.given(id).await
                }
            };
            self.sender.send_pack(None).await?;
            let room = self.sender.room(size).await?;
            self.sender.send(room, key, item.cbor, 1);
            return Ok(());
        }
        let most = self.packing.bytes.min(max);
        if self.sender.pack().is_full(self.packing.items, most.saturating_sub(size)) {
            self.sender.send_pack(None).await?;
        }
        // From here on nothing is waited for.
        let (number, is_full) = {
            let mut pack = self.sender.pack();
            let number = pack.add(&item.cbor);
            (number, pack.is_full(self.packing.items, most.saturating_sub(1)))
        };
        let is_sent = is_full && self.sender.try_send_pack();
        if let Some(number) = number.filter(|_| !is_sent) {
            self.sender.send_in_time(number, self.packing.wait);
        }
        Ok(())
    }

    /// Feeds items that share a message already, a CBOR sequence, under an id of the message. Can be dropped: the message has
    /// gone then or never goes.
    pub(crate) async fn feed_packed(&mut self, id: String, payload: Bytes, items: u64) -> Result<(), ClientError> {
        self.sender.check()?;
        let room = self.sender.room(payload.len()).await?;
        self.sender.send(room, Key::own(id), payload, items);
        Ok(())
    }

    /// Sends what waits for others to share its message. Returns once it is on its way. Dropped before that, the items go on
    /// waiting for others.
    pub async fn flush(&mut self) {
        // Given up, there is nothing that could be sent.
        let _ = self.sender.send_pack(None).await;
    }

    /// Waits until every item has arrived. Can be dropped and called again.
    ///
    /// # Errors
    ///
    /// If one could not be fed. [`Feeder::fed`] tells how many were.
    pub async fn finish(&mut self) -> Result<Fed, ClientError> {
        loop {
            self.sender.send_pack(None).await?;
            self.sender.check()?;
            if self.sender.is_idle() {
                return Ok(self.fed());
            }
            self.sender.changed().await;
        }
    }

    /// How much has arrived so far.
    #[must_use]
    pub fn fed(&self) -> Fed {
        self.sender.fed()
    }

    /// Tells what the feeder waits for and how far it is, also while it feeds.
    #[must_use]
    pub fn waits(&self) -> Waits {
        self.sender.waits()
    }

    /// Waits for the items on their way, but no longer than this, and takes no more. Afterwards nothing more is fed, unless the
    /// server does not answer.
    pub async fn abandon(&mut self, patience: Duration) -> Fed {
        drop(self.sender.pack().take());
        let _ = tokio::time::timeout(patience, self.settle()).await;
        self.sender.close();
        // Those that were about to be tried again end now, and those that the server has got are answered.
        let _ = tokio::time::timeout(SETTLE, self.settle()).await;
        self.fed()
    }

    /// Waits until all items on their way have ended, well or not.
    async fn settle(&mut self) {
        while !self.sender.is_idle() {
            self.sender.changed().await;
        }
    }
}
