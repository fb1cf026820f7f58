//! The response of an HTTP request, as a task reads it.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderValue, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use crate::calls::memory::Held;
use crate::calls::message::Response;

/// The longest wait that a server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// The response of an HTTP request.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body, decompressed.
    pub(crate) body: Bytes,
    /// Where it comes from, after redirects.
    pub(crate) url: String,
    /// How long the server asks to wait before another request. `None` if it asks for nothing.
    pub(crate) retry_after: Option<Duration>,
    /// The memory that the body takes.
    pub(crate) held: Held,
}

impl HttpResponse {
    /// Returns the response in CBOR.
    pub(crate) fn encode(&self) -> Bytes {
        let mut response = Response::new();
        response.number("status", u64::from(self.status));
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        response.pairs("headers", headers.into_iter());
        response.bytes("body", &self.body);
        response.text("url", &self.url);
        if let Some(wait) = self.retry_after {
            response.number("retry_after_ms", u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        response.finish()
    }
}

/// Returns how long to wait by `Retry-After`: seconds, or a date. `None` if there is none, or it is neither.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER).map(HeaderValue::to_str)?.ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
        date.duration_since(now).try_into().unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_at_most_an_hour() {
        let now = Timestamp::from_second(784_111_777).expect("a time");
        for (text, wait) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("3601", Some(3_600)),
            ("99999999999999999999999", Some(3_600)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Sun, 06 Nov 2094 08:49:00 GMT", Some(3_600)),
            ("", None),
            ("-1", None),
            ("soon", None),
            ("1.5", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(retry_after(&headers, now).map(|wait| wait.as_secs()), wait, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
