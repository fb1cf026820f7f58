//! NATS: the only module that names `async_nats`.
//!
//! [`Broker`] is a connection that was checked once: the server is new enough and has JetStream. [`stream`] makes and changes
//! what is stored where, [`arrange`] makes the streams of a chain agree with its state, [`registry`] keeps chains and [`plugins`] plugins, [`queue`] takes items out, [`publish`] puts them in,
//! [`service`] is how nodes are found, [`follow`] reads a stream without taking anything from it, [`kept`] reads and removes what
//! a stream keeps, [`backlog`] tells how much streams hold, [`waiting`] connects to a server that is not there yet,
//! [`line`](mod@line) is a connection for what foreign clients have written, [`listening`] tells who would store a message, [`unread`] finds what the client library cannot read.

pub mod address;
pub mod alive;
pub mod arrange;
mod ask;
pub mod backlog;
pub mod confirm;
pub mod counters;
mod error;
pub mod follow;
mod forget;
pub mod kept;
mod layout;
pub mod line;
pub mod listening;
mod micro;
pub mod permissions;
mod place;
pub mod plugins;
pub mod publish;
pub mod queue;
pub mod registry;
pub mod replicas;
pub mod service;
mod stored;
pub mod stream;
pub mod unread;
pub mod waiting;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{ConnectErrorKind, ConnectOptions, Event, HeaderMap, HeaderName, HeaderValue, ServerError};
use tokio::sync::watch;

use crate::frame::Headers;
use permissions::{Missing, Permissions};

pub use address::Address;
pub use ask::Complaint;
pub use error::BrokerError;

/// The oldest nats-server that will do: older ones lose max-delivered messages on replicated work queues.
pub const OLDEST_SERVER: (u32, u32, u32) = (2, 12, 5);
/// The target of the client library's own log lines.
pub const CLIENT_LIBRARY: &str = "async_nats";
/// How long to try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may take over an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to look whether a silent server is still there. One that has said nothing three times in a row is taken for lost.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The longest wait between two tries to connect again.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// How often to look whether a lost connection is back.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A checked connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    client: async_nats::Client,
    url: Arc<str>,
    permissions: Arc<Permissions>,
    connected: watch::Receiver<bool>,
    /// How often the connection was lost.
    losses: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    address: Arc<Address>,
    /// What the subjects of JetStream's API start with.
    api_prefix: Arc<str>,
    reading: line::Slot,
}

impl Broker {
    /// Connects, and checks the server's version and that JetStream is on. `name` is what the server shows of this client.
    ///
    /// # Errors
    ///
    /// If no usable server answers within five seconds.
    pub async fn connect(address: &Address, name: &str) -> Result<Self, BrokerError> {
        Self::establish(Arc::new(address.clone()), name, None).await
    }

    /// Opens another connection to the same address, with the same settings. It reports no loss: the first one does.
    ///
    /// # Errors
    ///
    /// If no usable server answers within five seconds.
    pub async fn connect_again(&self, name: &str) -> Result<Self, BrokerError> {
        Self::establish(Arc::clone(&self.address), name, Some(self)).await
    }

    /// Connects. A connection that has a first one shares with it what the server refuses.
    async fn establish(address: Arc<Address>, name: &str, first: Option<&Self>) -> Result<Self, BrokerError> {
        let url = address.shown();
        let servers = address.servers()?;
        // Each of the servers gets its chance before the time is over.
        let each = CONNECT_TIMEOUT / u32::try_from(servers.len()).unwrap_or(u32::MAX);
        let unreachable = |reason: String| BrokerError::Unreachable { url: url.clone(), reason };
        let permissions = first.map(|first| Arc::clone(&first.permissions)).unwrap_or_default();
        let closing = first.map(|first| Arc::clone(&first.closing)).unwrap_or_default();
        let (announce, connected) = watch::channel(true);
        let losses = Arc::new(AtomicU64::new(0));
        let is_first = first.is_none();
        let mut options = ConnectOptions::new()
            .name(name)
            .connection_timeout(each)
            .ping_interval(PING_EVERY)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .reconnect_delay_callback(|tries| Duration::from_millis(50 * tries as u64).min(RECONNECT_WAIT_MAX))
            .event_callback({
                let (permissions, closing, losses) =
                    (Arc::clone(&permissions), Arc::clone(&closing), Arc::clone(&losses));
                move |event| {
                    if matches!(event, Event::Disconnected) {
                        losses.fetch_add(1, Ordering::SeqCst);
                    }
                    if !closing.load(Ordering::Relaxed) {
                        note(&event, &permissions, &announce, is_first);
                    }
                    std::future::ready(())
                }
            });
        options = address.log_in(options, &servers).await?;
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect(servers)).await;
        let client = match connecting {
            Err(_) => return Err(unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    kind @ (ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation) => {
                        BrokerError::Refused { url, reason: kind.to_string() }
                    }
                    kind if is_about_tls(kind, &error.to_string()) => {
                        BrokerError::Tls { url, reason: error.to_string() }
                    }
                    _ => unreachable(error.to_string()),
                });
            }
        };
        let info = client.server_info();
        if parse_version(&info.version).is_none_or(|version| version < OLDEST_SERVER) {
            return Err(BrokerError::TooOld { url, version: info.version });
        }
        // Where the domain is another one than the server's, only that one's answers tell.
        if !info.jetstream && address.domain.is_none() {
            return Err(BrokerError::NoJetStream(url));
        }
        let (api_prefix, reading) = (address.api().into(), line::Slot::default());
        Ok(Self { client, url: url.into(), permissions, connected, losses, closing, api_prefix, address, reading })
    }

    /// The address, without a password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The most bytes, headers included, that the server takes in one message.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Whether the connection stands, now and as it changes.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Whether the connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until the connection stands.
    pub async fn stands(&self) {
        while !self.is_connected() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Returns `true` if the connection is gone for good: the client library's task has ended, as it does by a panic.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.connected.has_changed().is_err()
    }

    /// How often the connection was lost so far.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Waits until the connection is gone for good.
    pub async fn ended(&self) {
        let mut connected = self.connected.clone();
        while connected.changed().await.is_ok() {}
    }

    /// The permissions that this user was found to lack since it connected.
    #[must_use]
    pub fn missing_permissions(&self) -> BTreeSet<Missing> {
        self.permissions.missing()
    }

    /// Waits until more permissions are missing than before.
    pub async fn more_permissions_missing(&self) {
        self.permissions.more().await;
    }

    /// Says nothing more of the connection: it is about to end on purpose.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Waits until all that was handed to the connection has reached the server.
    ///
    /// # Errors
    ///
    /// If the connection is gone for good, or the server does not answer in time.
    pub async fn flush(&self) -> Result<(), BrokerError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.client.flush()).await {
            Ok(flushed) => flushed.map_err(|error| BrokerError::other("flush the connection", &error)),
            Err(_) => Err(BrokerError::Timeout("flush the connection".to_owned())),
        }
    }
}

/// Whether a connection failed for TLS: the client library says only of some errors that they are about it.
fn is_about_tls(kind: ConnectErrorKind, said: &str) -> bool {
    kind == ConnectErrorKind::Tls || said.contains("certificate") || said.contains("fatal alert")
}

fn note(event: &Event, permissions: &Permissions, connected: &watch::Sender<bool>, is_first: bool) {
    match event {
        Event::Disconnected => {
            if connected.send_replace(false) && is_first {
                tracing::warn!("lost the connection to NATS; trying again until it is back");
            }
        }
        Event::Connected => {
            permissions.forget();
            if !connected.send_replace(true) && is_first {
                tracing::warn!("the connection to NATS is back");
            }
        }
        Event::ServerError(ServerError::Other(reason)) if permissions.note(reason) => {}
        Event::SlowConsumer(subscription) => tracing::warn!(subscription, "messages arrive faster than they are read"),
        other => tracing::debug!(event = %other, "nats"),
    }
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let release = text.split(['-', '+']).next()?;
    let mut numbers = release.trim_start_matches('v').split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

fn to_header_map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers.entries() {
        let name = match name {
            Cow::Borrowed(name) => Ok(HeaderName::from_static(name)),
            Cow::Owned(name) => name.parse(),
        };
        // A header that came off the wire is well-formed; one made here has no line break.
        if let (Ok(name), Ok(value)) = (name, value.parse::<HeaderValue>()) {
            map.append(name, value);
        }
    }
    map
}

fn from_header_map(map: Option<&HeaderMap>) -> Headers {
    let mut headers = Headers::new();
    let mut all: Vec<(&str, _)> =
        map.into_iter().flat_map(HeaderMap::iter).map(|(name, values)| (name.as_ref(), values)).collect();
    // The library's map has no order of its own.
    all.sort_unstable_by_key(|(name, _)| *name);
    for (name, values) in all {
        for value in values {
            headers.push(name.to_owned(), value.as_str());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(parse_version("2.12.5"), Some((2, 12, 5)));
        assert_eq!(parse_version("v2.14.0-RC.1"), Some((2, 14, 0)));
        assert!(parse_version("2.9.25") < Some(OLDEST_SERVER));
        assert_eq!(parse_version("two"), None);
    }
}
