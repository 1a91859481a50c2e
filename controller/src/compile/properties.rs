//! What must hold for any objects in any order, tried on small worlds in which they collide.
//!
//! Two namespaces, three hostnames, a handful of names: conflicts, missing Secrets and broken routes are the rule here. Each test
//! counts that they did occur, so that it cannot pass by never meeting one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use route_table::{Backend, CertificateResource, HostTls, Resources, Route, RouteTable};
use serde_json::{Value, json};

use super::{CompileConfig, Compiled, LoopbackEndpoints, Reason, compile};
use crate::store::{Object, ObjectRef, Store, UnlistedSecrets};

const NAMESPACES: [&str; 2] = ["alpha", "beta"];
const HOSTNAMES: [&str; 3] = ["one.example.com", "two.example.com", "*.example.com"];
const CHAT: [&str; 2] = [
    include_str!("../../testdata/certificates/chat.crt"),
    include_str!("../../testdata/certificates/chat.key"),
];
const WILDCARD: [&str; 2] = [
    include_str!("../../testdata/certificates/wildcard.crt"),
    include_str!("../../testdata/certificates/wildcard.key"),
];
const CASES: u32 = 300;

/// What happens to a Store.
#[derive(Debug, Clone)]
enum Change {
    Apply(Object),
    Delete(ObjectRef),
}

#[test]
fn order_of_events_cannot_matter() {
    let seen = RefCell::new(BTreeSet::new());
    let changes = prop::collection::vec(change(), 0..60);
    let unlisted = select(vec![UnlistedSecrets::Absent, UnlistedSecrets::NotYetRead]);
    run((changes, unlisted), |(changes, unlisted)| {
        let mut last = BTreeMap::new();
        for change in &changes {
            last.insert(reference(change), change.clone());
        }
        let in_history = compiled(unlisted, changes.into_iter());
        let rising = compiled(unlisted, last.values().cloned());
        let falling = compiled(unlisted, last.values().rev().cloned());
        prop_assert_eq!(&in_history, &rising);
        prop_assert_eq!(&in_history, &falling);
        seen.borrow_mut().extend(reasons(&in_history));
        Ok(())
    });
    let unseen = [Reason::CertificateExpired, Reason::CertificateNotYetValid];
    let expected = Reason::ALL
        .into_iter()
        .filter(|reason| !unseen.contains(reason));
    assert_eq!(seen.into_inner(), expected.collect::<BTreeSet<_>>());
}

#[test]
fn a_broken_route_changes_no_other() {
    let neighbours = RefCell::new(0);
    run(
        (objects(), any::<prop::sample::Index>()),
        |(mut objects, index)| {
            let whole = compiled(
                UnlistedSecrets::Absent,
                objects.iter().cloned().map(Change::Apply),
            );
            let routes = objects.iter_mut().filter_map(|object| match object {
                Object::WebSocketRoute(route) => Some(Arc::make_mut(route)),
                Object::Secret(_) | Object::Service(_) | Object::EndpointSlice(_) => None,
            });
            let mut routes = routes.collect::<Vec<_>>();
            if routes.is_empty() {
                return Ok(());
            }
            // Its claims and its tls block hold; anything else in it may be wrong.
            let position = index.index(routes.len());
            routes[position].spec.rules.clear();
            let listed = routes[position].spec.hostnames.clone();
            let key = Object::from(routes[position].clone()).reference();
            let broken = compiled(
                UnlistedSecrets::Absent,
                objects.into_iter().map(Change::Apply),
            );
            for (other, status) in &whole.statuses {
                if (&other.namespace, &other.name) == (&key.namespace, &key.name) {
                    continue;
                }
                prop_assert_eq!(broken.statuses.get(other), Some(status));
                prop_assert_eq!(
                    broken.resources.routes.get(other),
                    whole.resources.routes.get(other)
                );
                let Some(route) = whole.resources.routes.get(other) else {
                    continue;
                };
                if route
                    .hostnames
                    .iter()
                    .any(|hostname| listed.contains(&hostname.pattern.to_string()))
                {
                    *neighbours.borrow_mut() += 1;
                }
                prop_assert_eq!(parts(&broken, route), parts(&whole, route));
            }
            Ok(())
        },
    );
    let neighbours = neighbours.into_inner();
    assert!(
        neighbours > 50,
        "{neighbours} on a hostname of the broken one"
    );
}

#[test]
fn the_table_takes_all_and_a_hostname_belongs_to_one_namespace() {
    let conflicts = RefCell::new(0);
    run(objects(), |objects| {
        let compiled = compiled(
            UnlistedSecrets::Absent,
            objects.into_iter().map(Change::Apply),
        );
        let (_, rejected) = RouteTable::build(&compiled.resources, &RouteTable::empty());
        prop_assert_eq!(rejected, []);
        let mut owners = BTreeMap::new();
        for (key, route) in &compiled.resources.routes {
            for hostname in &route.hostnames {
                let owner = owners.entry(&hostname.pattern).or_insert(&key.namespace);
                prop_assert_eq!(*owner, &key.namespace);
            }
        }
        for (key, status) in &compiled.statuses {
            let foreign = NAMESPACES
                .into_iter()
                .find(|name| *name != &*key.namespace)
                .unwrap();
            let told = format!("{status:?}");
            prop_assert!(!told.contains(foreign), "{key} learns of {foreign}: {told}");
        }
        *conflicts.borrow_mut() += reasons(&compiled)
            .filter(|reason| *reason == Reason::HostnameConflict)
            .count();
        Ok(())
    });
    assert!(conflicts.into_inner() > 30);
}

/// The backends and certificates that a route is served with.
fn parts(compiled: &Compiled, route: &Route) -> Parts {
    let Resources {
        routes: _,
        backends,
        certificates,
    } = &compiled.resources;
    let named = route.rules.iter().flat_map(|rule| &rule.backends);
    let used = route
        .hostnames
        .iter()
        .flat_map(|hostname| match &hostname.tls {
            HostTls::Terminate { certificates } => &certificates[..],
            HostTls::None => &[],
        });
    (
        named
            .map(|named| backends.get(&named.backend).cloned())
            .collect(),
        used.map(|key| certificates.get(key).cloned()).collect(),
    )
}

type Parts = (
    Vec<Option<Arc<Backend>>>,
    Vec<Option<Arc<CertificateResource>>>,
);

fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

fn compiled(unlisted: UnlistedSecrets, changes: impl Iterator<Item = Change>) -> Compiled {
    let mut store = Store::new(unlisted);
    for change in changes {
        match change {
            Change::Apply(object) => store.apply(object),
            Change::Delete(reference) => store.delete(&reference),
        };
    }
    let config = CompileConfig {
        class: "ws-ingress".to_owned(),
        loopback_endpoints: LoopbackEndpoints::Refuse,
    };
    compile(
        &store.snapshot(),
        &config,
        Timestamp::from_second(1_800_000_000).unwrap(),
    )
}

fn reasons(compiled: &Compiled) -> impl Iterator<Item = Reason> {
    let findings = compiled
        .statuses
        .values()
        .flat_map(|status| &status.findings);
    findings.map(|finding| finding.reason)
}

fn reference(change: &Change) -> ObjectRef {
    match change {
        Change::Apply(object) => object.reference(),
        Change::Delete(reference) => reference.clone(),
    }
}

fn change() -> impl Strategy<Value = Change> {
    (object(), prop::bool::weighted(0.2)).prop_map(|(object, delete)| {
        if delete {
            Change::Delete(object.reference())
        } else {
            Change::Apply(object)
        }
    })
}

/// Objects of different names.
fn objects() -> impl Strategy<Value = Vec<Object>> {
    prop::collection::vec(object(), 0..40).prop_map(|objects| {
        let by_name = objects
            .into_iter()
            .map(|object| (object.reference(), object));
        by_name.collect::<BTreeMap<_, _>>().into_values().collect()
    })
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![4 => route(), 2 => secret(), 2 => service(), 3 => slice()]
}

fn metadata(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    (select(&NAMESPACES[..]), select(names))
        .prop_map(|(namespace, name)| json!({ "namespace": namespace, "name": name }))
}

fn time() -> impl Strategy<Value = Value> {
    select(vec![
        Value::Null,
        json!("2026-01-01T00:00:00Z"),
        json!("2026-01-02T00:00:00Z"),
        json!("2026-01-03T00:00:00Z"),
    ])
}

fn route() -> impl Strategy<Value = Object> {
    let tls = prop_oneof![
        Just(Value::Null),
        Just(json!({ "mode": "None" })),
        subsequence(vec!["s1", "s2"], 0..=2).prop_map(|names| {
            let refs = names
                .iter()
                .map(|name| json!({ "name": name }))
                .collect::<Value>();
            json!({ "mode": "Terminate", "certificateRefs": refs })
        }),
    ];
    let path = prop_oneof![6 => select(vec!["/", "/a", "/a/b"]), 1 => Just("not-a-path")];
    let rule = (path, select(vec!["chat", "none"]), prop_oneof![6 => select(vec![80, 81]), 1 => Just(0)]).prop_map(|(path, name, port)| {
        json!({ "matches": [{ "path": { "value": path } }], "backendRefs": [{ "name": name, "port": port }] })
    });
    (
        metadata(&["r1", "r2", "r3"]),
        time(),
        select(vec!["ws-ingress", "ws-ingress", "ws-ingress", "ws-ingress", "other"]),
        subsequence(HOSTNAMES.to_vec(), 1..=3),
        tls,
        prop::collection::vec(rule, 1..3),
        prop::collection::vec(time(), 3),
    )
        .prop_map(|(mut metadata, created, class, hostnames, tls, rules, since)| {
            metadata["creationTimestamp"] = created;
            let claims = HOSTNAMES.iter().zip(since).filter(|(_, since)| !since.is_null());
            let claims = claims.map(|(hostname, since)| json!({ "hostname": hostname, "since": since }));
            let route = json!({
                "metadata": metadata,
                "spec": { "className": class, "hostnames": hostnames, "tls": tls, "rules": rules },
                "status": { "claims": claims.collect::<Value>() },
            });
            serde_json::from_value::<crds::WebSocketRoute>(route).unwrap().into()
        })
}

fn secret() -> impl Strategy<Value = Object> {
    let pairs = vec![CHAT, WILDCARD, [CHAT[0], WILDCARD[1]], ["", ""]];
    (metadata(&["s1", "s2"]), select(pairs)).prop_map(|(metadata, [chain, key])| {
        let secret = json!({
            "metadata": metadata,
            "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": chain, "tls.key": key },
        });
        serde_json::from_value::<k8s_openapi::api::core::v1::Secret>(secret)
            .unwrap()
            .into()
    })
}

fn service() -> impl Strategy<Value = Object> {
    let specs = vec![
        json!({ "ports": [{ "port": 80 }] }),
        json!({ "ports": [{ "port": 80, "name": "ws" }, { "port": 81 }] }),
        json!({ "ports": [{ "port": 80, "appProtocol": "kubernetes.io/wss" }] }),
        json!({ "ports": [{ "port": 80 }], "ipFamilies": ["IPv6"] }),
    ];
    (metadata(&["chat", "other"]), select(specs)).prop_map(|(metadata, spec)| {
        let service = json!({ "metadata": metadata, "spec": spec });
        serde_json::from_value::<k8s_openapi::api::core::v1::Service>(service)
            .unwrap()
            .into()
    })
}

fn slice() -> impl Strategy<Value = Object> {
    let addresses = select(vec!["10.0.0.1", "10.0.0.2", "127.0.0.1", "fd00::1"]);
    let endpoint = (addresses, any::<[Option<bool>; 3]>()).prop_map(
        |(address, [ready, serving, terminating])| {
            let conditions =
                json!({ "ready": ready, "serving": serving, "terminating": terminating });
            json!({ "addresses": [address], "conditions": conditions })
        },
    );
    (
        metadata(&["chat-1", "chat-2", "chat-3"]),
        select(vec!["IPv4", "IPv6"]),
        select(vec![
            json!({ "port": 8080 }),
            json!({ "port": 9090 }),
            json!({ "name": "ws", "port": 8080 }),
        ]),
        prop::collection::vec(endpoint, 0..4),
    )
        .prop_map(|(mut metadata, family, port, endpoints)| {
            metadata["labels"] = json!({ "kubernetes.io/service-name": "chat" });
            let slice = json!({
                "metadata": metadata,
                "addressType": family,
                "ports": [port],
                "endpoints": endpoints,
            });
            serde_json::from_value::<k8s_openapi::api::discovery::v1::EndpointSlice>(slice)
                .unwrap()
                .into()
        })
}
