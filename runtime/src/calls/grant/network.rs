//! Networks that an operator opens to tasks, besides public addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::host::{HostPattern, HostProblem};
use super::http::HttpGrant;
use crate::calls::message::quoted;

/// A network, and the hosts at whose name it may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    host: HostPattern,
    address: IpAddr,
    prefix: u8,
}

/// Why a text opens no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkProblem {
    /// It would be open to every name.
    #[error("`*` would let each public name point into the network; name the host, or write `*.internal`")]
    AnyHost,
    /// The host is malformed.
    #[error("the host of a network: {0}")]
    Host(#[from] HostProblem),
    /// It is not a network.
    #[error("`{0}` is not a network; write one like \"10.0.3.0/24\" or \"fd00::/8\", or an address")]
    Form(String),
    /// The prefix has too many bits.
    #[error("`{0}` has a prefix of {1} bits; an address has {2}")]
    Prefix(String, u16, u8),
    /// The address has bits behind the prefix.
    #[error("`{0}` has bits behind its prefix; write `{1}`")]
    Bits(String, String),
}

impl Network {
    /// Parses the host and the addresses of a network, as `api.internal` and `10.0.3.0/24`.
    pub(crate) fn parse(host: &str, addresses: &str) -> Result<Self, NetworkProblem> {
        let host = HostPattern::parse(host)?;
        if host == HostPattern::Any {
            return Err(NetworkProblem::AnyHost);
        }
        let (address, prefix) =
            addresses.split_once('/').map_or((addresses, None), |(start, prefix)| (start, Some(prefix)));
        let wrong = || NetworkProblem::Form(quoted(addresses));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = bits_of(address);
        let prefix: u16 = prefix.map_or(Ok(bits.into()), str::parse).map_err(|_| wrong())?;
        let Some(prefix) = u8::try_from(prefix).ok().filter(|prefix| *prefix <= bits) else {
            return Err(NetworkProblem::Prefix(quoted(addresses), prefix, bits));
        };
        let start = first(address, prefix);
        if start != address {
            return Err(NetworkProblem::Bits(quoted(addresses), format!("{start}/{prefix}")));
        }
        Ok(Self { host, address, prefix })
    }

    /// Returns `true` if the network opens an address to a host.
    fn opens(&self, host: &str, address: IpAddr) -> bool {
        let address = if self.address.is_ipv4() { address.to_canonical() } else { address };
        let is_inside = address.is_ipv4() == self.address.is_ipv4() && first(address, self.prefix) == self.address;
        is_inside && self.host.allows(host)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}/{}", self.host, self.address, self.prefix)
    }
}

/// The networks that are open to a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks(Vec<Network>);

impl Networks {
    /// Takes the networks of an operator.
    pub(crate) const fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Returns `true` if a host may be reached at an address that is not public.
    pub(crate) fn opens(&self, host: &str, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.opens(host, address))
    }

    /// Returns these networks, and this machine for each grant that names it.
    pub(super) fn with_loopback(&self, grants: &[HttpGrant]) -> Self {
        let named = grants.iter().filter_map(HttpGrant::host).flat_map(loopback);
        Self(self.0.iter().cloned().chain(named).collect())
    }
}

/// Returns the networks of this machine that a host names.
fn loopback(host: &str) -> Vec<Network> {
    let network = |address: IpAddr, prefix| Network { host: HostPattern::One(host.into()), address, prefix };
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), IpAddr::V6(Ipv6Addr::LOCALHOST));
    if host == "localhost" {
        return vec![network(v4, 8), network(v6, 128)];
    }
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = literal.parse().ok().filter(IpAddr::is_loopback);
    address.map(|address| network(address, bits_of(address))).into_iter().collect()
}

const fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Returns the first address of the network of an address.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(networks: &[(&str, &str)]) -> Networks {
        Networks::new(networks.iter().map(|(host, cidr)| Network::parse(host, cidr).expect("a network")).collect())
    }

    #[test]
    fn a_network_is_open_to_the_host_it_is_named_with() {
        let networks = open(&[("API.internal", "10.0.3.0/24"), ("*.lan", "fd00::/8"), ("10.0.0.7", "10.0.0.7")]);
        for (host, address, is_open) in [
            ("api.internal", "10.0.3.0", true),
            ("api.internal", "10.0.3.255", true),
            ("api.internal", "::ffff:10.0.3.9", true),
            ("api.internal", "10.0.4.0", false),
            ("other.internal", "10.0.3.9", false),
            ("x.api.internal", "10.0.3.9", false),
            ("a.lan", "fd12::1", true),
            ("a.lan", "fe00::1", false),
            ("lan", "fd12::1", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
        ] {
            assert_eq!(networks.opens(host, address.parse().expect("an address")), is_open, "{host} {address}");
        }
        assert!(open(&[("a", "0.0.0.0/0")]).opens("a", IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!open(&[("a", "0.0.0.0/0")]).opens("a", IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }

    #[test]
    fn what_opens_no_network_is_told() {
        for (host, addresses, told) in [
            ("*", "10.0.0.0/8", "`*` would let each public name point into the network"),
            (
                "a.*.lan",
                "10.0.0.0/8",
                "the host of a network: `*` stands for whole labels at the beginning of a name; write `*.lan`",
            ),
            ("a b", "10.0.0.0/8", "the host of a network: "),
            ("a", "10.0.3.7/24", "`10.0.3.7/24` has bits behind its prefix; write `10.0.3.0/24`"),
            ("a", "10.0.3.0/33", "`10.0.3.0/33` has a prefix of 33 bits; an address has 32"),
            ("a", "10.0.3", "`10.0.3` is not a network; write one like \"10.0.3.0/24\""),
            ("a", "", "`` is not a network"),
            ("a", "10.0.3.0/", "`10.0.3.0/` is not a network"),
        ] {
            let error = Network::parse(host, addresses).expect_err(addresses).to_string();
            assert!(error.starts_with(told), "{host} {addresses}: {error}");
        }
    }

    #[test]
    fn a_grant_that_names_this_machine_opens_it_to_that_name() {
        let grants: Vec<HttpGrant> = ["http://localhost:9000", "http://127.0.0.1", "https://*", "http://10.0.0.1"]
            .into_iter()
            .map(|text| HttpGrant::parse(text).expect("a grant"))
            .collect();
        let networks = Networks::default().with_loopback(&grants);
        for (host, address, is_open) in [
            ("localhost", "127.0.0.1", true),
            ("localhost", "::1", true),
            ("localhost", "10.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.2", "127.0.0.2", false),
            ("rebound.example", "127.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", false),
        ] {
            assert_eq!(networks.opens(host, address.parse().expect("an address")), is_open, "{host} {address}");
        }
    }
}
