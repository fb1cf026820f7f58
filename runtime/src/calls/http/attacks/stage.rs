//! Stages that send requests, as a node has them.

use std::io::{Error, ErrorKind, Result as IoResult};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::super::client::{HttpClient, Sending};
use super::super::node::HttpNode;
use super::super::request::HttpRequest;
use super::super::resolve::Resolve;
use super::super::response::HttpResponse;
use super::super::target::Origin;
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::grant::{Grants, HttpGrant, Network, Networks, SecretName, SecretUse, SecretsFrom};
use crate::calls::message::{Request, Response};
use crate::calls::secrets::{Mask, Secrets};

/// The most bytes of a body.
pub(super) const ROOM: u64 = 1 << 20;

/// A resolver of a test.
pub(super) struct Names<F>(pub(super) F);

impl<F: Fn(&str) -> Vec<IpAddr> + Send + Sync> Resolve for Names<F> {
    fn resolve(&self, host: &str) -> IoResult<Vec<IpAddr>> {
        let found = (self.0)(host);
        if found.is_empty() { Err(Error::new(ErrorKind::NotFound, "no such host")) } else { Ok(found) }
    }
}

/// Parses addresses.
pub(super) fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// A stage. Hosts of `.test` are this machine, and may be reached.
pub(super) struct Stage {
    pub(super) client: HttpClient,
    pub(super) grants: Grants,
    pub(super) mask: Mask,
    pub(super) received: AtomicU64,
}

/// What a stage is made of.
pub(super) struct Setup<'a> {
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) networks: &'a [(&'a str, &'a str)],
    pub(super) proxy: Option<String>,
    pub(super) ca: Option<&'a Path>,
    pub(super) secrets: Option<&'a Path>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        let resolver = Names(
            |host: &str| if host.strip_suffix(".test").is_some() { addresses(&["127.0.0.1"]) } else { Vec::new() },
        );
        Self {
            resolver: Arc::new(resolver),
            networks: &[("*.test", "127.0.0.1")],
            proxy: None,
            ca: None,
            secrets: None,
        }
    }
}

impl Setup<'_> {
    /// Creates a stage with these grants on a node of its own.
    pub(super) fn stage(self, grants: &[&str]) -> Stage {
        let proxy = self.proxy.as_ref().map(|proxy| Origin::parse(proxy).expect("a proxy"));
        let node = HttpNode::new(proxy, self.ca, self.resolver.clone()).expect("a node");
        Stage::of(node, &self.networks_of(), self.secrets, grants)
    }

    fn networks_of(&self) -> Networks {
        let parsed = self.networks.iter().map(|(host, network)| Network::parse(host, network).expect("a network"));
        Networks::new(parsed.collect())
    }
}

impl Stage {
    /// Creates a stage with these grants. `http://*` is every host and port.
    pub(super) fn new(grants: &[&str]) -> Self {
        Setup::default().stage(grants)
    }

    /// Creates a stage of a node.
    pub(super) fn of(node: Arc<HttpNode>, networks: &Networks, secrets: Option<&Path>, grants: &[&str]) -> Self {
        let secrets = Secrets::new(secrets.map(|folder| SecretsFrom::Folder(folder.to_owned())));
        let http = grants.iter().map(|grant| HttpGrant::parse(grant).expect("a grant")).collect();
        let grants = Grants { http, ..Grants::default() };
        let client = HttpClient::new(node, networks.clone(), secrets);
        Self { client, grants, mask: Mask::default(), received: AtomicU64::new(0) }
    }

    /// Grants a secret to an origin, or reveals it.
    pub(super) fn with_secret(mut self, name: &str, way: &str) -> Self {
        let name = SecretName::parse(name).expect("a name");
        self.grants.secrets.insert(name, SecretUse::parse(way).expect("an origin"));
        self
    }

    /// Gets a URL.
    pub(super) async fn get(&self, url: &str) -> Result<HttpResponse, CallFailure> {
        self.send(url, |_| ()).await
    }

    /// Posts a body to a URL.
    pub(super) async fn post(&self, url: &str, body: &str) -> Result<HttpResponse, CallFailure> {
        self.send(url, |request| {
            request.text("method", "POST");
            request.bytes("body", body.as_bytes());
        })
        .await
    }

    /// Sends a request. It must end.
    pub(super) async fn send(&self, url: &str, write: impl FnOnce(&mut Response)) -> Result<HttpResponse, CallFailure> {
        let mut map = Response::new();
        map.text("url", url);
        write(&mut map);
        self.send_map(&map.finish()).await
    }

    /// Sends a request with an entry that is CBOR already.
    pub(super) async fn send_raw(&self, url: &str, key: &str, value: &[u8]) -> Result<HttpResponse, CallFailure> {
        let mut map = Response::new();
        map.text("url", url);
        map.number(key, 0);
        let bytes = map.finish();
        // The number at the end is one byte.
        self.send_map(&[&bytes[..bytes.len() - 1], value].concat()).await
    }

    async fn send_map(&self, map: &[u8]) -> Result<HttpResponse, CallFailure> {
        let mut request = Request::read(map)?;
        let read = HttpRequest::read(&mut request)?;
        request.end()?;
        let key = read.needs_key().then(|| "key-of-host".to_owned());
        let sending = Sending { grants: &self.grants, key, room: ROOM, mask: &self.mask, received: &self.received };
        tokio::time::timeout(Duration::from_mins(1), self.client.send(read, sending)).await.expect("an end")
    }

    /// Expects that a URL is denied.
    pub(super) async fn expect_denied(&self, url: &str) -> CallFailure {
        let failure = self.get(url).await.expect_err(url);
        assert_eq!(failure.kind, FailureKind::Denied, "{url}: {failure}");
        failure
    }

    /// Expects that a URL fails so.
    pub(super) async fn expect_failure(&self, url: &str, kind: FailureKind, told: &str) {
        let failure = self.get(url).await.expect_err(url);
        assert_eq!(failure.kind, kind, "{url}: {failure}");
        assert!(failure.message.contains(told), "{url}: {failure}");
    }
}
