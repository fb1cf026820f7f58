//! Where a redirect leads, and what is sent there.

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{HeaderMap, Method, StatusCode};

use super::header::{Headers, is_credential};
use super::target::{Scheme, Target};
use crate::calls::failure::{CallFailure, FailureKind};

/// A request as it is sent to one place. A redirect changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) target: Target,
    pub(super) method: Method,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) key: Option<HeaderValue>,
}

/// Returns `true` if a status leads elsewhere.
pub(super) fn is_redirect(status: StatusCode, headers: &HeaderMap) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) && headers.contains_key(LOCATION)
}

impl Outgoing {
    /// Changes the request to the one that a redirect leads to. The caller checks its target as that of any request.
    pub(super) fn follow(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), CallFailure> {
        let target = self.location(headers)?;
        if self.target.scheme() == Scheme::Https && target.scheme() == Scheme::Http {
            return Err(CallFailure::denied(format!(
                "`{}` redirects from https to http, which is not followed",
                self.target.origin()
            )));
        }
        if target.origin() != self.target.origin() {
            self.headers.retain(|(name, content)| !is_credential(name, content));
        }
        let becomes_get = match status.as_u16() {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            self.method = Method::GET;
            self.body = Bytes::new();
            self.key = None;
            let of_body = [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE];
            self.headers.retain(|(name, _)| !of_body.contains(name));
        }
        self.target = target;
        Ok(())
    }

    fn location(&self, headers: &HeaderMap) -> Result<Target, CallFailure> {
        let origin = self.target.origin();
        let mut locations = headers.get_all(LOCATION).iter();
        let (Some(location), None) = (locations.next(), locations.next()) else {
            return Err(lasting(format!("`{origin}` redirects to several places")));
        };
        let location = std::str::from_utf8(location.as_bytes()).map_err(|error| error.to_string());
        location
            .and_then(|location| self.target.join(location).map_err(|problem| problem.to_string()))
            .map_err(|problem| lasting(format!("`{origin}` redirects to a malformed URL: {problem}")))
    }
}

/// Returns the failure of a server that will answer the same again.
pub(super) fn lasting(message: String) -> CallFailure {
    CallFailure { is_transient: false, ..CallFailure::new(FailureKind::Unavailable, message) }
}

#[cfg(test)]
mod tests;
