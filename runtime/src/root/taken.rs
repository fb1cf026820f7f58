//! A result that a puller has taken, and the message that it shares with others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use tokio::time::Instant;

use super::ResultItem;
use super::pull::confirmed::Handed;
use crate::broker::Broker;
use crate::broker::publish::{Outgoing, PublishError};
use crate::broker::queue::Delivery;
use crate::frame::format::Format;
use crate::frame::id::Index;
use crate::frame::{Headers, header};

/// How long to try to put results back while the server does not take them.
const PUT_BACK: Duration = Duration::from_secs(10);
/// How long to wait before the next try.
const AGAIN: Duration = Duration::from_millis(250);

/// A result that was taken, or what else the puller gives. Unless it is confirmed, another puller gets it, in half a minute or
/// when [`Taken::give_back`] is called.
///
/// A message may hold several results. The server knows whether a message was taken, not a result: it is confirmed with the
/// last of them, and where some of them are given back these are put into the stream again as a message of their own.
#[derive(Debug)]
pub struct Taken<T = ResultItem> {
    /// The result.
    pub result: T,
    message: Arc<Message>,
    position: usize,
}

/// A message of results that was handed out.
#[derive(Debug)]
struct Message {
    broker: Broker,
    handed: Handed,
    subject: String,
    headers: Headers,
    payload: Bytes,
    /// For each result whether it was confirmed; `None` if nothing was said of it yet.
    said: Mutex<Vec<Option<bool>>>,
}

impl<T> Taken<T> {
    /// All that came in a message.
    pub(super) fn all(
        results: Vec<T>,
        broker: &Broker,
        handed: Handed,
        delivery: Delivery,
    ) -> impl Iterator<Item = Self> + use<T> {
        let message = Arc::new(Message {
            broker: broker.clone(),
            subject: delivery.subject().to_owned(),
            headers: delivery.headers(),
            said: Mutex::new(vec![None; results.len()]),
            handed,
            payload: delivery.payload,
        });
        let taken = move |(position, result)| Self { result, message: Arc::clone(&message), position };
        results.into_iter().enumerate().map(taken)
    }

    /// Confirms the result: no other puller gets it.
    pub async fn ack(self) {
        self.message.say(self.position, true).await;
    }

    /// Gives the result to the next who asks.
    pub async fn give_back(self) {
        self.message.say(self.position, false).await;
    }

    pub(super) fn map<U>(self, convert: impl FnOnce(T) -> U) -> Taken<U> {
        Taken { result: convert(self.result), message: self.message, position: self.position }
    }

    /// Whether it is the last of its message.
    pub(super) fn is_last(&self) -> bool {
        self.position + 1 == self.message.said.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Tells the server that the message is still wanted.
    pub(super) async fn keep(&self) {
        self.message.handed.keep().await;
    }
}

impl Message {
    async fn say(&self, position: usize, confirmed: bool) {
        let said: Option<Vec<bool>> = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said[position] = Some(confirmed);
            said.iter().copied().collect()
        };
        // Nothing can be done before something was said of each.
        let Some(said) = said else { return };
        if said.iter().all(|confirmed| *confirmed) {
            self.handed.confirm().await;
        } else if said.iter().any(|confirmed| *confirmed) {
            self.put_back(&said).await;
        } else {
            self.handed.give_back().await;
        }
    }

    /// Puts the results that were not confirmed into the stream again.
    async fn put_back(&self, said: &[bool]) {
        let items = Format::Cbor.items(&self.payload).unwrap_or_default();
        let rest: Vec<usize> = (0..items.len()).filter(|position| said.get(*position) != Some(&true)).collect();
        let mut payload = BytesMut::new();
        for position in &rest {
            payload.extend_from_slice(&items[*position]);
        }
        let index = self.headers.get(header::INDEX).and_then(|text| Index::parse(text, items.len()).ok());
        let index = index.unwrap_or_else(|| Index::in_order(items.len())).pick(&rest);
        let mut headers = self.headers.without(&[header::INDEX, header::COVERS, header::AGAIN, header::MESSAGE_ID]);
        headers.push(header::INDEX, index.to_string());
        headers.push(header::AGAIN, "1");
        let message_id = format!("pcluster.again.{}", ulid::Ulid::generate());
        let message = Outgoing { subject: self.subject.clone(), message_id, headers, payload: payload.freeze() };
        match self.publish(&message).await {
            Ok(()) => self.handed.confirm().await,
            Err(error) => {
                tracing::warn!(%error, "results that were not confirmed cannot be put back; the whole message is");
                self.handed.give_back().await;
            }
        }
    }

    /// Publishes until the server has the message, but not for ever.
    async fn publish(&self, message: &Outgoing) -> Result<(), PublishError> {
        let deadline = Instant::now() + PUT_BACK;
        loop {
            match self.broker.publish(message).await {
                Err(PublishError::Unanswered | PublishError::NoStream(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                }
                published => return published.map(drop),
            }
        }
    }
}
