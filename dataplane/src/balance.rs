//! Which endpoint takes a new socket.
//!
//! First a backend by weight, among those that have a ready endpoint: a split of 90 to 10 does not turn nine of ten clients away
//! while the first has none. Then, of two endpoints drawn at random, the one with fewer open sockets ("power of two choices"),
//! so that a new pod fills up and no crowd jumps on it. The counts live here, keyed by address, and survive table swaps.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use route_table::{Backend, ProxyProtocol, RouteTable, Rule, WeightedBackend};

/// Open sockets by endpoint address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loads {
    open: Arc<Mutex<HashMap<SocketAddr, usize>>>,
}

/// One socket's place at an endpoint; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    address: SocketAddr,
    proxy_protocol: Option<ProxyProtocol>,
    loads: Loads,
}

impl Place {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What each connection to it begins with.
    pub(crate) fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.proxy_protocol
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .loads
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

impl Loads {
    /// Takes a place at an endpoint of `rule`, or nothing if no backend with a weight has one that is ready.
    pub(crate) fn take(&self, table: &RouteTable, rule: &Rule) -> Option<Place> {
        let (weighted, backend) = choose_backend(table, rule)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let address = choose_endpoint(backend, |address| open.get(&address).copied().unwrap_or(0))?;
        *open.entry(address).or_insert(0) += 1;
        Some(Place {
            address,
            proxy_protocol: weighted.proxy_protocol,
            loads: self.clone(),
        })
    }
}

fn choose_backend<'a>(
    table: &'a RouteTable,
    rule: &'a Rule,
) -> Option<(&'a WeightedBackend, &'a Backend)> {
    let served = |weighted: &'a WeightedBackend| {
        let backend = table.backend(&weighted.backend)?;
        (weighted.weight > 0 && backend.ready().next().is_some())
            .then_some((u64::from(weighted.weight), (weighted, &**backend)))
    };
    let total = rule
        .backends
        .iter()
        .filter_map(served)
        .map(|(weight, _)| weight)
        .sum::<u64>();
    let mut drawn = if total > 0 {
        fastrand::u64(..total)
    } else {
        return None;
    };
    let mut backends = rule.backends.iter().filter_map(served);
    backends.find_map(|(weight, backend)| match drawn.checked_sub(weight) {
        Some(rest) => {
            drawn = rest;
            None
        }
        None => Some(backend),
    })
}

fn choose_endpoint(backend: &Backend, load: impl Fn(SocketAddr) -> usize) -> Option<SocketAddr> {
    let ready = backend.ready().count();
    let first = match ready {
        0 => return None,
        1 => return backend.ready().next(),
        _ => fastrand::usize(..ready),
    };
    // A second one, different from the first.
    let second = (first + fastrand::usize(1..ready)) % ready;
    let drawn = [first, second].map(|index| backend.ready().nth(index));
    drawn
        .into_iter()
        .flatten()
        .min_by_key(|address| load(*address))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use route_table::{BackendKey, Endpoint, EndpointState, NonUpgrade, Resources, Timeouts};

    use super::*;

    fn key(service: &str) -> BackendKey {
        BackendKey {
            namespace: "default".into(),
            service: service.into(),
            port: 80.try_into().unwrap(),
        }
    }

    fn table(backends: &[(&str, &[(&str, EndpointState)])]) -> RouteTable {
        let mut resources = Resources::default();
        for (service, endpoints) in backends {
            let endpoint = |(address, state): &(&str, EndpointState)| Endpoint {
                address: address.parse().unwrap(),
                state: *state,
            };
            let endpoints = endpoints.iter().map(endpoint).collect();
            resources
                .backends
                .insert(key(service), Arc::new(Backend { endpoints }));
        }
        RouteTable::build(&resources, &RouteTable::empty()).0
    }

    fn rule(backends: &[(&str, u32)]) -> Rule {
        let second = Duration::from_secs(1);
        Rule {
            name: "0".into(),
            matches: Vec::new(),
            non_upgrade: NonUpgrade::Reject,
            origins: route_table::OriginPolicy::default(),
            filters: Arc::default(),
            backends: backends
                .iter()
                .map(|(service, weight)| WeightedBackend {
                    backend: key(service),
                    weight: *weight,
                    proxy_protocol: None,
                })
                .collect(),
            timeouts: Timeouts {
                connect: second,
                handshake: second,
                read: second,
                send: second,
            },
        }
    }

    const READY: EndpointState = EndpointState::Ready;

    #[test]
    fn sockets_spread_evenly_over_two_endpoints() {
        let table = table(&[("a", &[("10.0.0.1:80", READY), ("10.0.0.2:80", READY)])]);
        let loads = Loads::default();
        let places = (0..100)
            .map(|_| loads.take(&table, &rule(&[("a", 1)])).unwrap())
            .collect::<Vec<_>>();
        let on_first = places
            .iter()
            .filter(|place| place.address() == "10.0.0.1:80".parse().unwrap())
            .count();
        assert_eq!(on_first, 50);
        drop(places);
        assert!(loads.open.lock().unwrap().is_empty());
    }

    #[test]
    fn terminating_endpoints_and_weight_zero_take_no_new_socket() {
        let table = table(&[
            ("a", &[("10.0.0.1:80", EndpointState::Terminating)]),
            ("b", &[("10.0.0.2:80", READY)]),
            ("c", &[("10.0.0.3:80", READY)]),
        ]);
        let loads = Loads::default();
        for _ in 0..50 {
            let place = loads
                .take(
                    &table,
                    &rule(&[("a", 100), ("b", 1), ("c", 0), ("absent", 100)]),
                )
                .unwrap();
            assert_eq!(place.address(), "10.0.0.2:80".parse().unwrap());
        }
        assert!(loads.take(&table, &rule(&[("a", 1), ("c", 0)])).is_none());
        assert!(loads.take(&table, &rule(&[])).is_none());
    }

    #[test]
    fn weights_are_shares() {
        fastrand::seed(7);
        let table = table(&[
            ("a", &[("10.0.0.1:80", READY)]),
            ("b", &[("10.0.0.2:80", READY)]),
        ]);
        let loads = Loads::default();
        let to_b = (0..10_000).filter(|_| {
            loads
                .take(&table, &rule(&[("a", 90), ("b", 10)]))
                .unwrap()
                .address()
                == "10.0.0.2:80".parse().unwrap()
        });
        let to_b = to_b.count();
        assert!(
            (800..1200).contains(&to_b),
            "{to_b} of 10000 went to the backend with a tenth of the weight"
        );
    }
}
