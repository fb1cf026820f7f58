//! Objects of object stores (NATS ADR-20).
//!
//! An object is a message that describes it, its head, and its bytes in chunks under a subject of the upload's own. A reader of a
//! head that is replaced meanwhile finds chunks missing, and reads the new head.

mod get;
mod put;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::GrantedStores;
use super::failure::Place;
use super::listing::{Found, Listing};
use crate::calls::failure::CallFailure;
use crate::calls::message::Response;
use crate::calls::names::{ObjectName, StoreName};
use crate::calls::stores::{ObjectCall, Page};
use crate::subject::stores as subject;

/// The most bytes of a digest in a list.
const DIGEST_MAX: usize = 100;

/// Makes a call on an object.
pub(super) async fn run(
    stores: &GrantedStores,
    store: &StoreName,
    name: &ObjectName,
    call: ObjectCall,
    room: u64,
) -> Result<Bytes, CallFailure> {
    let object = Object { stores, store, name };
    match call {
        ObjectCall::Get { from, length } => object.get(from, length, room).await,
        ObjectCall::Put(data) => object.put(data).await,
    }
}

/// Returns a page of the objects whose names begin with a prefix.
pub(super) async fn list(
    stores: &GrantedStores,
    store: &StoreName,
    prefix: &str,
    page: &Page,
    room: u64,
) -> Result<Bytes, CallFailure> {
    let listing = Listing {
        place: Place::Store(store),
        pattern: subject::object_heads(store.as_str()),
        prefix,
        headers_only: false,
    };
    let read = |found: Found<'_>| {
        let name = subject::parse_object_head(found.subject)?;
        Some((name, Head::read(found.payload).filter(Head::is_listed).map(|head| (head.size, head.digest))))
    };
    let size = |name: &str, (_, digest): &(u64, String)| name.len() + digest.len();
    let (objects, more) = listing.page(stores, page, room, read, size).await?;
    let mut response = Response::new();
    response.maps(
        "objects",
        objects.iter().map(|(name, (size, digest))| {
            let mut object = Response::new();
            object.text("name", name);
            object.number("size", *size);
            object.text("digest", digest);
            object
        }),
    );
    response.flag("more", more);
    Ok(response.finish())
}

/// An object, whether it exists or not.
#[derive(Clone, Copy)]
struct Object<'a> {
    stores: &'a GrantedStores,
    store: &'a StoreName,
    name: &'a ObjectName,
}

/// The description of an object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Head {
    /// The id of the upload.
    #[serde(default)]
    nuid: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    chunks: u64,
    /// `SHA-256=` and base64.
    #[serde(default)]
    digest: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    options: Option<Options>,
    /// The sequence number of the message.
    #[serde(skip)]
    sequence: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Options {
    #[serde(default)]
    link: Option<serde_json::Value>,
    #[serde(default)]
    max_chunk_size: Option<u64>,
}

impl Head {
    fn read(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    fn is_link(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.link.is_some())
    }

    /// Returns `true` if a list shows it. A digest that is longer than any is none.
    fn is_listed(&self) -> bool {
        self.is_there() && self.digest.len() <= DIGEST_MAX
    }

    /// Returns `true` if it describes bytes: it is neither deleted nor a link.
    fn is_there(&self) -> bool {
        !self.deleted && !self.is_link()
    }

    /// Returns the size of all chunks but the last.
    fn chunk_size(&self) -> Option<u64> {
        self.options.as_ref()?.max_chunk_size.filter(|size| *size > 0)
    }
}

impl Object<'_> {
    fn place(&self) -> Place<'_> {
        Place::Store(self.store)
    }

    /// Returns the newest description, readable or not, with its sequence number. `None` if the object was never stored.
    async fn head(&self) -> Result<Option<(u64, Option<Head>)>, CallFailure> {
        let request = json!({ "last_by_subj": subject::object_head(self.store.as_str(), self.name.as_str()) });
        let stored = self.stores.read(self.place(), &request).await?;
        Ok(stored.map(|stored| {
            let head = Head::read(&stored.payload).map(|head| Head { sequence: stored.sequence, ..head });
            (stored.sequence, head)
        }))
    }
}
