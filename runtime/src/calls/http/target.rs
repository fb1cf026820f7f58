//! Where an HTTP request goes: a URL as the URL standard reads it.
//!
//! What is compared with grants is what is sent: the normalized host, port and path.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::calls::message::quoted;

/// The most bytes of a host name and of one of its labels, as DNS has it.
const HOST_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// The scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// Returns the scheme with this name, in any case. `None` if it is another.
    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| scheme.name().eq_ignore_ascii_case(name))
    }

    /// Returns its name in a URL.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Returns the port of a URL that names none.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port: what a secret is bound to, and what a redirect may leave.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin {
    /// The scheme.
    pub(crate) scheme: Scheme,
    /// The host as it is sent: lower-case ASCII. An IPv6 address stands in brackets.
    pub(crate) host: Box<str>,
    /// The port.
    pub(crate) port: u16,
}

impl Origin {
    /// Parses an origin: a URL without path, query and fragment.
    pub(crate) fn parse(text: &str) -> Result<Self, TargetProblem> {
        let target = Target::parse(text)?;
        let has_more = target.path() != "/" || target.url.query().is_some() || text.contains('#');
        if has_more { Err(TargetProblem::NotAnOrigin(target.origin)) } else { Ok(target.origin) }
    }

    /// Returns the host, and the port unless it is the scheme's own, as the header `Host` has them.
    pub(crate) fn authority(&self) -> String {
        if self.port == self.scheme.port() { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme.name(), self.authority())
    }
}

/// The target of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    url: Url,
    origin: Origin,
    address: Option<IpAddr>,
}

/// Why a text is not the URL of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetProblem {
    /// It is not a URL.
    #[error("`{0}` is not a URL ({1}); write one like `https://api.example.com/v1`")]
    Form(String, url::ParseError),
    /// It has no scheme.
    #[error("`{0}` has no scheme; write `https://{0}`")]
    NoScheme(String),
    /// Its scheme is neither http nor https.
    #[error("`{0}` has the scheme `{1}`; only `http` and `https` can be requested")]
    Scheme(String, String),
    /// It holds white space or a control character, which a URL parser would drop.
    #[error("`{0}` holds white space or a control character; write `%20` for a space")]
    Character(String),
    /// It names a user.
    #[error("`{0}` names a user; leave it out, and send it in the header `Authorization`")]
    User(String),
    /// Its host is not a name that DNS takes.
    #[error(
        "`{0}` is not a host; a host has labels of letters, digits, `-` and `_`, at most {LABEL_MAX} bytes each and \
         {HOST_MAX} in all"
    )]
    Host(String),
    /// Nothing can listen at its port.
    #[error("`{0}` has the port 0; a port is 1 to 65535")]
    Port(String),
    /// It has more than an origin.
    #[error("an origin has no path, query or fragment; write `{0}`")]
    NotAnOrigin(Origin),
}

impl Target {
    /// Parses a URL by the URL standard.
    ///
    /// The host becomes what a browser takes it for: upper case and other scripts become lower-case ASCII, and numbers in any base
    /// an IPv4 address. One trailing dot of the host and the fragment are removed, since neither makes it another place.
    pub(crate) fn parse(text: &str) -> Result<Self, TargetProblem> {
        if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return Err(TargetProblem::Character(quoted(text)));
        }
        match Url::parse(text) {
            // `api.example.com:8080` is a URL of the scheme `api.example.com`.
            Ok(url) if Scheme::of(url.scheme()).is_none() && !text.contains("://") => {
                Err(TargetProblem::NoScheme(quoted(text)))
            }
            Ok(url) => Self::of(url, text),
            Err(url::ParseError::RelativeUrlWithoutBase) => Err(TargetProblem::NoScheme(quoted(text))),
            Err(error) => Err(TargetProblem::Form(quoted(text), error)),
        }
    }

    /// Returns where a `Location` of this target's response leads.
    pub(crate) fn join(&self, location: &str) -> Result<Self, TargetProblem> {
        if location.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return Err(TargetProblem::Character(quoted(location)));
        }
        let url = self.url.join(location).map_err(|error| TargetProblem::Form(quoted(location), error))?;
        Self::of(url, location)
    }

    fn of(mut url: Url, text: &str) -> Result<Self, TargetProblem> {
        let Some(scheme) = Scheme::of(url.scheme()) else {
            return Err(TargetProblem::Scheme(quoted(text), url.scheme().to_owned()));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetProblem::User(without_user(&url)));
        }
        url.set_fragment(None);
        let without_dot = match url.host() {
            Some(Host::Domain(name)) => name.strip_suffix('.').map(str::to_owned),
            _ => None,
        };
        if let Some(name) = without_dot {
            // `a.1.` would otherwise become `a.1`, which is an address or nothing.
            url.set_host(Some(&name)).map_err(|error| TargetProblem::Form(quoted(text), error))?;
        }
        let address = match url.host() {
            Some(Host::Domain(name)) if is_name(name) => None,
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => return Err(TargetProblem::Host(quoted(url.host_str().unwrap_or_default()))),
        };
        let port = url.port().unwrap_or(scheme.port());
        if port == 0 {
            return Err(TargetProblem::Port(quoted(text)));
        }
        let origin = Origin { scheme, host: url.host_str().unwrap_or_default().into(), port };
        Ok(Self { url, origin, address })
    }

    /// Returns scheme, host and port.
    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the scheme.
    pub(crate) const fn scheme(&self) -> Scheme {
        self.origin.scheme
    }

    /// Returns the host as it is sent. An IPv6 address stands in brackets.
    pub(crate) fn host(&self) -> &str {
        &self.origin.host
    }

    /// Returns the address that the host is. `None` if it is a name.
    pub(crate) const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns the path as it is sent. It begins with `/`.
    pub(crate) fn path(&self) -> &str {
        self.url.path()
    }

    /// Returns the URL as it is sent, without fragment.
    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.url.as_str())
    }
}

/// Returns `true` if DNS takes a name. A name after normalization may still hold characters such as `*` or `,`.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= LABEL_MAX && label.bytes().all(of_name)
    };
    name.len() <= HOST_MAX && name.split('.').all(is_label)
}

/// Returns the URL without what it has before its host: that may be a password.
fn without_user(url: &Url) -> String {
    let mut url = url.clone();
    let (user, password) = (url.set_username(""), url.set_password(None));
    if user.is_ok() && password.is_ok() { quoted(url.as_str()) } else { "the URL".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_means_what_a_browser_takes_it_for() {
        for (text, url) in [
            ("https://API.Example.COM", "https://api.example.com/"),
            ("https://api.example.com:443/a", "https://api.example.com/a"),
            ("https://api.example.com./a", "https://api.example.com/a"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://0177.0.0.1", "http://127.0.0.1/"),
            ("http://2130706433", "http://127.0.0.1/"),
            ("http://127.0.0.1.", "http://127.0.0.1/"),
            ("http://１２７.0.0.1", "http://127.0.0.1/"),
            ("http://[::FFFF:127.0.0.1]:8080", "http://[::ffff:7f00:1]:8080/"),
            ("https://bücher.example", "https://xn--bcher-kva.example/"),
            ("https://ＡＰＩ.example", "https://api.example/"),
            ("https:\\\\api.example.com\\@evil.example", "https://api.example.com/@evil.example"),
            ("https://api.example.com/a/../b/./c?d=1#e", "https://api.example.com/b/c?d=1"),
            ("https://api.example.com/v1/%2e%2E/admin", "https://api.example.com/admin"),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.to_string(), url, "{text}");
            assert_eq!(Target::parse(url).as_ref(), Ok(&target), "{url}");
        }
    }

    #[test]
    fn an_origin_has_a_port_only_if_it_is_not_the_schemes_own() {
        let origin = |text: &str| Origin::parse(text).map(|origin| origin.to_string());
        assert_eq!(origin("https://A.example:443/").as_deref(), Ok("https://a.example"));
        assert_eq!(origin("http://a.example:443").as_deref(), Ok("http://a.example:443"));
        assert_eq!(origin("https://[::1]:8443").as_deref(), Ok("https://[::1]:8443"));
        for more in ["https://a.example/v1", "https://a.example?x", "https://a.example#x"] {
            let error = origin(more).expect_err(more).to_string();
            assert_eq!(error, "an origin has no path, query or fragment; write `https://a.example`");
        }
    }

    #[test]
    fn what_is_no_target_is_told() {
        let long = format!("https://{}.example", "a".repeat(64));
        for (text, told) in [
            ("api.example.com/v1", "`api.example.com/v1` has no scheme; write `https://api.example.com/v1`"),
            ("api.example.com:8080", "`api.example.com:8080` has no scheme; write `https://api.example.com:8080`"),
            ("localhost:9000/a", "`localhost:9000/a` has no scheme; write `https://localhost:9000/a`"),
            ("ftp://a.example", "`ftp://a.example` has the scheme `ftp`; only `http` and `https` can be requested"),
            ("file:///etc/passwd", "`file:///etc/passwd` has the scheme `file`"),
            ("https://", "`https://` is not a URL (empty host)"),
            ("https://a.example:70000", "`https://a.example:70000` is not a URL (invalid port number)"),
            ("https://a.example:0", "`https://a.example:0` has the port 0; a port is 1 to 65535"),
            ("https://ada:secret@a.example", "`https://a.example/` names a user; leave it out"),
            ("https://a.example/a b", "`https://a.example/a b` holds white space or a control character"),
            ("https://a.example/a\nb", "`https://a.example/a\\nb` holds white space"),
            ("https://a..example", "`a..example` is not a host"),
            ("https://a.example..", "`a.example.` is not a host"),
            ("https://*.example", "`*.example` is not a host"),
            (&long, "`aaaa"),
            ("http://1.2.3.4.5", "`http://1.2.3.4.5` is not a URL (invalid IPv4 address)"),
            ("http://[::1%25eth0]", "`http://[::1%25eth0]` is not a URL (invalid IPv6 address)"),
        ] {
            let error = Target::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_location_is_read_from_where_it_was_answered() {
        let target = Target::parse("https://a.example/v1/x?y=1").expect("a target");
        let to = |location: &str| target.join(location).map(|target| target.to_string());
        assert_eq!(to("../z").as_deref(), Ok("https://a.example/z"));
        assert_eq!(to("//b.example").as_deref(), Ok("https://b.example/"));
        assert_eq!(to("http://2130706433/").as_deref(), Ok("http://127.0.0.1/"));
        assert!(matches!(to("data:text/plain,x"), Err(TargetProblem::Scheme(..))));
        assert!(matches!(to("//ada@b.example"), Err(TargetProblem::User(_))));
        assert!(matches!(to("/a\r\nb"), Err(TargetProblem::Character(_))));
    }
}
