//! A connection, and its state.
//!
//! The client library reports a connection's events over a channel, and drops events if the channel is full, for example while the
//! server refuses many requests. So a loss is counted where the library tries to reconnect, in the connection's own task, and the
//! connection's state is read from the library. An event only makes the check sooner.
//!
//! Some headers end the library's task by a panic (see [`super::line`]). Any client that sees the reply subject of a request can
//! send such a message there. The process's first connection is then replaced, and its users continue with the new one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::address::Address;
use super::permissions::Permissions;
use super::{BrokerError, OLDEST_SERVER, parse_version};
use crate::backoff::Backoff;

/// The longest try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to ping a silent server. A connection is lost after three pings without an answer.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The longest wait between two tries to reconnect.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often to check whether a lost connection is back, if no event tells.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long to wait before an ended connection is replaced. The wait doubles each time that a new one ends soon.
const ANEW: Duration = Duration::from_millis(20);
/// The longest such wait.
const ANEW_MAX: Duration = Duration::from_secs(5);
/// A connection that has stood this long counts as stable.
const LASTS: Duration = Duration::from_secs(30);

/// A connection, and its state.
#[derive(Debug)]
pub(super) struct Link {
    current: RwLock<Current>,
    known: Arc<Known>,
}

#[derive(Debug, Clone)]
struct Current {
    client: Arc<Client>,
    /// Closed once the library's task has ended.
    ended: watch::Receiver<()>,
}

/// The state of a connection.
#[derive(Debug)]
pub(super) struct Known {
    connected: watch::Sender<bool>,
    losses: AtomicU64,
    /// Notified when the state may have changed.
    happened: Notify,
    permissions: Arc<Permissions>,
    closing: Arc<AtomicBool>,
    /// `true` for the connection whose losses are reported.
    is_first: bool,
}

impl Known {
    pub(super) fn new(permissions: Arc<Permissions>, closing: Arc<AtomicBool>, is_first: bool) -> Self {
        let (connected, losses) = (watch::Sender::new(true), AtomicU64::new(0));
        Self { connected, losses, happened: Notify::new(), permissions, closing, is_first }
    }

    /// Records a loss, before there is another connection.
    fn lost(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
        if self.is_first {
            // The next connection may have other permissions, and the event that says so may be dropped.
            self.permissions.forget();
        }
        self.set(false);
        self.happened.notify_one();
    }

    fn set(&self, is_connected: bool) {
        let is_told = self.is_first && !self.closing.load(Ordering::Relaxed);
        self.connected.send_if_modified(|connected| {
            let changes = *connected != is_connected;
            *connected = is_connected;
            match is_connected {
                _ if !changes || !is_told => {}
                false => tracing::warn!("lost the connection to NATS; trying again until it is back"),
                true => tracing::warn!("the connection to NATS is back"),
            }
            changes
        });
    }

    fn note(&self, event: &Event) {
        if self.closing.load(Ordering::Relaxed) {
            return;
        }
        match event {
            Event::Disconnected => {}
            Event::Connected => {
                self.permissions.forget();
                self.happened.notify_one();
            }
            Event::ServerError(ServerError::Other(reason)) if self.permissions.note(reason) => {}
            Event::SlowConsumer(subscription) => {
                tracing::warn!(subscription, "messages arrive faster than they are read");
            }
            other => tracing::debug!(event = %other, "nats"),
        }
    }
}

impl Link {
    /// Connects.
    pub(super) async fn open(address: &Arc<Address>, name: &str, known: Known) -> Result<Arc<Self>, BrokerError> {
        let known = Arc::new(known);
        let is_first = known.is_first;
        let current = RwLock::new(dial(address, name, &known).await?);
        let link = Arc::new(Self { current, known });
        let again = is_first.then(|| (Arc::clone(address), name.to_owned()));
        tokio::spawn(keep(Arc::downgrade(&link), again));
        Ok(link)
    }

    /// Returns the connection that stands, or the last one that did.
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).client)
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a watch of whether the connection stands. Earlier losses count as seen.
    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.known.connected.subscribe()
    }

    pub(super) fn losses(&self) -> u64 {
        self.known.losses.load(Ordering::SeqCst)
    }

    /// Returns `true` if the connection stands at this moment.
    pub(super) fn is_connected(&self) -> bool {
        let Current { client, ended } = self.current();
        client.connection_state() == State::Connected && ended.has_changed().is_ok()
    }

    /// Returns `true` if the library's task has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).ended.has_changed().is_err()
    }

    pub(super) async fn stands(&self) {
        let mut connected = self.connected();
        while !self.is_connected() {
            let _ = tokio::time::timeout(LOOK_AGAIN, connected.changed()).await;
        }
    }
}

/// Keeps a connection's state up to date until its last user drops it. Replaces an ended connection if wanted.
async fn keep(link: Weak<Link>, again: Option<(Arc<Address>, String)>) {
    let mut backoff = Backoff::new(ANEW, ANEW_MAX);
    loop {
        let made = Instant::now();
        if !watch_until_ended(&link).await {
            return;
        }
        let (Some((address, name)), Some(known)) = (&again, link.upgrade().map(|link| Arc::clone(&link.known))) else {
            return;
        };
        if known.closing.load(Ordering::Relaxed) {
            return;
        }
        known.lost();
        if made.elapsed() > LASTS {
            backoff.reset();
        }
        let current = loop {
            backoff.wait().await;
            match dial(address, name, &known).await {
                Ok(current) => break current,
                Err(error) => tracing::debug!(%error, "the connection cannot be made anew"),
            }
            if link.strong_count() == 0 {
                return;
            }
        };
        let Some(link) = link.upgrade() else { return };
        *link.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        known.set(true);
    }
}

/// Watches a connection until the library's task has ended. Returns `false` if the connection has no users left.
async fn watch_until_ended(link: &Weak<Link>) -> bool {
    loop {
        let Some(strong) = link.upgrade() else { return false };
        let (known, mut current) = (Arc::clone(&strong.known), strong.current());
        let is_connected = current.client.connection_state() == State::Connected;
        // This must not keep the connection alive.
        drop((strong, current.client));
        known.set(is_connected);
        tokio::select! {
            _ = current.ended.changed() => return link.strong_count() > 0,
            () = known.happened.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN), if !is_connected => {}
        }
    }
}

/// Connects, and checks the server.
async fn dial(address: &Address, name: &str, known: &Arc<Known>) -> Result<Current, BrokerError> {
    let url = address.shown();
    let servers = address.servers()?;
    // Each of the servers is tried before the time is over.
    let each = CONNECT_TIMEOUT / u32::try_from(servers.len()).unwrap_or(u32::MAX);
    let unreachable = |reason: String| BrokerError::Unreachable { url: url.clone(), reason };
    let (alive, ended) = watch::channel(());
    let is_made = Arc::new(AtomicBool::new(false));
    let options = ConnectOptions::new()
        .name(name)
        .connection_timeout(each)
        .ping_interval(PING_EVERY)
        .request_timeout(Some(super::REQUEST_TIMEOUT))
        .reconnect_delay_callback({
            let (known, is_made) = (Arc::clone(known), Arc::clone(&is_made));
            move |tries| {
                // The library calls this before each connect, the first one included, which waits for nothing.
                let is_made = is_made.load(Ordering::SeqCst);
                if is_made {
                    known.lost();
                }
                let waits = tries.saturating_sub(usize::from(!is_made));
                Duration::from_millis(50 * waits as u64).min(RECONNECT_WAIT_MAX)
            }
        })
        .event_callback({
            let known = Arc::clone(known);
            move |event| {
                let _ = &alive;
                known.note(&event);
                std::future::ready(())
            }
        });
    let options = address.log_in(options, &servers).await?;
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect(servers)).await;
    let client = match connecting {
        Err(_) => return Err(unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            return Err(match error.kind() {
                kind @ (ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation) => {
                    BrokerError::Refused { url, reason: kind.to_string() }
                }
                kind if is_about_tls(kind, &error.to_string()) => BrokerError::Tls { url, reason: error.to_string() },
                _ => unreachable(error.to_string()),
            });
        }
    };
    is_made.store(true, Ordering::SeqCst);
    let info = client.server_info();
    if parse_version(&info.version).is_none_or(|version| version < OLDEST_SERVER) {
        return Err(BrokerError::TooOld { url, version: info.version });
    }
    // In another domain than the server's, only that domain's answers count.
    if !info.jetstream && address.domain.is_none() {
        return Err(BrokerError::NoJetStream(url));
    }
    Ok(Current { client: Arc::new(client), ended })
}

/// Returns `true` if a connection failed because of TLS. The client library marks only some of these errors.
fn is_about_tls(kind: ConnectErrorKind, said: &str) -> bool {
    kind == ConnectErrorKind::Tls || said.contains("certificate") || said.contains("fatal alert")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Says more at once than the library keeps room for in events, and closes the first connection with the last word.
    fn refuse_and_leave(listener: &TcpListener) {
        let mut refusals = "-ERR 'Permissions Violation for Publish to \"a\"'\r\n".repeat(1_000);
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if greet(&stream).is_none() {
                continue;
            }
            let said = std::mem::take(&mut refusals);
            if !said.is_empty() {
                let _ = (&stream).write_all(said.as_bytes());
                continue;
            }
            std::mem::forget(stream);
        }
    }

    fn greet(mut stream: &TcpStream) -> Option<()> {
        let info = "INFO {\"server_id\":\"x\",\"version\":\"2.15.1\",\"headers\":true,\"jetstream\":true,\"max_payload\":1048576,\"proto\":1}\r\n";
        stream.write_all(info.as_bytes()).ok()?;
        for line in BufReader::new(stream).lines() {
            if line.ok()?.starts_with("PING") {
                return stream.write_all(b"PONG\r\n").ok();
            }
        }
        None
    }

    // With one thread, nobody takes events while the library reads what has come.
    #[tokio::test(flavor = "current_thread")]
    async fn a_loss_is_known_whatever_else_is_told_at_the_same_moment() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = Arc::new(Address::from(format!("nats://{}", listener.local_addr().expect("bound")).as_str()));
        std::thread::spawn(move || refuse_and_leave(&listener));
        let link = Link::open(&address, "test", Known::new(Arc::default(), Arc::default(), true)).await;
        let link = link.expect("the server is there");
        let mut connected = link.connected();
        let losses = async {
            while link.losses() == 0 {
                let _ = connected.changed().await;
            }
            let _ = connected.wait_for(|connected| *connected).await;
            link.stands().await;
        };
        tokio::time::timeout(Duration::from_secs(20), losses).await.expect("it is noticed");
        assert!(link.is_connected() && !link.has_ended());
    }
}
