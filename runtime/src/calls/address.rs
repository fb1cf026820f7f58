//! Which addresses of the internet are public.
//!
//! A task reaches public addresses only: all others belong to this machine, its network, or nobody. What is not known to be public
//! is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 networks that are not public (RFC 6890 and its registry), with the length of their prefix.
const PRIVATE_V4: [(Ipv4Addr, u32); 16] = [
    // This network and, by some systems, this host.
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Between customers and the translators of their carriers.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // A platform service that machines of one cloud reach at a public address.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    // Link-local, where clouds have the metadata of machines.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    // Relays of 6to4: what is sent there goes to an address inside of the packet.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Benchmarks.
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    // Documentation, as 192.0.2.0 and 203.0.113.0.
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved, and broadcast.
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// IPv6 networks within `2000::/3` that are not public, with the length of their prefix.
const PRIVATE_V6: [(Ipv6Addr, u32); 3] = [
    // Protocols: benchmarks, ORCHID, and others. Teredo, which is one, is judged before.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Returns `true` if an address is public. An IPv6 address that embeds IPv4 is public if what it embeds is.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    !PRIVATE_V4.iter().any(|(network, len)| (bits ^ network.to_bits()).checked_shr(32 - len) == Some(0))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = embedded(address);
    if !embedded.is_empty() {
        return embedded.into_iter().all(is_public_v4);
    }
    let bits = address.to_bits();
    let is_in = |network: Ipv6Addr, len: u32| (bits ^ network.to_bits()).checked_shr(128 - len) == Some(0);
    is_in(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)
        && !PRIVATE_V6.iter().any(|(network, len)| is_in(*network, *len))
}

/// Returns the IPv4 addresses that an IPv6 address may lead to. Empty if it embeds none.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bytes = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| bytes[place]));
    let last = at([12, 13, 14, 15]);
    match address.segments() {
        // Compatible and mapped. The loopback and unspecified addresses look compatible, and are 0.0.0.1 and 0.0.0.0 then.
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => vec![last],
        [0x64, 0xff9b, 1, ..] => translated(bytes),
        [0x2002, ..] => [at([2, 3, 4, 5])].into_iter().chain(tunneled(address)).collect(),
        // Teredo: the server, and the client with each bit turned.
        [0x2001, 0, ..] => vec![at([4, 5, 6, 7]), Ipv4Addr::from_bits(!last.to_bits())],
        _ => tunneled(address).into_iter().collect(),
    }
}

/// Returns the IPv4 address of a tunnel within a site (ISATAP). `None` if it is none.
fn tunneled(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., flags, 0x5efe, high, low] = address.segments() else { return None };
    matches!(flags, 0 | 0x200).then(|| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

/// Returns what an address of the network for local translators (RFC 8215) may embed. That depends on the length of a translator's
/// prefix (RFC 6052), which is not known here: each length counts that the zeros after the IPv4 address allow.
fn translated(bytes: [u8; 16]) -> Vec<Ipv4Addr> {
    const PLACES: [[usize; 4]; 4] = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
    PLACES
        .into_iter()
        .filter(|places| bytes[places[3] + 1..].iter().all(|byte| *byte == 0))
        .map(|places| Ipv4Addr::from(places.map(|place| bytes[place])))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[&str], expected: bool) {
        for text in addresses {
            assert_eq!(is_public(text.parse().expect(text)), expected, "{text}");
        }
    }

    #[test]
    fn addresses_of_machines_and_their_networks_are_not_public() {
        check(
            &[
                "0.0.0.0",
                "0.255.255.255",
                "10.0.0.1",
                "10.255.255.255",
                "100.64.0.1",
                "100.127.255.255",
                "100.100.100.200",
                "127.0.0.1",
                "127.255.255.255",
                "168.63.129.16",
                "169.254.169.254",
                "172.16.0.1",
                "172.31.255.255",
                "192.0.0.1",
                "192.0.0.192",
                "192.0.2.1",
                "192.88.99.1",
                "192.168.0.1",
                "198.18.0.1",
                "198.19.255.255",
                "198.51.100.1",
                "203.0.113.1",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.255",
            ],
            false,
        );
        check(
            &[
                "::",
                "::1",
                "fc00::1",
                "fd00:ec2::254",
                "fd20:ce::254",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "ff02::1",
                "ff0e::1",
                "100::1",
                "100:0:0:1::1",
                "2001:db8::1",
                "2001:2::1",
                "2001:10::1",
                "2001:20::1",
                "2001:1ff::1",
                "3fff::1",
                "5f00::1",
                "1::1",
                "4000::1",
                "::ffff:0:8.8.8.8",
            ],
            false,
        );
    }

    #[test]
    fn all_other_addresses_are_public() {
        check(
            &[
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "168.63.129.15",
                "168.63.129.17",
                "169.253.255.255",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
            ],
            true,
        );
        check(
            &["2606:4700:4700::1111", "2001:4860:4860::8888", "2a00::1", "2001:200::1", "2001:db7::1", "3ffe::1"],
            true,
        );
    }

    #[test]
    fn an_embedded_address_decides() {
        for (public, private) in [
            ("::ffff:8.8.8.8", "::ffff:10.0.0.1"),
            ("::ffff:1.1.1.1", "::ffff:169.254.169.254"),
            ("::8.8.8.8", "::127.0.0.1"),
            ("2002:808:808::1", "2002:a00:1::1"),
            ("2002:808:808::1", "2002:7f00:1::"),
            ("64:ff9b::8.8.8.8", "64:ff9b::192.168.0.1"),
            ("64:ff9b:1::8.8.8.8", "64:ff9b:1::10.0.0.1"),
            // 8.8.8.8 and 10.0.0.1 after a prefix of 64 bits.
            ("64:ff9b:1:0:8:808:800:0", "64:ff9b:1:0:a:0:100:0"),
            // The server 8.8.8.8, and the clients 8.8.8.8 and 10.0.0.1.
            ("2001:0:808:808::f7f7:f7f7", "2001:0:808:808::f5ff:fffe"),
            // The server 10.0.0.1.
            ("2001:0:808:808::f7f7:f7f7", "2001:0:a00:1::f7f7:f7f7"),
            // Within a site.
            ("2a00::5efe:8.8.8.8", "2a00::5efe:10.0.0.1"),
            ("2a00::200:5efe:8.8.8.8", "2a00::200:5efe:127.0.0.1"),
            ("2002:808:808:0:0:5efe:8.8.8.8", "2002:808:808:0:0:5efe:10.0.0.1"),
        ] {
            check(&[public], true);
            check(&[private], false);
        }
    }
}
