//! Which endpoint takes a new socket.
//!
//! First a backend by weight, among those that have a ready endpoint: a split of 90 to 10 does not turn nine of ten clients away
//! while the first has none. Then, of two endpoints drawn at random, the one with fewer open sockets ("power of two choices"),
//! so that a new pod fills up and no crowd jumps on it. The counts live here, keyed by address, and survive table swaps.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use route_table::{Backend, Destination, External, ProxyProtocol, RouteTable, Rule};

use crate::names::Names;
use crate::proxy_protocol::{Ends, Preface};

/// Open sockets by endpoint address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loads {
    open: Arc<Mutex<HashMap<SocketAddr, usize>>>,
}

/// One socket's place at an endpoint; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    address: SocketAddr,
    loads: Loads,
}

impl Place {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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
    pub(crate) fn take(
        &self,
        table: &RouteTable,
        rule: &Rule,
        names: &Names,
        ends: Ends,
    ) -> Option<Chosen> {
        let (proxy_protocol, candidate) = choose_backend(table, rule, names)?;
        let (endpoints, external) = match candidate {
            Candidate::Service(backend) => (Endpoints::Service(backend.clone()), None),
            Candidate::External(external, addresses) => {
                (Endpoints::External(addresses), Some(external.clone()))
            }
        };
        let place = self.place(&endpoints, &[])?;
        let preface = proxy_protocol.map(|version| Preface::new(version, ends));
        Some(Chosen {
            place,
            endpoints,
            left: Vec::new(),
            external,
            preface,
        })
    }

    /// A place at one of these endpoints that is not among `left`.
    fn place(&self, endpoints: &Endpoints, left: &[SocketAddr]) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let load = |address| open.get(&address).copied().unwrap_or(0);
        let stays = |address: &SocketAddr| !left.contains(address);
        let address = match endpoints {
            Endpoints::Service(backend) => choose_endpoint(|| backend.ready().filter(stays), load),
            Endpoints::External(addresses) => {
                choose_endpoint(|| addresses.iter().copied().filter(stays), load)
            }
        }?;
        *open.entry(address).or_insert(0) += 1;
        Some(Place {
            address,
            loads: self.clone(),
        })
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) place: Place,
    /// All that could have been chosen.
    endpoints: Endpoints,
    /// Those that were left for another.
    left: Vec<SocketAddr>,
    /// What the address was looked up for; nothing behind a Service.
    pub(crate) external: Option<Arc<External>>,
    /// The PROXY header that a connection begins with, if its backend wants one.
    pub(crate) preface: Option<Preface>,
}

impl Chosen {
    /// Chooses another endpoint of the same backend, one that was not chosen before; whether there is one.
    pub(crate) fn go_elsewhere(&mut self) -> bool {
        self.left.push(self.place.address);
        let another = self.place.loads.place(&self.endpoints, &self.left);
        // Dropped, the old place is free again.
        another.map(|place| self.place = place).is_some()
    }
}

/// The endpoints of a backend.
#[derive(Debug)]
enum Endpoints {
    Service(Arc<Backend>),
    External(Vec<SocketAddr>),
}

/// A backend that has an endpoint.
enum Candidate<'a> {
    Service(&'a Arc<Backend>),
    External(&'a Arc<External>, Vec<SocketAddr>),
}

/// A backend, and what each connection to it begins with.
fn choose_backend<'a>(
    table: &'a RouteTable,
    rule: &Rule,
    names: &Names,
) -> Option<(Option<ProxyProtocol>, Candidate<'a>)> {
    let served = |weighted: &route_table::WeightedBackend| {
        let candidate = match &weighted.backend {
            _ if weighted.weight == 0 => return None,
            Destination::Service(key) => {
                let backend = table.backend(key)?;
                backend.ready().next()?;
                Candidate::Service(backend)
            }
            Destination::External(key) => {
                let external = table.external(key)?;
                let addresses = names.endpoints(external);
                addresses.first()?;
                Candidate::External(external, addresses)
            }
        };
        Some((
            u64::from(weighted.weight),
            (weighted.proxy_protocol, candidate),
        ))
    };
    let served = rule.backends.iter().filter_map(served).collect::<Vec<_>>();
    let total = served.iter().map(|(weight, _)| weight).sum::<u64>();
    let mut drawn = if total > 0 {
        fastrand::u64(..total)
    } else {
        return None;
    };
    served
        .into_iter()
        .find_map(|(weight, candidate)| match drawn.checked_sub(weight) {
            Some(rest) => {
                drawn = rest;
                None
            }
            None => Some(candidate),
        })
}

fn choose_endpoint<I: Iterator<Item = SocketAddr>>(
    endpoints: impl Fn() -> I,
    load: impl Fn(SocketAddr) -> usize,
) -> Option<SocketAddr> {
    let ready = endpoints().count();
    let first = match ready {
        0 => return None,
        1 => return endpoints().next(),
        _ => fastrand::usize(..ready),
    };
    // A second one, different from the first.
    let second = (first + fastrand::usize(1..ready)) % ready;
    let drawn = [first, second].map(|index| endpoints().nth(index));
    drawn
        .into_iter()
        .flatten()
        .min_by_key(|address| load(*address))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use route_table::{
        BackendKey, Endpoint, EndpointState, Loopback, NonUpgrade, Resources, Timeouts,
        WeightedBackend,
    };

    use super::*;
    use crate::metrics::Metrics;

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
                    backend: key(service).into(),
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

    fn take(loads: &Loads, table: &RouteTable, backends: &[(&str, u32)]) -> Option<Place> {
        let ends = Ends {
            source: ([192, 0, 2, 1], 1).into(),
            destination: ([192, 0, 2, 2], 443).into(),
        };
        let names = Names::new(None, Loopback::Refuse, Arc::new(Metrics::new()));
        let chosen = loads.take(table, &rule(backends), &names, ends);
        chosen.map(|chosen| chosen.place)
    }

    const READY: EndpointState = EndpointState::Ready;

    #[test]
    fn sockets_spread_evenly_over_two_endpoints() {
        let table = table(&[("a", &[("10.0.0.1:80", READY), ("10.0.0.2:80", READY)])]);
        let loads = Loads::default();
        let places = (0..100)
            .map(|_| take(&loads, &table, &[("a", 1)]).unwrap())
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
            let backends = [("a", 100), ("b", 1), ("c", 0), ("absent", 100)];
            let place = take(&loads, &table, &backends).unwrap();
            assert_eq!(place.address(), "10.0.0.2:80".parse().unwrap());
        }
        assert!(take(&loads, &table, &[("a", 1), ("c", 0)]).is_none());
        assert!(take(&loads, &table, &[]).is_none());
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
            take(&loads, &table, &[("a", 90), ("b", 10)])
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
