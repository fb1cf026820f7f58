//! NATS: the only module that names `async_nats`.
//!
//! [`Broker`] is a connection that was checked once: the server is new enough and has JetStream. [`stream`] makes and changes
//! what is stored where, [`registry`] keeps chains and plugins, [`queue`] takes items out, [`publish`] puts them in,
//! [`service`] is how nodes are found, [`follow`] reads a stream without taking anything from it, [`kept`] reads and removes what
//! a stream keeps.

pub mod address;
pub mod follow;
pub mod kept;
mod layout;
pub mod publish;
pub mod queue;
pub mod registry;
pub mod service;
pub mod stream;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::response::Response;
use async_nats::{
    ConnectErrorKind, ConnectOptions, Event, HeaderMap, HeaderName, HeaderValue, RequestErrorKind, ServerError,
    jetstream,
};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::frame::Headers;

pub use address::Address;

/// The oldest nats-server that will do: older ones lose max-delivered messages on replicated work queues.
pub const OLDEST_SERVER: (u32, u32, u32) = (2, 12, 5);
/// The target of the client library's own log lines.
pub const CLIENT_LIBRARY: &str = "async_nats";
/// What the subjects of JetStream's API start with.
const API: &str = "$JS.API";
/// JetStream's error codes for having no room: resource limits exceeded for the account; insufficient resources;
/// insufficient storage.
const NO_ROOM: [u64; 3] = [10002, 10023, 10047];
/// What to do then.
const MORE_ROOM: &str = "give it more room with `max_file_store` in its configuration";
/// How long to try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may take over an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait between two tries to connect again.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Why something could not be done on the server.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// No server answers at the address.
    #[error(
        "cannot reach NATS at {url}: {reason}. Is nats-server running? `--nats URL` names another one, `pcluster dev` starts one"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What was met.
        reason: String,
    },
    /// The address is not one.
    #[error("`{url}` is not a NATS URL: {reason}; write one like nats://127.0.0.1:4222")]
    Url {
        /// What was given, without the password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials file cannot be used.
    #[error("cannot use the credentials file `{}`: {reason}; `nsc generate creds` writes one", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The server does not let this user in.
    #[error("NATS at {url} refuses the login: {reason}. Put user and password into the URL or give `--creds FILE`")]
    Refused {
        /// The address, without the password.
        url: String,
        /// What the server said.
        reason: String,
    },
    /// JetStream is off.
    #[error(
        "NATS at {0} has JetStream turned off; start it with `nats-server -js`, or with the file nats.conf of this project"
    )]
    NoJetStream(String),
    /// The server is too old.
    #[error("NATS at {url} is version {version}; pcluster needs {}.{}.{} or newer", OLDEST_SERVER.0, OLDEST_SERVER.1, OLDEST_SERVER.2)]
    TooOld {
        /// The address.
        url: String,
        /// The server's version.
        version: String,
    },
    /// The user may not do this.
    #[error("no permission to {what}: {reason}; the server's configuration must allow it for this user")]
    NoPermission {
        /// What was tried.
        what: String,
        /// What the server said.
        reason: String,
    },
    /// The server refused a request.
    #[error("the server cannot {what}: {description} (error {code})")]
    Server {
        /// What was asked for.
        what: String,
        /// JetStream's error code.
        code: u64,
        /// What it said.
        description: String,
    },
    /// No answer in time.
    #[error("the server gave no answer in time to the request to {0}")]
    Timeout(String),
    /// Anything else.
    #[error("cannot {what}: {reason}")]
    Other {
        /// What was tried.
        what: String,
        /// What was met.
        reason: String,
    },
}

impl BrokerError {
    /// Something that the client library reports without a code.
    fn other(what: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::Other { what: what.into(), reason: error.to_string() }
    }

    /// Whether the server said that what was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        /// JetStream: consumer not found; stream not found.
        const NOT_FOUND: [u64; 2] = [10014, 10059];
        matches!(self, Self::Server { code, .. } if NOT_FOUND.contains(code))
    }

    /// Whether there is no usable connection.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Credentials { .. }
                | Self::Refused { .. }
                | Self::NoJetStream(_)
                | Self::TooOld { .. }
        )
    }
}

/// A checked connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    url: Arc<str>,
    violation: Arc<Mutex<Option<String>>>,
    connected: watch::Receiver<bool>,
    closing: Arc<AtomicBool>,
}

impl Broker {
    /// Connects, and checks the server's version and that JetStream is on. `name` is what the server shows of this client.
    ///
    /// # Errors
    ///
    /// If no usable server answers within five seconds.
    pub async fn connect(address: &Address, name: &str) -> Result<Self, BrokerError> {
        let url = address.shown();
        let servers = address.servers()?;
        let unreachable = |reason: String| BrokerError::Unreachable { url: url.clone(), reason };
        let violation = Arc::new(Mutex::new(None));
        let (announce, connected) = watch::channel(true);
        let closing = Arc::new(AtomicBool::new(false));
        let mut options = ConnectOptions::new()
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .reconnect_delay_callback(|tries| Duration::from_millis(50 * tries as u64).min(RECONNECT_WAIT_MAX))
            .event_callback({
                let (violation, closing) = (Arc::clone(&violation), Arc::clone(&closing));
                move |event| {
                    if !closing.load(Ordering::Relaxed) {
                        note(&event, &violation, &announce);
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
                    _ => unreachable(error.to_string()),
                });
            }
        };
        let info = client.server_info();
        if parse_version(&info.version).is_none_or(|version| version < OLDEST_SERVER) {
            return Err(BrokerError::TooOld { url, version: info.version });
        }
        if !info.jetstream {
            return Err(BrokerError::NoJetStream(url));
        }
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(REQUEST_TIMEOUT);
        Ok(Self { client, jetstream, url: url.into(), violation, connected, closing })
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

    /// Calls JetStream's API. `what` completes "the server cannot …".
    async fn api<T: DeserializeOwned>(
        &self,
        subject: String,
        request: &(impl Serialize + Sync),
        what: impl Fn() -> String,
    ) -> Result<T, BrokerError> {
        let unreadable = |error: &serde_json::Error| BrokerError::other(what(), error);
        let json = serde_json::to_vec(request).map_err(|error| unreadable(&error))?;
        // A request without parameters must be empty, not `null`.
        let payload = if json == b"null" { Bytes::new() } else { json.into() };
        match self.client.request(format!("{API}.{subject}"), payload).await {
            Ok(answer) => match serde_json::from_slice(&answer.payload).map_err(|error| unreadable(&error))? {
                Response::Ok(answer) => Ok(answer),
                Response::Err { error } => {
                    Err(BrokerError::Server { what: what(), code: error.error_code().0, description: describe(&error) })
                }
            },
            Err(error) => Err(match error.kind() {
                RequestErrorKind::TimedOut => self.timed_out(what()),
                RequestErrorKind::NoResponders => BrokerError::NoJetStream(self.url.to_string()),
                _ => BrokerError::other(what(), &error),
            }),
        }
    }

    /// A request without an answer: the server answers none that the user may not make, but tells the connection.
    fn timed_out(&self, what: String) -> BrokerError {
        let violation = self.violation.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match violation {
            Some(reason) => BrokerError::NoPermission { what, reason },
            None => BrokerError::Timeout(what),
        }
    }
}

fn note(event: &Event, violation: &Mutex<Option<String>>, connected: &watch::Sender<bool>) {
    match event {
        Event::Disconnected => {
            if connected.send_replace(false) {
                tracing::warn!("lost the connection to NATS; trying again until it is back");
            }
        }
        Event::Connected => {
            if !connected.send_replace(true) {
                tracing::warn!("the connection to NATS is back");
            }
        }
        Event::ServerError(ServerError::Other(reason)) if reason.to_lowercase().contains("permissions violation") => {
            *violation.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reason.clone());
        }
        Event::SlowConsumer(subscription) => tracing::warn!(subscription, "messages arrive faster than they are read"),
        other => tracing::debug!(event = %other, "nats"),
    }
}

fn describe(error: &jetstream::Error) -> String {
    let text = error.to_string();
    // The library writes `description (code N, error code N)`; the code has a place of its own here.
    let text = text.split(" (code ").next().unwrap_or(&text);
    if NO_ROOM.contains(&error.error_code().0) { format!("{text}; {MORE_ROOM}") } else { text.to_owned() }
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
    for (name, values) in map.into_iter().flat_map(HeaderMap::iter) {
        for value in values {
            headers.push(AsRef::<str>::as_ref(name).to_owned(), value.as_str());
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
