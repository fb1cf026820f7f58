//! Connects to servers. All connections that tasks use are made here, each to an address that was checked.

mod stream;
mod tunnel;

use std::future::ready;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::Uri;
use rustls::pki_types::ServerName;
pub(crate) use stream::Connection;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::node::HttpNode;
use super::resolve::LookUps;
use super::target::{Origin, Scheme};
use super::tls::Tls;
use crate::calls::address::is_public;
use crate::calls::failure::CallFailure;
use crate::calls::grant::Networks;

/// The longest time that a connection may take to be made, with its look-up and its handshakes.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// The longest time that one of several addresses may take to answer.
const ADDRESS_MAX: Duration = Duration::from_secs(3);
/// The longest look-up of a name that a proxy looks up again.
const PROXIED_LOOK_UP_MAX: Duration = Duration::from_secs(2);
/// The most addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// No address of the host may be reached.
    #[error(
        "`{0}` has no address that a task may reach: only public addresses are, and those that the operator of the node opens \
         for this host with `networks` in [allow]"
    )]
    Denied(String),
    /// The host has no address.
    #[error("`{0}` cannot be resolved: {1}")]
    Unresolved(String, Error),
    /// Nothing answers at any address.
    #[error("cannot connect to `{0}`: {1}")]
    Connect(String, Error),
    /// The proxy cannot be reached, or refuses.
    #[error("the proxy of the node does not connect to `{0}`: {1}")]
    Proxy(String, Error),
    /// The server is not who it should be, or speaks no TLS.
    #[error("no TLS connection to `{0}`: {1}")]
    Tls(String, Error),
    /// It took too long.
    #[error("cannot connect to `{0}`: no answer within 10 seconds")]
    TimedOut(String),
}

impl From<&DialError> for CallFailure {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::Denied(_) => Self::denied(error.to_string()),
            _ => Self::unavailable(error.to_string()),
        }
    }
}

/// Makes the connections of a stage.
#[derive(Clone)]
pub(crate) struct Dialer {
    look_ups: LookUps,
    networks: Networks,
    proxy: Option<Origin>,
    tls: Arc<Tls>,
}

impl Service<Uri> for Dialer {
    type Response = Connection;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Connection, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().to_owned();
        let Some(scheme) = uri.scheme_str().and_then(Scheme::of) else {
            return ready(Err(DialError::Denied(host))).boxed();
        };
        let origin = Origin { scheme, host: host.into(), port: uri.port_u16().unwrap_or(scheme.port()) };
        let dialer = self.clone();
        async move {
            match timeout(DIAL_MAX, dialer.dial(&origin)).await {
                Ok(connection) => connection,
                Err(_) => Err(DialError::TimedOut(origin.host.into())),
            }
        }
        .boxed()
    }
}

impl Dialer {
    /// Creates the dialer of a stage.
    pub(crate) fn new(node: &HttpNode, networks: Networks) -> Self {
        let tls = node.tls.clone();
        Self { look_ups: node.look_ups.of_stage(), networks, proxy: node.proxy.clone(), tls }
    }

    async fn dial(&self, origin: &Origin) -> Result<Connection, DialError> {
        let host = &*origin.host;
        let stream = match &self.proxy {
            None => stream::boxed(self.connect(host, self.addresses(host).await?, origin.port).await?),
            Some(proxy) => {
                self.check_proxied(host).await?;
                let of_proxy = |error: DialError| DialError::Proxy(host.to_owned(), Error::other(error.to_string()));
                let addresses = self.look_up(&proxy.host).await.map_err(of_proxy)?;
                let tcp = self.connect(&proxy.host, addresses, proxy.port).await.map_err(of_proxy)?;
                if origin.scheme == Scheme::Http {
                    return Ok(Connection::new(stream::boxed(tcp), true));
                }
                tunnel::open(tcp, host, origin.port).await.map_err(|error| DialError::Proxy(host.to_owned(), error))?
            }
        };
        if origin.scheme == Scheme::Http {
            return Ok(Connection::new(stream, false));
        }
        let of_tls = |error| DialError::Tls(host.to_owned(), error);
        let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|error| of_tls(Error::other(error)))?;
        let tls = self.tls.connector().connect(name, stream).await.map_err(of_tls)?;
        Ok(Connection::new(stream::boxed(tls), false))
    }

    /// Returns the addresses of a host that a task may reach.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DialError> {
        let mut addresses = self.look_up(host).await?;
        addresses.retain(|address| self.may_reach(host, *address));
        if addresses.is_empty() { Err(DialError::Denied(host.to_owned())) } else { Ok(addresses) }
    }

    /// Checks a host that a proxy resolves.
    ///
    /// A host that this node can resolve must have an address that a task may reach. What the node cannot resolve, as in a network
    /// whose names of the internet only the proxy knows, is left to the rules of the proxy.
    async fn check_proxied(&self, host: &str) -> Result<(), DialError> {
        match timeout(PROXIED_LOOK_UP_MAX, self.look_up(host)).await {
            Ok(Ok(addresses)) if !addresses.iter().all(|address| self.may_reach(host, *address)) => {
                Err(DialError::Denied(host.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn may_reach(&self, host: &str, address: IpAddr) -> bool {
        is_public(address) || self.networks.opens(host, address.to_canonical())
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, DialError> {
        if let Some(address) = literal(host) {
            return Ok(vec![address]);
        }
        let of_host = |error| DialError::Unresolved(host.to_owned(), error);
        let mut addresses = self.look_ups.look_up(host).await.map_err(of_host)?;
        if addresses.is_empty() {
            return Err(of_host(Error::new(ErrorKind::NotFound, "it has no address")));
        }
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses)
    }

    /// Connects to the first address that answers.
    async fn connect(&self, host: &str, addresses: Vec<IpAddr>, port: u16) -> Result<TcpStream, DialError> {
        let several = addresses.len() > 1;
        let mut last = Error::from(ErrorKind::AddrNotAvailable);
        for address in addresses {
            let most = if several { ADDRESS_MAX } else { DIAL_MAX };
            match timeout(most, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(tcp)) => {
                    // Requests are written whole: waiting to fill a packet only delays them.
                    let _ = tcp.set_nodelay(true);
                    return Ok(tcp);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = ErrorKind::TimedOut.into(),
            }
        }
        Err(DialError::Connect(format!("{host}:{port}"), last))
    }
}

/// Returns the address that a host is. `None` if it is a name.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}
