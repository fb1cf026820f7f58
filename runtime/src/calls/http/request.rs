//! An HTTP request as a task makes it.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use super::header::{self, Headers};
use super::target::Target;
use crate::calls::failure::CallFailure;
use crate::calls::message::{Request, Value, missing, quoted, wrong};

/// The most redirects that are followed.
pub(crate) const REDIRECTS_MAX: u8 = 5;
/// The longest time that a request may set for itself. Its item mostly ends before.
const TIMEOUT_MAX: Duration = Duration::from_hours(1);
/// The most bytes of a method.
const METHOD_MAX: usize = 32;
/// The most bytes of a key that a task gives.
const KEY_MAX: usize = 255;

/// The header that tells requests apart which run twice.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An HTTP request of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpRequest {
    /// Where it goes.
    pub(crate) target: Target,
    /// The method.
    pub(crate) method: Method,
    /// What the task sets, in its order.
    pub(crate) headers: Headers,
    /// The body.
    pub(crate) body: Bytes,
    /// The `Idempotency-Key`.
    pub(crate) idempotency: Idempotency,
    /// How long it may take. `None` if only its item bounds it.
    pub(crate) timeout: Option<Duration>,
    /// How many redirects are followed.
    pub(crate) redirects: u8,
    header_bytes: usize,
}

/// Which `Idempotency-Key` a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Idempotency {
    /// That of the host, if the method is not safe.
    Host,
    /// One that the task gives.
    Given(HeaderValue),
    /// None.
    Off,
}

impl HttpRequest {
    /// Reads a request.
    pub(crate) fn read(request: &mut Request<'_>) -> Result<Self, CallFailure> {
        let url = request.text("url")?.ok_or_else(|| missing("url"))?;
        let target = Target::parse(url).map_err(|problem| CallFailure::invalid(problem.to_string()))?;
        let method = method(request.text("method")?.unwrap_or("GET"))?;
        let (headers, header_bytes) = header::read(request.list("headers")?)?;
        let body = Bytes::copy_from_slice(request.bytes("body")?.unwrap_or_default());
        let idempotency = idempotency(request.take("idempotency").as_ref())?;
        let timeout = request.number("timeout_ms")?.map(|ms| Duration::from_millis(ms).min(TIMEOUT_MAX));
        if timeout == Some(Duration::ZERO) {
            return Err(CallFailure::invalid("`timeout_ms` of the request is 0; leave it out for none"));
        }
        let redirects = match request.number("redirects")? {
            None => REDIRECTS_MAX,
            Some(most) => u8::try_from(most)
                .ok()
                .filter(|most| *most <= REDIRECTS_MAX)
                .ok_or_else(|| wrong("redirects", "a number from 0 to 5"))?,
        };
        Ok(Self { target, method, headers, body, idempotency, timeout, redirects, header_bytes })
    }

    /// Returns `true` if the method is safe (RFC 9110, 9.2.1): the request changes nothing, however often it runs.
    pub(crate) fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    /// Returns `true` if the request carries a key of the host.
    pub(crate) fn needs_key(&self) -> bool {
        self.idempotency == Idempotency::Host && !self.is_safe()
    }

    /// Returns the key that the task gives. `None` if it gives none.
    pub(crate) fn own_key(&self) -> Option<String> {
        match &self.idempotency {
            Idempotency::Given(key) => Some(String::from_utf8_lossy(key.as_bytes()).into_owned()),
            Idempotency::Host | Idempotency::Off => None,
        }
    }

    /// Returns how many bytes the task sends: of the URL, the headers and the body.
    pub(crate) fn bytes(&self) -> u64 {
        (self.target.url().as_str().len() + self.header_bytes + self.body.len()) as u64
    }
}

/// Returns a method. It is not in lower case: methods have a case, and `post` is a method that no server knows.
fn method(text: &str) -> Result<Method, CallFailure> {
    let is_method = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
    if text.is_empty() || text.len() > METHOD_MAX || !text.bytes().all(is_method) {
        return Err(CallFailure::invalid(format!(
            "`{}` is not an HTTP method; write one like `GET` or `POST`",
            quoted(text)
        )));
    }
    match text {
        // What they would do is the node's.
        "CONNECT" | "TRACE" => Err(CallFailure::denied(format!("a task cannot use the method {text}"))),
        _ => Method::from_bytes(text.as_bytes()).map_err(|_| wrong("method", "an HTTP method")),
    }
}

fn idempotency(value: Option<&Value<'_>>) -> Result<Idempotency, CallFailure> {
    match value {
        None | Some(Value::Flag(true)) => Ok(Idempotency::Host),
        Some(Value::Flag(false)) => Ok(Idempotency::Off),
        Some(Value::Text(key))
            if (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            header::plain(&IDEMPOTENCY_KEY, key.as_bytes()).map(Idempotency::Given)
        }
        Some(_) => Err(wrong("idempotency", "`false`, or a text of 1 to 255 visible ASCII characters")),
    }
}

#[cfg(test)]
mod tests;
