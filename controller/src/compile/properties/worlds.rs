//! Small worlds: objects of few names, so that they collide.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{Change, HOSTNAMES, NAMESPACES, SHARED};
use crate::store::{Object, ReferenceGrant};

const CHAT: [&str; 2] = [
    include_str!("../../../testdata/certificates/chat.crt"),
    include_str!("../../../testdata/certificates/chat.key"),
];
const WILDCARD: [&str; 2] = [
    include_str!("../../../testdata/certificates/wildcard.crt"),
    include_str!("../../../testdata/certificates/wildcard.key"),
];

pub(super) fn change() -> impl Strategy<Value = Change> {
    (object(), prop::bool::weighted(0.2)).prop_map(|(object, delete)| {
        if delete {
            Change::Delete(object.reference())
        } else {
            Change::Apply(object)
        }
    })
}

/// Objects of different names.
pub(super) fn objects() -> impl Strategy<Value = Vec<Object>> {
    prop::collection::vec(object(), 0..40).prop_map(|objects| {
        let by_name = objects
            .into_iter()
            .map(|object| (object.reference(), object));
        by_name.collect::<BTreeMap<_, _>>().into_values().collect()
    })
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![4 => route(), 2 => secret(), 2 => service(), 3 => slice(), 1 => external(), 2 => grant()]
}

fn metadata(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    (select(&NAMESPACES[..]), select(names))
        .prop_map(|(namespace, name)| json!({ "namespace": namespace, "name": name }))
}

/// As `metadata`, and sometimes in the shared namespace.
fn metadata_anywhere(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let shared = select(names).prop_map(|name| json!({ "namespace": SHARED, "name": name }));
    prop_oneof![4 => metadata(names), 1 => shared]
}

/// The namespace of a reference: mostly none.
fn target() -> impl Strategy<Value = Value> {
    prop_oneof![4 => Just(Value::Null), 1 => Just(json!(SHARED))]
}

fn grant() -> impl Strategy<Value = Object> {
    let from = select(&NAMESPACES[..]);
    (metadata(&["g1", "g2", "g3"]), from, select(vec!["Service", "Service", "Secret", "Secret", "ExternalBackend"])).prop_map(|(mut metadata, from, kind)| {
        metadata["namespace"] = json!(SHARED);
        let grant = json!({
            "metadata": metadata,
            "spec": {
                "from": [{ "group": "ws-ingress.dev", "kind": "WebSocketRoute", "namespace": from }],
                "to": [{ "group": if kind == "ExternalBackend" { crds::GROUP } else { "" }, "kind": kind }],
            },
        });
        serde_json::from_value::<ReferenceGrant>(grant).unwrap().into()
    })
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
        (subsequence(vec!["s1", "s2"], 0..=2), target()).prop_map(|(names, namespace)| {
            let refs = names
                .iter()
                .map(|name| json!({ "name": name, "namespace": namespace }))
                .collect::<Value>();
            json!({ "mode": "Terminate", "certificateRefs": refs })
        }),
    ];
    let path = prop_oneof![6 => select(vec!["/", "/a", "/a/b"]), 1 => Just("not-a-path")];
    let external = (select(vec!["inner", "none"]), select(vec![Value::Null, json!(443), json!(80)]), target())
        .prop_map(|(name, port, namespace)| {
            json!({ "group": crds::GROUP, "kind": "ExternalBackend", "name": name, "namespace": namespace, "port": port })
        });
    let rule = (
        path,
        select(vec!["chat", "none"]),
        prop_oneof![6 => select(vec![80, 81]), 1 => Just(0)],
        target(),
        prop::option::weighted(0.3, external),
    )
        .prop_map(|(path, name, port, namespace, external)| {
            let service = json!({ "name": name, "namespace": namespace, "port": port });
            let backends = [service].into_iter().chain(external).collect::<Value>();
            json!({ "matches": [{ "path": { "value": path } }], "backendRefs": backends })
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
    (metadata_anywhere(&["s1", "s2"]), select(pairs)).prop_map(|(metadata, [chain, key])| {
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

fn external() -> impl Strategy<Value = Object> {
    let specs = vec![
        json!({ "host": "inner.example.com", "port": 443, "tls": {} }),
        json!({ "host": "inner.example.com", "port": 80 }),
        json!({ "host": "10.0.0.1", "port": 80 }),
    ];
    (metadata_anywhere(&["inner", "other"]), select(specs)).prop_map(|(metadata, spec)| {
        let external = json!({ "metadata": metadata, "spec": spec });
        serde_json::from_value::<crds::ExternalBackend>(external)
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
    (metadata_anywhere(&["chat", "other"]), select(specs)).prop_map(|(metadata, spec)| {
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
