//! A backend with more endpoints than one may have: the first of them serve, the route says so, and nothing else is disturbed.

use serde_json::json;
use tests::client::talk;
use tests::echo_process::EchoProcess;
use tests::kubernetes::installed::{
    Installed, ROUTE, cluster, condition, is_programmed, read_route,
};
use tests::kubernetes::request::Patch;
use tests::manifests::{Rule, Tls, endpoints, route, secret, service};
use tests::scene::SERVICE;
use tests::wait;

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
async fn a_backend_with_too_many_endpoints_disturbs_nothing_and_its_route_says_so() {
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

    for number in 0..SLICES {
        write_slice(&installed, number, ENDPOINTS_IN_A_SLICE).await;
    }
    let crowded = "only the first 10000 by address serve";
    message_becomes(&installed, |message| message.contains(crowded)).await;
    is_programmed(namespace, "crowd").await;
    talk(&mut open, "my backend is crowded").await;

    // Everything else goes on, new things included.
    is_programmed(namespace, ROUTE).await;
    let other = route_of_another_host(&installed);
    namespace.kubectl.apply(&other).await;
    is_programmed(namespace, "other").await;
    installed.takes("other.example.com", "/").await;

    for number in 0..SLICES {
        write_slice(&installed, number, 0).await;
    }
    message_becomes(&installed, |message| !message.contains(crowded)).await;
    is_programmed(namespace, "crowd").await;
    installed.takes(HOST, "/").await;
    talk(&mut open, "and mended").await;
}

/// Waits until this holds of what the route `crowd` says of its references, which are fine all the while.
async fn message_becomes(installed: &Installed, expected: impl Fn(&str) -> bool) {
    wait::until("the route tells how many endpoints serve", async || {
        let route = read_route(&installed.namespace, "crowd").await;
        let condition = condition(&route, "ResolvedRefs")?;
        assert_eq!(condition["status"], "True");
        expected(condition["message"].as_str()?).then_some(())
    })
    .await;
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
