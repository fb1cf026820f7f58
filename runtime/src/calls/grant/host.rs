//! Patterns of hosts.

use std::fmt;

use crate::calls::http::target::{Target, TargetProblem};

/// The hosts that a grant or a network is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostPattern {
    /// Every host.
    Any,
    /// One host, as it is sent.
    One(Box<str>),
    /// The hosts that end with a dot and this name, with one or more labels before it.
    Below(Box<str>),
}

/// Why a text is no pattern of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostProblem {
    /// The wildcard stands for the end of a name, or for a part of it.
    #[error("`*` stands for the first labels of a name, and none follow; name the host")]
    WildcardEnd,
    /// The wildcard stands within a name.
    #[error("`*` stands for whole labels at the beginning of a name; write `{0}`")]
    Wildcard(String),
    /// An address has no labels.
    #[error("`{0}` is an address, and no name ends with one; name each address")]
    Address(Box<str>),
    /// The host is malformed.
    #[error(transparent)]
    Target(#[from] TargetProblem),
}

impl HostPattern {
    /// Parses `*`, a host, or `*.` and a name.
    pub(super) fn parse(text: &str) -> Result<Self, HostProblem> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some(name) = text.strip_prefix("*.").filter(|name| !name.contains('*')) else {
            let Some((before, after)) = text.rsplit_once('*') else { return Ok(Self::One(host(text)?.host().into())) };
            let is_first = before.is_empty() || before.ends_with('.');
            let name = if is_first { after } else { after.split_once('.').map_or("", |(_, name)| name) };
            let name = name.trim_start_matches('.');
            let named = host(name).map_err(|_| HostProblem::WildcardEnd)?;
            return Err(HostProblem::Wildcard(format!("*.{}", named.host())));
        };
        let name = host(name)?;
        match name.address() {
            Some(_) => Err(HostProblem::Address(name.host().into())),
            None => Ok(Self::Below(name.host().into())),
        }
    }

    /// Returns `true` if a host is one of these. It is compared as it is sent.
    pub(super) fn allows(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(own) => **own == *host,
            Self::Below(name) => is_below(host, name),
        }
    }

    /// Returns `true` if the pattern allows all that the other one allows.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) | (Self::One(_), Self::Below(_)) => false,
            (_, Self::One(host)) => self.allows(host),
            (Self::Below(name), Self::Below(other)) => name == other || is_below(other, name),
        }
    }
}

fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name).and_then(|labels| labels.strip_suffix('.')).is_some_and(|labels| !labels.is_empty())
}

/// Returns a URL with this host.
fn host(text: &str) -> Result<Target, TargetProblem> {
    Target::parse(&format!("http://{text}"))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("*"),
            Self::One(host) => formatter.write_str(host),
            Self::Below(name) => write!(formatter, "*.{name}"),
        }
    }
}
