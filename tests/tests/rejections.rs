//! One resource that the dataplane cannot use: rejected alone. Its last good form serves on, everything else is applied,
//! and the route says so.

use serde_json::json;
use tests::client::talk;
use tests::echo_process::EchoProcess;
use tests::kubernetes::installed::{Installed, ROUTE, cluster, condition, is_programmed, says};
use tests::kubernetes::request::Patch;
use tests::manifests::{Rule, Tls, endpoints, route, secret, service};
use tests::scene::SERVICE;

/// More than the 10,000 endpoints that one backend may have, in slices as large as the API takes.
const SLICES: usize = 11;
const ENDPOINTS_IN_A_SLICE: usize = 1000;

const HOST: &str = "crowd.example.com";

/// Gives the Service `crowd` a slice full of endpoints, or an empty one.
async fn write_slice(installed: &Installed, number: usize, count: usize) {
    let address = |at: usize| {
        // Addresses for benchmarks (RFC 2544); nothing dials them.
        let address = number * ENDPOINTS_IN_A_SLICE + at;
        format!("198.18.{}.{}", address / 250, address % 250 + 1)
    };
    let all: Vec<_> = (0..count)
        .map(|at| json!({ "addresses": [address(at)], "conditions": { "ready": true } }))
        .collect();
    let name = format!("crowd-{number}");
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "crowd" } },
        "addressType": "IPv4",
        "endpoints": all,
        "ports": [{ "name": "ws", "port": 8080, "protocol": "TCP" }],
    });
    let namespace = &installed.namespace;
    let path = namespace.path("discovery.k8s.io/v1/endpointslices", &name);
    let api = namespace.cluster.api();
    let (code, answer) = api.patch(&path, Patch::Apply("test"), &object).await;
    assert!(code.is_success(), "{path}: {code} {answer}");
}

#[tokio::test]
async fn a_backend_that_is_too_large_is_rejected_alone_and_its_route_says_so() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let installed = Installed::start(&cluster).await;
    let echo = EchoProcess::start_reachable("echo").await;
    installed.serve(echo.address).await;
    let namespace = &installed.namespace;
    let text = route(
        "crowd",
        &[HOST],
        &Tls::Terminate("crowd-tls"),
        &[Rule::to("crowd")],
    );
    let manifests = [
        secret("crowd-tls", &installed.authority.issue(&[HOST])),
        service("crowd"),
        endpoints("crowd", &[echo.address]),
        installed.routes(&text),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    is_programmed(namespace, "crowd").await;
    installed.takes(HOST, "/").await;
    let mut open = installed.client_of(HOST).connect().await;
    let rejected = async || {
        let metrics = installed.dataplane.metrics().await;
        metrics.sum("ws_ingress_push_rejected_resources", &[])
    };
    assert_eq!(rejected().await, 0);

    for number in 0..SLICES {
        write_slice(&installed, number, ENDPOINTS_IN_A_SLICE).await;
    }
    let route = says(namespace, "crowd", ["Programmed", "False", "Rejected"]).await;
    let message = condition(&route, "Programmed").expect("the condition")["message"].to_string();
    assert!(
        message.contains("more than the 10000 that a backend may have"),
        "{message}"
    );
    assert_eq!(
        condition(&route, "Accepted").expect("the condition")["status"],
        "True"
    );
    assert_eq!(rejected().await, 1);
    talk(&mut open, "my backend was rejected").await;

    // Everything else goes on, new things included.
    is_programmed(namespace, ROUTE).await;
    let other = route_of_another_host(&installed);
    namespace.kubectl.apply(&other).await;
    is_programmed(namespace, "other").await;
    installed.takes("other.example.com", "/").await;

    for number in 0..SLICES {
        write_slice(&installed, number, 0).await;
    }
    is_programmed(namespace, "crowd").await;
    assert_eq!(rejected().await, 0);
    installed.takes(HOST, "/").await;
    talk(&mut open, "and mended").await;
}

fn route_of_another_host(installed: &Installed) -> String {
    let hosts = ["other.example.com"];
    let text = route(
        "other",
        &hosts,
        &Tls::Terminate("other-tls"),
        &[Rule::to(SERVICE)],
    );
    secret("other-tls", &installed.authority.issue(&hosts)) + &installed.routes(&text)
}
