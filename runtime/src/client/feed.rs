//! Feeds items into a chain.
//!
//! [`Feeder`] packs items into messages, `sender` tracks the messages on their way, and `delivery` publishes each until the
//! server has stored it. Every call that waits can be dropped at any point, for example by a timeout, and no item is lost.

mod delivery;
pub(crate) mod file;
mod headers;
mod large;
mod newer;
mod pack;
mod sender;
mod shared;

use std::fs::File;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::large::LargeItems;
use super::{Client, ClientError, intake};
use crate::frame::Headers;
use crate::frame::cbor;
use crate::frame::id::check_fed_id;
use crate::frame::large::Form;
use crate::name::{ChainName, Topic};
use large::Source;
use newer::Newer;
use pack::Pack;
use sender::{Key, Sender};

pub use delivery::{Waiting, Waits};

/// The most time for the last tries when feeding is abandoned.
const SETTLE: Duration = Duration::from_secs(1);
/// The most time to remove what uploads have left that did not end. Nodes remove the rest within minutes.
const REMOVE: Duration = Duration::from_secs(5);

/// How items are packed into messages. A message is sent as soon as it reaches one of these limits.
///
/// Items with ids of their own go in messages of their own, so that feeding them again drops exactly those that the chain already
/// has.
///
/// ```
/// let mut packing = pcluster::client::Packing::default();
/// packing.items = 16;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packing {
    /// The most items in a message.
    pub items: usize,
    /// The most bytes in a message.
    pub bytes: usize,
    /// The longest time that an item waits for others.
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
    /// The item, as one CBOR data item.
    pub cbor: Bytes,
    /// The id of the item. `None` for a new ULID.
    ///
    /// If two items are fed under the same id within the chain's duplicate window, the server drops the second. An id has no
    /// spaces or control characters, and does not begin with `pcluster.`.
    pub id: Option<String>,
    /// The topic of the item and of all that comes of it. `None` for no topic. Only items of one topic share a message.
    pub topic: Option<Topic>,
}

impl Item {
    /// Serializes a value into an item.
    ///
    /// # Errors
    ///
    /// If CBOR has no form for it.
    pub fn of(value: &impl Serialize) -> Result<Self, ClientError> {
        let mut cbor = Vec::new();
        ciborium::into_writer(value, &mut cbor).map_err(|error| ClientError::Encode(error.to_string()))?;
        Ok(Self { cbor: cbor.into(), id: None, topic: None })
    }

    /// Wraps one CBOR data item as it is.
    pub fn from_cbor(cbor: impl Into<Vec<u8>>) -> Self {
        Self { cbor: Bytes::from(cbor.into()), id: None, topic: None }
    }

    /// Gives the item an id.
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..self }
    }

    /// Gives the item a topic.
    pub fn with_topic(self, topic: Topic) -> Self {
        Self { topic: Some(topic), ..self }
    }
}

/// Counts of fed items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fed {
    /// Items that the chain has stored.
    pub accepted: u64,
    /// Items whose ids the chain already had. An item that the feeder sent again because an answer was lost is not among them.
    pub duplicates: u64,
}

/// Feeds one chain. Many items are on their way at once, and [`Feeder::finish`] waits for the last.
///
/// [`Feeder::feed`], [`Feeder::flush`] and [`Feeder::finish`] can be dropped before they are done, as `tokio::time::timeout` and
/// `tokio::select!` do, and called again. No item is lost by that.
pub struct Feeder {
    sender: Sender,
    packing: Packing,
    newer: Newer,
}

pub(super) async fn feeder(client: &Client, chain: &ChainName) -> Result<Feeder, ClientError> {
    let (_, marked) = client.chain(chain).await?;
    if !marked.state.open {
        return Err(ClientError::Closed(chain.clone()));
    }
    intake::check_intake_to_feed(client, chain).await?;
    let large = LargeItems::of(client, chain).await?;
    let sender = Sender::new(client.clone(), chain.clone(), large);
    Ok(Feeder { sender, packing: Packing::default(), newer: Newer::of(client.clone(), chain.clone()) })
}

impl Feeder {
    /// Sets how items are packed into messages from now on.
    pub fn with_packing(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Sets headers that go with what is fed from now on. Results and dead letters have them, as [`ResultItem::headers`].
    ///
    /// # Errors
    ///
    /// If the names and values have more than 4 KiB together, a name begins with `Nats-` or `Pcluster-` or is `Content-Type`, or a
    /// name or value cannot stand in a header ([`ClientError::Header`]).
    ///
    /// [`ResultItem::headers`]: super::ResultItem::headers
    pub fn with_headers(mut self, headers: Headers) -> Result<Self, ClientError> {
        headers::problem(&headers).map_or(Ok(()), |problem| Err(ClientError::Header(problem)))?;
        self.sender.set_headers(headers);
        Ok(self)
    }

    /// Feeds an item. Returns once the item is on its way, or waits for others to share its message.
    ///
    /// An item that does not fit in a message, or has more bytes than `large` in the manifest says, goes to the chain's object store,
    /// and its message holds a reference. A byte string or a text may have up to 1 GiB, any other item up to 64 MiB.
    ///
    /// This waits while the chain has no room. The item is taken if and only if this returns `Ok`: if it fails or is dropped
    /// before, the item is not fed and can be fed again.
    ///
    /// # Errors
    ///
    /// If this item is too large ([`ClientError::Oversized`]), its id is invalid ([`ClientError::Id`]), it has a topic and the
    /// chain takes none ([`ClientError::NoTopics`]), or an earlier item could not be fed. [`Feeder::fed`] returns how many were
    /// fed.
    pub async fn feed(&mut self, item: Item) -> Result<(), ClientError> {
        self.newer.check_topic(item.topic.as_ref()).await?;
        let (size, max) = (item.cbor.len(), self.sender.max_item());
        if size as u64 > self.sender.large().threshold() {
            check_one(&item.cbor)?;
            let (form, content) = Form::of(&item.cbor);
            let source = Source::Memory(item.cbor.slice_ref(content));
            large::check_size(content.len() as u64, form)?;
            return self.feed_large(source, form, item.id, item.topic).await;
        }
        self.sender.check()?;
        if item.id.is_some() || self.packing.items <= 1 {
            let key = self.key(item.id).await?;
            self.sender.send_pack(None).await?;
            let room = self.sender.room(size).await?;
            self.sender.send(room, key, item.cbor, 1, item.topic);
            return Ok(());
        }
        let most = self.packing.bytes.min(max);
        let (items, bytes) = (self.packing.items, most.saturating_sub(size));
        let is_other = |pack: &Pack| !pack.takes(item.topic.as_ref()) || pack.is_full(items, bytes);
        if is_other(&self.sender.pack()) {
            self.sender.send_pack(None).await?;
        }
        // From here on nothing awaits, so that the call is not dropped in between.
        let (number, is_full) = {
            let mut pack = self.sender.pack();
            let number = pack.add(&item.cbor, item.topic);
            (number, pack.is_full(self.packing.items, most.saturating_sub(1)))
        };
        let is_sent = is_full && self.sender.try_send_pack();
        if let Some(number) = number.filter(|_| !is_sent) {
            self.sender.send_in_time(number, self.packing.wait);
        }
        Ok(())
    }

    /// Feeds the content of a byte string or a text, from the start of a file. Returns once it is on its way.
    ///
    /// This is as [`Feeder::feed`], but for up to 1 GiB, and without the content in memory. The file must not change before
    /// [`Feeder::finish`] has returned.
    ///
    /// # Errors
    ///
    /// If the content is too large ([`ClientError::Oversized`]), a text is not UTF-8, the file cannot be read, the form is
    /// [`Form::Cbor`] and the file holds anything but one item, or as for [`Feeder::feed`].
    pub async fn feed_file(
        &mut self,
        file: File,
        form: Form,
        id: Option<String>,
        topic: Option<Topic>,
    ) -> Result<(), ClientError> {
        self.newer.check_topic(topic.as_ref()).await?;
        let (file, size) = large::checked(file, form).await?;
        if form == Form::Cbor {
            let cbor = large::read(file, size, form).await?;
            check_one(&cbor)?;
            return self.feed(Item { cbor, id, topic }).await;
        }
        if size + form.head(size).len() as u64 > self.sender.large().threshold() {
            return self.feed_large(Source::File(file, size), form, id, topic).await;
        }
        let cbor = large::read(file, size, form).await?;
        self.feed(Item { cbor, id, topic }).await
    }

    /// Feeds an item whose bytes go to the object store.
    async fn feed_large(
        &mut self,
        source: Source,
        form: Form,
        id: Option<String>,
        topic: Option<Topic>,
    ) -> Result<(), ClientError> {
        self.sender.check()?;
        self.newer.check_large(source.size(), self.sender.large().threshold()).await?;
        let key = self.key(id).await?;
        self.sender.send_pack(None).await?;
        let room = self.sender.large().room(&source).await?;
        self.sender.send_large(room, key, (source, form), topic);
        Ok(())
    }

    async fn key(&self, id: Option<String>) -> Result<Key, ClientError> {
        let Some(id) = id else { return Ok(Key::new()) };
        check_fed_id(&id)?;
        Ok(self.sender.given(id).await)
    }

    /// Feeds a message of several items, a CBOR sequence. `id` is the id of the message. If this is dropped, the message was
    /// either sent or never will be.
    pub(crate) async fn feed_packed(&mut self, id: String, payload: Bytes, items: u64) -> Result<(), ClientError> {
        self.sender.check()?;
        let room = self.sender.room(payload.len()).await?;
        self.sender.send(room, Key::own(id), payload, items, None);
        Ok(())
    }

    /// Sends the items that wait for others to share their message. Returns once the message is on its way. If this is dropped
    /// before, the items keep waiting for others.
    pub async fn flush(&mut self) {
        // After the feeder was abandoned, there is nothing to send.
        let _ = self.sender.send_pack(None).await;
    }

    /// Waits until the chain has stored every item. Can be dropped and called again.
    ///
    /// # Errors
    ///
    /// If an item could not be fed. [`Feeder::fed`] returns how many were fed.
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

    /// Returns how many items the chain has stored so far.
    pub fn fed(&self) -> Fed {
        self.sender.fed()
    }

    /// Returns a handle that reports the progress of the feeder, also while it feeds.
    pub fn waits(&self) -> Waits {
        self.sender.waits()
    }

    /// Takes no more items, and waits at most `patience` for those on their way. Nothing more is fed afterwards, unless the
    /// server does not answer. What large items have stored in part is removed, which takes at most some seconds more.
    pub async fn abandon(&mut self, patience: Duration) -> Fed {
        drop(self.sender.pack().take());
        let _ = tokio::time::timeout(patience, self.settle()).await;
        self.sender.close();
        // Pending tries end now. For stored messages the server answers.
        let _ = tokio::time::timeout(SETTLE, self.settle()).await;
        let _ = tokio::time::timeout(REMOVE, self.sender.large().has_removed()).await;
        self.fed()
    }

    /// Waits until all items on their way have succeeded or failed.
    async fn settle(&mut self) {
        while !self.sender.is_idle() {
            self.sender.changed().await;
        }
    }
}

fn check_one(item: &[u8]) -> Result<(), ClientError> {
    cbor::check_one(item).map_err(|error| ClientError::Encode(error.to_string()))
}
