//! A message that a consumer has delivered, and the answers to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, HeaderValue, Message, Subject};
use bytes::Bytes;
use serde_json::json;

use super::place::Place;
use crate::broker::from_header_map;
use crate::broker::link::Link;
use crate::frame::{Headers, header};
use crate::held::HeldSince;

/// How often an acknowledgement is sent that must be confirmed. Each waits as long as a request may take.
const CONFIRM_TRIES: usize = 4;
/// How long to wait before it is sent again. A cluster may elect a leader.
const CONFIRM_AGAIN: Duration = Duration::from_secs(1);

/// A delivered message that wants an acknowledgement.
#[derive(Debug)]
pub struct Delivery {
    /// Its payload.
    pub payload: Bytes,
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// Its number among the consumer's deliveries, from 1.
    pub order: u64,
    /// How many more messages the consumer has to deliver.
    pub pending: u64,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub stored_millis: u64,
    /// How often it was delivered, this time included.
    pub delivered: u64,
    /// Since when the server waits for an acknowledgement.
    pub held: Arc<HeldSince>,
    /// Sends the acknowledgement.
    pub acker: Acker,
    subject: Subject,
    headers: Option<HeaderMap>,
}

impl Delivery {
    /// Reads a message that was requested at a moment; `None` if it wants no answer. Answers go over `link`.
    pub(super) fn new(message: Message, place: &Place, requested: Instant, link: &Arc<Link>) -> Option<Self> {
        Some(Self {
            subject: message.subject,
            // The client library's payload is a part of its read buffer, and keeps all of it: twice the bytes of a large message.
            payload: Bytes::copy_from_slice(&message.payload),
            sequence: place.sequence,
            order: place.order,
            pending: place.pending,
            stored_millis: place.stored_nanos / 1_000_000,
            delivered: place.delivered,
            held: Arc::new(HeldSince::new(requested)),
            acker: Acker { link: Arc::clone(link), reply: message.reply? },
            headers: message.headers,
        })
    }

    /// Returns the subject that it is stored under.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the first value of a header, whatever the case of its name.
    ///
    /// If the names of several headers differ only in case, the one that is spelled like `name` wins.
    pub fn header(&self, name: &str) -> Option<&str> {
        // The library's map has no order.
        let (_, values) = self
            .headers_by_name()
            .filter(|(each, _)| each.eq_ignore_ascii_case(name))
            .min_by_key(|(each, _)| (*each != name, *each))?;
        values.first().map(HeaderValue::as_str)
    }

    /// Returns the first value of a header that the server reads too, in exactly this case.
    pub fn server_header(&self, name: &str) -> Option<&str> {
        let (_, values) = self.headers_by_name().find(|(each, _)| *each == name)?;
        values.first().map(HeaderValue::as_str)
    }

    /// Returns the values of each header. To look through all takes less time than the map, which wants an allocated name.
    fn headers_by_name(&self) -> impl Iterator<Item = (&str, &Vec<HeaderValue>)> {
        self.headers.iter().flat_map(HeaderMap::iter).map(|(name, values)| (name.as_ref(), values))
    }

    /// Returns the headers that the outputs of the message inherit.
    pub fn inherited(&self) -> Headers {
        let mut inherited = Headers::new();
        for (name, values) in self.headers_by_name() {
            if !header::is_own(name) {
                for value in values {
                    inherited.push(name.to_owned(), value.as_str());
                }
            }
        }
        inherited
    }

    /// Returns all headers.
    pub fn headers(&self) -> Headers {
        from_header_map(self.headers.as_ref())
    }
}

/// Acknowledges a message. It does not wait for the server: if an answer is lost, the message is delivered again.
#[derive(Debug, Clone)]
pub struct Acker {
    link: Arc<Link>,
    reply: Subject,
}

impl Acker {
    /// Acknowledges the message: it is handled.
    pub async fn ack(&self) {
        self.answer("+ACK".into()).await;
    }

    /// Acknowledges the message, and waits until the server confirms it. Returns `false` if it does not.
    pub async fn ack_and_confirm(&self) -> bool {
        for _ in 0..CONFIRM_TRIES {
            match self.link.client().request(self.reply.clone(), "+ACK".into()).await {
                Ok(answer) if answer.status.is_none() => return true,
                Ok(answer) => tracing::debug!(status = ?answer.status, "an acknowledgement was not taken"),
                Err(error) => tracing::debug!(%error, "an acknowledgement was not confirmed"),
            }
            tokio::time::sleep(CONFIRM_AGAIN).await;
        }
        false
    }

    /// Asks the server to deliver the message again after a delay.
    pub async fn nak(&self, delay: Duration) {
        let payload = if delay.is_zero() {
            "-NAK".to_owned()
        } else {
            format!("-NAK {}", json!({ "delay": u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX) }))
        };
        self.answer(payload.into()).await;
    }

    /// Reports progress: the server's `ack_wait` starts anew.
    pub async fn progress(&self) {
        self.answer("+WPI".into()).await;
    }

    /// Returns the subject for answers to the message.
    pub(in crate::broker) fn reply(&self) -> Subject {
        self.reply.clone()
    }

    async fn answer(&self, payload: Bytes) {
        if let Err(error) = self.link.client().publish(self.reply.clone(), payload).await {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}
