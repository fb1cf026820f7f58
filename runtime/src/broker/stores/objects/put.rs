//! Writes objects.
//!
//! The chunks go first, then the head. The head is stored only over the head that was read before, so that each upload is purged
//! by the one that replaces it. A write ends by itself once its head is on the way, even if its call is dropped.

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_ROLLUP};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

use super::super::super::line::Line;
use super::super::super::object_head::{NewObject, ObjectHead, REPLACE, SHA_256};
use super::super::super::stream::Stream;
use super::super::store::{NotStored, Write, once};
use super::super::{GrantedStores, LIMIT, standing};
use super::Object;
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::message::{Response, quoted};
use crate::calls::names::{ObjectName, StoreName};
use crate::subject::stores as subject;

/// The most bytes of a chunk; NATS's own default.
const CHUNK: usize = 128 << 10;
/// Room for the headers of a chunk.
const CHUNK_HEADERS: usize = 256;
/// How often a head is written that others write too.
const TRIES: usize = 16;
/// How long chunks of a dropped call may still be on their way.
const ON_THE_WAY: Duration = Duration::from_secs(2);

/// Chunks without a head. They are purged when this is dropped.
struct Upload {
    line: Line,
    store: StoreName,
    /// The subject of the chunks.
    subject: String,
    /// `true` if there are none, or they have a head.
    is_over: bool,
}

impl Upload {
    async fn purge(line: &Line, store: &StoreName, chunks: &str) {
        let (open, stream) = (standing(line).await, subject::object_stream(store.as_str()));
        let purged = Stream::of(&open, &stream).purge(Some(chunks)).await;
        tracing::debug!(?purged, %store, "removed the bytes of an object");
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let (line, store, chunks) = (self.line.clone(), self.store.clone(), std::mem::take(&mut self.subject));
        runtime.spawn(async move {
            Self::purge(&line, &store, &chunks).await;
            tokio::time::sleep(ON_THE_WAY).await;
            Self::purge(&line, &store, &chunks).await;
        });
    }
}

impl Object<'_> {
    /// Writes the object.
    pub(super) async fn put(&self, data: Bytes) -> Result<Bytes, CallFailure> {
        // A missing store is told before any chunk is sent.
        let before = self.head().await?;
        let id = ulid::Ulid::generate().to_string();
        let open = self.stores.connection().await;
        let chunk = CHUNK.min(open.max_payload().saturating_sub(CHUNK_HEADERS)).max(1);
        let mut upload = self.upload(&data, chunk, &id).await?;
        let digest = format!("{SHA_256}{}", BASE64_URL_SAFE.encode(Sha256::digest(&data)));
        let commit = Commit {
            stores: self.stores.clone(),
            store: self.store.clone(),
            name: self.name.clone(),
            head: self.description(data.len(), chunk, &id, &digest)?,
            id,
            before: before.unwrap_or((0, None)),
        };
        upload.is_over = true;
        let committed = tokio::spawn(commit.run(upload)).await;
        committed.map_err(|error| CallFailure::unavailable(error.to_string()))??;
        let mut response = Response::new();
        response.number("size", data.len() as u64);
        response.text("digest", &digest);
        Ok(response.finish())
    }

    /// Stores the chunks.
    async fn upload(&self, data: &Bytes, chunk: usize, id: &str) -> Result<Upload, CallFailure> {
        let subject = subject::object_chunks(self.store.as_str(), id)
            .ok_or_else(|| CallFailure::unavailable("the id of an upload is no part of a subject"))?;
        let (line, store) = (self.stores.line.clone(), self.store.clone());
        let upload = Upload { line, store, subject: subject.clone(), is_over: data.is_empty() };
        for number in 0..data.len().div_ceil(chunk) {
            let from = number * chunk;
            let payload = data.slice(from..data.len().min(from + chunk));
            let write = Write { subject: subject.clone(), headers: once(&format!("{id}.{number}")), payload };
            self.stores.store(self.place(), &write).await.map_err(|error| match error {
                NotStored::Failed(failure) => failure,
                NotStored::Overtaken => CallFailure::unavailable("another client writes to the same upload"),
            })?;
        }
        Ok(upload)
    }

    fn description(&self, size: usize, chunk: usize, id: &str, digest: &str) -> Result<Bytes, CallFailure> {
        let head = NewObject {
            bucket: self.store.as_str(),
            name: self.name.as_str(),
            upload: id,
            size: size as u64,
            chunk,
            chunks: size.div_ceil(chunk) as u64,
            digest,
            metadata: std::collections::HashMap::new(),
        };
        head.describe().map_err(|error| CallFailure::invalid(error.to_string()))
    }
}

/// The last step of a write.
struct Commit {
    stores: GrantedStores,
    store: StoreName,
    name: ObjectName,
    id: String,
    head: Bytes,
    /// The head that is replaced, and its sequence number; 0 if there is none.
    before: (u64, Option<ObjectHead>),
}

impl Commit {
    /// Stores the head, and purges the chunks of the one before.
    async fn run(mut self, mut upload: Upload) -> Result<(), CallFailure> {
        match tokio::time::timeout(LIMIT, self.store_head()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                // The server has refused the head.
                upload.is_over = false;
                return Err(failure);
            }
            // The head may be stored still. Chunks too many harm nobody, and a head without chunks does.
            Err(_) => return Err(CallFailure::new(FailureKind::Timeout, "NATS has not answered for the object")),
        }
        let before = self.before.1.take().map(|head| head.nuid).unwrap_or_default();
        if let Some(chunks) = subject::object_chunks(self.store.as_str(), &before) {
            Upload::purge(&self.stores.line, &self.store, &chunks).await;
        }
        Ok(())
    }

    async fn store_head(&mut self) -> Result<(), CallFailure> {
        let object = Object { stores: &self.stores, store: &self.store, name: &self.name };
        for _ in 0..TRIES {
            let mut headers = once(&format!("{}.head.{}", self.id, self.before.0));
            headers.insert(NATS_ROLLUP, REPLACE);
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, self.before.0.to_string());
            let subject = subject::object_head(self.store.as_str(), self.name.as_str());
            let write = Write { subject, headers, payload: self.head.clone() };
            match self.stores.store(object.place(), &write).await {
                Ok(_) => return Ok(()),
                Err(NotStored::Failed(failure)) => return Err(failure),
                Err(NotStored::Overtaken) => {}
            }
            self.before = match object.head().await? {
                // It was sent twice, because the first answer was lost.
                Some((_, Some(head))) if head.nuid == self.id => return Ok(()),
                Some(newest) => newest,
                None => (0, None),
            };
        }
        let name = quoted(self.name.as_str());
        Err(CallFailure::unavailable(format!("the object `{name}` is replaced all the time")))
    }
}
