//! Plugins, and archives of the files of programs, in an object store (NATS ADR-20) that `nats object` reads too.
//!
//! An object is a message that describes it, its head, and its bytes in parts on a subject of the upload's own. The heads are
//! those of the client library. Its `ObjectStore` (async-nats 0.51) does not serve here: a `get` leaves a consumer behind for 30 s,
//! panics in `read_to_end` if a part is missing, and waits forever if all parts are. A `put` into a store without room left 7 of
//! 31 parts behind. This module reads 20 MB in 154 requests, and a store without its parts in one.

use async_nats::HeaderMap;
use async_nats::header::{NATS_MESSAGE_ID, NATS_ROLLUP};
use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use futures_util::future::try_join_all;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::get::Stored;
use super::stream::Stream;
use super::{Broker, BrokerError};
use crate::name::Digest;
use crate::subject::{self, PLUGINS_BUCKET, PLUGINS_STREAM};

/// The most bytes in one message; NATS's own default.
const PART: usize = 128 << 10;
/// Room for the headers of a part.
const PART_HEADERS: usize = 256;
/// How many parts are asked for at once, so that the server makes answers while others are read.
const PARTS_AT_ONCE: u64 = 8;
/// The key of the metadata of a plugin that names what it was built from.
const INPUTS: &str = "pcluster-inputs";
/// The rollup that replaces the messages under the same subject.
const REPLACE: &str = "sub";

/// The object store of the plugins and archives.
#[derive(Debug, Clone, Copy)]
pub struct Plugins<'a> {
    broker: &'a Broker,
    /// What an object is called.
    noun: &'static str,
}

impl<'a> Plugins<'a> {
    /// Returns the plugins of a server.
    pub fn of(broker: &'a Broker) -> Self {
        Self { broker, noun: "plugin" }
    }

    /// Returns the archives of a server.
    pub fn archives(broker: &'a Broker) -> Self {
        Self { broker, noun: "archive" }
    }

    /// Returns what initializers of a server have read.
    pub fn pins(broker: &'a Broker) -> Self {
        Self { broker, noun: "record of what an initializer read" }
    }

    /// Fetches an object and checks its digest.
    pub async fn get(&self, digest: &Digest) -> Result<Vec<u8>, BrokerError> {
        let mut bytes = Vec::new();
        self.fetch(digest, usize::MAX, &mut bytes).await?;
        Ok(bytes)
    }

    /// Fetches an object of at most `most` bytes and checks its digest. If it fails, a part of the bytes may be written.
    pub async fn fetch(
        &self,
        digest: &Digest,
        most: usize,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BrokerError> {
        self.find(digest, most, to).await?.map_err(|reason| BrokerError::Other {
            what: format!("fetch the {} {digest}", self.noun),
            reason: format!("{reason}; deploying the same manifest again stores it"),
        })
    }

    /// Returns `true` if an object is stored, whole and unharmed.
    pub async fn has(&self, digest: &Digest) -> Result<bool, BrokerError> {
        Ok(self.find(digest, usize::MAX, &mut tokio::io::sink()).await?.is_ok())
    }

    /// Returns the digest of what a plugin was built from. `None` if that is not known.
    pub async fn inputs(&self, digest: &Digest) -> Result<Option<Digest>, BrokerError> {
        let head = self.head(digest).await?.and_then(Result::ok);
        Ok(head.and_then(|head| head.metadata.get(INPUTS)?.parse().ok()))
    }

    /// Stores an object of this size under its digest, unless it is stored already, whole and unharmed.
    pub async fn put(&self, digest: &Digest, size: u64, from: impl AsyncRead + Unpin) -> Result<(), BrokerError> {
        self.put_built(digest, None, size, from).await
    }

    /// Stores an object as [`Self::put`], with the digest of what it was built from.
    pub async fn put_built(
        &self,
        digest: &Digest,
        inputs: Option<&Digest>,
        size: u64,
        from: impl AsyncRead + Unpin,
    ) -> Result<(), BrokerError> {
        if self.has(digest).await? {
            return Ok(());
        }
        let before = self.head(digest).await?;
        let upload = ulid::Ulid::generate().to_string();
        if let Err(error) = self.upload(digest, inputs, size, from, &upload).await {
            // Parts without a head would stay forever. The first error is the one to report.
            let purged = self.purge_parts(&upload).await;
            tracing::debug!(?purged, "removed the parts of an upload that failed");
            return Err(error);
        }
        match before {
            Some(Ok(before)) if !before.nuid.is_empty() => self.purge_parts(&before.nuid).await,
            _ => Ok(()),
        }
    }

    async fn purge_parts(&self, upload: &str) -> Result<(), BrokerError> {
        Stream::of(self.broker, PLUGINS_STREAM).purge(Some(&subject::plugin_parts(upload))).await.map(drop)
    }

    async fn upload(
        &self,
        digest: &Digest,
        inputs: Option<&Digest>,
        whole: u64,
        mut from: impl AsyncRead + Unpin,
        upload: &str,
    ) -> Result<(), BrokerError> {
        let article = if self.noun.starts_with('a') { "an" } else { "a" };
        let what = || format!("store {article} {} of {}", self.noun, bytesize::ByteSize(whole));
        let most = PART.min(self.broker.max_payload().saturating_sub(PART_HEADERS)).max(1);
        let (mut hash, mut size, mut chunks) = (Sha256::new(), 0, 0);
        loop {
            let mut part = Vec::with_capacity(most);
            let read = (&mut from).take(most as u64).read_to_end(&mut part).await;
            read.map_err(|error| BrokerError::other(what(), &error))?;
            if part.is_empty() {
                break;
            }
            hash.update(&part);
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, format!("{upload}.{chunks}"));
            (size, chunks) = (size + part.len(), chunks + 1);
            self.broker.put(subject::plugin_parts(upload), headers, part.into(), what).await?;
        }
        let hash = hash.finalize();
        if Digest::from_sha256(&hash) != *digest {
            let reason = "it has changed meanwhile".to_owned();
            return Err(BrokerError::Other { what: what(), reason });
        }
        let head = ObjectInfo {
            name: digest.as_hex().to_owned(),
            description: None,
            metadata: inputs.map(|inputs| (INPUTS.to_owned(), inputs.to_string())).into_iter().collect(),
            headers: None,
            options: Some(ObjectOptions { link: None, max_chunk_size: Some(most) }),
            bucket: PLUGINS_BUCKET.to_owned(),
            nuid: upload.to_owned(),
            size,
            chunks,
            modified: Some(OffsetDateTime::now_utc()),
            digest: Some(format!("SHA-256={}", BASE64_URL_SAFE.encode(hash))),
            deleted: false,
        };
        let head = serde_json::to_vec(&head).map_err(|error| BrokerError::other(what(), &error))?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, REPLACE);
        self.broker.put(subject::plugin_head(digest), headers, head.into(), what).await
    }

    /// Writes the bytes of an object, or returns the reason why there are none.
    async fn find(
        &self,
        digest: &Digest,
        most: usize,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Result<(), String>, BrokerError> {
        let not = |reason: &str| Ok(Err(reason.to_owned()));
        let head = match self.head(digest).await? {
            Some(Ok(head)) if !head.deleted => head,
            Some(Err(_)) => return not("its description cannot be read"),
            _ => return not("it is not stored"),
        };
        if head.size > most {
            return Ok(Err(format!("it has {} bytes; {most} is the most", head.size)));
        }
        let parts = subject::plugin_parts(&head.nuid);
        let what = || format!("fetch the {} {digest}", self.noun);
        let (mut hash, mut size, mut count, mut next) = (Sha256::new(), 0, 0, 1);
        while count < head.chunks && size <= head.size {
            // Nobody knows where the first part is. The others are close behind it.
            let at_once = if count == 0 { 1 } else { PARTS_AT_ONCE };
            let found = self.parts(&parts, next, at_once, what).await?;
            let Some(last) = found.last() else { return not("some of its bytes are missing") };
            next = last.sequence + 1;
            for part in found {
                (size, count) = (size + part.payload.len(), count + 1);
                if size > head.size {
                    break;
                }
                hash.update(&part.payload);
                to.write_all(&part.payload).await.map_err(|error| BrokerError::other(what(), &error))?;
            }
        }
        to.flush().await.map_err(|error| BrokerError::other(what(), &error))?;
        let is_whole = size == head.size && Digest::from_sha256(&hash.finalize()) == *digest;
        if is_whole { Ok(Ok(())) } else { not("what is stored under this name has another digest") }
    }

    /// Returns the next parts of an object from this sequence number on: all that have one of the next `at_once` numbers, and at
    /// least one, if there is any.
    async fn parts(
        &self,
        subject: &str,
        from: u64,
        at_once: u64,
        what: impl Fn() -> String,
    ) -> Result<Vec<Stored>, BrokerError> {
        let asked = (from..from + at_once).map(|sequence| {
            let (broker, what) = (self.broker, &what);
            async move {
                let request = json!({ "seq": sequence, "next_by_subj": subject });
                Stored::read(broker, PLUGINS_STREAM, &request, what).await
            }
        });
        let mut found: Vec<_> = try_join_all(asked).await?.into_iter().flatten().collect();
        // The next part from two numbers on is the same one if there is none between them.
        found.dedup_by_key(|part| part.sequence);
        Ok(found)
    }

    /// Returns the description of an object, if it can be read; `None` if the object was never stored.
    async fn head(&self, digest: &Digest) -> Result<Option<Result<ObjectInfo, serde_json::Error>>, BrokerError> {
        let request = json!({ "last_by_subj": subject::plugin_head(digest) });
        let what = || format!("look up the {} {digest}", self.noun);
        let head = Stored::read(self.broker, PLUGINS_STREAM, &request, what).await?;
        Ok(head.map(|head| serde_json::from_slice(&head.payload)))
    }
}
