//! Objects of NATS object stores that the stage is granted.
//!
//! ```
//! use pcluster_sdk::{Error, objects, task};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Config {
//!     model: String,
//! }
//!
//! struct Model(Vec<u8>);
//!
//! /// Reads the model once, into the snapshot that every instance starts from.
//! fn load(config: Config) -> Result<Model, Error> {
//!     let object = objects::store("models").get(&config.model)?;
//!     Ok(Model(object.ok_or_else(|| Error::fatal("no such model"))?.data))
//! }
//!
//! #[task(init = load, calls(objects))]
//! fn knows(byte: u8, model: &Model) -> bool {
//!     model.0.contains(&byte)
//! }
//! # let world = pcluster_sdk::testing::World::new().object("models", "m", b"abc");
//! # let model = world.run(|| load(Config { model: "m".to_owned() })).unwrap();
//! # assert!(knows(b'a', &model));
//! # assert!(world.run(|| load(Config { model: "n".to_owned() })).is_err_and(|error| error.is_fatal()));
//! ```

use std::ops::Range;

use pcluster_abi::call;

use crate::CallError;
pub use crate::call::Pages;
use crate::call::pages::Listing;
use crate::call::{Answer, call, call_for};
use crate::cbor::fields::{Field, Writer, field};

/// Returns a store by its name. Nothing is called yet.
pub fn store(name: &str) -> Store {
    Store { name: name.to_owned() }
}

/// A store.
#[derive(Debug, Clone)]
pub struct Store {
    name: String,
}

/// An object, or a range of one, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// The bytes that were read.
    pub data: Vec<u8>,
    /// The size of the whole object in bytes.
    pub size: u64,
    /// The digest of the whole object, as NATS writes it: `SHA-256=` and base64.
    pub digest: String,
}

/// What a store knows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// The name.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// The digest, as NATS writes it.
    pub digest: String,
}

impl Store {
    /// Returns an object. `None` if there is none. The node has checked its digest.
    ///
    /// # Errors
    ///
    /// If the stage is not granted the store, the object is larger than the stage's limit, or the server cannot answer.
    pub fn get(&self, name: &str) -> Result<Option<Object>, CallError> {
        read(self.request(name))
    }

    /// Returns the bytes of an object within a range. `None` if there is no object.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn get_range(&self, name: &str, range: Range<u64>) -> Result<Option<Object>, CallError> {
        let mut request = self.request(name);
        request.number("from", range.start);
        request.number("length", range.end.saturating_sub(range.start));
        read(request)
    }

    /// Writes an object. Readers see the one before until all of this one is stored.
    ///
    /// # Errors
    ///
    /// If the stage is not granted to write, or the server cannot answer or has no room.
    pub fn put(&self, name: &str, data: impl AsRef<[u8]>) -> Result<ObjectInfo, CallError> {
        let mut request = self.request(name);
        request.bytes("data", data.as_ref());
        let answer = call(call::OBJECTS_PUT, request)?;
        Ok(ObjectInfo { name: name.to_owned(), size: answer.number("size")?, digest: answer.text("digest")? })
    }

    /// Returns the objects whose names begin with this prefix. All if it is empty.
    pub fn list(&self, prefix: &str) -> Pages<ObjectInfo> {
        const OBJECTS: Listing<ObjectInfo> =
            Listing { call: call::OBJECTS_LIST, place: "store", list: "objects", read: info, name: |info| &info.name };
        Pages::new(OBJECTS, &self.name, prefix)
    }

    fn request(&self, name: &str) -> Writer {
        let mut request = Writer::new();
        request.text("store", &self.name);
        request.text("name", name);
        request
    }
}

fn read(request: Writer) -> Result<Option<Object>, CallError> {
    let object = |answer: Answer| {
        let (size, digest) = (answer.number("size")?, answer.text("digest")?);
        Ok(Object { data: answer.into_bytes("data")?, size, digest })
    };
    call_for(call::OBJECTS_GET, request)?.map(object).transpose()
}

fn info(value: &Field<'_>) -> Option<ObjectInfo> {
    let Field::Map(map) = value else { return None };
    match (field(map, "name")?, field(map, "size")?, field(map, "digest")?) {
        (Field::Text(name), Field::Number(size), Field::Text(digest)) => {
            Some(ObjectInfo { name: name.to_owned(), size, digest: digest.to_owned() })
        }
        _ => None,
    }
}
