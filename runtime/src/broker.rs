//! NATS: the only module that names `async_nats`.
//!
//! [`Broker`] is a connection to a server that is new enough and has JetStream. These modules use the connection:
//! | module | contents |
//! |---|---|
//! | [`stream`], [`scan`], [`follow`], [`unread`] | one stream: its state, its messages, new ones, and messages that the client library cannot read |
//! | [`streams`], [`info`], [`arrange`] | the streams of a chain: makes and empties them, counts their messages, makes them agree with its state |
//! | [`registry`], [`plugins`], [`counters`], [`letters`] | chains, plugins, counters and dead letters |
//! | [`publish`], [`queue`], [`confirm`] | publishes messages, takes them, and confirms acknowledgements |
//! | [`service`], [`alive`], [`listening`] | finds nodes, living clients, and the streams that listen on a subject |
//! | [`large`] | large items, in an object store of each chain |
//! | `stores` | buckets, object stores and subjects that tasks are granted |
//! | `object_head` | describes an object, for both of these |
//! | [`line`](mod@line), `link`, `request` | isolates foreign messages, keeps a connection, sends requests |

pub mod address;
pub mod alive;
pub mod arrange;
mod bucket;
pub mod confirm;
pub mod counters;
mod error;
pub mod follow;
pub mod forget;
mod get;
pub mod info;
pub(crate) mod large;
mod layout;
pub mod letters;
pub mod line;
mod link;
pub mod listening;
pub mod message;
mod micro;
mod object_head;
pub mod permissions;
pub mod plugins;
pub mod publish;
pub mod queue;
pub mod registry;
pub mod replicas;
mod request;
pub mod scan;
pub mod service;
pub(crate) mod stores;
pub mod stream;
pub mod streams;
pub(crate) mod topic;
pub mod unread;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Subscriber};
use tokio::sync::watch;

use crate::frame::Headers;
use crate::frame::outgoing::MessageLimits;
use link::{Known, Link};
use permissions::{Missing, Permissions};

pub use address::Address;
pub use error::BrokerError;
pub use request::Outage;

/// The oldest nats-server that pcluster accepts: older ones lose max-delivered messages on replicated work queues.
pub const OLDEST_SERVER: (u32, u32, u32) = (2, 12, 5);
/// The target of the client library's own log lines.
pub const CLIENT_LIBRARY: &str = "async_nats";
/// The longest wait for the server's answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before the next try to subscribe.
const LISTEN_AGAIN: Duration = Duration::from_millis(50);

/// A checked connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    link: Arc<Link>,
    url: Arc<str>,
    permissions: Arc<Permissions>,
    closing: Arc<AtomicBool>,
    address: Arc<Address>,
    /// The prefix of the subjects of JetStream's API.
    api_prefix: Arc<str>,
    reading: line::Slot,
}

impl Broker {
    /// Connects, and checks the server's version and that JetStream is on.
    ///
    /// The server shows `name` as the client's name.
    pub async fn connect(address: &Address, name: &str) -> Result<Self, BrokerError> {
        Self::establish(Arc::new(address.clone()), name, None).await
    }

    /// Opens another connection to the same address with the same settings.
    ///
    /// It reports no loss, as the first connection does, and is not replaced if it ends.
    pub async fn connect_again(&self, name: &str) -> Result<Self, BrokerError> {
        Self::establish(Arc::clone(&self.address), name, Some(self)).await
    }

    /// Connects. A connection with a `first` one shares its refusals. A first connection is replaced if it ends.
    async fn establish(address: Arc<Address>, name: &str, first: Option<&Self>) -> Result<Self, BrokerError> {
        let permissions = first.map(|first| Arc::clone(&first.permissions)).unwrap_or_default();
        let closing = first.map(|first| Arc::clone(&first.closing)).unwrap_or_default();
        let known = Known::new(Arc::clone(&permissions), Arc::clone(&closing), first.is_none());
        let link = Link::open(&address, name, known).await?;
        let (url, api_prefix, reading) = (address.shown().into(), address.api().into(), line::Slot::default());
        Ok(Self { link, url, permissions, closing, address, api_prefix, reading })
    }

    /// Returns the present connection. Another one may replace it later.
    fn client(&self) -> Arc<async_nats::Client> {
        self.link.client()
    }

    /// Subscribes to a subject again, once another connection has replaced an ended one.
    async fn listen_again(&self, subject: &str) -> Subscriber {
        loop {
            self.stands().await;
            match self.client().subscribe(subject.to_owned()).await {
                Ok(subscriber) => return subscriber,
                Err(error) => tracing::debug!(%error, subject, "not listening yet"),
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    /// Returns the address, without a password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the most bytes, headers included, that the server accepts in one message.
    pub fn max_payload(&self) -> usize {
        self.client().max_payload()
    }

    /// Returns the server's limits on one message.
    pub fn limits(&self) -> MessageLimits {
        MessageLimits { max_payload: self.max_payload() }
    }

    /// Returns a watch of whether the connection stands.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.link.connected()
    }

    /// Returns `true` if the connection stands at this moment.
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Waits until the connection stands.
    pub async fn stands(&self) {
        self.link.stands().await;
    }

    /// Returns `true` if the connection has ended for good: the client library's task is gone, for example after a panic.
    pub fn has_ended(&self) -> bool {
        self.link.has_ended()
    }

    /// Returns an upper bound of how often the connection was lost: each try to reconnect counts.
    pub fn losses(&self) -> u64 {
        self.link.losses()
    }

    /// Returns the permissions that this user was found to lack since it connected.
    pub fn missing_permissions(&self) -> BTreeSet<Missing> {
        self.permissions.missing()
    }

    /// Waits until more permissions are missing.
    pub async fn more_permissions_missing(&self) {
        self.permissions.more().await;
    }

    /// Stops reporting on the connection, which is about to end on purpose.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Waits until all messages handed to the connection have reached the server.
    pub async fn flush(&self) -> Result<(), BrokerError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.client().flush()).await {
            Ok(flushed) => flushed.map_err(|error| BrokerError::other("flush the connection", &error)),
            Err(_) => Err(BrokerError::Timeout("flush the connection".to_owned())),
        }
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
