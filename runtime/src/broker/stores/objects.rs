//! Objects of object stores (NATS ADR-20).
//!
//! An object is a message that describes it, its head, and its bytes in chunks under a subject of the upload's own. A reader of a
//! head that is replaced meanwhile finds chunks missing, and reads the new head.

mod get;
mod put;

use bytes::Bytes;
use serde_json::json;

use super::super::object_head::ObjectHead;
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
        Some((name, ObjectHead::read(found.payload).filter(is_listed).map(|head| (head.size, head.digest))))
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

/// Returns `true` if a list shows an object. A digest that is longer than any is none.
fn is_listed(head: &ObjectHead) -> bool {
    head.is_there() && head.digest.len() <= DIGEST_MAX
}

impl Object<'_> {
    fn place(&self) -> Place<'_> {
        Place::Store(self.store)
    }

    /// Returns the newest description, readable or not, with its sequence number. `None` if the object was never stored.
    async fn head(&self) -> Result<Option<(u64, Option<ObjectHead>)>, CallFailure> {
        let request = json!({ "last_by_subj": subject::object_head(self.store.as_str(), self.name.as_str()) });
        let stored = self.stores.read(self.place(), &request).await?;
        Ok(stored.map(|stored| (stored.sequence, ObjectHead::read(&stored.payload))))
    }
}
