//! Large items: a message holds a reference, and the chain's object store holds the bytes.
//!
//! The header [`LARGE`](super::header::LARGE) names the positions of the references in a message. What looks like a reference at
//! any other position is data.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use bytes::Bytes;
use ciborium::Value;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::format::Format;
use super::id::Index;
use super::{Headers, cbor, header};

/// The most bytes of an item that is only passed on: a byte string or a text.
pub const MAX_STREAMED: u64 = 1 << 30;
/// The most bytes of any other item. A node reads it as a whole.
pub const MAX_WHOLE: u64 = 64 << 20;
/// The beginning of a digest, as object stores write it (NATS ADR-20).
const SHA_256: &str = "SHA-256=";
/// The most bytes of the name of an object.
const NAME_MAX: usize = 128;

/// What the bytes of an object are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Form {
    /// The item as it is: one CBOR data item.
    Cbor,
    /// The content of a byte string.
    Bytes,
    /// The content of a text, UTF-8.
    Text,
}

impl Form {
    const ALL: [Self; 3] = [Self::Cbor, Self::Bytes, Self::Text];

    /// Returns the form in one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cbor => "cbor",
            Self::Bytes => "bytes",
            Self::Text => "text",
        }
    }

    /// Returns the form with this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// Returns the form and the content of an item. The content of a byte string or a text of definite length is without its head.
    pub fn of(item: &[u8]) -> (Self, &[u8]) {
        let content = |form, head: usize| item.get(head..).map(|content| (form, content));
        let Some(first) = item.first() else { return (Self::Cbor, item) };
        let form = match first >> 5 {
            2 => Self::Bytes,
            3 => Self::Text,
            _ => return (Self::Cbor, item),
        };
        let head = match first & 0x1f {
            0..=23 => 1,
            24 => 2,
            25 => 3,
            26 => 5,
            27 => 9,
            _ => return (Self::Cbor, item),
        };
        content(form, head).unwrap_or((Self::Cbor, item))
    }

    /// Returns what goes before content of this size to make an item of it: the head of a byte string or a text.
    pub fn head(self, size: u64) -> Vec<u8> {
        let mut head = Vec::new();
        match self {
            Self::Cbor => {}
            Self::Bytes => cbor::write_head(2, size, &mut head),
            Self::Text => cbor::write_head(3, size, &mut head),
        }
        head
    }

    /// Returns the most bytes that an item of this form may have.
    pub const fn max(self) -> u64 {
        match self {
            Self::Cbor => MAX_WHOLE,
            Self::Bytes | Self::Text => MAX_STREAMED,
        }
    }
}

/// A large item as a message holds it: what names its bytes in the chain's object store.
///
/// In a message it is a CBOR map with the keys `name`, `size`, `digest` and `form`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reference {
    /// The name of the object, and the id of its chunks. Each upload has a name of its own.
    pub name: String,
    /// The number of its bytes.
    pub size: u64,
    /// The SHA-256 of its bytes, as `SHA-256=` and URL-safe Base64.
    pub digest: String,
    /// What its bytes are.
    pub form: Form,
}

/// What stands in the place of a reference is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a reference to a large item {0}; it is a map with the texts `name`, `digest` and `form` and the number `size`"
)]
pub struct ReferenceError(&'static str);

impl Reference {
    /// Returns the reference as the item that a message holds.
    pub fn to_cbor(&self) -> Vec<u8> {
        let text = |key: &str, value: &str| (Value::from(key), Value::from(value));
        let fields = vec![
            text("name", &self.name),
            (Value::from("size"), Value::from(self.size)),
            text("digest", &self.digest),
            text("form", self.form.name()),
        ];
        let mut item = Vec::new();
        // Writing to memory does not fail.
        let _ = ciborium::into_writer(&Value::Map(fields), &mut item);
        item
    }

    /// Reads the item that a message holds.
    ///
    /// # Errors
    ///
    /// If it has other fields, a name that is no name of an object, or a digest that is no SHA-256.
    pub fn parse(item: &[u8]) -> Result<Self, ReferenceError> {
        let Some(Value::Map(fields)) = cbor::value(item) else { return Err(ReferenceError("is no map")) };
        if fields.len() != 4 {
            return Err(ReferenceError("has other fields"));
        }
        let field = |name: &str| fields.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value);
        let text = |name: &str| field(name).and_then(Value::as_text).map(str::to_owned);
        let name = text("name").filter(|name| is_name(name)).ok_or(ReferenceError("has no name of an object"))?;
        let size = field("size").and_then(Value::as_integer).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or(ReferenceError("has no size"))?;
        let digest = text("digest").filter(|digest| is_digest(digest)).ok_or(ReferenceError("has no SHA-256"))?;
        let form = text("form").and_then(|text| Form::parse(&text));
        Ok(Self { name, size, digest, form: form.ok_or(ReferenceError("has an unknown form"))? })
    }

    /// Returns the bytes of the item that it stands for.
    pub fn item_size(&self) -> u64 {
        self.size.saturating_add(self.form.head(self.size).len() as u64)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({} bytes)", self.name, self.size)
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_part)
}

fn is_digest(digest: &str) -> bool {
    let Some(encoded) = digest.strip_prefix(SHA_256) else { return false };
    BASE64_URL_SAFE.decode(encoded).is_ok_and(|digest| digest.len() == 32)
}

/// Computes the digest of content that comes in parts.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds a part.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// Returns the digest of all parts, as a reference has it.
    pub fn digest(self) -> String {
        format!("{SHA_256}{}", BASE64_URL_SAFE.encode(self.0.finalize()))
    }
}

/// The positions of the references in a message, rising.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(Vec<usize>);

impl Positions {
    /// No position.
    pub const NONE: Self = Self(Vec::new());

    /// Returns `true` if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `true` if the item at this position is a reference.
    pub fn contains(&self, position: usize) -> bool {
        self.0.binary_search(&position).is_ok()
    }

    /// Returns the positions.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }

    /// Adds a position behind all others.
    pub fn push(&mut self, position: usize) {
        debug_assert!(self.0.last().is_none_or(|last| *last < position), "positions rise");
        self.0.push(position);
    }

    /// Returns the positions within a message of these items alone.
    pub fn pick(&self, positions: &[usize]) -> Self {
        if self.is_empty() {
            return Self::NONE;
        }
        (0..).zip(positions).filter(|(_, position)| self.contains(**position)).map(|(place, _)| place).collect()
    }

    /// Returns the value of the header. `None` if there are no references.
    pub fn to_header(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.iter().collect::<Index>().to_string())
    }

    /// Reads the header of a message of `len` items. `None` if it names other positions, or one twice.
    pub fn parse(header: &str, len: usize) -> Option<Self> {
        let list = Index::parse_list(header, len).ok()?;
        let positions: Vec<usize> = list.iter().collect();
        let rises = positions.windows(2).all(|pair| pair[0] < pair[1]);
        (rises && positions.last().is_some_and(|last| *last < len)).then_some(Self(positions))
    }
}

impl FromIterator<usize> for Positions {
    fn from_iter<I: IntoIterator<Item = usize>>(positions: I) -> Self {
        Self(positions.into_iter().collect())
    }
}

/// Returns `true` if a message refers to large items.
pub fn has_references(headers: &Headers) -> bool {
    headers.get(header::LARGE).is_some()
}

/// Returns the names of the objects that a message refers to, each once. If any reference cannot be read, none is.
pub fn names_in(headers: &Headers, payload: &Bytes) -> Vec<String> {
    let names = || {
        let items = Format::Cbor.items(payload).ok()?;
        let positions = Positions::parse(headers.get(header::LARGE)?, items.len())?;
        let name = |position: usize| Some(Reference::parse(&items[position]).ok()?.name);
        positions.iter().map(name).collect::<Option<Vec<String>>>()
    };
    let mut names = if has_references(headers) { names().unwrap_or_default() } else { Vec::new() };
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        let digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned();
        Reference { name: "01J".to_owned(), size: 70_000, digest, form: Form::Text }
    }

    #[test]
    fn a_reference_survives_its_message_and_nothing_else_is_one() {
        assert_eq!(Reference::parse(&reference().to_cbor()), Ok(reference()));
        assert_eq!(reference().item_size(), 70_005);
        let with = |change: fn(&mut Reference)| {
            let mut changed = reference();
            change(&mut changed);
            Reference::parse(&changed.to_cbor())
        };
        for wrong in [
            with(|reference| reference.name = "a.b".to_owned()),
            with(|reference| reference.name = String::new()),
            with(|reference| reference.digest = "SHA-256=AAAA".to_owned()),
            with(|reference| reference.digest = "x".to_owned()),
            Reference::parse(&[0xa0]),
            Reference::parse(&[1]),
            Reference::parse(&[]),
        ] {
            assert!(wrong.is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_content_of_a_string_is_what_its_head_comes_before() {
        for (item, form, content) in [
            (&[0x43, 1, 2, 3][..], Form::Bytes, &[1, 2, 3][..]),
            (&[0x58, 3, 1, 2, 3], Form::Bytes, &[1, 2, 3]),
            (b"\x61a", Form::Text, b"a"),
            (b"\x60", Form::Text, b""),
            (&[0x5f, 0x41, 1, 0xff], Form::Cbor, &[0x5f, 0x41, 1, 0xff]),
            (&[0x82, 1, 2], Form::Cbor, &[0x82, 1, 2]),
        ] {
            assert_eq!(Form::of(item), (form, content));
        }
        let long = [Form::Bytes.head(300), vec![7; 300]].concat();
        assert_eq!(Form::of(&long), (Form::Bytes, &[7; 300][..]));
    }

    #[test]
    fn positions_survive_their_header_and_are_within_the_message() {
        let positions: Positions = [0, 3, 4, 9].into_iter().collect();
        let header = positions.to_header().expect("some");
        assert_eq!(Positions::parse(&header, 10), Some(positions.clone()));
        assert_eq!(Positions::NONE.to_header(), None);
        assert_eq!(positions.pick(&[1, 3, 9]), [1, 2].into_iter().collect());
        for wrong in ["", "x", "9", "1,1", "2,1", "0x2"] {
            assert_eq!(Positions::parse(wrong, 9), None, "{wrong}");
        }
    }

    #[test]
    fn each_object_of_a_message_is_named_once_and_data_names_none() {
        let item = |name: &str| Reference { name: name.to_owned(), ..reference() }.to_cbor();
        let payload: Bytes = [item("b"), item("a"), item("b"), item("data")].concat().into();
        let names = |positions: &[usize]| {
            let positions: Positions = positions.iter().copied().collect();
            let mut headers = Headers::new();
            headers.extend(positions.to_header().map(|text| (header::LARGE, text)));
            names_in(&headers, &payload)
        };
        assert_eq!((names(&[0, 1, 2]), names(&[])), (vec!["a".to_owned(), "b".to_owned()], vec![]));
        assert!(names(&[0, 9]).is_empty());
    }
}
