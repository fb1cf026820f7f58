//! Grants of HTTP requests, as in `https://*.example.org:8443` or `http://api.internal:9000/v1`.

use std::fmt;

use super::host::{HostPattern, HostProblem};
use super::path::{self, Path};
use crate::calls::http::target::{Origin, Scheme, Target, TargetProblem};
use crate::calls::message::quoted;
use crate::name::nearest;

/// The targets of HTTP requests that a stage may make, or that an operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpGrant {
    scheme: Scheme,
    host: HostPattern,
    /// `None`: every port. Only `https://*` and `http://*` have every port.
    port: Option<u16>,
    path: Path,
}

/// Why a text grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantProblem {
    /// It is `*`.
    #[error("`*` alone would be everything; write `https://*` for all hosts with TLS")]
    Everything,
    /// It has no scheme.
    #[error("`{0}` has no scheme; write `{1}`")]
    NoScheme(String, String),
    /// Its scheme is not granted.
    #[error("`{0}` has the scheme `{1}`; {2}")]
    Scheme(String, String, String),
    /// It has no host.
    #[error("`{0}` has no host; write one, as in `{1}://api.example.com`, or `{1}://*` for all hosts")]
    NoHost(String, &'static str),
    /// Its host is malformed.
    #[error("`{0}`: {1}")]
    Host(String, #[source] HostProblem),
    /// It is not a URL.
    #[error(transparent)]
    Target(#[from] TargetProblem),
    /// It names a user.
    #[error("a grant names no user; leave out what stands before `@`, and grant a password as one of the `secrets`")]
    User,
    /// Its port is not a number.
    #[error("`{0}` has the port `{1}`; write a number from 1 to 65535, or none for the scheme's own")]
    Port(String, String),
    /// It has a wildcard in its path.
    #[error("`{0}`: a path covers all below it, and `*` stands for hosts only; write `{1}`")]
    PathWildcard(String, String),
    /// It has a query or a fragment.
    #[error("`{0}`: a grant ends with its path, and covers each query; write `{1}`")]
    Query(String, String),
    /// A backslash is a slash for some.
    #[error("`{0}` has a `\\`; write `/`")]
    Backslash(String),
    /// Its path may mean another one to a server.
    #[error("`{0}` has a path that a server may read as another one: {1}; write a path without")]
    Path(String, &'static str),
    /// Its path has an empty segment.
    #[error("`{0}` has two slashes in a row in its path; write one")]
    EmptySegment(String),
}

impl HttpGrant {
    /// Parses a grant.
    pub(crate) fn parse(text: &str) -> Result<Self, GrantProblem> {
        if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return Err(TargetProblem::Character(quoted(text)).into());
        }
        let (scheme, rest) = split_scheme(text)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(GrantProblem::User);
        }
        if text.contains('\\') {
            return Err(GrantProblem::Backslash(quoted(text)));
        }
        let (host, port) = split_port(authority);
        if host.is_empty() {
            return Err(GrantProblem::NoHost(quoted(text), scheme.name()));
        }
        let port =
            port.map(|port| number(port).ok_or_else(|| GrantProblem::Port(quoted(text), quoted(port)))).transpose()?;
        let host = HostPattern::parse(host).map_err(|problem| of_host(text, scheme, problem))?;
        let port = port.or_else(|| (host != HostPattern::Any).then_some(scheme.port()));
        Ok(Self { scheme, host, port, path: read_path(text, path)? })
    }

    /// Returns `true` if a request may go to a target.
    pub(crate) fn allows(&self, target: &Target) -> bool {
        self.allows_origin(target.origin()) && self.path.allows(target.path())
    }

    /// Returns `true` if requests to some paths of an origin may be made.
    pub(crate) fn allows_origin(&self, origin: &Origin) -> bool {
        let has_port = self.port.is_none_or(|port| port == origin.port);
        self.scheme == origin.scheme && has_port && self.host.allows(&origin.host)
    }

    /// Returns `true` if the grant allows all that the other one allows.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let covers_port = self.port.is_none_or(|port| other.port == Some(port));
        self.scheme == other.scheme && covers_port && self.host.covers(&other.host) && self.path.covers(&other.path)
    }

    /// Returns the host if the grant names one.
    pub(super) fn host(&self) -> Option<&str> {
        if let HostPattern::One(host) = &self.host { Some(host) } else { None }
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme.name(), self.host)?;
        let own = (self.host != HostPattern::Any).then_some(self.scheme.port());
        if let Some(port) = self.port.filter(|port| Some(*port) != own) {
            write!(formatter, ":{port}")?;
        }
        self.path.fmt(formatter)
    }
}

/// Returns the scheme and what follows `://`.
fn split_scheme(text: &str) -> Result<(Scheme, &str), GrantProblem> {
    if text == "*" {
        return Err(GrantProblem::Everything);
    }
    let Some((name, rest)) = text.split_once("://") else {
        return Err(GrantProblem::NoScheme(quoted(text), with_scheme(text)));
    };
    if let Some(scheme) = Scheme::of(name) {
        return Ok((scheme, rest));
    }
    let hint = match nearest(name, [Scheme::Http, Scheme::Https].map(Scheme::name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "only `http` and `https` are granted".to_owned(),
    };
    Err(GrantProblem::Scheme(quoted(text), quoted(name), hint))
}

/// Returns the grant that a text without `://` was probably meant to be.
fn with_scheme(text: &str) -> String {
    let (scheme, rest) = match text.split_once(':').map(|(name, rest)| (Scheme::of(name), rest)) {
        Some((Some(scheme), rest)) => (scheme, rest),
        _ => (Scheme::Https, text),
    };
    let rest = rest.trim_start_matches('/');
    let host = if rest.is_empty() { "api.example.com" } else { rest };
    format!("{}://{}", scheme.name(), quoted(host))
}

/// Returns the host and what follows its colon.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let in_brackets = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[in_brackets..].rfind(':') {
        Some(colon) => (&authority[..in_brackets + colon], Some(&authority[in_brackets + colon + 1..])),
        None => (authority, None),
    }
}

/// Returns a port.
fn number(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

fn of_host(text: &str, scheme: Scheme, problem: HostProblem) -> GrantProblem {
    match problem {
        HostProblem::Wildcard(host) => {
            GrantProblem::Host(quoted(text), HostProblem::Wildcard(format!("{}://{host}", scheme.name())))
        }
        HostProblem::Target(TargetProblem::Form(_, error)) => TargetProblem::Form(quoted(text), error).into(),
        problem => GrantProblem::Host(quoted(text), problem),
    }
}

/// Reads the path of a grant.
fn read_path(text: &str, written: &str) -> Result<Path, GrantProblem> {
    let head = &text[..text.len() - written.len()];
    let end = written.find(['?', '#']).unwrap_or(written.len());
    if end < written.len() {
        return Err(GrantProblem::Query(quoted(text), quoted(&format!("{head}{}", &written[..end]))));
    }
    if let Some(star) = written.find('*') {
        let above = written[..star].rfind('/').unwrap_or(0);
        return Err(GrantProblem::PathWildcard(quoted(text), quoted(&format!("{head}{}", &written[..above]))));
    }
    // A URL resolves encoded dots, and nobody would see that in the grant.
    if written.to_ascii_lowercase().contains("%2e") {
        return Err(GrantProblem::Path(quoted(text), "it has an encoded `.`"));
    }
    let target = Target::parse(&format!("https://host{written}"))?;
    if let Some(problem) = path::ambiguity(target.path()) {
        return Err(GrantProblem::Path(quoted(text), problem));
    }
    if target.path().contains("//") {
        return Err(GrantProblem::EmptySegment(quoted(text)));
    }
    Ok(Path::of(target.path()))
}

#[cfg(test)]
mod tests;
