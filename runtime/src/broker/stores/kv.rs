//! Entries of key-value buckets (NATS ADR-8).

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use bytes::Bytes;
use serde_json::json;

use super::super::get::Stored;
use super::GrantedStores;
use super::failure::Place;
use super::listing::{Found, Listing};
use super::store::{NotStored, Write, once};
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::message::Response;
use crate::calls::names::{BucketName, KeyName, KeyPrefix};
use crate::calls::stores::{Before, EntryCall, Page};
use crate::frame::Headers;
use crate::subject::stores as subject;

/// The header that marks an entry as deleted.
const OPERATION: &str = "KV-Operation";
/// The header of what the server leaves in place of an expired or removed entry.
const MARKER: &str = "Nats-Marker-Reason";
/// The header of a message's lifetime.
const TTL: &str = "Nats-TTL";
/// How often a write is tried whose entry others write too.
const TRIES: usize = 16;

/// Makes a call on an entry.
pub(super) async fn run(
    stores: &GrantedStores,
    bucket: &BucketName,
    key: &KeyName,
    call: EntryCall,
    room: u64,
) -> Result<Bytes, CallFailure> {
    let entry = Entry { stores, bucket, key };
    match call {
        EntryCall::Get => entry.get(room).await,
        EntryCall::Write { value, before, ttl } => {
            let mut response = Response::new();
            response.number("revision", entry.write(value, before, ttl.map(|ttl| format!("{ttl}s"))).await?);
            Ok(response.finish())
        }
        EntryCall::Delete(revision) => entry.delete(revision).await.map(|()| Response::new().finish()),
    }
}

/// Returns a page of the keys with a prefix.
pub(super) async fn keys(
    stores: &GrantedStores,
    bucket: &BucketName,
    prefix: &KeyPrefix,
    page: &Page,
    room: u64,
) -> Result<Bytes, CallFailure> {
    let listing = Listing {
        place: Place::Bucket(bucket),
        pattern: subject::entries(bucket.as_str(), prefix.as_str()),
        prefix: prefix.as_str(),
        headers_only: true,
    };
    let read = |found: Found<'_>| {
        let key = subject::parse_entry(bucket.as_str(), found.subject)?;
        Some((key.to_owned(), (!is_deleted(found.headers)).then_some(())))
    };
    let (keys, more) = listing.page(stores, page, room, read, |key, ()| key.len()).await?;
    let mut response = Response::new();
    response.texts("keys", keys.iter().map(|(key, ())| key.as_str()));
    response.flag("more", more);
    Ok(response.finish())
}

/// Returns `true` if a message with these headers stands for no entry.
fn is_deleted(headers: &Headers) -> bool {
    headers.get_exact(OPERATION).is_some() || headers.get_exact(MARKER).is_some()
}

/// An entry, whether it exists or not.
#[derive(Clone, Copy)]
struct Entry<'a> {
    stores: &'a GrantedStores,
    bucket: &'a BucketName,
    key: &'a KeyName,
}

impl Entry<'_> {
    async fn get(&self, room: u64) -> Result<Bytes, CallFailure> {
        let newest = self.newest().await?.filter(|newest| !is_deleted(&newest.headers()));
        let Some(entry) = newest else {
            let said = format!("the bucket `{}` has no entry `{}`", self.bucket, self.key);
            return Err(CallFailure::new(FailureKind::NotFound, said));
        };
        let size = entry.payload.len();
        if size as u64 > room {
            let said = format!("the entry `{}` has {size} bytes, and the response has room for {room}", self.key);
            return Err(CallFailure::new(FailureKind::TooLarge, said));
        }
        let mut response = Response::new();
        response.bytes("value", &entry.payload);
        response.number("revision", entry.sequence);
        Ok(response.finish())
    }

    /// Writes the entry. Returns its revision.
    async fn write(&self, value: Bytes, before: Before, ttl: Option<String>) -> Result<u64, CallFailure> {
        let id = ulid::Ulid::generate().to_string();
        let mut expected = match before {
            Before::Any => None,
            Before::Nothing => Some(0),
            Before::Revision(revision) => Some(revision),
        };
        for _ in 0..TRIES {
            match self
                .store(value.clone(), expected, &id, |write| {
                    if let Some(ttl) = &ttl {
                        write.headers.insert(TTL, ttl.as_str());
                    }
                })
                .await
            {
                Ok(revision) => return Ok(revision),
                Err(NotStored::Failed(failure)) => return Err(failure),
                Err(NotStored::Overtaken) => {}
            }
            let newest = self.newest().await?;
            match newest {
                // It was sent twice, because the first answer was lost.
                Some(newest) if is_own(&newest, &id) => return Ok(newest.sequence),
                Some(newest) if before == Before::Nothing && is_deleted(&newest.headers()) => {
                    expected = Some(newest.sequence);
                }
                // It expired since the server compared.
                None if before == Before::Nothing => expected = Some(0),
                newest => return Err(self.conflict(before, newest.as_ref())),
            }
        }
        Err(self.conflict(before, None))
    }

    async fn delete(&self, revision: Option<u64>) -> Result<(), CallFailure> {
        let id = ulid::Ulid::generate().to_string();
        let mark = |write: &mut Write| write.headers.insert(OPERATION, "DEL");
        match self.store(Bytes::new(), revision, &id, mark).await {
            Ok(_) => return Ok(()),
            Err(NotStored::Failed(failure)) => return Err(failure),
            Err(NotStored::Overtaken) => {}
        }
        match self.newest().await? {
            Some(newest) if !is_deleted(&newest.headers()) => {
                Err(self.conflict(Before::Revision(revision.unwrap_or(0)), Some(&newest)))
            }
            _ => Ok(()),
        }
    }

    async fn store(
        &self,
        value: Bytes,
        expected: Option<u64>,
        id: &str,
        more: impl FnOnce(&mut Write),
    ) -> Result<u64, NotStored> {
        let subject = subject::entry(self.bucket.as_str(), self.key.as_str());
        let mut write = Write { subject, headers: once(id), payload: value };
        if let Some(expected) = expected {
            write.headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        }
        more(&mut write);
        self.stores.store(Place::Bucket(self.bucket), &write).await.map(|ack| ack.seq)
    }

    /// Returns the newest message of the entry. `None` if there is none.
    async fn newest(&self) -> Result<Option<Stored>, CallFailure> {
        let request = json!({ "last_by_subj": subject::entry(self.bucket.as_str(), self.key.as_str()) });
        self.stores.read(Place::Bucket(self.bucket), &request).await
    }

    fn conflict(&self, before: Before, newest: Option<&Stored>) -> CallFailure {
        let key = self.key;
        let found = match newest {
            Some(newest) if !is_deleted(&newest.headers()) => format!("it has revision {}", newest.sequence),
            _ => "it does not exist".to_owned(),
        };
        let said = match before {
            Before::Revision(revision) => format!("the entry `{key}` has not revision {revision}: {found}"),
            Before::Any | Before::Nothing => format!("the entry `{key}` exists already, or others write it"),
        };
        CallFailure::new(FailureKind::Conflict, said)
    }
}

fn is_own(stored: &Stored, id: &str) -> bool {
    stored.headers().get_exact(NATS_MESSAGE_ID.as_ref()) == Some(id)
}
