//! What must hold for any table: `lookup` answers what a plain scan over the resources answers, unchanged parts keep their `Arc`, and
//! a rejected resource keeps its last form.
//!
//! The scan shares no code with the index: it goes over every rule of every route and compares texts. Names and paths are few, so
//! that rules collide; the tests count that they did.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy recognises only inside #[test] functions"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use route_table::{
    Authorities, Backend, BackendKey, CertificateKey, CertificateResource, Endpoint, EndpointState,
    External, ExternalKey, ExternalTls, HostPattern, HostTls, Hostname, Invalid, MAX_ENDPOINTS,
    NonUpgrade, OnPlain, PathMatch, PrivateKey, Rejected, RequestParts, ResourceKey, Resources,
    Route, RouteHostname, RouteKey, RouteMatch, RouteTable, Rule, Timeouts, WeightedBackend,
};

const HOSTNAMES: [&str; 5] = [
    "a.example.com",
    "b.a.example.com",
    "*.example.com",
    "*.a.example.com",
    "*.com",
];
const REQUEST_HOSTS: [&str; 7] = [
    "a.example.com",
    "b.a.example.com",
    "c.b.a.example.com",
    "x.example.com",
    "example.com",
    "com",
    "xa.example.com",
];
const PATHS: [&str; 7] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/a%20b"];
const REQUEST_PATHS: [&str; 12] = [
    "/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c/d", "/ab", "/ab/c", "/a%20b", "//", "//a", "/x",
];

#[test]
fn lookup_equals_a_plain_scan() {
    let [matched, contested] = [Cell::new(0), Cell::new(0)];
    run(resources(), |resources| {
        let (table, rejected) = RouteTable::build(&resources, &RouteTable::empty());
        prop_assert_eq!(rejected, []);
        for host in REQUEST_HOSTS {
            for path in REQUEST_PATHS {
                let (expected, candidates) = scan(&resources, host, path);
                let found = table
                    .host(&Hostname::parse(host).unwrap())
                    .and_then(|host| host.find(&RequestParts::of_path(path)))
                    .map(|matched| (matched.key.clone(), matched.rule.clone()));
                matched.set(matched.get() + u32::from(found.is_some()));
                contested.set(contested.get() + u32::from(candidates > 1));
                prop_assert_eq!(found, expected, "{}{}", host, path);
            }
        }
        Ok(())
    });
    assert!(matched.get() > 1000 && contested.get() > 1000);
}

/// The best of all rules that take a request, and how many do.
fn scan(resources: &Resources, host: &str, path: &str) -> (Option<(RouteKey, Rule)>, usize) {
    let hosts = resources.routes.values().flat_map(|route| &route.hostnames);
    let covering = hosts
        .map(|hostname| hostname.pattern.to_string())
        .filter(|pattern| covers(pattern, host));
    // An exact name before a wildcard, a longer wildcard before a shorter; that host decides alone.
    let Some(best) = covering.max_by_key(|pattern| (!pattern.starts_with('*'), pattern.len()))
    else {
        return (None, 0);
    };
    let mut candidates = Vec::new();
    for (key, route) in &resources.routes {
        if !route
            .hostnames
            .iter()
            .any(|hostname| hostname.pattern.to_string() == best)
        {
            continue;
        }
        for (index, rule) in route.rules.iter().enumerate() {
            for value in &rule.matches {
                let rank = match &value.path {
                    PathMatch::Exact(value) if **value == *path => (0, 0),
                    PathMatch::Prefix(value) if is_below(value, path) => {
                        (1, usize::MAX - value.len())
                    }
                    PathMatch::Exact(_) | PathMatch::Prefix(_) => continue,
                };
                let age = route.created.unwrap_or(i64::MAX);
                candidates.push((rank, age, key.clone(), index, rule.clone()));
            }
        }
    }
    let count = candidates.len();
    let best = candidates
        .into_iter()
        .min_by(|a, b| (&a.0, &a.1, &a.2, &a.3).cmp(&(&b.0, &b.1, &b.2, &b.3)));
    (best.map(|(_, _, key, _, rule)| (key, rule)), count)
}

fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

fn is_below(prefix: &str, path: &str) -> bool {
    let mut elements = path.split('/');
    prefix
        .split('/')
        .all(|element| elements.next() == Some(element))
}

#[test]
fn a_pod_restart_rebuilds_one_backend_and_nothing_else() {
    let restarted = Cell::new(0);
    run((resources(), any::<u16>()), |(resources, port)| {
        let (first, _) = RouteTable::build(&resources, &RouteTable::empty());
        // Equal, but not one Arc in common, as a second compile makes it.
        let (second, _) = RouteTable::build(&copied(&resources), &first);
        prop_assert_eq!(second.generation(), first.generation());
        assert_shared(&resources, &first, &second, None);

        let mut changed = copied(&resources);
        let Some((key, backend)) = changed.backends.iter_mut().next() else {
            return Ok(());
        };
        let key = key.clone();
        let pod = Endpoint {
            address: SocketAddr::from(([10, 9, 9, 9], port)),
            state: EndpointState::Ready,
        };
        Arc::make_mut(backend).endpoints.push(pod);
        let (third, _) = RouteTable::build(&changed, &second);
        prop_assert_eq!(third.generation(), first.generation() + 1);
        assert_shared(&resources, &second, &third, Some(&key));
        restarted.set(restarted.get() + 1);
        Ok(())
    });
    assert!(restarted.get() > 50);
}

/// Every part is one and the same in both tables, save the one backend that is not.
#[track_caller]
fn assert_shared(
    resources: &Resources,
    a: &RouteTable,
    b: &RouteTable,
    changed: Option<&BackendKey>,
) {
    for key in resources.backends.keys() {
        let same = Arc::ptr_eq(a.backend(key).unwrap(), b.backend(key).unwrap());
        assert_eq!(same, changed != Some(key), "{key}");
    }
    for key in resources.externals.keys() {
        assert!(
            Arc::ptr_eq(a.external(key).unwrap(), b.external(key).unwrap()),
            "{key}"
        );
    }
    for key in resources.certificates.keys() {
        let same = Arc::ptr_eq(a.certificate(key).unwrap(), b.certificate(key).unwrap());
        assert!(same, "{key}");
    }
    for host in REQUEST_HOSTS {
        let host = Hostname::parse(host).unwrap();
        match (a.host(&host), b.host(&host)) {
            (Some(a), Some(b)) => assert!(Arc::ptr_eq(a, b), "{host}"),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => panic!("{host} is in one table only"),
        }
        for path in REQUEST_PATHS {
            let routes = [a, b].map(|table| {
                let host = table.host(&host)?;
                host.find(&RequestParts::of_path(path))
            });
            if let [Some(a), Some(b)] = routes {
                assert!(Arc::ptr_eq(a.route, b.route), "{host}{path}");
            }
        }
    }
}

#[test]
fn a_rejected_resource_keeps_its_last_form() {
    let rejections = Cell::new(0);
    run(resources(), |resources| {
        let (before, _) = RouteTable::build(&resources, &RouteTable::empty());
        let bad = spoiled(&resources);
        let (after, rejected) = RouteTable::build(&bad, &before);
        let count = resources.routes.len()
            + resources.backends.len()
            + resources.externals.len()
            + resources.certificates.len();
        prop_assert_eq!(rejected.len(), count);
        prop_assert_eq!(after.generation(), before.generation());
        assert_shared(&resources, &before, &after, None);
        rejections.set(rejections.get() + count);

        // Without a last form each is absent, and a removal always applies.
        let (fresh, rejected) = RouteTable::build(&bad, &RouteTable::empty());
        prop_assert_eq!(rejected.len(), count);
        let (empty, rejected) = RouteTable::build(&Resources::default(), &after);
        prop_assert_eq!(rejected, []);
        for table in [fresh, empty] {
            prop_assert!(
                resources
                    .backends
                    .keys()
                    .all(|key| table.backend(key).is_none())
            );
            prop_assert!(
                resources
                    .externals
                    .keys()
                    .all(|key| table.external(key).is_none())
            );
            prop_assert!(
                resources
                    .certificates
                    .keys()
                    .all(|key| table.certificate(key).is_none())
            );
            prop_assert!(
                REQUEST_HOSTS
                    .iter()
                    .all(|host| table.host(&Hostname::parse(host).unwrap()).is_none())
            );
        }
        Ok(())
    });
    assert!(rejections.get() > 100);
}

#[test]
fn a_held_certificate_keeps_its_last_form_and_is_rejected_only_without_one() {
    let resources = Resources {
        certificates: certificates(1),
        ..Resources::default()
    };
    let key = resources.certificates.keys().next().unwrap();
    let hold = Resources {
        certificates: [(key.clone(), Arc::new(CertificateResource::Hold))].into(),
        ..Resources::default()
    };
    let (fresh, rejected) = RouteTable::build(&hold, &RouteTable::empty());
    let nothing_to_hold = Rejected {
        key: ResourceKey::Certificate(key.clone()),
        reason: Invalid::NothingToHold,
    };
    assert_eq!(rejected, [nothing_to_hold]);
    assert!(fresh.certificate(key).is_none());
    let (_, again) = RouteTable::build(&hold, &fresh);
    assert_eq!(again, rejected, "as long as it is so");
    let (before, _) = RouteTable::build(&resources, &RouteTable::empty());
    let (after, rejected) = RouteTable::build(&hold, &before);
    assert_eq!(rejected, []);
    assert!(Arc::ptr_eq(
        before.certificate(key).unwrap(),
        after.certificate(key).unwrap()
    ));
}

/// A route for `a.example.com`: its age, its TLS, its only path, and whether it is closed.
fn aged(created: i64, tls: &HostTls, path: &str, closed: bool) -> Arc<Route> {
    Arc::new(Route {
        created: Some(created),
        hostnames: vec![RouteHostname {
            pattern: HostPattern::parse("a.example.com").unwrap(),
            tls: tls.clone(),
        }],
        rules: vec![rule("0", vec![PathMatch::prefix(path).unwrap()])],
        closed,
    })
}

#[test]
fn a_closed_route_keeps_its_paths_and_refuses_handshakes_whatever_its_age() {
    let served = HostTls::Terminate {
        certificates: vec![CertificateKey {
            namespace: "default".into(),
            secret: "a".into(),
        }],
        plain: OnPlain::Redirect,
    };
    let refused = HostTls::Terminate {
        certificates: Vec::new(),
        plain: OnPlain::Redirect,
    };
    // What the closed one asks for, and what the host then does.
    for (closed_tls, host_tls) in [
        (&refused, &refused),
        (&served, &served),
        (&HostTls::None, &served),
    ] {
        for [open_age, closed_age] in [[1, 2], [2, 1]] {
            let resources = Resources {
                routes: BTreeMap::from([
                    (route_key("open"), aged(open_age, &served, "/", false)),
                    (
                        route_key("closed"),
                        aged(closed_age, closed_tls, "/ws", true),
                    ),
                ]),
                ..Resources::default()
            };
            let (table, rejected) = RouteTable::build(&resources, &RouteTable::empty());
            assert_eq!(rejected, [], "{closed_tls:?} of age {closed_age}");
            let host = table
                .host(&Hostname::parse("a.example.com").unwrap())
                .unwrap();
            assert_eq!(host.tls(), host_tls, "age {closed_age}");
            let find = |path| host.find(&RequestParts::of_path(path)).unwrap();
            let name = |path| find(path).key.name.to_string();
            assert_eq!([name("/ws"), name("/x")], ["closed", "open"]);
        }
    }
    // Between open ones the oldest still decides.
    let resources = Resources {
        routes: BTreeMap::from([
            (route_key("closed"), aged(1, &refused, "/ws", true)),
            (route_key("open"), aged(2, &served, "/", false)),
            (route_key("other"), aged(3, &HostTls::None, "/o", false)),
        ]),
        ..Resources::default()
    };
    let (_, rejected) = RouteTable::build(&resources, &RouteTable::empty());
    let keys = rejected.into_iter().map(|rejected| rejected.key);
    assert_eq!(
        keys.collect::<Vec<_>>(),
        [ResourceKey::Route(route_key("other"))]
    );
}

#[test]
fn a_route_with_other_tls_than_an_older_one_is_rejected_for_that_hostname_only() {
    let route = |created, hostnames: &[&str], tls: &HostTls| {
        let hostnames = hostnames.iter().map(|name| RouteHostname {
            pattern: HostPattern::parse(name).unwrap(),
            tls: tls.clone(),
        });
        Arc::new(Route {
            created: Some(created),
            hostnames: hostnames.collect(),
            rules: vec![rule("0", vec![PathMatch::prefix("/").unwrap()])],
            closed: false,
        })
    };
    let failing = HostTls::Terminate {
        certificates: Vec::new(),
        plain: OnPlain::Redirect,
    };
    let resources = Resources {
        routes: BTreeMap::from([
            (
                route_key("young"),
                route(2, &["a.example.com", "b.example.com"], &HostTls::None),
            ),
            (route_key("zold"), route(1, &["a.example.com"], &failing)),
        ]),
        ..Resources::default()
    };
    let (table, rejected) = RouteTable::build(&resources, &RouteTable::empty());
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].key, ResourceKey::Route(route_key("young")));
    assert!(matches!(rejected[0].reason, Invalid::TlsConflict { .. }));
    let host = |name| table.host(&Hostname::parse(name).unwrap()).unwrap();
    assert_eq!(host("a.example.com").tls(), &failing);
    assert_eq!(host("b.example.com").tls(), &HostTls::None);
}

fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

fn resources() -> impl Strategy<Value = Resources> {
    let routes = prop::collection::btree_map(
        (select(vec!["n1", "n2"]), select(vec!["r1", "r2", "r3"])),
        route(),
        0..6,
    );
    let endpoints = prop::collection::btree_set(any::<u16>(), 0..4);
    let backends = prop::collection::vec(endpoints, 0..4);
    (routes, backends, 0..3_usize).prop_map(|(routes, backends, count)| Resources {
        routes: routes
            .into_iter()
            .map(|((namespace, name), route)| {
                let key = RouteKey {
                    namespace: namespace.into(),
                    name: name.into(),
                };
                (key, Arc::new(route))
            })
            .collect(),
        backends: backends
            .into_iter()
            .enumerate()
            .map(|(index, ports)| {
                let endpoints = ports.into_iter().map(|port| Endpoint {
                    address: SocketAddr::from(([10, 0, 0, 1], port)),
                    state: EndpointState::Ready,
                });
                let endpoints = endpoints.collect();
                (
                    backend_key(&format!("s{index}")),
                    Arc::new(Backend { endpoints }),
                )
            })
            .collect(),
        externals: externals(count),
        certificates: certificates(count),
    })
}

fn externals(count: usize) -> BTreeMap<ExternalKey, Arc<External>> {
    let external = |index| {
        let key = ExternalKey {
            namespace: "n1".into(),
            name: format!("e{index}").into(),
        };
        let external = External {
            host: Hostname::parse("inner.example.com").unwrap(),
            port: NonZeroU16::MIN,
            tls: None,
            denied: Vec::new(),
        };
        (key, Arc::new(external))
    };
    (0..count).map(external).collect()
}

fn route() -> impl Strategy<Value = Route> {
    let path = (any::<bool>(), select(&PATHS[..])).prop_map(|(exact, value)| {
        if exact {
            PathMatch::exact(value).unwrap()
        } else {
            PathMatch::prefix(value).unwrap()
        }
    });
    let matches = prop::collection::vec(path, 1..3);
    (
        prop::option::of(0..3_i64),
        subsequence(HOSTNAMES.to_vec(), 1..=3),
        prop::collection::vec(matches, 1..4),
    )
        .prop_map(|(created, hostnames, rules)| Route {
            created,
            hostnames: hostnames
                .into_iter()
                .map(|name| RouteHostname {
                    pattern: HostPattern::parse(name).unwrap(),
                    tls: HostTls::None,
                })
                .collect(),
            rules: rules
                .into_iter()
                .enumerate()
                .map(|(index, matches)| rule(&index.to_string(), matches))
                .collect(),
            closed: false,
        })
}

fn rule(name: &str, matches: Vec<PathMatch>) -> Rule {
    Rule {
        name: name.into(),
        matches: matches.into_iter().map(RouteMatch::from).collect(),
        non_upgrade: NonUpgrade::Reject,
        origins: route_table::OriginPolicy::default(),
        filters: Arc::default(),
        backends: vec![WeightedBackend {
            backend: backend_key("s0").into(),
            weight: 1,
            proxy_protocol: None,
        }],
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            read: Duration::ZERO,
            send: Duration::ZERO,
        },
    }
}

fn route_key(name: &str) -> RouteKey {
    RouteKey {
        namespace: "n1".into(),
        name: name.into(),
    }
}

fn backend_key(service: &str) -> BackendKey {
    BackendKey {
        namespace: "n1".into(),
        service: service.into(),
        port: NonZeroU16::MIN,
    }
}

/// Certificates made once: to make them is slow.
fn certificates(count: usize) -> BTreeMap<CertificateKey, Arc<CertificateResource>> {
    static MADE: std::sync::LazyLock<Vec<CertificateResource>> = std::sync::LazyLock::new(|| {
        let made = ["a.example.com", "b.example.com"].map(|name| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            CertificateResource::Serve {
                chain: vec![made.cert.der().clone()],
                key: PrivateKey::from_der(made.signing_key.serialize_der()),
            }
        });
        made.into()
    });
    let made = MADE.iter().take(count).enumerate();
    made.map(|(index, resource)| {
        let key = CertificateKey {
            namespace: "n1".into(),
            secret: format!("c{index}").into(),
        };
        (key, Arc::new(resource.clone()))
    })
    .collect()
}

/// The same values in other `Arc`s.
fn copied(resources: &Resources) -> Resources {
    fn copy<K: Ord + Clone, V: Clone>(map: &BTreeMap<K, Arc<V>>) -> BTreeMap<K, Arc<V>> {
        let entries = map.iter();
        entries
            .map(|(key, value)| (key.clone(), Arc::new((**value).clone())))
            .collect()
    }
    Resources {
        routes: copy(&resources.routes),
        backends: copy(&resources.backends),
        externals: copy(&resources.externals),
        certificates: copy(&resources.certificates),
    }
}

/// Every resource in a form that the table refuses.
fn spoiled(resources: &Resources) -> Resources {
    let mut bad = copied(resources);
    for route in bad.routes.values_mut() {
        Arc::make_mut(route).rules[0].matches.clear();
    }
    for backend in bad.backends.values_mut() {
        let one = Endpoint {
            address: SocketAddr::from(([10, 0, 0, 1], 1)),
            state: EndpointState::Ready,
        };
        Arc::make_mut(backend).endpoints = vec![one; MAX_ENDPOINTS + 1];
    }
    for external in bad.externals.values_mut() {
        Arc::make_mut(external).tls = Some(ExternalTls {
            authorities: Authorities::These(Vec::new()),
        });
    }
    for certificate in bad.certificates.values_mut() {
        *certificate = Arc::new(CertificateResource::Serve {
            chain: Vec::new(),
            key: PrivateKey::from_der(Vec::new()),
        });
    }
    bad
}
