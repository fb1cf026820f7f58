//! A response, whole.

use std::time::Duration;

use crate::call::{Answer, unreadable};
use crate::cbor::fields::Field;
#[cfg(not(target_arch = "wasm32"))]
use crate::cbor::fields::{Writer, head, string};
use crate::{CallError, FailureKind};

/// A response to a [`Request`](super::Request).
#[derive(Debug, Clone)]
pub struct Response {
    method: String,
    url: String,
    status: u16,
    /// Names are in lower case.
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    retry_after: Option<Duration>,
}

impl Response {
    /// Creates a response for a test without a server.
    pub fn for_test(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (method, url) = (String::new(), String::new());
        Self { method, url, status, headers: Vec::new(), body: body.into(), retry_after: None }
    }

    /// Adds a header, for a test. `Retry-After` in seconds is also what [`retry_after`](Self::retry_after) returns.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if name.eq_ignore_ascii_case("retry-after") {
            self.retry_after = value.parse().ok().map(Duration::from_secs);
        }
        self.headers.push((name.to_ascii_lowercase(), value.as_bytes().to_vec()));
        self
    }

    /// Reads the answer to a call.
    pub(super) fn read(method: String, url: String, answer: Answer) -> Result<Self, CallError> {
        let status = answer.number("status")?;
        let headers = answer.list("headers")?.filter_map(header).collect();
        let retry_after = answer.number("retry_after_ms").ok().map(Duration::from_millis);
        Ok(Self {
            method,
            url: answer.text("url").unwrap_or(url),
            status: u16::try_from(status).map_err(|_| unreadable("status"))?,
            headers,
            retry_after,
            body: answer.into_bytes("body")?,
        })
    }

    /// Writes the answer to a call, as the node would.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn write(&self, url: &str) -> Writer {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            head(&mut headers, 4, 2);
            string(&mut headers, 3, name.as_bytes());
            string(&mut headers, 2, value);
        }
        let mut answer = Writer::new();
        answer.number("status", self.status.into());
        answer.list("headers", self.headers.len() as u64, &headers);
        answer.bytes("body", &self.body);
        answer.text("url", url);
        if let Some(delay) = self.retry_after {
            answer.number("retry_after_ms", u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        }
        answer
    }

    /// Returns the status, such as 200.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns the URL that answered, which a redirect may have led to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the first header of this name, in any case. `None` if there is none, or its value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name))?;
        str::from_utf8(value).ok()
    }

    /// Returns all headers, with their names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Returns how long `Retry-After` says to wait. `None` if the server does not say it. At most an hour.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the body by value.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Returns the body as a text.
    ///
    /// # Errors
    ///
    /// If the body is not UTF-8. The error is transient, because the server may answer better later.
    pub fn text(&self) -> Result<&str, CallError> {
        str::from_utf8(&self.body).map_err(|error| self.garbage("UTF-8", &error))
    }

    /// Reads the body as JSON. Needs the feature `json`.
    ///
    /// # Errors
    ///
    /// If the body is not JSON of this type. The error is transient, because the server may answer better later.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| self.garbage("the JSON that is expected", &error))
    }

    /// Returns the response, or an error if its status is one.
    ///
    /// # Errors
    ///
    /// | status | error | the item, with `?` |
    /// |---|---|---|
    /// | below 400 | none | goes on |
    /// | 408, 425, 429, 500 and above | is transient | is tried again, not before `Retry-After` |
    /// | 409, 412 | is a [`Conflict`](FailureKind::Conflict) | is tried again |
    /// | any other | is neither | is a dead letter at once |
    pub fn error_for_status(self) -> Result<Self, CallError> {
        let kind = match self.status {
            ..=399 => return Ok(self),
            401 | 403 | 407 => FailureKind::Denied,
            404 | 410 => FailureKind::NotFound,
            408 => FailureKind::Timeout,
            409 | 412 => FailureKind::Conflict,
            413 => FailureKind::TooLarge,
            425 | 429 | 500.. => FailureKind::Unavailable,
            _ => FailureKind::Invalid,
        };
        Err(CallError::new(kind, format!("{} answered {}", self.asked(), self.status)).delayed(self.retry_after))
    }

    #[cold]
    fn garbage(&self, expected: &str, error: &dyn std::fmt::Display) -> CallError {
        let message = format!("the answer to {} is not {expected}: {error}", self.asked());
        CallError::new(FailureKind::Unavailable, message)
    }

    /// Returns what was asked for. A query may hold what should not be told, so it is left out.
    fn asked(&self) -> String {
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        format!("{} {url}", self.method)
    }
}

/// Reads a pair of a name and a value.
fn header(pair: Field<'_>) -> Option<(String, Vec<u8>)> {
    let Field::List(mut pair) = pair else { return None };
    match (pair.next()?, pair.next()?) {
        (Field::Text(name), Field::Bytes(value)) => Some((name.to_owned(), value.to_vec())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Result<Response, CallError> {
        Response::for_test(status, "x").with_header("Retry-After", "7").error_for_status()
    }

    #[test]
    fn a_status_says_whether_to_try_again_and_when() {
        for status in [200, 204, 304, 399] {
            assert_eq!(answered(status).expect("a response").status(), status);
        }
        for (status, kind) in [
            (408, FailureKind::Timeout),
            (425, FailureKind::Unavailable),
            (429, FailureKind::Unavailable),
            (500, FailureKind::Unavailable),
            (503, FailureKind::Unavailable),
            (599, FailureKind::Unavailable),
        ] {
            let error = answered(status).expect_err("an error");
            assert_eq!((error.kind(), error.is_transient()), (kind, true), "{status}");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        }
        for (status, kind) in [
            (400, FailureKind::Invalid),
            (401, FailureKind::Denied),
            (403, FailureKind::Denied),
            (404, FailureKind::NotFound),
            (409, FailureKind::Conflict),
            (413, FailureKind::TooLarge),
            (422, FailureKind::Invalid),
        ] {
            let error = answered(status).expect_err("an error");
            assert_eq!((error.kind(), error.is_transient()), (kind, false), "{status}");
        }
    }

    #[test]
    fn a_message_names_the_url_without_its_query() {
        let url = "https://a.example/x?key=1".to_owned();
        let response = Response { method: "GET".to_owned(), url, ..Response::for_test(404, [0xff]) };
        let error = response.text().expect_err("an error");
        assert!(error.message().starts_with("the answer to GET https://a.example/x is not UTF-8: "), "{error}");
        let error = response.error_for_status().expect_err("an error");
        assert_eq!(error.message(), "GET https://a.example/x answered 404");
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let response = Response::for_test(200, "x").with_header("ETag", "1").with_header("etag", "2");
        assert_eq!((response.header("Etag"), response.header("date")), (Some("1"), None));
        assert_eq!(response.headers().count(), 2);
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_that_does_not_fit_may_be_better_later() {
        let response = Response::for_test(200, r#"{"a":1}"#);
        let read: std::collections::BTreeMap<String, u8> = response.json().expect("a map");
        assert_eq!(read["a"], 1);
        assert!(response.json::<Vec<u8>>().expect_err("an error").is_transient());
    }
}
