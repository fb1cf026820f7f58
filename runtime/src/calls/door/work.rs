//! A call that a door lets through.

use crate::calls::http::request::HttpRequest;
use crate::calls::secrets::SecretRequest;
use crate::calls::stores::StoreRequest;

/// A call that is allowed.
pub(super) enum Work {
    /// A request, and the key that is sent with it.
    Http(Box<HttpRequest>, Option<String>),
    /// A call of a store, and the key that is sent with it.
    Store(StoreRequest, Option<String>),
    /// The value of a secret.
    Secret(SecretRequest),
}

impl Work {
    /// Returns what the call is made to, as in the record of an item.
    pub(super) fn target(&self) -> String {
        match self {
            Self::Http(request, _) => format!("{} {}", request.method.as_str(), request.target.url()),
            Self::Store(request, _) => request.target(),
            Self::Secret(secret) => secret.name.to_string(),
        }
    }
}
