//! Publishes the chunks of an upload, several at once, in order.
//!
//! A message that is lost on its way would leave a gap, and one that is sent again would come behind its followers. So after any
//! doubt the sender looks at what is stored: the upload goes on if that is a beginning of it, else it begins anew.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use ulid::Ulid;

use super::super::get::Stored;
use super::super::publish::{PublishError, Publisher};
use super::super::{Broker, BrokerError};
use super::pieces::{PIECE, Pieces};
use super::{Holder, LargeStore, subject};
use crate::frame::header;

/// The bytes of a chunk, unless the server takes only smaller messages. Those of other clients are as large.
///
/// With chunks of 64 KiB to 1 MB and 4 to 32 in flight, single uploads of a prototype took 89 to 386 MB/s on two busy cores, and no
/// setting was clearly the best.
pub(super) const CHUNK: usize = 128 << 10;
/// Room for the headers of a chunk.
const CHUNK_HEADERS: usize = 512;
/// The most chunks of one upload whose answers are awaited.
const WINDOW: usize = 16;
/// The most chunks of all uploads of this process whose answers are awaited.
static IN_FLIGHT: Semaphore = Semaphore::const_new(128);
/// How long to wait for any answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why sending has stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is unknown what is stored; look, and go on.
    Doubt(String),
    /// The store is full.
    Full,
    /// The store does not exist.
    NoStore,
    /// Another reason.
    Broker(BrokerError),
    /// The bytes cannot be read.
    Source(super::LargeError),
}

impl From<BrokerError> for Stop {
    fn from(error: BrokerError) -> Self {
        if error.is_transient() { Self::Doubt(error.to_string()) } else { Self::Broker(error) }
    }
}

/// The chunks of one upload.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    store: &'a LargeStore,
    name: &'a str,
    holder: Holder,
    subject: String,
    /// The bytes of all chunks but the last.
    pub(super) size: usize,
    /// The number of chunks.
    pub(super) count: u64,
    whole: u64,
    /// Distinguishes a try from earlier ones, whose message ids the server remembers.
    run: Ulid,
    /// The number of chunks that are stored, in order.
    pub(super) stored: u64,
}

/// The line to the server for one try.
struct Sender<'a> {
    open: &'a Broker,
    inbox: String,
    answers: Subscriber,
    in_flight: BTreeMap<u64, SemaphorePermit<'static>>,
}

impl<'a> Chunks<'a> {
    /// Returns the chunks of an upload of this many bytes.
    pub(super) fn of(store: &'a LargeStore, name: &'a str, holder: Holder, whole: u64) -> Self {
        let limit = store.0.broker.max_payload().saturating_sub(CHUNK_HEADERS).max(1);
        let size = CHUNK.min(limit);
        let count = whole.div_ceil(size as u64);
        let subject = subject::chunks(&store.0.chain, name);
        Self { store, name, holder, subject, size, count, whole, run: Ulid::generate(), stored: 0 }
    }

    /// Returns the number of bytes that are stored.
    pub(super) fn sent(&self) -> u64 {
        self.whole.min(self.stored * self.size as u64)
    }

    /// Sends chunks until this many are stored, or something stops it.
    pub(super) async fn send(&mut self, pieces: &mut Pieces, until: u64) -> Result<(), Stop> {
        let open = self.store.0.line.open().await?;
        let inbox = open.client().new_inbox();
        let subscribed = open.client().subscribe(format!("{inbox}.*")).await;
        let answers = subscribed.map_err(|error| Stop::Doubt(error.to_string()))?;
        let mut sender = Sender { open: &open, inbox, answers, in_flight: BTreeMap::new() };
        let mut piece = (0, Bytes::new());
        let mut next = self.stored;
        while self.stored < until {
            while next < until && sender.in_flight.len() < WINDOW {
                let permit = if sender.in_flight.is_empty() {
                    IN_FLIGHT.acquire().await.ok()
                } else {
                    IN_FLIGHT.try_acquire().ok()
                };
                let Some(permit) = permit else { break };
                let chunk = self.chunk(next, &mut piece, pieces).await?;
                sender.publish(&self.subject, &self.id(next), next, chunk).await?;
                sender.in_flight.insert(next, permit);
                next += 1;
                while let Some(answer) = sender.answers.next().now_or_never() {
                    self.take(&mut sender, answer)?;
                }
            }
            if !sender.in_flight.is_empty() {
                let answer = timeout(PATIENCE, sender.answers.next()).await;
                let answer = answer.map_err(|_| self.silence(&open))?;
                self.take(&mut sender, answer)?;
            }
        }
        Ok(())
    }

    fn id(&self, number: u64) -> String {
        format!("{}.{}.{number}", self.name, self.run)
    }

    /// Returns the bytes of a chunk.
    async fn chunk(&self, number: u64, piece: &mut (u64, Bytes), pieces: &mut Pieces) -> Result<Bytes, Stop> {
        let mut chunk: Vec<Bytes> = Vec::new();
        let (mut place, end) = (number * self.size as u64, self.whole.min((number + 1) * self.size as u64));
        while place < end {
            let (start, bytes) = piece;
            if place < *start || place >= *start + bytes.len() as u64 {
                let start = place / PIECE * PIECE;
                *piece = (start, pieces.at(start).await.map_err(Stop::Source)?);
                continue;
            }
            let from = usize::try_from(place - *start).unwrap_or_default();
            let to = usize::try_from(end - *start).unwrap_or(usize::MAX).min(bytes.len());
            chunk.push(bytes.slice(from..to));
            place = *start + to as u64;
        }
        Ok(match chunk.len() {
            1 => chunk.swap_remove(0),
            _ => chunk.concat().into(),
        })
    }

    /// Takes an answer. Those of a chunk must come in the order of the chunks.
    fn take(&mut self, sender: &mut Sender<'_>, answer: Option<Message>) -> Result<(), Stop> {
        let Some(answer) = answer else { return Err(Stop::Doubt("the connection has ended".to_owned())) };
        let number = answer.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        let Some(number) = number.filter(|number| sender.in_flight.contains_key(number)) else { return Ok(()) };
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Stop::NoStore);
        }
        match Publisher::of(sender.open).read_answer(&self.subject, &answer.payload) {
            Ok(_) if number == self.stored => {
                sender.in_flight.remove(&number);
                self.stored += 1;
                Ok(())
            }
            Ok(_) => Err(Stop::Doubt(format!("chunk {number} is stored before chunk {}", self.stored))),
            Err(PublishError::Full(_) | PublishError::NoRoom(_)) => Err(Stop::Full),
            Err(PublishError::Broker(error)) => Err(error.into()),
            Err(error @ PublishError::TooLarge { .. }) => {
                Err(Stop::Broker(BrokerError::other(format!("store a chunk of {}", self.name), &error)))
            }
            Err(error) => Err(Stop::Doubt(error.to_string())),
        }
    }

    fn silence(&self, open: &Broker) -> Stop {
        match open.timed_out(&self.subject, format!("store the large item {}", self.name)) {
            BrokerError::Timeout(what) => Stop::Doubt(format!("no answer to the request to {what}")),
            error => Stop::Broker(error),
        }
    }

    /// Looks at what is stored, after all that was sent has come to rest.
    ///
    /// Removes it if it is no beginning of the upload.
    pub(super) async fn look(&mut self) -> Result<(), BrokerError> {
        self.fence().await?;
        let stream = self.store.stream();
        let count = match stream.state(Some((&self.subject, 0))).await {
            Ok(state) => state.state.subjects.values().sum(),
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error),
        };
        let last = self.last().await?;
        if count > 0 && last == Some(count - 1) {
            self.stored = count;
            return Ok(());
        }
        self.give_up().await
    }

    /// Removes all chunks. The next try begins anew.
    pub(super) async fn give_up(&mut self) -> Result<(), BrokerError> {
        self.fence().await?;
        match self.store.stream().purge(Some(&self.subject)).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        (self.stored, self.run) = (0, Ulid::generate());
        Ok(())
    }

    async fn fence(&self) -> Result<(), BrokerError> {
        self.store.fence(self.name, self.holder).await
    }

    /// Returns the number of the last stored chunk of this try.
    async fn last(&self) -> Result<Option<u64>, BrokerError> {
        let request = json!({ "last_by_subj": self.subject });
        let what = || format!("read the large item {}", self.name);
        let last = Stored::read(&self.store.0.broker, &self.store.0.stream, &request, what).await?;
        let run = format!("{}.{}.", self.name, self.run);
        Ok(last.and_then(|last| last.headers().get_exact(header::MESSAGE_ID)?.strip_prefix(&run)?.parse().ok()))
    }
}

impl Sender<'_> {
    async fn publish(&self, subject: &str, id: &str, number: u64, chunk: Bytes) -> Result<(), Stop> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id);
        let reply = format!("{}.{number}", self.inbox);
        let sent = self.open.client().publish_with_reply_and_headers(subject.to_owned(), reply, headers, chunk).await;
        sent.map_err(|error| Stop::Doubt(error.to_string()))
    }
}
