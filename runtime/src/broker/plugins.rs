//! Where plugins are kept: an object store as NATS ADR-20 describes it, so that `nats object` reads it too. An object is a
//! message that tells its size and digest, its *head*, and its bytes in parts on a subject of the upload's own.

use async_nats::HeaderMap;
use async_nats::header::{NATS_MESSAGE_ID, NATS_ROLLUP};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Broker, BrokerError};
use crate::name::Digest;
use crate::subject::{self, PLUGINS_BUCKET, PLUGINS_STREAM};

/// The most bytes of a plugin in one message; NATS's own default.
const PART: usize = 128 << 10;
/// Room for the headers of a part.
const PART_HEADERS: usize = 256;
/// The rollup that replaces what is stored under the same subject.
const REPLACE: &str = "sub";

/// What an object store knows of an object.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    name: String,
    bucket: String,
    nuid: String,
    size: usize,
    chunks: usize,
    mtime: String,
    digest: String,
    options: Options,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Options {
    max_chunk_size: usize,
}

/// As much of a head as reading the object takes.
#[derive(Debug, Deserialize)]
struct Place {
    #[serde(default)]
    nuid: String,
    #[serde(default)]
    chunks: usize,
    #[serde(default)]
    size: usize,
    #[serde(default)]
    deleted: bool,
}

impl Broker {
    /// Fetches a plugin and checks that it has its digest.
    ///
    /// # Errors
    ///
    /// If it is not there, or is not what its name says.
    pub async fn get_plugin(&self, digest: &Digest) -> Result<Vec<u8>, BrokerError> {
        self.find_plugin(digest).await?.map_err(|reason| BrokerError::Other {
            what: format!("fetch the plugin {digest}"),
            reason: format!("{reason}; deploying the same manifest again stores it"),
        })
    }

    /// Whether a plugin is stored, whole and unharmed.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn has_plugin(&self, digest: &Digest) -> Result<bool, BrokerError> {
        Ok(self.find_plugin(digest).await?.is_ok())
    }

    /// Stores a plugin under its digest. One that is already there, whole and unharmed, is left alone.
    ///
    /// # Errors
    ///
    /// If the server does not take it, as when it has no room. Nothing is left of it then.
    pub async fn put_plugin(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BrokerError> {
        if self.has_plugin(digest).await? {
            return Ok(());
        }
        let before = self.plugin_place(digest).await?;
        let upload = ulid::Ulid::generate().to_string();
        let parts = subject::plugin_parts(&upload);
        if let Err(error) = self.upload(digest, bytes, &upload).await {
            // Parts without a head would stay for ever. What was met first is what to tell.
            let purged = self.purge(PLUGINS_STREAM, Some(&parts)).await;
            tracing::debug!(?purged, "what an upload has left behind");
            return Err(error);
        }
        if let Some(Ok(before)) = before
            && !before.nuid.is_empty()
        {
            self.purge(PLUGINS_STREAM, Some(&subject::plugin_parts(&before.nuid))).await?;
        }
        Ok(())
    }

    async fn upload(&self, digest: &Digest, bytes: &[u8], upload: &str) -> Result<(), BrokerError> {
        let what = || format!("store a plugin of {}", bytesize::ByteSize(bytes.len() as u64));
        let size = PART.min(self.max_payload().saturating_sub(PART_HEADERS)).max(1);
        let parts = bytes.chunks(size);
        let chunks = parts.len();
        for (number, part) in parts.enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, format!("{upload}.{number}"));
            self.put(subject::plugin_parts(upload), headers, part.to_vec().into(), what).await?;
        }
        let head = Head {
            name: digest.as_hex().to_owned(),
            bucket: PLUGINS_BUCKET.to_owned(),
            nuid: upload.to_owned(),
            size: bytes.len(),
            chunks,
            mtime: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            digest: format!("SHA-256={}", BASE64_URL_SAFE.encode(Sha256::digest(bytes))),
            options: Options { max_chunk_size: size },
            deleted: false,
        };
        let head = serde_json::to_vec(&head).map_err(|error| BrokerError::other(what(), &error))?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, REPLACE);
        self.put(subject::plugin_head(digest), headers, head.into(), what).await
    }

    /// A plugin's bytes, or why there are none.
    async fn find_plugin(&self, digest: &Digest) -> Result<Result<Vec<u8>, &'static str>, BrokerError> {
        let place = match self.plugin_place(digest).await? {
            None => return Ok(Err("it is not stored")),
            Some(Err(_)) => return Ok(Err("what is known of it cannot be read")),
            Some(Ok(place)) if place.deleted => return Ok(Err("it is not stored")),
            Some(Ok(place)) => place,
        };
        let parts = subject::plugin_parts(&place.nuid);
        let what = || format!("fetch the plugin {digest}");
        let (mut bytes, mut next) = (Vec::new(), 1);
        for _ in 0..place.chunks {
            let request = json!({ "seq": next, "next_by_subj": parts });
            let Some(part) = self.get(PLUGINS_STREAM, &request, what).await? else {
                return Ok(Err("some of its bytes are missing"));
            };
            bytes.extend_from_slice(&part.payload);
            next = part.sequence + 1;
        }
        Ok(if bytes.len() == place.size && Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err("what is stored under this name has another digest")
        })
    }

    /// Where a plugin's bytes are, if that can be read.
    async fn plugin_place(&self, digest: &Digest) -> Result<Option<Result<Place, serde_json::Error>>, BrokerError> {
        let request = json!({ "last_by_subj": subject::plugin_head(digest) });
        let head = self.get(PLUGINS_STREAM, &request, || format!("look up the plugin {digest}")).await?;
        Ok(head.map(|head| serde_json::from_slice(&head.payload)))
    }
}
