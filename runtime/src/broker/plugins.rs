//! Plugins, in an object store (NATS ADR-20) that `nats object` reads too.
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
use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::get::Stored;
use super::stream::Stream;
use super::{Broker, BrokerError};
use crate::name::Digest;
use crate::subject::{self, PLUGINS_BUCKET, PLUGINS_STREAM};

/// The most bytes of a plugin in one message; NATS's own default.
const PART: usize = 128 << 10;
/// Room for the headers of a part.
const PART_HEADERS: usize = 256;
/// The rollup that replaces the messages under the same subject.
const REPLACE: &str = "sub";

/// The object store of the plugins.
#[derive(Debug, Clone, Copy)]
pub struct Plugins<'a>(&'a Broker);

impl<'a> Plugins<'a> {
    /// Returns the object store of a server.
    pub fn of(broker: &'a Broker) -> Self {
        Self(broker)
    }

    /// Fetches a plugin and checks its digest.
    pub async fn get(&self, digest: &Digest) -> Result<Vec<u8>, BrokerError> {
        self.find(digest).await?.map_err(|reason| BrokerError::Other {
            what: format!("fetch the plugin {digest}"),
            reason: format!("{reason}; deploying the same manifest again stores it"),
        })
    }

    /// Returns `true` if a plugin is stored, whole and unharmed.
    pub async fn has(&self, digest: &Digest) -> Result<bool, BrokerError> {
        Ok(self.find(digest).await?.is_ok())
    }

    /// Stores a plugin under its digest, unless it is stored already, whole and unharmed.
    pub async fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BrokerError> {
        if self.has(digest).await? {
            return Ok(());
        }
        let before = self.head(digest).await?;
        let upload = ulid::Ulid::generate().to_string();
        if let Err(error) = self.upload(digest, bytes, &upload).await {
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
        Stream::of(self.0, PLUGINS_STREAM).purge(Some(&subject::plugin_parts(upload))).await.map(drop)
    }

    async fn upload(&self, digest: &Digest, bytes: &[u8], upload: &str) -> Result<(), BrokerError> {
        let what = || format!("store a plugin of {}", bytesize::ByteSize(bytes.len() as u64));
        let size = PART.min(self.0.max_payload().saturating_sub(PART_HEADERS)).max(1);
        let parts = bytes.chunks(size);
        let chunks = parts.len();
        for (number, part) in parts.enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, format!("{upload}.{number}"));
            self.0.put(subject::plugin_parts(upload), headers, part.to_vec().into(), what).await?;
        }
        let head = ObjectInfo {
            name: digest.as_hex().to_owned(),
            description: None,
            metadata: std::collections::HashMap::new(),
            headers: None,
            options: Some(ObjectOptions { link: None, max_chunk_size: Some(size) }),
            bucket: PLUGINS_BUCKET.to_owned(),
            nuid: upload.to_owned(),
            size: bytes.len(),
            chunks,
            modified: Some(OffsetDateTime::now_utc()),
            digest: Some(format!("SHA-256={}", BASE64_URL_SAFE.encode(Sha256::digest(bytes)))),
            deleted: false,
        };
        let head = serde_json::to_vec(&head).map_err(|error| BrokerError::other(what(), &error))?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, REPLACE);
        self.0.put(subject::plugin_head(digest), headers, head.into(), what).await
    }

    /// Returns a plugin's bytes, or the reason why there are none.
    async fn find(&self, digest: &Digest) -> Result<Result<Vec<u8>, &'static str>, BrokerError> {
        let head = match self.head(digest).await? {
            Some(Ok(head)) if !head.deleted => head,
            Some(Err(_)) => return Ok(Err("its description cannot be read")),
            _ => return Ok(Err("it is not stored")),
        };
        let parts = subject::plugin_parts(&head.nuid);
        let what = || format!("fetch the plugin {digest}");
        let (mut bytes, mut next) = (Vec::new(), 1);
        for _ in 0..head.chunks {
            let request = json!({ "seq": next, "next_by_subj": parts });
            let Some(part) = Stored::read(self.0, PLUGINS_STREAM, &request, what).await? else {
                return Ok(Err("some of its bytes are missing"));
            };
            bytes.extend_from_slice(&part.payload);
            next = part.sequence + 1;
        }
        let is_whole = bytes.len() == head.size && Digest::of(&bytes) == *digest;
        Ok(if is_whole { Ok(bytes) } else { Err("what is stored under this name has another digest") })
    }

    /// Returns the description of a plugin, if it can be read; `None` if the plugin was never stored.
    async fn head(&self, digest: &Digest) -> Result<Option<Result<ObjectInfo, serde_json::Error>>, BrokerError> {
        let request = json!({ "last_by_subj": subject::plugin_head(digest) });
        let head = Stored::read(self.0, PLUGINS_STREAM, &request, || format!("look up the plugin {digest}")).await?;
        Ok(head.map(|head| serde_json::from_slice(&head.payload)))
    }
}
