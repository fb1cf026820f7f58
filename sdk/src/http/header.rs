//! The values of headers.

use crate::Secret;
use crate::cbor::fields::{Writer, string};

/// The value of a header: bytes, or a [`Secret`] that the node fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValue(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Bytes(Vec<u8>),
    /// The name of a secret, and the key and value of what goes with it.
    Secret(String, Option<(&'static str, String)>),
}

impl HeaderValue {
    /// Appends the value in CBOR.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        match &self.0 {
            Kind::Bytes(bytes) => string(to, 2, bytes),
            Kind::Secret(name, with) => {
                let mut map = Writer::new();
                map.text("secret", name);
                if let Some((key, value)) = with {
                    map.text(key, value);
                }
                to.extend_from_slice(&map.finish());
            }
        }
    }
}

impl Secret<'_> {
    /// Returns the value `Bearer …`, as for `Authorization`.
    pub fn bearer(self) -> HeaderValue {
        self.after("Bearer ")
    }

    /// Returns the value `Basic …` of HTTP basic authentication for this user. The secret is the password.
    pub fn basic(self, user: &str) -> HeaderValue {
        self.with(Some(("basic", user)))
    }

    /// Returns the value that begins with this text, such as `token `.
    pub fn after(self, prefix: &str) -> HeaderValue {
        self.with(Some(("prefix", prefix)))
    }

    fn with(self, with: Option<(&'static str, &str)>) -> HeaderValue {
        HeaderValue(Kind::Secret(self.0.to_owned(), with.map(|(key, value)| (key, value.to_owned()))))
    }
}

impl From<Secret<'_>> for HeaderValue {
    fn from(secret: Secret<'_>) -> Self {
        secret.with(None)
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&String> for HeaderValue {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&[u8]> for HeaderValue {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<Vec<u8>> for HeaderValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kind::Bytes(bytes))
    }
}
