//! Reads an object, many chunks a request, and checks it.
//!
//! Chunks are requested by subject and place. So no consumer is left behind, and an end without all bytes is seen at once. Batches
//! come from any server with a replica, which may lag behind; before anything counts as missing, the leader is asked.

use std::fs::File;
use std::time::Duration;

use async_nats::Message;
use async_nats::header::{NATS_SEQUENCE, NATS_SUBJECT};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::BrokerError;
use super::super::get::Stored;
use super::head;
use super::sink::Sink;
use super::{LargeError, LargeStore, subject};
use crate::broker::line::Answers;
use crate::frame::large::Reference;

/// How many chunks one request asks for, and how many bytes. More of them take memory, and were not clearly faster: on two busy
/// cores, two fetches of a prototype with chunks of 128 KiB took 159 and 198 MB/s.
const BATCH: u64 = 256;
const BATCH_BYTES: u64 = 2 << 20;
/// The requests of this process that are answered at once.
static IN_FLIGHT: Semaphore = Semaphore::const_new(8);
/// The longest wait for the next chunk.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the chunks of an object.
struct Reader<'a> {
    store: &'a LargeStore,
    reference: &'a Reference,
    subject: String,
    /// The place from which on chunks are yet to be read.
    next: u64,
    sink: Sink,
}

impl LargeStore {
    /// Fetches an object into a file, from its position on. What is written counts only after `Ok`.
    ///
    /// Waits for a server that is away, never for missing chunks.
    ///
    /// # Errors
    ///
    /// Final if the object is missing or is not what the reference says.
    pub(crate) async fn fetch(&self, reference: &Reference, into: &mut File) -> Result<(), LargeError> {
        self.fetch_into(reference, Sink::to_file(into)?).await.map(drop)
    }

    /// Fetches an object as a whole.
    ///
    /// # Errors
    ///
    /// Like [`LargeStore::fetch`].
    pub(crate) async fn read(&self, reference: &Reference) -> Result<Bytes, LargeError> {
        self.fetch_into(reference, Sink::to_memory(reference.size)).await
    }

    async fn fetch_into(&self, reference: &Reference, sink: Sink) -> Result<Bytes, LargeError> {
        let head = self.head(reference).await?;
        let subject = subject::chunks(&self.0.chain, head.upload().unwrap_or(&reference.name));
        let mut reader = Reader { store: self, reference, subject, next: 1, sink };
        while reader.sink.size < reference.size {
            if reader.read_batch().await? == 0 {
                reader.read_one().await?;
            }
        }
        let (hash, bytes) = reader.sink.finish().await?;
        if !head::is_digest_of(&reference.digest, &hash) {
            return Err(self.damaged(&reference.name, "its bytes have another digest"));
        }
        Ok(bytes)
    }
}

impl Reader<'_> {
    /// Reads a batch of chunks. Returns how many came before its end, or before something went wrong.
    async fn read_batch(&mut self) -> Result<u64, LargeError> {
        let store = self.store;
        let Ok(_permit) = IN_FLIGHT.acquire().await else { return Ok(0) };
        let left = (self.reference.size - self.sink.size).saturating_add(BATCH);
        let request = json!({
            "seq": self.next, "next_by_subj": self.subject, "batch": BATCH, "max_bytes": BATCH_BYTES.min(left.max(1)),
        });
        let api = format!("{}.DIRECT.GET.{}", store.0.broker.api_prefix, store.0.stream);
        let asked = Answers::on(&store.0.line, api.clone(), request.to_string().into(), "read large items").await;
        let mut answers = match asked {
            Ok(answers) => answers,
            Err(error) if error.is_transient() => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut read = 0;
        while self.sink.size < self.reference.size {
            let answer = timeout(PATIENCE, answers.next()).await;
            if answer.is_err() {
                let what = format!("read the large item {}", self.reference.name);
                if let error @ BrokerError::NoPermission { .. } = store.0.broker.timed_out(&api, what) {
                    return Err(error.into());
                }
            }
            let Ok(Some(message)) = answer else { break };
            // The answer that ends a batch has no place, nor has one that refuses it.
            let Some(place) = place(&message, &self.subject) else { break };
            if place < self.next {
                continue;
            }
            self.take(place, message.payload).await?;
            read += 1;
        }
        Ok(read)
    }

    /// Reads the next chunk from the leader of the stream.
    async fn read_one(&mut self) -> Result<(), LargeError> {
        if let Some(stored) = self.next_of_leader().await? {
            return self.take(stored.sequence, stored.payload.into()).await;
        }
        let (size, stored) = (self.reference.size, self.sink.size);
        Err(self.store.missing(&self.reference.name, format!("of its {size} bytes, {stored} are stored")))
    }

    async fn next_of_leader(&self) -> Result<Option<Stored>, BrokerError> {
        let request = json!({ "seq": self.next, "next_by_subj": self.subject });
        let what = || format!("read the large item {}", self.reference.name);
        let (broker, stream) = (&self.store.0.broker, &self.store.0.stream);
        insist!(self.store, "read large items", Stored::read(broker, stream, &request, what))
    }

    async fn take(&mut self, place: u64, chunk: Bytes) -> Result<(), LargeError> {
        self.next = place + 1;
        if self.sink.size + chunk.len() as u64 > self.reference.size {
            return Err(self.too_long());
        }
        self.sink.push(chunk).await
    }

    fn too_long(&self) -> LargeError {
        self.store.damaged(&self.reference.name, format!("more than its {} bytes are stored", self.reference.size))
    }
}

/// Returns the place of a chunk. The server appends it to the headers, after stored headers that may look the same.
fn place(message: &Message, subject: &str) -> Option<u64> {
    let headers = message.headers.as_ref()?;
    let of = headers.get_last(NATS_SUBJECT.as_ref())?;
    (of.as_str() == subject).then_some(())?;
    headers.get_last(NATS_SEQUENCE.as_ref())?.as_str().parse().ok()
}
