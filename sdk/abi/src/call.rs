//! What a task may call: names, requests, responses and failures.
//!
//! Requests, responses and failures are CBOR maps with text keys. Unknown keys of a request are refused; a guest must ignore
//! unknown keys of a response. `bytes` in a request may also be a text. Fields with `?` may be left out.
//!
//! | name | request | response | safe to run twice | in `init` |
//! | --- | --- | --- | --- | --- |
//! | `http` | `url`, `method?` (text, `GET`), `headers?`, `body?` (bytes), `idempotency?`, `timeout_ms?`, `redirects?` (0 to 5) | `status`, `headers`, `body`, `url`, `retry_after_ms?` | by method | no |
//! | `kv.get` | `bucket`, `key` | `value` (bytes), `revision` | yes | yes |
//! | `kv.put` | `bucket`, `key`, `value` (bytes), `ttl_ms?` | `revision` | yes | no |
//! | `kv.create` | `bucket`, `key`, `value` (bytes), `ttl_ms?` | `revision` | no | no |
//! | `kv.update` | `bucket`, `key`, `value` (bytes), `revision`, `ttl_ms?` | `revision` | no | no |
//! | `kv.delete` | `bucket`, `key`, `revision?` | | yes | no |
//! | `kv.keys` | `bucket`, `prefix?`, `after?`, `limit?` (1 to 1,000) | `keys` (list of text), `more` (bool) | yes | yes |
//! | `objects.get` | `store`, `name`, `from?`, `length?` (bytes) | `data` (bytes), `size`, `digest` | yes | yes |
//! | `objects.put` | `store`, `name`, `data` (bytes) | `size`, `digest` | yes | no |
//! | `objects.list` | `store`, `prefix?`, `after?`, `limit?` (1 to 1,000) | `objects` (list of `name`, `size`, `digest`), `more` | yes | yes |
//! | `publish` | `subject`, `payload?` (bytes), `headers?`, `wait?` (bool) | nothing, or with `wait`: `stream`, `sequence`, `duplicate` | carries a key | no |
//! | `secrets.get` | `name` | `value` (bytes) | yes | no |
//!
//! **Headers** of a request are a list of pairs `[name, value]`. A value of `http` is bytes, or a secret as a map: `secret` (its name),
//! and `prefix?` (text that stands before it, as in `Bearer `) or `basic?` (the user of HTTP basic authentication). The headers of
//! a response are pairs of text and bytes, with names in lower case.
//!
//! The response has `url`, where the last redirect led, and `retry_after_ms` if its headers have `Retry-After`: at most an hour.
//! A status such as 429 is a response, not a failure. With `redirects` 0 a redirect is a response too.
//!
//! **`idempotency`** is `false` for no `Idempotency-Key`, or a text that replaces the host's key. Otherwise calls whose method is
//! not safe (RFC 9110, 9.2.1) carry a key of the host: the same at each attempt and on each node.
//!
//! **Pages**: `after` is the last name of the page before. Names come in the order of their bytes. A page may have less than `limit`
//! names though `more` is true. More than 100,000 names under the whole parts of a prefix are `too_large`.
//!
//! **`not_found`** is transient if the bucket, the store, or the stream of a `publish` with `wait` does not exist, and not transient
//! if the entry or object does not. `ttl_ms` is rounded up to whole seconds. `digest` is `SHA-256=` and base64, as NATS writes it.
//!
//! A **failure** has `kind` (a [`FailureKind`]), `message` (text), `transient` (bool), and `retry_after_ms` if it is known.

/// What a task may list as `calls` in its description. A call belongs to the one that its name begins with.
pub const GROUPS: [&str; 5] = ["http", "kv", "objects", "publish", "secrets"];

/// The name of the HTTP call.
pub const HTTP: &str = "http";
/// Reads an entry.
pub const KV_GET: &str = "kv.get";
/// Writes an entry.
pub const KV_PUT: &str = "kv.put";
/// Writes an entry unless there is one.
pub const KV_CREATE: &str = "kv.create";
/// Writes an entry if it has this revision.
pub const KV_UPDATE: &str = "kv.update";
/// Deletes an entry.
pub const KV_DELETE: &str = "kv.delete";
/// Lists keys.
pub const KV_KEYS: &str = "kv.keys";
/// Reads an object.
pub const OBJECTS_GET: &str = "objects.get";
/// Writes an object.
pub const OBJECTS_PUT: &str = "objects.put";
/// Lists objects.
pub const OBJECTS_LIST: &str = "objects.list";
/// Publishes a message.
pub const PUBLISH: &str = "publish";
/// Reveals a secret.
pub const SECRETS_GET: &str = "secrets.get";

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The stage or the node does not allow it.
    Denied,
    /// The request is malformed.
    Invalid,
    /// The entry, object or bucket does not exist.
    NotFound,
    /// No answer came in time.
    Timeout,
    /// The request or the response exceeds a limit.
    TooLarge,
    /// The other side cannot be reached, or answers garbage.
    Unavailable,
    /// The entry has another revision, or exists already.
    Conflict,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Denied, Self::Invalid, Self::NotFound, Self::Timeout, Self::TooLarge, Self::Unavailable, Self::Conflict];

    /// Returns the name, as in `kind` of a failure.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
        }
    }
}
