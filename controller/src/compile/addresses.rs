//! Which endpoint addresses a route may lead to.
//!
//! In: an address as an `EndpointSlice` has it. Out: the address, or why no route may reach it: it would lead into the dataplane's own
//! pod, node or cloud, the operator denies it, or it is that of one of our own pods. Authors can write slices, so this is a border.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use route_table::{BackendKey, is_off_limits, meant_by};

use super::CompileConfig;

/// Most refused addresses that a finding names.
const MAX_SHOWN: usize = 3;

/// What no route may reach.
#[derive(Debug)]
pub(super) struct OffLimits<'a> {
    config: &'a CompileConfig,
    /// Of our own pods and Services, in canonical form.
    own: BTreeSet<IpAddr>,
}

/// Why a route may not lead to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// What it is, or what the operator says of it.
    Range,
    /// It is that of a pod or a Service of ours.
    Own,
}

/// The refused addresses of one backend, as they were written.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<Refusal, BTreeSet<String>>);

impl<'a> OffLimits<'a> {
    pub(super) fn new(config: &'a CompileConfig, own: BTreeSet<IpAddr>) -> Self {
        Self { config, own }
    }

    /// The addresses of our own pods and Services.
    pub(super) fn own(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.own.iter().copied()
    }

    /// The address in `text`, if a route may lead to it, as it is written and as what it leads to.
    pub(super) fn judge(&self, text: &str) -> Result<IpAddr, Refusal> {
        let ip = text.parse::<IpAddr>().map_err(|_| Refusal::Range)?;
        let forms = [ip, meant_by(ip)];
        let denied = |range: &IpNet| forms.iter().any(|form| range.contains(form));
        if self.config.denied_backends.iter().any(denied)
            || is_off_limits(ip, self.config.loopback_endpoints)
        {
            return Err(Refusal::Range);
        }
        if forms.iter().any(|form| self.own.contains(form)) {
            return Err(Refusal::Own);
        }
        Ok(ip)
    }
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
                    "which are pods or Services of ws-ingress itself, and no route may lead back there; refer to the Service of your own pods, or remove them from its EndpointSlices"
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
    use route_table::Loopback;

    use super::*;

    #[track_caller]
    fn check(address: &str, expected: [bool; 2]) {
        let both = [Loopback::Refuse, Loopback::Allow];
        let permitted = |loopback| {
            let config = config(loopback);
            OffLimits::new(&config, BTreeSet::new())
                .judge(address)
                .is_ok()
        };
        assert_eq!(both.map(permitted), expected, "{address}");
    }

    fn config(loopback_endpoints: Loopback) -> CompileConfig {
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
            "64:ff9b::10.96.0.1",
            "2002:a60:1::1",
        ] {
            check(address, [false, false]);
        }
        check("10.112.0.1", [true, true]);
    }

    #[test]
    fn our_own_pods_are_refused_in_every_spelling() {
        let config = config(Loopback::Refuse);
        let own = ["10.0.0.1", "fd00::1"].map(|address| address.parse().unwrap());
        let off_limits = OffLimits::new(&config, own.into());
        for address in [
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "fd00::1",
            "fd00:0::0:1",
        ] {
            assert_eq!(off_limits.judge(address), Err(Refusal::Own), "{address}");
        }
        for address in ["10.0.0.2", "fd00::2"] {
            assert!(off_limits.judge(address).is_ok(), "{address}");
        }
    }

    #[test]
    fn loopback_is_permitted_only_where_allowed() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check(address, [false, true]);
        }
    }

    /// The whole list is `route_table::is_off_limits`'s.
    #[test]
    fn special_addresses_are_never_permitted() {
        for address in ["0.0.0.0", "169.254.169.254", "fe80::1", "not-an-address"] {
            check(address, [false, false]);
        }
    }
}
