//! A request, as its author builds it.

use std::time::Duration;

use super::{HeaderValue, Response};
use crate::CallError;
use crate::call::call;
use crate::cbor::fields::{Writer, head, string};

/// A request that is not sent yet.
#[derive(Debug, Clone)]
#[must_use = "a request goes out with `send`"]
pub struct Request {
    method: String,
    url: String,
    /// Pairs of a name and a value in CBOR.
    headers: Vec<u8>,
    header_count: u64,
    /// Whether the author has set `Content-Type`.
    is_typed: bool,
    body: Body,
    timeout: Option<Duration>,
    redirects: Option<u8>,
    key: Key,
}

#[derive(Debug, Clone)]
enum Body {
    None,
    Bytes(Vec<u8>),
    #[cfg(feature = "json")]
    Json(Result<Vec<u8>, String>),
}

/// The `Idempotency-Key`.
#[derive(Debug, Clone)]
enum Key {
    OfNode,
    OfAuthor(String),
    None,
}

impl Request {
    /// Creates a request.
    pub(super) fn new(method: &str, url: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            header_count: 0,
            is_typed: false,
            body: Body::None,
            timeout: None,
            redirects: None,
            key: Key::OfNode,
        }
    }

    /// Adds a header. The node refuses headers that frame the message or belong to one connection.
    pub fn header(mut self, name: &str, value: impl Into<HeaderValue>) -> Self {
        self.add(name, &value.into());
        self
    }

    fn add(&mut self, name: &str, value: &HeaderValue) {
        head(&mut self.headers, 4, 2);
        string(&mut self.headers, 3, name.as_bytes());
        value.write(&mut self.headers);
        self.header_count += 1;
        self.is_typed |= name.eq_ignore_ascii_case("content-type");
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Bytes(body.into()), ..self }
    }

    /// Sets the body to a value in JSON, with `Content-Type: application/json` unless that is set. Needs the feature `json`.
    ///
    /// A value that JSON cannot hold is an error of [`send`](Self::send).
    #[cfg(feature = "json")]
    pub fn json(self, value: &(impl serde::Serialize + ?Sized)) -> Self {
        Self { body: Body::Json(serde_json::to_vec(value).map_err(|error| error.to_string())), ..self }
    }

    /// Sets how long the whole request may take, in place of the node's limit. It ends with the item's time-out in any case.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Sets how many redirects are followed: 0 to 5, where 0 returns a redirect as a response.
    pub fn redirects(self, most: u8) -> Self {
        Self { redirects: Some(most), ..self }
    }

    /// Sets whether a request that is not safe carries `Idempotency-Key`. It does by default.
    pub fn idempotency(self, carries_key: bool) -> Self {
        Self { key: if carries_key { Key::OfNode } else { Key::None }, ..self }
    }

    /// Sets an `Idempotency-Key` of the author's own, in place of the node's.
    ///
    /// It must be the same at each attempt on the item and differ from all others, such as the number of an order.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        Self { key: Key::OfAuthor(key.into()), ..self }
    }

    /// Sends the request and waits for the whole response.
    ///
    /// A status such as 404 or 503 is a response, not an error: see [`Response::error_for_status`].
    ///
    /// # Errors
    ///
    /// If the stage is not granted the URL, the request is malformed, the server cannot be reached, does not answer in time, or
    /// answers more than the stage's limit.
    pub fn send(self) -> Result<Response, CallError> {
        let (method, url) = (self.method.clone(), self.url.clone());
        let answer = call(pcluster_abi::call::HTTP, self.encode()?)?;
        Response::read(method, url, answer)
    }

    #[cfg_attr(not(feature = "json"), expect(clippy::unnecessary_wraps, reason = "JSON may fail"))]
    fn encode(mut self) -> Result<Writer, CallError> {
        let body = match std::mem::replace(&mut self.body, Body::None) {
            Body::None => None,
            Body::Bytes(bytes) => Some(bytes),
            #[cfg(feature = "json")]
            Body::Json(json) => {
                let problem = |error| format!("the body cannot be written as JSON: {error}");
                let json = json.map_err(|error| CallError::new(crate::FailureKind::Invalid, problem(error)))?;
                if !self.is_typed {
                    self.add("content-type", &"application/json".into());
                }
                Some(json)
            }
        };
        let mut request = Writer::new();
        request.text("url", &self.url);
        request.text("method", &self.method);
        request.list("headers", self.header_count, &self.headers);
        if let Some(body) = body {
            request.bytes("body", &body);
        }
        if let Some(timeout) = self.timeout {
            request.number("timeout_ms", u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(redirects) = self.redirects {
            request.number("redirects", redirects.into());
        }
        match &self.key {
            Key::OfNode => {}
            Key::OfAuthor(key) => request.text("idempotency", key),
            Key::None => request.flag("idempotency", false),
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use ciborium::cbor;

    use super::*;
    use crate::{Secret, Value, http};

    fn encoded(request: Request) -> Value {
        crate::cbor::decode(&request.encode().expect("a request").finish()).expect("a map")
    }

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn a_plain_request_says_no_more_than_it_must() {
        let expected = cbor!({ "url" => "https://a/x", "method" => "GET", "headers" => [] });
        assert_eq!(encoded(http::get("https://a/x")), expected.expect("a value"));
    }

    #[test]
    fn all_that_is_set_is_in_the_request() {
        let request = http::post(String::from("https://a/x"))
            .header("X-A", "1")
            .header("x-a", vec![0xff])
            .header("Authorization", Secret("token").bearer())
            .header("x-b", Secret("token"))
            .header("x-c", Secret("password").basic("ada"))
            .body("first")
            .body(b"second".to_vec())
            .timeout(Duration::from_millis(1500))
            .redirects(0)
            .idempotency_key("order-7");
        let headers = cbor!([
            ["X-A", bytes("1")],
            ["x-a", Value::Bytes(vec![0xff])],
            ["Authorization", { "secret" => "token", "prefix" => "Bearer " }],
            ["x-b", { "secret" => "token" }],
            ["x-c", { "secret" => "password", "basic" => "ada" }],
        ]);
        let expected = cbor!({
            "url" => "https://a/x", "method" => "POST", "headers" => headers.expect("a value"), "body" => bytes("second"),
            "timeout_ms" => 1500, "redirects" => 0, "idempotency" => "order-7",
        });
        assert_eq!(encoded(request), expected.expect("a value"));
        let without = encoded(http::put("https://a").idempotency(false));
        let expected = cbor!({ "url" => "https://a", "method" => "PUT", "headers" => [], "idempotency" => false });
        assert_eq!(without, expected.expect("a value"));
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_has_its_type_unless_another_is_set() {
        let value = [("a", 1)].into_iter().collect::<std::collections::BTreeMap<_, _>>();
        let expected = cbor!({
            "url" => "https://a", "method" => "POST",
            "headers" => [["content-type", bytes("application/json")]], "body" => bytes("{\"a\":1}"),
        });
        assert_eq!(encoded(http::post("https://a").json(&value)), expected.expect("a value"));
        let typed = http::post("https://a").header("Content-Type", "application/ld+json").json(&value);
        assert_eq!(typed.encode().map(|_| ()), Ok(()));
        let wrong = http::post("https://a").json(&std::collections::BTreeMap::from([((1, 2), 3)])).send();
        let error = wrong.expect_err("an error");
        assert!(error.message().starts_with("the body cannot be written as JSON: ") && !error.is_transient());
    }
}
