//! Entries of the registry's KV bucket (NATS ADR-8), read from the stream's leader and compared before they are replaced.
//!
//! The `Store` of async-nats 0.51 does not serve here. `Store::entry` reads any replica: with three servers, 51 of 6,000 reads right
//! after a write were stale, and it needs a permission that feeders do not have. `Store::update` publishes once: a write whose
//! answer is lost fails although it is stored. A bare CR in a header of an entry ends the client's connection. `Watch` does not
//! notice that a bucket was made anew: it left out the first five of eight new entries.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::error::code;
use super::get::Stored;
use super::{Broker, BrokerError};
use crate::frame::Headers;
use crate::subject::{self, CHAINS_BUCKET, CHAINS_STREAM};

/// The header that marks an entry as removed.
const OPERATION: &str = "KV-Operation";
/// The value of that header.
const REMOVED: &str = "DEL";

/// The KV bucket of the registry.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) broker: Broker,
}

/// The newest message of an entry.
pub(super) struct Entry {
    /// The message's sequence number, which NATS calls the entry's revision.
    pub(super) mark: u64,
    /// `None` if the entry was removed.
    pub(super) value: Option<Vec<u8>>,
}

/// The state of an entry that a write replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// The newest message of the entry has this mark.
    Mark(u64),
    /// The entry is absent or removed.
    None,
    /// The entry never existed.
    Never,
}

impl Bucket {
    /// Returns the newest message of an entry; `None` if the entry never existed.
    pub(super) async fn entry(&self, key: &str) -> Result<Option<Entry>, BrokerError> {
        let request = json!({ "last_by_subj": subject::entry(key) });
        let what = || format!("read the entry `{key}` of {CHAINS_BUCKET}");
        let stored = Stored::read(&self.broker, CHAINS_STREAM, &request, what).await?;
        Ok(stored.map(|stored| {
            let is_removed = is_removal(&stored.headers());
            Entry { mark: stored.sequence, value: (!is_removed).then_some(stored.payload) }
        }))
    }

    /// Returns the value of an entry; `None` if the entry is absent or removed.
    pub(super) async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, BrokerError> {
        Ok(self.entry(key).await?.and_then(|entry| entry.value))
    }

    /// Writes an entry if it is still as it was before. Returns `true` if it was.
    pub(super) async fn swap(
        &self,
        key: &str,
        before: Before,
        value: &(impl Serialize + Sync),
        what: &str,
    ) -> Result<bool, BrokerError> {
        let json: Arc<[u8]> =
            serde_json::to_vec_pretty(value).map_err(|error| BrokerError::other(what, &error))?.into();
        let mut mark = match before {
            Before::Mark(mark) => mark,
            Before::None | Before::Never => 0,
        };
        loop {
            let payload = Bytes::copy_from_slice(&json);
            if self.put(key, expecting(mark), payload, what).await? {
                return Ok(true);
            }
            match self.entry(key).await? {
                // An earlier try stored it, and the answer was lost.
                Some(Entry { value: Some(value), .. }) if *value == *json => return Ok(true),
                // A removed entry counts as absent, but its message has a mark.
                Some(Entry { value: None, mark: removed }) if before == Before::None && removed != mark => {
                    mark = removed;
                }
                _ => return Ok(false),
            }
        }
    }

    /// Removes an entry if its newest message has this mark; `None` removes it in any case. Returns `true` if it is removed.
    pub(super) async fn remove(&self, key: &str, mark: Option<u64>, what: &str) -> Result<bool, BrokerError> {
        let mut headers = mark.map(expecting).unwrap_or_default();
        headers.insert(OPERATION, REMOVED);
        // An earlier try may have removed it, and the answer was lost.
        Ok(self.put(key, headers, Bytes::new(), what).await? || self.value(key).await?.is_none())
    }

    /// Stores a message of an entry. Returns `false` if the entry's newest message is not the expected one.
    async fn put(&self, key: &str, headers: HeaderMap, payload: Bytes, what: &str) -> Result<bool, BrokerError> {
        match self.broker.put(subject::entry(key), headers, payload, || what.to_owned()).await {
            Err(error) if error.code().is_some_and(|code| code::WRONG_LAST_SEQUENCE.contains(&code)) => Ok(false),
            put => put.map(|()| true),
        }
    }
}

/// Returns `true` if a message with these headers removes its entry.
pub(super) fn is_removal(headers: &Headers) -> bool {
    headers.get(OPERATION).is_some()
}

fn expecting(mark: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, mark.to_string());
    headers
}
