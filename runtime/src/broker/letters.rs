//! Dead letters whose items are in messages of their own, right before the letter.

use bytes::{Bytes, BytesMut};

use super::message::{StreamMessage, item_parts};
use super::queue::Delivery;
use super::stream::Stream;
use super::{Broker, BrokerError};
use crate::frame::header;

/// A stream of dead letters.
#[derive(Debug, Clone, Copy)]
pub struct Letters<'a>(Stream<'a>);

impl<'a> Letters<'a> {
    /// Returns the dead letters of a stream.
    pub fn of(broker: &'a Broker, stream: &'a str) -> Self {
        Self(Stream::of(broker, stream))
    }

    /// Adds its item to a dead letter that was read. If one of the item's messages is gone, so is the item.
    pub async fn with_item(&self, letter: StreamMessage) -> Result<StreamMessage, BrokerError> {
        let payload = self.item(letter.sequence, letter.item_parts()).await?;
        Ok(StreamMessage { payload: payload.unwrap_or(letter.payload), ..letter })
    }

    /// Returns the item of a letter, from so many messages before it; `None` if it is in the letter, or gone.
    async fn item(&self, letter: u64, parts: u64) -> Result<Option<Bytes>, BrokerError> {
        let mut item = BytesMut::new();
        for place in letter.saturating_sub(parts)..letter {
            match self.0.message(place).await? {
                Some(part) if part.is_item_part() => item.extend_from_slice(&part.payload),
                _ => return Ok(None),
            }
        }
        Ok((parts > 0).then(|| item.freeze()))
    }

    /// Adds its item to a dead letter that was delivered.
    pub async fn add_item(&self, letter: &mut Delivery) -> Result<(), BrokerError> {
        let parts = item_parts(letter.header(header::ITEM_PARTS));
        if let Some(item) = self.item(letter.sequence, parts).await? {
            letter.payload = item;
        }
        Ok(())
    }

    /// Removes a dead letter and then its item. Returns `true` if the letter was there.
    pub async fn remove(&self, number: u64) -> Result<bool, BrokerError> {
        let parts = self.0.message(number).await?.map_or(0, |letter| letter.item_parts());
        let was_there = self.0.remove_message(number).await?;
        for place in number.saturating_sub(parts)..number {
            if self.0.message(place).await?.is_some_and(|part| part.is_item_part()) {
                self.0.remove_message(place).await?;
            }
        }
        Ok(was_there)
    }
}
