//! What the HTTP calls of all stages of a node share.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::limit::Limits;
use super::resolve::{LookUps, Resolve};
use super::target::{Origin, Scheme};
use super::tls::Tls;
use crate::calls::memory::Memory;

/// Why a node cannot make HTTP calls.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpSetupError {
    /// The file of authorities cannot be read.
    #[error("cannot read the certificate authorities in {0} (`http_ca` in [allow]): {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// The file holds no authorities.
    #[error("{0} (`http_ca` in [allow]) holds no certificate in PEM, which begins with `-----BEGIN CERTIFICATE-----`")]
    NoCertificate(PathBuf),
    /// An authority is malformed.
    #[error("{0} (`http_ca` in [allow]) holds a malformed certificate: {1}")]
    Certificate(PathBuf, String),
    /// The proxy is reached by TLS.
    #[error("the proxy `{0}` (`http_proxy` in [allow]) has the scheme `https`; write the `http` address of a proxy")]
    Proxy(Origin),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(rustls::Error),
}

/// What the HTTP calls of all stages of a node share.
pub(crate) struct HttpNode {
    pub(super) proxy: Option<Origin>,
    pub(super) tls: Arc<Tls>,
    pub(super) look_ups: LookUps,
    pub(super) limits: Arc<Limits>,
    pub(super) memory: Memory,
    stages: AtomicU64,
}

impl fmt::Debug for HttpNode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpNode").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl HttpNode {
    /// Creates what the stages of a node share: its proxy, certificate authorities besides those of the system, and a resolver.
    ///
    /// Reads its own authorities at once. The address of the proxy may be any.
    pub(crate) fn new(
        proxy: Option<Origin>,
        ca: Option<&Path>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Arc<Self>, HttpSetupError> {
        if let Some(proxy) = proxy.as_ref().filter(|proxy| proxy.scheme == Scheme::Https) {
            return Err(HttpSetupError::Proxy(proxy.clone()));
        }
        let tls = Arc::new(Tls::new(ca)?);
        let (limits, memory) = (Arc::default(), Memory::new());
        Ok(Arc::new(Self { proxy, tls, look_ups: LookUps::new(resolver), limits, memory, stages: AtomicU64::new(0) }))
    }

    /// Returns the memory of the node for what calls receive.
    pub(crate) fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// Returns the number of another stage.
    pub(super) fn next_stage(&self) -> u64 {
        self.stages.fetch_add(1, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::resolve::SystemResolver;
    use super::*;

    fn told(proxy: Option<Origin>, ca: Option<&Path>) -> String {
        HttpNode::new(proxy, ca, Arc::new(SystemResolver)).expect_err("refused").to_string()
    }

    #[test]
    fn a_file_without_authorities_is_told_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let of_file = |bytes: &[u8]| {
            let path = folder.path().join("own.pem");
            std::fs::write(&path, bytes).expect("written");
            told(None, Some(&path))
        };
        assert!(of_file(b"").contains("holds no certificate in PEM"));
        assert!(
            of_file(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").contains("holds no certificate")
        );
        assert!(
            of_file(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
                .contains("malformed certificate")
        );
        assert!(of_file(b"-----BEGIN CERTIFICATE-----\n%%").contains("malformed certificate"));
        let none = told(None, Some(&folder.path().join("none.pem")));
        assert!(
            none.starts_with("cannot read the certificate authorities in /") && none.contains("No such file"),
            "{none}"
        );
        let itself = told(None, Some(folder.path()));
        assert!(itself.contains("is a directory"), "{itself}");
    }

    #[test]
    fn a_proxy_is_reached_without_tls() {
        let told = told(Origin::parse("https://proxy:3128").ok(), None);
        assert!(
            told.starts_with("the proxy `https://proxy:3128` (`http_proxy` in [allow]) has the scheme `https`"),
            "{told}"
        );
    }
}
