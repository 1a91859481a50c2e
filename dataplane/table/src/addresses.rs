//! Which addresses no route may ever lead to, whoever names them: an `EndpointSlice`, which authors can write, or DNS.
//!
//! One judgement for both sides: the controller asks it of endpoints before they are pushed, the dataplane of each address that it is
//! about to connect to for a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses at which clouds hand out credentials, where they are not link-local: Alibaba Cloud's metadata, Azure's `WireServer`, Google
/// Cloud's metadata over IPv6.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The first segments of AWS's local services over IPv6: metadata (`::254`), and the credentials of EKS Pod Identity (`::23`).
const AWS: [u16; 2] = [0xfd00, 0xec2];

/// What to do with a backend at a loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// A cluster: it would be the dataplane's own pod.
    Refuse,
    /// Standalone: it is a backend on the same machine.
    Allow,
}

/// Whether an address is one that no route may lead to: loopback (unless allowed), link-local, unspecified, multicast, broadcast, or a
/// cloud's metadata. An IPv4 address in IPv6 clothes is judged as what it is ([`meant_by`]).
pub fn is_off_limits(address: IpAddr, loopback: Loopback) -> bool {
    let address = meant_by(address);
    if address.is_loopback() {
        return match loopback {
            Loopback::Allow => false,
            Loopback::Refuse => true,
        };
    }
    let special = match address {
        // All of 0.0.0.0/8 is "this host" (RFC 1122 §3.2.1.3), not only its first address.
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.segments()[..2] == AWS,
    };
    special || address.is_unspecified() || address.is_multicast() || METADATA.contains(&address)
}

/// The IPv4 address that an IPv6 address leads to: mapped and compatible ones (RFC 4291 §2.5.5), behind NAT64's well-known prefix
/// (RFC 6052 §2.1), and 6to4 (RFC 3056 §2); any other address is itself. A network's own NAT64 prefix cannot be known here.
pub fn meant_by(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if v6.is_unspecified() || v6.is_loopback() {
        return address;
    }
    match v6.octets() {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..] => Ipv4Addr::new(a, b, c, d).into(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: [bool; 2]) {
        let both = [Loopback::Refuse, Loopback::Allow];
        let off_limits = both.map(|loopback| is_off_limits(address.parse().unwrap(), loopback));
        assert_eq!(off_limits, expected, "{address}");
    }

    #[test]
    fn addresses_of_pods_and_machines_are_free() {
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "203.0.113.7",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "64:ff9b::203.0.113.7",
            "2002:cb00:7107::1",
            "fd00:ec3::254",
        ] {
            check(address, [false, false]);
        }
    }

    #[test]
    fn loopback_is_free_only_where_allowed() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
        ] {
            check(address, [true, false]);
        }
    }

    #[test]
    fn special_addresses_are_never_free() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
            "64:ff9b::169.254.169.254",
            "::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            check(address, [true, true]);
        }
    }
}
