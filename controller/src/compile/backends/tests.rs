use jiff::Timestamp;
use route_table::Loopback;
use serde_json::{Value, json};

use super::*;
use crate::compile::{Compiled, compile};
use crate::store::{Store, UnlistedSecrets};

/// A route to a Service whose slices have these endpoints.
fn compiled(slices: &[Vec<Value>]) -> Compiled {
    let mut store = Store::new(UnlistedSecrets::Absent);
    let metadata = |name: &str| json!({ "name": name, "namespace": "default" });
    let route = json!({
        "metadata": metadata("chat"),
        "spec": {
            "className": "c",
            "hostnames": ["a.example.com"],
            "tls": { "mode": "None" },
            "rules": [{ "backendRefs": [{ "name": "chat", "port": 80 }] }],
        },
    });
    let route: crds::WebSocketRoute = serde_json::from_value(route).unwrap();
    store.apply(route.into());
    let service = json!({ "metadata": metadata("chat"), "spec": { "ports": [{ "port": 80 }] } });
    let service: Service = serde_json::from_value(service).unwrap();
    store.apply(service.into());
    for (index, endpoints) in slices.iter().enumerate() {
        let mut metadata = metadata(&format!("chat-{index}"));
        metadata["labels"] = json!({ "kubernetes.io/service-name": "chat" });
        let slice = json!({
            "metadata": metadata,
            "addressType": "IPv4",
            "ports": [{ "port": 8080 }],
            "endpoints": endpoints,
        });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        store.apply(slice.into());
    }
    let config = CompileConfig {
        class: "c".to_owned(),
        loopback_endpoints: Loopback::Refuse,
        denied_backends: Vec::new(),
        own_services: Vec::new(),
    };
    compile(&store.snapshot(), &config, Timestamp::UNIX_EPOCH)
}

fn endpoints(compiled: &Compiled) -> &[Endpoint] {
    let mut backends = compiled.resources.backends.values();
    &backends.next().expect("the backend").endpoints
}

fn reasons(compiled: &Compiled) -> Vec<Reason> {
    let findings = compiled
        .statuses
        .values()
        .flat_map(|status| &status.findings);
    findings.map(|finding| finding.reason).collect()
}

/// `count` endpoints from 10.0.0.1 on.
fn from_ten(count: usize) -> Vec<Value> {
    let addresses = (1..=count).map(|index| format!("10.0.{}.{}", index / 256, index % 256));
    addresses
        .map(|address| json!({ "addresses": [address] }))
        .collect()
}

#[test]
fn only_the_first_address_of_an_endpoint_counts() {
    let compiled = compiled(&[vec![
        json!({ "addresses": ["10.0.0.1", "10.0.0.2", "127.0.0.1"] }),
    ]]);
    let addresses = endpoints(&compiled).iter().map(|endpoint| endpoint.address);
    assert_eq!(
        addresses.collect::<Vec<_>>(),
        ["10.0.0.1:8080".parse().unwrap()]
    );
    assert_eq!(reasons(&compiled), []);
}

#[test]
fn of_too_many_endpoints_the_first_by_address_serve_and_the_author_is_told() {
    let full = compiled(&[from_ten(MAX_ENDPOINTS)]);
    assert_eq!(reasons(&full), []);
    let before = vec![json!({ "addresses": ["9.0.0.1"] })];
    let slices = [from_ten(MAX_ENDPOINTS), before];
    let over = compiled(&slices);
    assert_eq!(reasons(&over), [Reason::TooManyEndpoints]);
    let mut expected = endpoints(&full).to_vec();
    expected.pop();
    expected.insert(
        0,
        Endpoint {
            address: "9.0.0.1:8080".parse().unwrap(),
            state: EndpointState::Ready,
        },
    );
    assert_eq!(endpoints(&over), expected);
    let [first, second] = slices;
    assert_eq!(compiled(&[second, first]).resources, over.resources);
}

#[test]
fn an_address_that_is_ready_in_one_slice_is_ready() {
    let terminating = json!({ "ready": false, "serving": true, "terminating": true });
    let terminating = json!({ "addresses": ["10.0.0.1"], "conditions": terminating });
    let ready = json!({ "addresses": ["10.0.0.1"] });
    for slices in [[&ready, &terminating], [&terminating, &ready]] {
        let compiled = compiled(&slices.map(|endpoint| vec![endpoint.clone()]));
        let states = endpoints(&compiled).iter().map(|endpoint| endpoint.state);
        assert_eq!(states.collect::<Vec<_>>(), [EndpointState::Ready]);
    }
}
