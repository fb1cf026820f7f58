//! Calls that reach NATS: key-value buckets, object stores and subjects. A node hands the [`Stores`] that make them.

pub(crate) mod names;
mod read;

use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::failure::CallFailure;
use super::names::{BucketName, KeyName, KeyPrefix, ObjectName, StoreName, Subject};
use crate::frame::Headers;

/// The most names of a page.
pub(crate) const PAGE_MAX: usize = 1_000;

/// A call that reaches NATS. Its names are checked; whether they are granted is not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StoreRequest {
    /// An entry of a bucket.
    Entry(BucketName, KeyName, EntryCall),
    /// The keys of a bucket.
    Keys(BucketName, KeyPrefix, Page),
    /// An object of a store.
    Object(StoreName, ObjectName, ObjectCall),
    /// The objects of a store whose names begin with a prefix.
    Objects(StoreName, String, Page),
    /// A message.
    Publish(Message),
}

/// What to do with an entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EntryCall {
    /// Reads it.
    Get,
    /// Writes it.
    Write {
        /// The value.
        value: Bytes,
        /// The state that the write replaces.
        before: Before,
        /// The lifetime in seconds, of which the server counts whole ones. `None` if the entry stays.
        ttl: Option<NonZeroU64>,
    },
    /// Deletes it, if it has this revision or none is given.
    Delete(Option<u64>),
}

/// The state of an entry that a write replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Any.
    Any,
    /// No entry: never written, deleted or expired.
    Nothing,
    /// The entry has this revision.
    Revision(u64),
}

/// What to do with an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ObjectCall {
    /// Reads bytes of it.
    Get {
        /// The first byte.
        from: u64,
        /// The number of bytes. `None` for all that follow.
        length: Option<u64>,
    },
    /// Writes it.
    Put(Bytes),
}

/// A page of names, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The last name of the page before. Empty for the first page.
    pub(crate) after: String,
    /// The most names.
    pub(crate) limit: usize,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    /// The subject.
    pub(crate) subject: Subject,
    /// The payload.
    pub(crate) payload: Bytes,
    /// The headers. None of them is one that NATS gives a meaning.
    pub(crate) headers: Headers,
    /// `true` if the call ends when a stream has stored the message.
    pub(crate) waits: bool,
}

/// What a call must be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need<'a> {
    /// A bucket: to read it, or also to write.
    Bucket(&'a BucketName, bool),
    /// An object store: to read it, or also to write.
    Store(&'a StoreName, bool),
    /// A subject.
    Subject(&'a Subject),
}

impl StoreRequest {
    /// Returns what the call must be granted.
    pub(crate) fn need(&self) -> Need<'_> {
        match self {
            Self::Entry(bucket, _, call) => Need::Bucket(bucket, *call != EntryCall::Get),
            Self::Keys(bucket, ..) => Need::Bucket(bucket, false),
            Self::Object(store, _, call) => Need::Store(store, matches!(call, ObjectCall::Put(_))),
            Self::Objects(store, ..) => Need::Store(store, false),
            Self::Publish(message) => Need::Subject(&message.subject),
        }
    }

    /// Returns what the call is about, as records show it: `bucket/key`, `store/name` or the subject.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Entry(bucket, key, _) => format!("{bucket}/{key}"),
            Self::Keys(bucket, prefix, _) => format!("{bucket}/{prefix}*"),
            Self::Object(store, name, _) => format!("{store}/{}", super::message::quoted(name.as_str())),
            Self::Objects(store, prefix, _) => format!("{store}/{}*", super::message::quoted(prefix)),
            Self::Publish(message) => message.subject.to_string(),
        }
    }

    /// Returns the bytes that the call sends besides names.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Entry(_, _, EntryCall::Write { value: sent, .. }) | Self::Object(_, _, ObjectCall::Put(sent)) => {
                sent.len()
            }
            Self::Publish(message) => {
                message.headers.iter().fold(message.payload.len(), |sum, (name, value)| sum + name.len() + value.len())
            }
            _ => 0,
        }
    }
}

/// Makes calls that reach NATS.
pub(crate) trait Stores: Send + Sync {
    /// Makes a call that is granted. Returns the response in CBOR.
    ///
    /// `room` is the most bytes of values, data or names in the response. `key` is the `Nats-Msg-Id` of a published message.
    /// Dropping the future ends the call. What it has begun to store may be stored or not, but never in part.
    fn run(
        self: Arc<Self>,
        request: StoreRequest,
        room: u64,
        key: Option<String>,
    ) -> BoxFuture<'static, Result<Bytes, CallFailure>>;
}
