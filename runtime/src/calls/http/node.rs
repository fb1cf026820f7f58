//! What the HTTP calls of all stages of a node share.

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::limit::Limits;
use super::memory::Memory;
use super::resolve::{LookUps, Resolve, SystemResolver};
use super::target::Origin;
use crate::calls::secrets::Secrets;
use crate::file;

/// Tells whether an address that is not public is open for the host that it is named with.
pub(crate) type Opened = Box<dyn Fn(&str, IpAddr) -> bool + Send + Sync>;

/// What the operator of a node sets for HTTP calls.
pub(crate) struct HttpSettings {
    /// Which addresses are open besides public ones.
    pub(crate) opened: Opened,
    /// The proxy of all requests. Its own address may be any. `None` if there is none.
    pub(crate) proxy: Option<Origin>,
    /// A PEM file of certificate authorities that are trusted besides those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The secrets of the node.
    pub(crate) secrets: Arc<Secrets>,
    /// What looks up the addresses of hosts.
    pub(crate) resolver: Arc<dyn Resolve>,
}

impl HttpSettings {
    /// Returns the settings of a node with these secrets: only public addresses, no proxy, the authorities of the system.
    pub(crate) fn new(secrets: Arc<Secrets>) -> Self {
        Self { opened: Box::new(|_, _| false), proxy: None, ca: None, secrets, resolver: Arc::new(SystemResolver) }
    }
}

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
    pub(super) opened: Opened,
    pub(super) proxy: Option<Origin>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) secrets: Arc<Secrets>,
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
    /// Creates what the stages of a node share. Reads the certificate authorities.
    pub(crate) fn new(settings: HttpSettings) -> Result<Arc<Self>, HttpSetupError> {
        let HttpSettings { opened, proxy, ca, secrets, resolver } = settings;
        if let Some(proxy) = proxy.as_ref().filter(|proxy| proxy.scheme == super::target::Scheme::Https) {
            return Err(HttpSetupError::Proxy(proxy.clone()));
        }
        let tls = Arc::new(tls(ca.as_deref())?);
        let (limits, memory) = (Arc::default(), Memory::new());
        let look_ups = LookUps::new(resolver);
        Ok(Arc::new(Self { opened, proxy, tls, secrets, look_ups, limits, memory, stages: AtomicU64::new(0) }))
    }

    /// Returns the number of another stage.
    pub(super) fn next_stage(&self) -> u64 {
        self.stages.fetch_add(1, Relaxed)
    }
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, HttpSetupError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!("cannot read certificate authorities of the system: {error}");
    }
    // Systems have authorities that are of no use today. Whoever needs one is told by the handshake.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca {
        add(&mut roots, path)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = versions.map_err(HttpSetupError::Tls)?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), HttpSetupError> {
    let unreadable = |error| HttpSetupError::Unreadable(path.to_owned(), error);
    if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Err(unreadable(ErrorKind::IsADirectory.into()));
    }
    let pem = file::read(path, file::TEXT_MAX).map_err(unreadable)?;
    let malformed = |problem: String| HttpSetupError::Certificate(path.to_owned(), problem);
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| malformed(error.to_string()))?;
        roots.add(certificate).map_err(|error| malformed(error.to_string()))?;
    }
    if roots.len() == before { Err(HttpSetupError::NoCertificate(path.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::super::secrets::Source;
    use super::*;

    fn told(settings: impl FnOnce(&mut HttpSettings)) -> String {
        let mut all = HttpSettings::new(Secrets::new(Source::Nowhere));
        settings(&mut all);
        HttpNode::new(all).expect_err("refused").to_string()
    }

    #[test]
    fn a_file_without_authorities_is_told_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let of_file = |bytes: &[u8]| {
            let path = folder.path().join("own.pem");
            std::fs::write(&path, bytes).expect("written");
            told(|settings| settings.ca = Some(path))
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
        let none = told(|settings| settings.ca = Some(folder.path().join("none.pem")));
        assert!(
            none.starts_with("cannot read the certificate authorities in /") && none.contains("No such file"),
            "{none}"
        );
        let itself = told(|settings| settings.ca = Some(folder.path().to_owned()));
        assert!(itself.contains("is a directory"), "{itself}");
    }

    #[test]
    fn a_proxy_is_reached_without_tls() {
        let told = told(|settings| settings.proxy = Origin::parse("https://proxy:3128").ok());
        assert!(
            told.starts_with("the proxy `https://proxy:3128` (`http_proxy` in [allow]) has the scheme `https`"),
            "{told}"
        );
    }
}
