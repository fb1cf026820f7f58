//! Entries of NATS KV buckets that the stage is granted.
//!
//! ```
//! use pcluster_sdk::{Error, kv, task};
//!
//! /// Raises the highest number that has come. An item that loses a race against another is tried again.
//! #[task(calls(kv))]
//! fn raise(number: u64) -> Result<(), Error> {
//!     let bucket = kv::bucket("highest");
//!     let Some(entry) = bucket.get("number")? else {
//!         bucket.create("number", number.to_string())?;
//!         return Ok(());
//!     };
//!     let highest: u64 = entry.text()?.parse()?;
//!     bucket.update("number", number.max(highest).to_string(), entry.revision)?;
//!     Ok(())
//! }
//! # let world = pcluster_sdk::testing::World::new().kv("highest", &[]);
//! # for number in [3, 7, 5] {
//! #     world.run(|| raise(number)).unwrap();
//! # }
//! # assert_eq!(world.entry("highest", "number").as_deref(), Some(&b"7"[..]));
//! ```
//!
//! An item may be tried again after its task has written. [`get`](Bucket::get), [`put`](Bucket::put), [`delete`](Bucket::delete) and
//! [`keys`](Bucket::keys) may run twice; [`create`](Bucket::create) and [`update`](Bucket::update) fail with
//! [`Conflict`](crate::FailureKind::Conflict) the second time, because the first has changed the entry.

use std::time::Duration;

use pcluster_abi::call;

pub use crate::call::Pages;
use crate::call::pages::Listing;
use crate::call::{call, call_for};
use crate::cbor::fields::{Field, Writer};
use crate::{CallError, FailureKind};

/// Returns a bucket by its name. Nothing is called yet.
pub fn bucket(name: &str) -> Bucket {
    Bucket { name: name.to_owned(), ttl: None }
}

/// A bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    name: String,
    ttl: Option<Duration>,
}

/// An entry as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// The revision, for [`Bucket::update`] and [`Bucket::delete_revision`].
    pub revision: u64,
}

impl Entry {
    /// Returns the value as a text.
    ///
    /// # Errors
    ///
    /// If the value is not UTF-8. The error is transient, because another value may be written.
    pub fn text(&self) -> Result<&str, CallError> {
        let problem = |error| format!("the value of revision {} is not UTF-8: {error}", self.revision);
        str::from_utf8(&self.value).map_err(|error| CallError::new(FailureKind::Unavailable, problem(error)))
    }
}

impl Bucket {
    /// Makes the entries that are written through this value expire after this time. The bucket must allow it.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Returns an entry. `None` if there is none: never written, deleted, or expired.
    ///
    /// # Errors
    ///
    /// If the stage is not granted the bucket, the key is none, or the server cannot answer.
    pub fn get(&self, key: &str) -> Result<Option<Entry>, CallError> {
        let Some(answer) = call_for(call::KV_GET, self.request(key))? else { return Ok(None) };
        let revision = answer.number("revision")?;
        Ok(Some(Entry { value: answer.into_bytes("value")?, revision }))
    }

    /// Writes an entry. Returns its revision.
    ///
    /// # Errors
    ///
    /// If the stage is not granted to write, the key is none, the value is too large, or the server cannot answer.
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) -> Result<u64, CallError> {
        self.write(call::KV_PUT, key, value.as_ref(), None)
    }

    /// Writes an entry unless there is one. Returns its revision.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put), and a [`Conflict`](crate::FailureKind::Conflict) if there is one.
    pub fn create(&self, key: &str, value: impl AsRef<[u8]>) -> Result<u64, CallError> {
        self.write(call::KV_CREATE, key, value.as_ref(), None)
    }

    /// Writes an entry if it still has this revision. Returns the new one.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put), and a [`Conflict`](crate::FailureKind::Conflict) if it has another.
    pub fn update(&self, key: &str, value: impl AsRef<[u8]>, revision: u64) -> Result<u64, CallError> {
        self.write(call::KV_UPDATE, key, value.as_ref(), Some(revision))
    }

    /// Deletes an entry, whether there is one or not.
    ///
    /// # Errors
    ///
    /// If the stage is not granted to write, the key is none, or the server cannot answer.
    pub fn delete(&self, key: &str) -> Result<(), CallError> {
        call(call::KV_DELETE, self.request(key)).map(|_| ())
    }

    /// Deletes an entry if it still has this revision.
    ///
    /// # Errors
    ///
    /// As for [`delete`](Self::delete), and a [`Conflict`](crate::FailureKind::Conflict) if it has another.
    pub fn delete_revision(&self, key: &str, revision: u64) -> Result<(), CallError> {
        let mut request = self.request(key);
        request.number("revision", revision);
        call(call::KV_DELETE, request).map(|_| ())
    }

    /// Returns the keys that begin with this prefix. All keys if it is empty.
    pub fn keys(&self, prefix: &str) -> Pages<String> {
        const KEYS: Listing<String> =
            Listing { call: call::KV_KEYS, place: "bucket", list: "keys", read: text, name: String::as_str };
        Pages::new(KEYS, &self.name, prefix)
    }

    fn request(&self, key: &str) -> Writer {
        let mut request = Writer::new();
        request.text("bucket", &self.name);
        request.text("key", key);
        request
    }

    fn write(&self, name: &str, key: &str, value: &[u8], revision: Option<u64>) -> Result<u64, CallError> {
        let mut request = self.request(key);
        request.bytes("value", value);
        if let Some(revision) = revision {
            request.number("revision", revision);
        }
        if let Some(ttl) = self.ttl {
            request.number("ttl_ms", u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        }
        call(name, request)?.number("revision")
    }
}

fn text(field: &Field<'_>) -> Option<String> {
    match field {
        Field::Text(text) => Some((*text).to_owned()),
        _ => None,
    }
}
