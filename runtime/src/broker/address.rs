//! Where the server is and how to log in.

use std::path::PathBuf;

use async_nats::{ConnectOptions, ServerAddr};

use super::BrokerError;

/// Where the server is and how to log in.
#[derive(Debug, Clone, Default)]
pub struct Address {
    /// One or more URLs, separated by commas: `nats://[user:password@]host:port`. A user without a password is a token.
    pub url: String,
    /// A credentials file as `nsc` writes it.
    pub credentials: Option<PathBuf>,
}

impl Address {
    /// The servers that the URLs name.
    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>, BrokerError> {
        let server = |url: &str| {
            url.trim().parse().map_err(|error: std::io::Error| BrokerError::Url {
                url: without_password(url.trim()),
                reason: error.to_string().trim_start_matches("NATS server URL is invalid: ").to_owned(),
            })
        };
        self.url.split(',').map(server).collect()
    }

    /// Adds the login: that of the credentials file, and that of the first URL that has one. The library passes over what
    /// stands in URLs.
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
        match &self.credentials {
            None => Ok(options),
            // Read here, because the library's error says the path and the reason in its own words.
            Some(path) => {
                let failed = |reason: String| BrokerError::Credentials { path: path.clone(), reason };
                let text = tokio::fs::read_to_string(path).await.map_err(|error| failed(error.to_string()))?;
                options.credentials(&text).map_err(|error| failed(error.to_string()))
            }
        }
    }

    /// The URLs as they may be shown.
    pub(super) fn shown(&self) -> String {
        without_password(&self.url)
    }
}

fn without_password(url: &str) -> String {
    let hide = |each: &str| match (each.find("://"), each.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}{}", &each[..scheme + 3], &each[at + 1..]),
        (None, Some(at)) => each[at + 1..].to_owned(),
        _ => each.to_owned(),
    };
    url.split(',').map(hide).collect::<Vec<_>>().join(",")
}

/// A URL holds some characters as `%` and two hexadecimal digits.
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
        let address = Address { url: "nats://me:a%40b%2F100%25%C3%A4ü@host".to_owned(), credentials: None };
        let servers = address.servers().expect("a URL");
        assert_eq!(servers[0].password().map(decoded).as_deref(), Some("a@b/100%äü"));
        assert_eq!(decoded("%4"), "%4");
    }

    #[test]
    fn what_is_no_url_is_named_without_its_password() {
        let address = Address { url: "nats://host, http://me:secret@host".to_owned(), credentials: None };
        let error = address.servers().expect_err("not NATS").to_string();
        assert!(error.starts_with("`http://host` is not a NATS URL: invalid scheme"), "{error}");
    }
}
