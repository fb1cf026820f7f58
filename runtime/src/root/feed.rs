//! Feeding items into a chain.

mod delivery;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;

use super::{Root, RootError};
use crate::broker::Broker;
use crate::broker::publish::{Outgoing, Published};
use crate::frame::id::FrameId;
use crate::frame::{Frame, Headers, header};
use crate::name::ChainName;
use crate::subject;
use delivery::Delivery;

pub use delivery::{Waiting, Waits};

/// Items that may be on their way at once.
const WINDOW: usize = 512;
/// What items are sent as.
const CONTENT_TYPE: &str = "application/cbor-seq";

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
    broker: Broker,
    subject: Arc<str>,
    delivery: Arc<Delivery>,
    on_the_way: FuturesUnordered<futures_util::future::BoxFuture<'static, Result<Published, RootError>>>,
    fed: Fed,
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
        Ok(Feeder {
            broker: self.broker.clone(),
            subject: subject::intake(chain).into(),
            delivery: Arc::new(Delivery::new(self.clone(), chain.clone())),
            on_the_way: FuturesUnordered::new(),
            fed: Fed::default(),
        })
    }
}

impl Feeder {
    /// Feeds an item. Returns once it is on its way, which may take until the chain has room.
    ///
    /// # Errors
    ///
    /// If this item is too large ([`RootError::TooLarge`]), or one that was on its way cannot be fed. [`Feeder::fed`] tells
    /// how many were.
    pub async fn feed(&mut self, item: Item) -> Result<(), RootError> {
        while self.on_the_way.len() >= WINDOW {
            self.arrived().await?;
        }
        let id = item.id.unwrap_or_else(|| ulid::Ulid::generate().to_string());
        let frame = Frame::of_one(FrameId::from_header(&id), item.cbor);
        let mut headers = Headers::new();
        headers.push(header::ID, id.as_str());
        headers.push(header::CONTENT_TYPE, CONTENT_TYPE);
        let message = Outgoing { subject: self.subject.to_string(), message_id: id, headers, payload: frame.payload() };
        let (size, max) = (message.payload.len(), self.broker.max_item());
        if size > max {
            return Err(RootError::TooLarge { size, max });
        }
        let delivery = Arc::clone(&self.delivery);
        self.on_the_way.push(async move { delivery.deliver(message).await }.boxed());
        while let Some(Some(published)) = self.on_the_way.next().now_or_never() {
            self.count(published)?;
        }
        Ok(())
    }

    /// Waits until every item has arrived.
    ///
    /// # Errors
    ///
    /// If one could not be fed. [`Feeder::fed`] tells how many were.
    pub async fn finish(&mut self) -> Result<Fed, RootError> {
        while !self.on_the_way.is_empty() {
            self.arrived().await?;
        }
        Ok(self.fed)
    }

    /// How much has arrived so far.
    #[must_use]
    pub fn fed(&self) -> Fed {
        self.fed
    }

    /// Tells what the feeder waits for, also while it feeds.
    #[must_use]
    pub fn waits(&self) -> Waits {
        self.delivery.waits.clone()
    }

    /// Waits for the items on their way, but no longer than this, and takes no more.
    pub async fn abandon(&mut self, patience: Duration) -> Fed {
        let _ = tokio::time::timeout(patience, async {
            while let Some(published) = self.on_the_way.next().await {
                let _ = self.count(published);
            }
        })
        .await;
        self.fed
    }

    async fn arrived(&mut self) -> Result<(), RootError> {
        match self.on_the_way.next().await {
            Some(published) => self.count(published),
            None => Ok(()),
        }
    }

    fn count(&mut self, published: Result<Published, RootError>) -> Result<(), RootError> {
        match published? {
            Published::Stored => self.fed.accepted += 1,
            Published::Duplicate => self.fed.duplicates += 1,
        }
        Ok(())
    }
}
