use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::{Reply, Server, ok, response};
use super::stage::{Setup, Stage};
use crate::calls::failure::FailureKind;

/// An authority of a test.
pub(super) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(folder.path().join("ca.pem"), authority.self_signed(&key).expect("signed").pem())
            .expect("written");
        Self { folder, issuer: Issuer::new(authority, key) }
    }

    /// Returns the file of its certificate.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Returns the TLS of a server with a name.
    pub(super) fn server(&self, name: &str) -> TlsAcceptor {
        self.server_with(name, |_| ())
    }

    fn server_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()));
        TlsAcceptor::from(Arc::new(config.expect("a server")))
    }

    /// Returns a stage that trusts the authority.
    pub(super) fn stage(&self) -> Stage {
        Setup { ca: Some(&self.file()), ..Setup::default() }.stage(&["https://*", "http://*"])
    }
}

#[tokio::test]
async fn an_own_authority_is_trusted_for_the_names_of_its_certificates() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start_tls(authority.server("a.test"), |_| ok("over TLS")).await;
    let stage = authority.stage();
    let url = |host: &str| format!("https://{host}:{}/", server.port());
    assert_eq!(&stage.get(&url("a.test")).await.expect("trusted").body[..], b"over TLS");
    for host in ["b.test", "x.a.test"] {
        stage.expect_failure(&url(host), FailureKind::Unavailable, "no TLS connection").await;
    }
    Stage::new(&["https://*"]).expect_failure(&url("a.test"), FailureKind::Unavailable, "no TLS connection").await;
    other.stage().expect_failure(&url("a.test"), FailureKind::Unavailable, "no TLS connection").await;
    let old = authority.server_with("a.test", |parameters| parameters.not_after = date_time_ymd(2020, 1, 1));
    let old = Server::start_tls(old, |_| ok("")).await;
    let expired = format!("https://a.test:{}/", old.port());
    stage.expect_failure(&expired, FailureKind::Unavailable, "no TLS connection").await;
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_server_without_tls_is_a_failure() {
    let stage = Authority::new().stage();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://a.test:{}/", listener.local_addr().expect("an address").port());
    // Nobody accepts: the handshake hears nothing.
    let silent = stage.send(&url, |request| request.number("timeout_ms", 50)).await.expect_err("silence");
    assert_eq!(silent.kind, FailureKind::Timeout);
    let answers = tokio::spawn(async move {
        for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03\xff\xff", b"\0\0\0\0\0\0"]
            .into_iter()
            .cycle()
        {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.write_all(answer).await;
        }
    });
    for _ in 0..5 {
        stage.expect_failure(&url, FailureKind::Unavailable, "no TLS connection").await;
    }
    answers.abort();
}

#[tokio::test]
async fn https_does_not_become_http() {
    let authority = Authority::new();
    let plain = Server::start(|_| ok("plain")).await;
    let to = format!("Location: http://a.test:{}/\r\n", plain.port());
    let server =
        Server::start_tls(authority.server("a.test"), move |_| Reply::Keep(response("301 Moved", &to, b""))).await;
    let failure = authority.stage().expect_denied(&format!("https://a.test:{}/", server.port())).await;
    assert!(failure.message.contains("redirects from https to http"), "{failure}");
    assert_eq!(plain.connections(), 0);
    // The other way is fine.
    let secure = Server::start_tls(authority.server("a.test"), |_| ok("secure")).await;
    let to = format!("Location: https://a.test:{}/\r\n", secure.port());
    let server = Server::start(move |_| Reply::Keep(response("301 Moved", &to, b""))).await;
    let response = authority.stage().get(&format!("http://a.test:{}/", server.port())).await.expect("followed");
    assert_eq!(&response.body[..], b"secure");
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_ends_with_the_word_of_the_server() {
    let authority = Authority::new();
    let server =
        Server::start_tls(authority.server("a.test"), |_| Reply::Close(b"HTTP/1.0 200 OK\r\n\r\nall".to_vec())).await;
    let stage = authority.stage();
    let whole = stage.get(&format!("https://a.test:{}/", server.port())).await.expect("closed as TLS says");
    assert_eq!(&whole.body[..], b"all");
    // Whoever cuts the connection cannot say so in the server's name.
    let server =
        Server::start_tls(authority.server("a.test"), |_| Reply::Cut(b"HTTP/1.0 200 OK\r\n\r\nhal".to_vec())).await;
    stage
        .expect_failure(&format!("https://a.test:{}/", server.port()), FailureKind::Unavailable, "cannot be read")
        .await;
}
