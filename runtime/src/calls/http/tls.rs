//! TLS of HTTP calls: whom a node trusts.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio_rustls::TlsConnector;

use super::node::HttpSetupError;
use crate::file;

/// The TLS of a node. It trusts the authorities of the system, and others that its operator names.
pub(super) struct Tls {
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    own: RootCertStore,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    /// Creates the TLS of a node. Reads its own authorities.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, HttpSetupError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(HttpSetupError::Tls)?;
        let own = ca.map_or_else(|| Ok(RootCertStore::empty()), read)?;
        Ok(Self { builder, own, config: OnceLock::new() })
    }

    /// Returns what makes TLS connections. Reads the authorities of the system, of which a node without such calls needs none, when
    /// it is called first.
    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(self.config.get_or_init(|| Arc::new(self.config()))))
    }

    fn config(&self) -> ClientConfig {
        let mut roots = self.own.clone();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!("cannot read certificate authorities of the system: {error}");
        }
        // Systems have authorities that are of no use today. Whoever needs one is told by the handshake.
        roots.add_parsable_certificates(system.certs);
        let mut config = self.builder.clone().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }
}

/// Reads the authorities of a PEM file.
fn read(path: &Path) -> Result<RootCertStore, HttpSetupError> {
    let unreadable = |error| HttpSetupError::Unreadable(path.to_owned(), error);
    if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Err(unreadable(ErrorKind::IsADirectory.into()));
    }
    let pem = file::read(path, file::TEXT_MAX).map_err(unreadable)?;
    let malformed = |problem: String| HttpSetupError::Certificate(path.to_owned(), problem);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| malformed(error.to_string()))?;
        roots.add(certificate).map_err(|error| malformed(error.to_string()))?;
    }
    if roots.is_empty() { Err(HttpSetupError::NoCertificate(path.to_owned())) } else { Ok(roots) }
}
