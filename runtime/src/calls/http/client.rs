//! Sends the HTTP requests of a stage.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, RANGE, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy;
use jiff::Timestamp;
use tokio::time::timeout;

use super::body::{self, BodyProblem};
use super::dial::{DialError, Dialer};
use super::header::{Content, SecretValue};
use super::limit::Place;
use super::node::HttpNode;
use super::pool::Pool;
use super::redirect::{Outgoing, is_redirect, lasting};
use super::request::{HttpRequest, IDEMPOTENCY_KEY, Idempotency};
use super::response::{HttpResponse, retry_after};
use super::target::Target;
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::grant::{Grants, Networks, SecretName, SecretUse};
use crate::calls::memory::{self, Memory};
use crate::calls::secrets::{Mask, Secrets};

/// The most bytes of the body of a redirect that are read to use its connection again.
const REDIRECT_BODY_MAX: usize = 16 << 10;
/// How long the body of a redirect may take. Then its connection is closed.
const REDIRECT_BODY_TIME: Duration = Duration::from_secs(1);
/// What a request says of its sender, unless its task says it.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("pcluster/", env!("CARGO_PKG_VERSION")));

/// The HTTP client of a stage.
pub(crate) struct HttpClient {
    node: Arc<HttpNode>,
    secrets: Arc<Secrets>,
    pool: Pool,
    memory: Memory,
    stage: u64,
}

/// What sending a request takes from its item.
pub(crate) struct Sending<'a> {
    /// What the stage was granted.
    pub(crate) grants: &'a Grants,
    /// The `Idempotency-Key` of the host. `None` if the request needs none.
    pub(crate) key: Option<String>,
    /// The most bytes of the body of the response. Bodies of redirects count too.
    pub(crate) room: u64,
    /// Learns which secrets were used.
    pub(crate) mask: &'a Mask,
    /// Counts the bytes of bodies that come, also those of a request that fails.
    pub(crate) received: &'a AtomicU64,
}

impl HttpClient {
    /// Creates the client of a stage with the networks that are open to it. It shares no connection with others.
    pub(crate) fn new(node: Arc<HttpNode>, networks: Networks, secrets: Arc<Secrets>) -> Self {
        let (pool, stage) = (Pool::new(Dialer::new(&node, networks)), node.next_stage());
        let memory = node.memory().share();
        Self { node, secrets, pool, memory, stage }
    }

    /// Sends a request, and follows redirects. Dropping the future ends it.
    pub(crate) async fn send(&self, request: HttpRequest, sending: Sending<'_>) -> Result<HttpResponse, CallFailure> {
        let most = request.timeout;
        let sent = self.follow(request, &sending);
        let Some(most) = most else { return sent.await };
        timeout(most, sent).await.unwrap_or_else(|_| {
            let ms = most.as_millis();
            Err(CallFailure::new(
                FailureKind::Timeout,
                format!("no response within {ms} ms (`timeout_ms` of the request)"),
            ))
        })
    }

    async fn follow(&self, request: HttpRequest, sending: &Sending<'_>) -> Result<HttpResponse, CallFailure> {
        let most = request.redirects;
        let mut outgoing = outgoing(request, sending.key.as_deref())?;
        let before = sending.received.load(Relaxed);
        let mut followed = 0;
        loop {
            let (response, place) = self.exchange(&outgoing, sending).await?;
            let room = sending.room.saturating_sub(sending.received.load(Relaxed).saturating_sub(before));
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(memory::NODE_MAX);
            if most == 0 || !is_redirect(response.status(), response.headers()) {
                return self.receive(response, &outgoing.target, room, sending.received, place).await;
            }
            if followed == most {
                let origin = outgoing.target.origin();
                return Err(lasting(format!("`{origin}` redirects again after {most} redirects")));
            }
            followed += 1;
            let (head, body) = response.into_parts();
            self.discard(body, room, sending.received).await;
            drop(place);
            outgoing.follow(head.status, &head.headers)?;
        }
    }

    /// Sends a request to one place. Returns its response before its body.
    async fn exchange(
        &self,
        outgoing: &Outgoing,
        sending: &Sending<'_>,
    ) -> Result<(Response<Incoming>, Place), CallFailure> {
        let target = &outgoing.target;
        if let Some(refusal) = sending.grants.http_refusal(target) {
            return Err(CallFailure::denied(refusal.to_string()));
        }
        let request = self.request(outgoing, sending).await?;
        let place = self.node.limits.acquire(self.stage, target.host()).await;
        let place = place.ok_or_else(|| CallFailure::unavailable("the node stops"))?;
        let client = self.pool.client(target.origin());
        // The server may close a connection that waits just when it is used. What changes nothing may be sent again.
        let again = outgoing.method.is_safe().then(|| request.clone());
        let response = match (client.request(request).await, again) {
            (Err(error), Some(again)) if is_closed(&error) => client.request(again).await,
            (response, _) => response,
        };
        let response = response.map_err(|error| failed(target, &error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(lasting(format!("`{}` changes the protocol, which nobody asked for", target.origin())));
        }
        Ok((response, place))
    }

    async fn request(&self, outgoing: &Outgoing, sending: &Sending<'_>) -> Result<Request<Full<Bytes>>, CallFailure> {
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = uri(&outgoing.target)?;
        let mut headers = HeaderMap::new();
        for (name, content) in &outgoing.headers {
            let value = match content {
                Content::Plain(value) => value.clone(),
                Content::Secret(secret) => self.fill(secret, &outgoing.target, sending).await?,
            };
            headers.append(name, value);
        }
        // A part of a compressed body could not be decompressed.
        let encoding = if headers.contains_key(RANGE) { "identity" } else { "gzip" };
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        headers.entry(USER_AGENT).or_insert(AGENT);
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // Some servers refuse a request that may have a body and does not say that it has none.
        if outgoing.body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&outgoing.method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(key) = &outgoing.key {
            headers.insert(IDEMPOTENCY_KEY, key.clone());
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Returns the value of a header with a secret, if it is sent where the secret belongs.
    async fn fill(
        &self,
        value: &SecretValue,
        target: &Target,
        sending: &Sending<'_>,
    ) -> Result<HeaderValue, CallFailure> {
        check_secret(sending.grants, &value.name, target)?;
        let secret = self.secrets.get(&value.name).await?;
        value.fill(&secret, sending.mask)
    }

    async fn receive(
        &self,
        response: Response<Incoming>,
        target: &Target,
        room: usize,
        received: &AtomicU64,
        place: Place,
    ) -> Result<HttpResponse, CallFailure> {
        let (mut head, incoming) = response.into_parts();
        let is_gzip = body::is_gzip(&head.headers);
        let has_body = !incoming.is_end_stream();
        let read = body::read(incoming, is_gzip, room, &self.memory, |bytes| count(received, bytes)).await;
        let (bytes, memory) = read.map_err(|problem| match problem {
            BodyProblem::TooLarge => CallFailure::new(
                FailureKind::TooLarge,
                format!("the response of `{}` has a body of more than {room} bytes", target.origin()),
            ),
            BodyProblem::CutOff(problem) => {
                CallFailure::unavailable(format!("the response of `{}` cannot be read: {problem}", target.origin()))
            }
        })?;
        drop(place);
        if is_gzip && has_body {
            head.headers.remove(CONTENT_ENCODING);
            head.headers.remove(CONTENT_LENGTH);
        }
        Ok(HttpResponse {
            status: head.status.as_u16(),
            retry_after: retry_after(&head.headers, Timestamp::now()),
            headers: head.headers,
            body: bytes,
            url: target.to_string(),
            held: memory,
        })
    }

    /// Reads the body of a redirect, so that its connection can be used again. A large or slow one closes it.
    async fn discard(&self, body: Incoming, room: usize, received: &AtomicU64) {
        let most = REDIRECT_BODY_MAX.min(room);
        if body.size_hint().upper().is_none_or(|size| size > most as u64) {
            return;
        }
        let read = body::read(body, false, most, &self.memory, |bytes| count(received, bytes));
        let _ = timeout(REDIRECT_BODY_TIME, read).await;
    }
}

fn count(received: &AtomicU64, bytes: usize) {
    received.fetch_add(bytes as u64, Relaxed);
}

/// Returns a request as it is sent first. The key of the host is for methods that are not safe.
fn outgoing(request: HttpRequest, key: Option<&str>) -> Result<Outgoing, CallFailure> {
    let needs_key = request.needs_key();
    let key = match (request.idempotency, key.filter(|_| needs_key)) {
        (Idempotency::Given(key), _) => Some(key),
        (_, None) => None,
        (_, Some(key)) => Some(super::header::plain(&IDEMPOTENCY_KEY, key.as_bytes())?),
    };
    let HttpRequest { target, method, headers, body, .. } = request;
    Ok(Outgoing { target, method, headers, body, key })
}

/// Returns a target as it is sent. It is the very host and path that grants were compared with.
fn uri(target: &Target) -> Result<Uri, CallFailure> {
    let uri: Uri = target
        .url()
        .as_str()
        .parse()
        .map_err(|error| CallFailure::invalid(format!("`url` of the request cannot be sent: {error}")))?;
    if uri.host() == Some(target.host()) && uri.path() == target.path() {
        Ok(uri)
    } else {
        Err(CallFailure::invalid("`url` of the request cannot be sent: its host or path would change"))
    }
}

/// Checks that a stage may send a secret to a target.
fn check_secret(grants: &Grants, name: &SecretName, target: &Target) -> Result<(), CallFailure> {
    let origin = target.origin();
    match grants.secrets.get(name) {
        Some(SecretUse::Reveal) => Ok(()),
        Some(SecretUse::Origin(own)) if own == origin => Ok(()),
        Some(SecretUse::Origin(own)) => {
            Err(CallFailure::denied(format!("the secret `{name}` is for `{own}` alone, not for `{origin}`")))
        }
        None => Err(CallFailure::denied(format!(
            "the stage is not granted the secret `{name}`; add `{name} = \"{origin}\"` to `secrets` of its `[stage.allow]`"
        ))),
    }
}

/// Returns an error and its causes.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Returns the cause of an error that is of this type. `None` if none is.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// Returns `true` if the server closed the connection before it answered.
fn is_closed(error: &legacy::Error) -> bool {
    let is_reset =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    cause::<DialError>(error).is_none()
        && (cause::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message)
            || cause::<io::Error>(error).is_some_and(is_reset))
}

/// Returns the failure of a request that has no response.
fn failed(target: &Target, error: &legacy::Error) -> CallFailure {
    if let Some(error) = cause::<DialError>(error) {
        return error.into();
    }
    let origin = target.origin();
    let Some(error) = cause::<hyper::Error>(error) else {
        return CallFailure::unavailable(format!("the request to `{origin}` failed: {error}"));
    };
    let told = if error.is_parse() || error.is_parse_status() {
        format!("answers with what cannot be read: {error}")
    } else if error.is_incomplete_message() {
        "closed the connection before it answered".to_owned()
    } else {
        let reason = chain(error).last().map(ToString::to_string).unwrap_or_default();
        format!("does not answer: {reason}")
    };
    CallFailure::unavailable(format!("`{origin}` {told}"))
}
