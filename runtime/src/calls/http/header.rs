//! Headers of requests: which a task may set, and how their values are written.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{HeaderName, HeaderValue};

use crate::calls::failure::CallFailure;
use crate::calls::grant::SecretName;
use crate::calls::message::{List, Request, Value, missing, quoted, wrong};
use crate::calls::secrets::{Mask, Secret};

/// The most headers of a request.
const HEADERS_MAX: u64 = 100;
/// The most bytes of the names and values of the headers of a request.
const BYTES_MAX: usize = 32 << 10;

/// Headers that frame a message or belong to one connection, and who sets them.
const REFUSED: [(&str, &str); 14] = [
    ("host", "it is that of `url`"),
    ("content-length", "it is the size of `body`"),
    ("transfer-encoding", "the node frames the body"),
    ("connection", "connections are the node's"),
    ("keep-alive", "connections are the node's"),
    ("te", "connections are the node's"),
    ("trailer", "a request has no trailers"),
    ("upgrade", "connections are the node's"),
    ("http2-settings", "connections are the node's"),
    ("expect", "the body is sent at once"),
    ("accept-encoding", "the node decompresses what it asks for"),
    ("idempotency-key", "give it as `idempotency`"),
    ("proxy-authorization", "the operator names the proxy"),
    ("proxy-connection", "the operator names the proxy"),
];

/// Parts of the names of headers that carry credentials.
const CREDENTIALS: [&str; 13] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "session",
    "signature",
    "api-key",
    "apikey",
    "access-key",
    "private-key",
];

/// The headers of a request, in their order.
pub(crate) type Headers = Vec<(HeaderName, Content)>;

/// The value of a header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes.
    Plain(HeaderValue),
    /// A secret, with what stands before it.
    Secret(SecretValue),
}

/// A secret as the value of a header, before it is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretValue {
    /// The name of the secret.
    pub(crate) name: SecretName,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// The secret after this text.
    Prefix(String),
    /// The password of this user, as HTTP basic authentication writes it.
    Basic(String),
}

impl SecretValue {
    fn read(mut map: Request<'_>) -> Result<Self, CallFailure> {
        let name = SecretName::parse(map.text("secret")?.ok_or_else(|| missing("secret"))?)
            .map_err(|problem| CallFailure::invalid(problem.to_string()))?;
        let form = match (map.text("prefix")?, map.text("basic")?) {
            (Some(_), Some(_)) => {
                return Err(CallFailure::invalid("a secret in `headers` has both `prefix` and `basic`; leave one out"));
            }
            (prefix, None) => Form::Prefix(prefix.unwrap_or_default().to_owned()),
            // A colon ends the user (RFC 7617).
            (None, Some(user)) if user.contains(':') || user.contains(char::is_control) => {
                return Err(CallFailure::invalid("the user in `basic` has a colon or a control character"));
            }
            (None, Some(user)) => Form::Basic(user.to_owned()),
        };
        map.end()?;
        let value = Self { name, form };
        // Whatever the secret is, what stands before it is known now.
        value.written(b"").map(|_| value)
    }

    /// Returns the value with the secret. The mask learns what must not be recorded.
    pub(crate) fn fill(&self, secret: &Secret, mask: &Mask) -> Result<HeaderValue, CallFailure> {
        let (value, encoded) = self.written(secret.reveal())?;
        match encoded {
            Some(encoded) => mask.add_basic(secret, encoded.as_bytes()),
            None => mask.add(secret),
        }
        Ok(value)
    }

    fn written(&self, secret: &[u8]) -> Result<(HeaderValue, Option<String>), CallFailure> {
        let (bytes, encoded) = match &self.form {
            Form::Prefix(prefix) => ([prefix.as_bytes(), secret].concat(), None),
            Form::Basic(user) => {
                let encoded = BASE64_STANDARD.encode([user.as_bytes(), b":", secret].concat());
                (format!("Basic {encoded}").into_bytes(), Some(encoded))
            }
        };
        if bytes.len() > BYTES_MAX {
            return Err(too_many_bytes());
        }
        let mut value = HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes)).map_err(|_| {
            CallFailure::invalid("the `prefix` of a secret has a line break or another control character")
        })?;
        value.set_sensitive(true);
        Ok((value, encoded))
    }
}

/// Reads the headers of a request, and their size.
pub(crate) fn read(list: Option<List<'_>>) -> Result<(Headers, usize), CallFailure> {
    let Some(list) = list else { return Ok((Headers::new(), 0)) };
    if list.len() > HEADERS_MAX {
        return Err(CallFailure::invalid(format!("`headers` has more than {HEADERS_MAX} headers")));
    }
    let (mut headers, mut bytes) = (Headers::new(), 0);
    for pair in list.values() {
        let Value::List(pair) = pair? else { return Err(not_pairs()) };
        if pair.len() != 2 {
            return Err(not_pairs());
        }
        let mut pair = pair.values();
        let (Some(Ok(Value::Text(name))), Some(value)) = (pair.next(), pair.next()) else { return Err(not_pairs()) };
        let name = header_name(name)?;
        let content = match value? {
            Value::Bytes(value) => Content::Plain(plain(&name, value)?),
            Value::Text(value) => Content::Plain(plain(&name, value.as_bytes())?),
            Value::Map(map) => Content::Secret(SecretValue::read(map.read()?)?),
            _ => return Err(not_pairs()),
        };
        bytes += name.as_str().len() + content.len();
        if bytes > BYTES_MAX {
            return Err(too_many_bytes());
        }
        headers.push((name, content));
    }
    Ok((headers, bytes))
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Plain(value) => value.len(),
            Self::Secret(SecretValue { name, form: Form::Prefix(text) | Form::Basic(text) }) => {
                name.as_str().len() + text.len()
            }
        }
    }
}

/// Returns the value of a header. It holds no line break, so it cannot begin another header.
pub(crate) fn plain(name: &HeaderName, value: &[u8]) -> Result<HeaderValue, CallFailure> {
    HeaderValue::from_bytes(value).map_err(|_| {
        CallFailure::invalid(format!("the value of the header `{name}` has a line break or another control character"))
    })
}

fn header_name(text: &str) -> Result<HeaderName, CallFailure> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| CallFailure::invalid(format!("`{}` is not the name of a header", quoted(text))))?;
    // Many servers take `content_length` for `content-length`.
    let plain = name.as_str().replace('_', "-");
    let refused = REFUSED.iter().find(|(refused, _)| *refused == plain).map(|(_, reason)| *reason);
    match refused.or_else(|| plain.starts_with("proxy-").then_some("the operator names the proxy")) {
        None => Ok(name),
        Some(reason) => Err(CallFailure::denied(format!("a task cannot set the header `{name}`: {reason}"))),
    }
}

/// Returns `true` if a header may carry credentials, by its name or its value.
pub(crate) fn is_credential(name: &HeaderName, content: &Content) -> bool {
    let plain = name.as_str().replace('_', "-");
    matches!(content, Content::Secret(_)) || CREDENTIALS.iter().any(|part| plain.contains(part))
}

fn not_pairs() -> CallFailure {
    wrong("headers", "a list of pairs of a name and a value (bytes, a text, or a secret)")
}

fn too_many_bytes() -> CallFailure {
    CallFailure::invalid("`headers` has more than 32 KiB of names and values")
}

#[cfg(test)]
mod tests;
