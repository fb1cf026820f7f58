//! The description of an object, as object stores have it.

use std::collections::HashMap;

use async_nats::HeaderMap;
use async_nats::header::NATS_ROLLUP;
use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use super::super::BrokerError;
use super::super::get::Stored;
use super::super::object_head::{NewObject, ObjectHead, REPLACE, SHA_256};
use super::{LargeError, LargeStore, subject};
use crate::frame::large::{Form, Reference};

/// The key of the form of an item in the metadata of its description.
const FORM: &str = "form";

/// Returns a digest as object stores write it.
pub(super) fn digest(hash: &[u8]) -> String {
    format!("{SHA_256}{}", BASE64_URL_SAFE.encode(hash))
}

/// Returns the bytes of a digest, with padding or without.
fn hash_of(digest: &str) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = BASE64_URL_SAFE_NO_PAD;
    ENGINE.decode(digest.strip_prefix(SHA_256)?.trim_end_matches('=')).ok()
}

/// Returns `true` if a digest, as object stores write it, is that of these bytes of a hash.
pub(super) fn is_digest_of(digest: &str, hash: &[u8]) -> bool {
    hash_of(digest).is_some_and(|found| found == hash)
}

/// Returns what is wrong with a description. `None` if it is of what a reference names.
fn fault(head: &ObjectHead, reference: &Reference) -> Option<String> {
    if head.is_link() {
        return Some("it is a link".to_owned());
    }
    if head.upload().is_none() {
        return Some("its chunks have no id".to_owned());
    }
    if head.size != reference.size {
        return Some(format!("it has {} bytes, and the reference says {}", head.size, reference.size));
    }
    let has_other = !head.digest.is_empty() && hash_of(&head.digest) != hash_of(&reference.digest);
    has_other.then(|| "its digest is not that of the reference".to_owned())
}

impl LargeStore {
    pub(super) fn missing(&self, name: &str, reason: impl Into<String>) -> LargeError {
        LargeError::Missing { chain: self.0.chain.clone(), name: name.to_owned(), reason: reason.into() }
    }

    pub(super) fn damaged(&self, name: &str, reason: impl Into<String>) -> LargeError {
        LargeError::Damaged { chain: self.0.chain.clone(), name: name.to_owned(), reason: reason.into() }
    }

    /// Returns the description of the object that a reference names.
    pub(super) async fn head(&self, reference: &Reference) -> Result<ObjectHead, LargeError> {
        let name = &reference.name;
        let stored = insist!(self, "read large items", self.stored_head(name))?;
        let stored = stored.ok_or_else(|| self.missing(name, "it has no description"))?;
        let head =
            ObjectHead::read(&stored.payload).ok_or_else(|| self.damaged(name, "its description cannot be read"))?;
        if head.deleted {
            return Err(self.missing(name, "it was deleted"));
        }
        match fault(&head, reference) {
            Some(fault) => Err(self.damaged(name, fault)),
            None => Ok(head),
        }
    }

    /// Returns `true` if the object is there, as far as its description tells.
    pub(crate) async fn has(&self, name: &str) -> Result<bool, LargeError> {
        let stored = insist!(self, "read large items", self.stored_head(name))?;
        Ok(stored.and_then(|stored| ObjectHead::read(&stored.payload)).is_some_and(|head| !head.deleted))
    }

    /// Returns the reference to the object with this name, as its description tells it.
    pub(crate) async fn named(&self, name: &str) -> Result<Reference, LargeError> {
        let stored = insist!(self, "read large items", self.stored_head(name))?;
        let head = stored.and_then(|stored| ObjectHead::read(&stored.payload)).filter(|head| !head.deleted);
        let head = head.ok_or_else(|| self.missing(name, "there is no description of it"))?;
        let form = head.metadata.get(FORM).and_then(|form| Form::parse(form)).unwrap_or(Form::Bytes);
        Ok(Reference { name: name.to_owned(), size: head.size, digest: head.digest, form })
    }

    /// Returns the description of an object as the leader of the stream has it.
    pub(super) async fn stored_head(&self, name: &str) -> Result<Option<Stored>, BrokerError> {
        let request = json!({ "last_by_subj": subject::head(&self.0.chain, name) });
        let what = || format!("look up the large item {name}");
        Stored::read(&self.0.broker, &self.0.stream, &request, what).await
    }

    /// Stores the description of an object. Its chunks must be stored.
    pub(super) async fn describe(&self, reference: &Reference, chunk: usize, chunks: u64) -> Result<(), LargeError> {
        let what = || format!("describe the large item {}", reference.name);
        let head = NewObject {
            bucket: &subject::bucket(&self.0.chain),
            name: &reference.name,
            upload: &reference.name,
            size: reference.size,
            chunk,
            chunks,
            digest: &reference.digest,
            metadata: HashMap::from([(FORM.to_owned(), reference.form.name().to_owned())]),
        };
        let head = head.describe().map_err(|error| BrokerError::other(what(), &error))?;
        let subject = subject::head(&self.0.chain, &reference.name);
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, REPLACE);
        let put = || self.0.broker.put(subject.clone(), headers.clone(), head.clone(), what);
        insist!(self, "store large items", put())?;
        Ok(())
    }
}
