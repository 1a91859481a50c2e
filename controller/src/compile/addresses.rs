//! Which endpoint addresses a route may lead to.
//!
//! In: an address as an `EndpointSlice` has it. Out: the address, or why no route may reach it: it would lead into the dataplane's own
//! pod, node or cloud, the operator denies it, or it is that of one of our own pods. Authors can write slices, so this is a border.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use route_table::BackendKey;

use super::{CompileConfig, LoopbackEndpoints};

/// Addresses at which clouds hand out credentials, where they are not link-local: Alibaba Cloud, AWS over IPv6.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Most refused addresses that a finding names.
const MAX_SHOWN: usize = 3;

/// What no route may reach.
#[derive(Debug)]
pub(super) struct OffLimits<'a> {
    config: &'a CompileConfig,
    /// Of our own pods, in canonical form.
    own: BTreeSet<IpAddr>,
}

/// Why a route may not lead to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// What it is, or what the operator says of it.
    Range,
    /// It is that of a pod of ours.
    Own,
}

/// The refused addresses of one backend, as they were written.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<Refusal, BTreeSet<String>>);

impl<'a> OffLimits<'a> {
    pub(super) fn new(config: &'a CompileConfig, own: BTreeSet<IpAddr>) -> Self {
        Self { config, own }
    }

    /// The address in `text`, if a route may lead to it. An IPv4 address in IPv6 clothes is judged as what it is.
    pub(super) fn judge(&self, text: &str) -> Result<IpAddr, Refusal> {
        let ip = text.parse::<IpAddr>().map_err(|_| Refusal::Range)?;
        if !is_permitted(ip.to_canonical(), self.config) {
            return Err(Refusal::Range);
        }
        if self.own.contains(&ip.to_canonical()) {
            return Err(Refusal::Own);
        }
        Ok(ip)
    }
}

fn is_permitted(ip: IpAddr, config: &CompileConfig) -> bool {
    if config
        .denied_backends
        .iter()
        .any(|range| range.contains(&ip))
    {
        return false;
    }
    if ip.is_loopback() {
        return match config.loopback_endpoints {
            LoopbackEndpoints::Allow => true,
            LoopbackEndpoints::Refuse => false,
        };
    }
    let special = match ip {
        // All of 0.0.0.0/8 is "this host" (RFC 1122 §3.2.1.3), not only its first address.
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(special || ip.is_unspecified() || ip.is_multicast() || METADATA.contains(&ip))
}

impl Refused {
    pub(super) fn add(&mut self, refusal: Refusal, text: &str) {
        let shown = match text.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => format!("{text:?}"),
        };
        self.0.entry(refusal).or_default().insert(shown);
    }

    /// A sentence for each reason.
    pub(super) fn describe(&self, key: &BackendKey) -> Vec<String> {
        let sentence = |(refusal, addresses): (&Refusal, &BTreeSet<String>)| {
            let shown = addresses.iter().take(MAX_SHOWN).cloned();
            let shown = shown.collect::<Vec<_>>();
            let more = match addresses.len() - shown.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let why = match refusal {
                Refusal::Range => {
                    "which no route may reach (loopback, link-local, unspecified, multicast, metadata, denied by the operator, or no IP address); remove them from its EndpointSlices"
                }
                Refusal::Own => {
                    "which are pods of ws-ingress itself, and no route may lead back there; refer to the Service of your own pods, or remove them from its EndpointSlices"
                }
            };
            format!(
                "Service {key} has the endpoint addresses {}{more}, {why}",
                shown.join(", ")
            )
        };
        self.0.iter().map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: [bool; 2]) {
        let both = [LoopbackEndpoints::Refuse, LoopbackEndpoints::Allow];
        let permitted = |loopback| {
            let config = config(loopback);
            OffLimits::new(&config, BTreeSet::new())
                .judge(address)
                .is_ok()
        };
        assert_eq!(both.map(permitted), expected, "{address}");
    }

    fn config(loopback_endpoints: LoopbackEndpoints) -> CompileConfig {
        let denied = ["10.96.0.0/12", "fd00:96::/112"];
        CompileConfig {
            class: String::new(),
            loopback_endpoints,
            denied_backends: denied.map(|range| range.parse().unwrap()).into(),
            own_services: Vec::new(),
        }
    }

    #[test]
    fn what_the_operator_denies_is_never_permitted() {
        for address in [
            "10.96.0.1",
            "10.111.255.255",
            "fd00:96::1",
            "::ffff:10.96.0.1",
        ] {
            check(address, [false, false]);
        }
        check("10.112.0.1", [true, true]);
    }

    #[test]
    fn our_own_pods_are_refused_in_every_spelling() {
        let config = config(LoopbackEndpoints::Refuse);
        let own = ["10.0.0.1", "fd00::1"].map(|address| address.parse().unwrap());
        let off_limits = OffLimits::new(&config, own.into());
        for address in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "fd00:0::0:1"] {
            assert_eq!(off_limits.judge(address), Err(Refusal::Own), "{address}");
        }
        for address in ["10.0.0.2", "fd00::2"] {
            assert!(off_limits.judge(address).is_ok(), "{address}");
        }
    }

    #[test]
    fn addresses_of_pods_and_machines_are_permitted() {
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "203.0.113.7",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
        ] {
            check(address, [true, true]);
        }
    }

    #[test]
    fn loopback_is_permitted_only_where_allowed() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check(address, [false, true]);
        }
    }

    #[test]
    fn special_addresses_are_never_permitted() {
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
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
        ] {
            check(address, [false, false]);
        }
    }
}
