//! The buckets of a world.

use std::collections::BTreeMap;

use pcluster_abi::call::{self, FailureKind};

use super::denied;
use super::state::Asked;
use crate::CallError;
use crate::cbor::fields::{Writer, string};

/// The buckets by name. Entries do not expire.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    buckets: BTreeMap<String, BTreeMap<String, Entry>>,
    /// The revision of the last change.
    revision: u64,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    revision: u64,
}

impl Buckets {
    /// Adds a bucket with these entries.
    pub(super) fn add(&mut self, name: &str, entries: &[(&str, &str)]) {
        let bucket = self.buckets.entry(name.to_owned()).or_default();
        for (key, value) in entries {
            self.revision += 1;
            bucket.insert((*key).to_owned(), Entry { value: value.as_bytes().to_vec(), revision: self.revision });
        }
    }

    /// Returns the value of an entry. `None` if there is none.
    pub(super) fn value(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.buckets.get(bucket)?.get(key).map(|entry| entry.value.clone())
    }

    /// Answers `kv.get`.
    pub(super) fn get(&mut self, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let key = asked.text("key");
        let absent = || CallError::new(FailureKind::NotFound, format!("there is no entry `{key}`"));
        let entry = self.bucket(asked)?.get(key).ok_or_else(absent)?;
        let mut answer = Writer::new();
        answer.bytes("value", &entry.value);
        answer.number("revision", entry.revision);
        Ok(answer)
    }

    /// Answers the calls that write an entry.
    pub(super) fn write(&mut self, name: &str, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let (key, revision) = (asked.text("key"), self.revision + 1);
        let bucket = self.bucket(asked)?;
        let found = bucket.get(key).map(|entry| entry.revision);
        let is_current = match name {
            call::KV_CREATE => found.is_none(),
            call::KV_UPDATE => found == asked.number("revision"),
            _ => true,
        };
        if !is_current {
            return Err(conflict(key, found));
        }
        bucket.insert(key.to_owned(), Entry { value: asked.bytes("value").to_vec(), revision });
        self.revision = revision;
        let mut answer = Writer::new();
        answer.number("revision", revision);
        Ok(answer)
    }

    /// Answers `kv.delete`.
    pub(super) fn delete(&mut self, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let (key, revision) = (asked.text("key"), asked.number("revision"));
        let bucket = self.bucket(asked)?;
        let found = bucket.get(key).map(|entry| entry.revision);
        if revision.is_some() && revision != found {
            return Err(conflict(key, found));
        }
        bucket.remove(key);
        self.revision += 1;
        Ok(Writer::new())
    }

    /// Answers `kv.keys`.
    pub(super) fn keys(&mut self, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let (page, more) = asked.page(self.bucket(asked)?.keys());
        let mut keys = Vec::new();
        for key in &page {
            string(&mut keys, 3, key.as_bytes());
        }
        let mut answer = Writer::new();
        answer.list("keys", page.len() as u64, &keys);
        answer.flag("more", more);
        Ok(answer)
    }

    fn bucket(&mut self, asked: &Asked<'_>) -> Result<&mut BTreeMap<String, Entry>, CallError> {
        let name = asked.text("bucket");
        let unknown = || denied(format!("the world of this test has no bucket `{name}`: add `.kv({name:?}, &[])`"));
        self.buckets.get_mut(name).ok_or_else(unknown)
    }
}

fn conflict(key: &str, found: Option<u64>) -> CallError {
    let found = found.map_or_else(|| "is not there".to_owned(), |revision| format!("has revision {revision}"));
    CallError::new(FailureKind::Conflict, format!("the entry `{key}` {found}"))
}
