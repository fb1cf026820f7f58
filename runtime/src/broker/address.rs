//! The server's address and login.

use std::io;
use std::path::{Path, PathBuf};

use async_nats::{ConnectOptions, ServerAddr};

use super::BrokerError;
use crate::file;

/// The server's address and login.
///
/// ```
/// use pcluster::client::Address;
///
/// let mut address = Address::from("nats://127.0.0.1:4222");
/// address.token = Some("secret".to_owned());
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Address {
    /// One or more URLs, separated by commas: `nats://[user:password@]host:port`. A user without a password is a token.
    pub url: String,
    /// A credentials file as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// A file with the seed of an nkey.
    pub nkey: Option<PathBuf>,
    /// A user, instead of the one in the URL.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A token.
    pub token: Option<String>,
    /// The certificate of the authority that signed the server's certificate.
    pub tls_ca: Option<PathBuf>,
    /// The client's certificate and its private key.
    pub tls_cert: Option<(PathBuf, PathBuf)>,
    /// The `JetStream` domain. `None` for the server's own.
    pub domain: Option<String>,
    /// The prefix of the subjects for answers.
    pub inbox_prefix: Option<String>,
}

impl From<&str> for Address {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }
}

impl Address {
    /// Returns the servers that the URLs name.
    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>, BrokerError> {
        let server = |url: &str| {
            url.trim().parse().map_err(|error: std::io::Error| BrokerError::Url {
                url: without_password(url.trim()),
                reason: error.to_string().trim_start_matches("NATS server URL is invalid: ").to_owned(),
            })
        };
        self.url.split(',').map(server).collect()
    }

    /// Adds the login of the credentials file and of the first URL with one. The library ignores logins in URLs.
    pub(super) async fn log_in(
        &self,
        mut options: ConnectOptions,
        servers: &[ServerAddr],
    ) -> Result<ConnectOptions, BrokerError> {
        let login = servers.iter().find_map(|server| Some((server.username()?, server.password())));
        options = match login {
            Some((user, Some(password))) => options.user_and_password(decoded(user), decoded(password)),
            Some((token, None)) => options.token(decoded(token)),
            None => options,
        };
        if let Some(user) = &self.user {
            options = options.user_and_password(user.clone(), self.password.clone().unwrap_or_default());
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &self.nkey {
            options = options.nkey(read("the seed of the nkey", path).await?.trim().to_owned());
        }
        if let Some(path) = &self.tls_ca {
            read("the certificate of the authority", path).await?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &self.tls_cert {
            read("the client's certificate", certificate).await?;
            read("the client's private key", key).await?;
            options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix.trim_end_matches('.'));
        }
        match &self.credentials {
            None => Ok(options),
            // Read here, because the library's error repeats the path and the reason.
            Some(path) => {
                let failed = |reason: String| BrokerError::Credentials { path: path.clone(), reason };
                let text = read_text(path).await.map_err(|error| failed(error.to_string()))?;
                options.credentials(&text).map_err(|error| failed(error.to_string()))
            }
        }
    }

    /// Returns the prefix of the subjects of JetStream's API.
    pub(super) fn api(&self) -> String {
        match &self.domain {
            Some(domain) => format!("$JS.{domain}.API"),
            None => "$JS.API".to_owned(),
        }
    }

    /// Returns the URLs without their passwords.
    pub fn shown(&self) -> String {
        without_password(&self.url)
    }
}

/// Reads a file that is needed to connect. The library reads it too, but does not name a file that it cannot read.
async fn read(what: &'static str, path: &Path) -> Result<String, BrokerError> {
    let failed = |error: io::Error| BrokerError::File { what, path: path.to_owned(), reason: error.to_string() };
    read_text(path).await.map_err(failed)
}

/// Reads a file on a thread where it blocks no other task.
async fn read_text(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || file::read_text(&path)).await.map_err(io::Error::other)?
}

fn without_password(url: &str) -> String {
    let hide = |each: &str| match (each.find("://"), each.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}{}", &each[..scheme + 3], &each[at + 1..]),
        (None, Some(at)) => each[at + 1..].to_owned(),
        _ => each.to_owned(),
    };
    url.split(',').map(hide).collect::<Vec<_>>().join(",")
}

/// Decodes the characters that a URL holds as `%` and two hexadecimal digits.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| first == b'%');
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("nats://me:secret@host:4222,nats://other"), "nats://host:4222,nats://other");
        assert_eq!(without_password("me:secret@host"), "host");
        assert_eq!(without_password("localhost"), "localhost");
    }

    #[test]
    fn a_password_may_have_any_character() {
        let address = Address::from("nats://me:a%40b%2F100%25%C3%A4ü@host");
        let servers = address.servers().expect("a URL");
        assert_eq!(servers[0].password().map(decoded).as_deref(), Some("a@b/100%äü"));
        assert_eq!(decoded("%4"), "%4");
    }

    #[test]
    fn what_is_no_url_is_named_without_its_password() {
        let address = Address::from("nats://host, http://me:secret@host");
        let error = address.servers().expect_err("not NATS").to_string();
        assert!(error.starts_with("`http://host` is not a NATS URL: invalid scheme"), "{error}");
    }
}
