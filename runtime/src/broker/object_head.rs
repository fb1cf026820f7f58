//! The head of an object in an object store (NATS ADR-20): the message that describes it.

use std::collections::HashMap;

use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions};
use bytes::Bytes;
use serde::Deserialize;
use time::OffsetDateTime;

/// The rollup that replaces the message under the same subject.
pub(super) const REPLACE: &str = "sub";
/// The beginning of a digest. The hash in base64 follows.
pub(super) const SHA_256: &str = "SHA-256=";

/// The description of an object: what of it decides here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ObjectHead {
    /// The id of the upload, which names the chunks.
    #[serde(default)]
    pub(super) nuid: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) chunks: u64,
    /// The name of the hash, and the hash in base64.
    #[serde(default)]
    pub(super) digest: String,
    #[serde(default)]
    pub(super) deleted: bool,
    #[serde(default)]
    options: Option<Options>,
    #[serde(default)]
    pub(super) metadata: HashMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Options {
    #[serde(default)]
    link: Option<serde_json::Value>,
    #[serde(default)]
    max_chunk_size: Option<u64>,
}

impl ObjectHead {
    /// Reads a description. `None` if it is none.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// Returns the id of the chunks. `None` if it is no part of a subject.
    pub(super) fn upload(&self) -> Option<&str> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        ((1..=128).contains(&self.nuid.len()) && self.nuid.bytes().all(is_part)).then_some(self.nuid.as_str())
    }

    /// Returns `true` if it describes bytes: it is neither deleted nor a link.
    pub(super) fn is_there(&self) -> bool {
        !self.deleted && !self.is_link()
    }

    /// Returns `true` if it names another object, which has the bytes.
    pub(super) fn is_link(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.link.is_some())
    }

    /// Returns the size of all chunks but the last.
    pub(super) fn chunk_size(&self) -> Option<u64> {
        self.options.as_ref()?.max_chunk_size.filter(|size| *size > 0)
    }
}

/// What an object is described with.
#[derive(Debug)]
pub(super) struct NewObject<'a> {
    /// The name of the object store.
    pub(super) bucket: &'a str,
    pub(super) name: &'a str,
    /// The id of the upload.
    pub(super) upload: &'a str,
    pub(super) size: u64,
    /// The size of all chunks but the last.
    pub(super) chunk: usize,
    pub(super) chunks: u64,
    pub(super) digest: &'a str,
    pub(super) metadata: HashMap<String, String>,
}

impl NewObject<'_> {
    /// Returns the description as any client of object stores reads it.
    pub(super) fn describe(self) -> serde_json::Result<Bytes> {
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let head = ObjectInfo {
            name: self.name.to_owned(),
            description: None,
            metadata: self.metadata,
            headers: None,
            options: Some(ObjectOptions { link: None, max_chunk_size: Some(self.chunk) }),
            bucket: self.bucket.to_owned(),
            nuid: self.upload.to_owned(),
            size: number(self.size),
            chunks: number(self.chunks),
            modified: Some(OffsetDateTime::now_utc()),
            digest: Some(self.digest.to_owned()),
            deleted: false,
        };
        serde_json::to_vec(&head).map(Bytes::from)
    }
}
