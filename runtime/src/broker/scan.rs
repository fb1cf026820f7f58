//! Reads the messages that a stream holds now, and removes single messages.
//!
//! Messages are requested by sequence number. So the server keeps no consumer, and a scan ends where the stream ended when it
//! began, whatever is added or removed meanwhile. [`super::follow`] reads new messages.
//!
//! Batches are read from any server with a replica, which may lag behind; single messages are read from the stream's leader. If the
//! line is lost during a batch, the next message is read alone: it may be unreadable for the client library.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::header::{NATS_SEQUENCE, NATS_TIME_STAMP};
use async_nats::{Message, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::error::code;
use super::follow::moment;
use super::get::Stored;
use super::letters::Letters;
use super::line::Answers;
use super::message::StreamMessage;
use super::request::AGAIN_EARLY;
use super::stream::Stream;
use super::{Broker, BrokerError, REQUEST_TIMEOUT, from_header_map};
use crate::frame::Headers;

/// How many messages one request asks for, and how many bytes.
const BATCH: u64 = 256;
const BATCH_BYTES: u64 = 8 << 20;
/// The status with which the server ends a batch.
const END_OF_BATCH: u16 = 204;
/// The header of that status with the number of messages behind the batch.
const NUM_PENDING: &str = "Nats-Num-Pending";

/// Reads the messages of a stream, oldest first.
#[derive(Debug)]
pub struct Scan {
    broker: Broker,
    stream: String,
    filter: String,
    next: Next,
    last: u64,
    ahead: VecDeque<StreamMessage>,
}

/// Where the next batch starts.
#[derive(Debug, Clone)]
enum Next {
    At(u64),
    Since(String),
    Nowhere,
}

impl Stream<'_> {
    /// Reads the messages under the subjects of a pattern, all of them or those stored since this long ago.
    pub async fn scan(&self, filter: String, since: Option<Duration>) -> Result<Scan, BrokerError> {
        let last = self.last_place().await?;
        let next = match since.and_then(moment) {
            Some(time) => Next::Since(time),
            None => Next::At(1),
        };
        Ok(Scan {
            broker: self.broker.clone(),
            stream: self.name.to_owned(),
            filter,
            next,
            last,
            ahead: VecDeque::new(),
        })
    }

    /// Reads all messages after `place`, up to where the stream ends once they are read.
    ///
    /// What is moved to the end of the stream meanwhile is read there, unless it is stored at the end before it is removed, and
    /// another server answers for the end.
    pub(crate) fn scan_to_end(&self, place: u64) -> Scan {
        Scan {
            broker: self.broker.clone(),
            stream: self.name.to_owned(),
            filter: ">".to_owned(),
            next: Next::At(place + 1),
            last: u64::MAX,
            ahead: VecDeque::new(),
        }
    }

    /// Returns one message; `None` if there is none with this number.
    pub async fn message(&self, sequence: u64) -> Result<Option<StreamMessage>, BrokerError> {
        let what = || format!("read message {sequence} of the stream `{}`", self.name);
        let stored = Stored::read(self.broker, self.name, &json!({ "seq": sequence }), what).await?;
        Ok(stored.map(StreamMessage::of))
    }

    /// Returns the headers of a message; `None` if there is none with this number.
    pub async fn headers(&self, sequence: u64) -> Result<Option<Headers>, BrokerError> {
        Ok(self.message(sequence).await?.map(|kept| kept.headers))
    }

    /// Returns `true` if there is a message with this number.
    pub async fn has_message(&self, sequence: u64) -> Result<bool, BrokerError> {
        Ok(self.message(sequence).await?.is_some())
    }

    /// Returns the number of the first message after `place` under the subjects of a pattern; `None` if there is none.
    pub async fn next_place(&self, pattern: &str, place: u64) -> Result<Option<u64>, BrokerError> {
        let what = || format!("read the stream `{}`", self.name);
        let request = json!({ "seq": place + 1, "next_by_subj": pattern });
        Ok(Stored::read(self.broker, self.name, &request, what).await?.map(|stored| stored.sequence))
    }

    /// Removes one message. Returns `true` if it was there.
    pub async fn remove_message(&self, sequence: u64) -> Result<bool, BrokerError> {
        let what = || format!("remove message {sequence} of the stream `{}`", self.name);
        // Overwriting the bytes is slow, and meant for secrets.
        let request = json!({ "seq": sequence, "no_erase": true });
        match self.broker.api::<Value>(format!("STREAM.MSG.DELETE.{}", self.name), &request, what).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(code::NOT_REMOVED) => match self.message(sequence).await? {
                None => Ok(false),
                Some(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

impl Scan {
    /// Leaves out the messages up to this place.
    pub fn behind(self, place: u64) -> Self {
        Self { next: Next::At(place + 1), ..self }
    }

    /// Returns the next message; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<StreamMessage>, BrokerError> {
        let deadline = Instant::now() + self.broker.patience();
        loop {
            if let Some(kept) = self.ahead.pop_front() {
                return Ok((kept.sequence <= self.last).then_some(kept));
            }
            if matches!(self.next, Next::Nowhere) {
                return Ok(None);
            }
            match self.fetch().await {
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN_EARLY).await;
                }
                fetched => fetched?,
            }
        }
    }

    /// Returns the next dead letter with its item; `None` after the last.
    pub async fn next_letter(&mut self) -> Result<Option<StreamMessage>, BrokerError> {
        while let Some(kept) = self.next().await? {
            if !kept.is_item_part() {
                return Ok(Some(Letters::of(&self.broker, &self.stream).with_item(kept).await?));
            }
        }
        Ok(None)
    }

    async fn fetch(&mut self) -> Result<(), BrokerError> {
        let what = || format!("read the stream `{}`", self.stream);
        let mut request = json!({ "next_by_subj": self.filter, "batch": BATCH, "max_bytes": BATCH_BYTES });
        match &self.next {
            Next::At(sequence) => request["seq"] = json!(sequence),
            Next::Since(time) => request["start_time"] = json!(time),
            Next::Nowhere => return Ok(()),
        }
        let api = format!("{}.DIRECT.GET.{}", self.broker.api_prefix, self.stream);
        let mut answers = Answers::to(&self.broker, api.clone(), request.to_string().into(), &what()).await?;
        let mut is_end = false;
        loop {
            let message = match timeout(REQUEST_TIMEOUT, answers.next()).await {
                Ok(Some(message)) => message,
                Err(_) if self.ahead.is_empty() => return Err(self.broker.timed_out(&api, what())),
                Ok(None) if self.ahead.is_empty() => {
                    self.fetch_one(request).await?;
                    break;
                }
                // The messages that arrived are kept; the rest is requested again.
                Err(_) | Ok(None) => break,
            };
            // A stored message may begin like a status.
            if let Some(kept) = read(&message) {
                self.ahead.push_back(kept);
                continue;
            }
            match message.status {
                Some(StatusCode::NOT_FOUND) => break,
                Some(status) if status.as_u16() == END_OF_BATCH => {
                    let pending = message.headers.as_ref().and_then(|headers| headers.get_last(NUM_PENDING));
                    is_end = pending.is_some_and(|pending| pending.as_str() == "0");
                    break;
                }
                // No server answers during an election in a cluster.
                Some(StatusCode::NO_RESPONDERS) => return Err(BrokerError::NoJetStream(self.broker.url().to_owned())),
                Some(status) if (400..600).contains(&status.as_u16()) => return Err(refused(what(), &message)),
                // An answer that no server gives is from another client.
                _ => {}
            }
        }
        self.next = match self.ahead.back() {
            Some(read) if read.sequence < self.last && !is_end => Next::At(read.sequence + 1),
            _ => Next::Nowhere,
        };
        Ok(())
    }

    /// Reads the first message of a batch.
    async fn fetch_one(&mut self, mut request: Value) -> Result<(), BrokerError> {
        let what = || format!("read the stream `{}`", self.stream);
        if let Some(request) = request.as_object_mut() {
            request.retain(|key, _| key != "batch" && key != "max_bytes");
        }
        let stored = Stored::read(&self.broker, &self.stream, &request, what).await?;
        self.ahead.extend(stored.map(StreamMessage::of));
        Ok(())
    }
}

/// Reads a message of a batch. The server appends its place to the headers, after stored headers that may look the same.
fn read(message: &Message) -> Option<StreamMessage> {
    let map = message.headers.as_ref()?;
    let get = |name: &async_nats::HeaderName| map.get_last(name.as_ref()).map(async_nats::HeaderValue::as_str);
    // The end of a batch has no time.
    Some(StreamMessage {
        sequence: get(&NATS_SEQUENCE)?.parse().ok()?,
        stored: get(&NATS_TIME_STAMP)?.to_owned(),
        headers: from_header_map(message.headers.as_ref()),
        payload: message.payload.clone(),
    })
}

fn refused(what: String, answer: &Message) -> BrokerError {
    let reason = answer.description.clone().unwrap_or_else(|| "the server refuses".to_owned());
    BrokerError::Other { what, reason }
}
