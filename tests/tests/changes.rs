//! Changes through the Kubernetes API while sockets are open: new handshakes follow, open sockets never notice. The same
//! behaviour as in `swaps.rs`, with a controller and a push between.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tests::certificate::Issued;
use tests::client::{certificate_shown, next, talk};
use tests::echo_process::EchoProcess;
use tests::kubernetes::installed::{Installed, ROUTE, ROUTES, cluster, is_programmed};
use tests::kubernetes::request::Patch;
use tests::manifests::{Rule, endpoints, secret};
use tests::scene::{HOST, SECRET, SERVICE};
use tests::talkers::Talkers;
use tests::wait;

/// The installation with one route, its backend, and nothing else.
async fn scene() -> Option<(Installed, EchoProcess)> {
    let installed = Installed::start(&cluster().await?).await;
    let echo = EchoProcess::start_reachable("echo").await;
    installed.serve(echo.address).await;
    Some((installed, echo))
}

async fn shown(installed: &Installed) -> Option<CertificateDer<'static>> {
    let root = installed.authority.root();
    certificate_shown(installed.dataplane.https, HOST, root)
        .await
        .ok()
}

async fn status_becomes(installed: &Installed, path: &str, expected: u16) {
    let what = format!("{expected} for {path}");
    wait::until(&what, async || {
        (installed.client().path(path).status().await == Some(expected)).then_some(())
    })
    .await;
}

/// Waits until new sockets are served by this backend.
async fn served_by(installed: &Installed, backend: &EchoProcess) {
    let what = format!("new sockets reach {}", backend.address);
    wait::until(&what, async || {
        let mut socket = installed.client().path("/").try_connect().await.ok()?.0;
        let hello = next(&mut socket).await.into_text().ok()?;
        hello.contains(&backend.address.to_string()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replaced_secret_is_shown_to_the_next_handshake_and_the_open_socket_lives() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let mut open = installed.client().connect().await;
    let fresh = installed.authority.issue(&[HOST]);
    assert_ne!(shown(&installed).await, Some(fresh.leaf.clone()));
    let kubectl = &installed.namespace.kubectl;
    kubectl.apply(&secret(SECRET, &fresh)).await;
    wait::until("the new certificate", async || {
        (shown(&installed).await? == fresh.leaf).then_some(())
    })
    .await;
    talk(&mut open, "opened under the old certificate").await;
    let mut new = installed.client().connect().await;
    talk(&mut new, "opened under the new certificate").await;
}

#[tokio::test]
async fn endpoints_that_come_and_go_are_followed_by_new_handshakes_only() {
    let Some((installed, one)) = scene().await else {
        return;
    };
    let two = EchoProcess::start_reachable("two").await;
    let kubectl = &installed.namespace.kubectl;
    let mut open = installed.client().connect().await;

    kubectl.apply(&endpoints(SERVICE, &[two.address])).await;
    served_by(&installed, &two).await;
    let before = (one.handshakes().await, two.handshakes().await);
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(installed.client().connect().await);
    }
    assert!(one.handshakes().await > before.0, "the first is still used");
    assert!(two.handshakes().await > before.1, "the second is used too");
    talk(&mut open, "an endpoint was added").await;

    delete_slice(&installed, one.address).await;
    // The removed endpoint gets no new socket once the change is in; until then both do.
    wait::until("no new socket reaches the removed endpoint", async || {
        let before = one.handshakes().await;
        for _ in 0..10 {
            installed.client().status().await;
        }
        (one.handshakes().await == before).then_some(())
    })
    .await;
    served_by(&installed, &two).await;
    talk(&mut open, "my own endpoint was removed").await;

    delete_slice(&installed, two.address).await;
    status_becomes(&installed, "/", 503).await;
    talk(&mut open, "no endpoint is left").await;
}

async fn delete_slice(installed: &Installed, address: SocketAddr) {
    let slice = format!("{SERVICE}-{}", address.port());
    let kubectl = &installed.namespace.kubectl;
    kubectl.ok(&["delete", "endpointslice", &slice]).await;
}

#[tokio::test]
async fn a_changed_or_deleted_route_is_followed_by_new_handshakes_only() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let kubectl = &installed.namespace.kubectl;
    let mut open = installed.client().connect().await;

    let moved = Rule::to(SERVICE).named("moved").exact("/moved");
    kubectl.apply(&installed.usual_route(&[moved])).await;
    is_programmed(&installed.namespace, ROUTE).await;
    // Programmed is a promise about every handshake from now on.
    assert_eq!(installed.client().path("/").status().await, Some(404));
    assert_eq!(installed.client().path("/moved").status().await, Some(101));
    talk(&mut open, "my path was moved").await;

    kubectl.ok(&["delete", "websocketroute", ROUTE]).await;
    wait::until("no certificate for a host without a route", async || {
        shown(&installed).await.is_none().then_some(())
    })
    .await;
    talk(&mut open, "my route was deleted").await;

    let back = Rule::to(SERVICE).named("back");
    kubectl.apply(&installed.usual_route(&[back])).await;
    is_programmed(&installed.namespace, ROUTE).await;
    installed.takes(HOST, "/").await;
    talk(&mut open, "a route came back").await;
}

/// Sockets that talk during the changes, and the pace of each: 1800 messages a second in all leave two cores room for the
/// changes.
const SOCKETS: u64 = 300;
const PACE: Duration = Duration::from_millis(500);

/// Steps that are waited for until a swap follows; every third is a new certificate, the others have several changes of
/// the endpoint, and some change the route.
const STEPS: usize = 300;
const CHANGES_IN_A_STEP: usize = 5;
const CERTIFICATES: usize = 100;
const ENDPOINT_CHANGES: usize = 1000;

/// Writes one object by server-side apply, without a process for each.
async fn write(installed: &Installed, resource: &str, name: &str, object: &Value) {
    let path = installed.namespace.path(resource, name);
    let api = installed.namespace.cluster.api();
    let (code, answer) = api.patch(&path, Patch::Apply("test"), object).await;
    assert!(code.is_success(), "{path}: {code} {answer}");
}

async fn write_secret(installed: &Installed, issued: &Issued) {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": SECRET },
        "data": {
            "tls.crt": STANDARD.encode(&issued.chain_pem),
            "tls.key": STANDARD.encode(&issued.key_pem),
        },
    });
    write(installed, "v1/secrets", SECRET, &object).await;
}

/// The `change`th state of the endpoint of the sockets: terminating, gone, ready. Beside it another one ends each time, so
/// that no state was there before and none can melt away between two tables.
async fn write_endpoint(installed: &Installed, own: SocketAddr, change: usize) {
    let endpoint = |address: String, ready: bool| {
        json!({
            "addresses": [address],
            "conditions": { "ready": ready, "serving": true, "terminating": !ready },
        })
    };
    // For documentation (RFC 5737): an address that takes no new socket is never dialled.
    let ended = format!("198.51.100.{}", change % 250);
    let mut endpoints = vec![endpoint(ended, false)];
    match change % 3 {
        0 => endpoints.push(endpoint(own.ip().to_string(), false)),
        1 => {}
        _ => endpoints.push(endpoint(own.ip().to_string(), true)),
    }
    let name = format!("{SERVICE}-{}", own.port());
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": SERVICE } },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "ws", "port": own.port(), "protocol": "TCP" }],
    });
    write(
        installed,
        "discovery.k8s.io/v1/endpointslices",
        &name,
        &object,
    )
    .await;
}

async fn write_timeout(installed: &Installed, step: usize) {
    let object = json!({ "spec": { "rules": [{
        "backendRefs": [{ "name": SERVICE, "port": 80 }],
        "timeouts": { "read": format!("{}s", 600 + step) },
    }] } });
    let path = installed.namespace.path(ROUTES, ROUTE);
    let api = installed.namespace.cluster.api();
    let (code, answer) = api.patch(&path, Patch::Merge, &object).await;
    assert!(code.is_success(), "{path}: {code} {answer}");
}

async fn relays_ended(installed: &Installed) -> u64 {
    let metrics = installed.dataplane.metrics().await;
    metrics.sum("ws_ingress_relays_ended_total", &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_endpoint_changes_and_a_hundred_certificates_close_no_socket_and_lose_no_byte() {
    let Some((installed, echo)) = scene().await else {
        return;
    };
    let mut talkers = Talkers::start(&installed.client(), SOCKETS, PACE).await;
    // Of a socket that was opened only to see whether the route is served.
    let ended = relays_ended(&installed).await;
    let first = installed.swaps().await;
    let mut last = first;
    let (mut endpoint_changes, mut certificates) = (0, 0);
    for step in 0..STEPS {
        let what = if step % 3 == 0 {
            certificates += 1;
            write_secret(&installed, &installed.authority.issue(&[HOST])).await;
            format!("a new certificate in step {step}")
        } else {
            for _ in 0..CHANGES_IN_A_STEP {
                write_endpoint(&installed, echo.address, endpoint_changes).await;
                endpoint_changes += 1;
            }
            format!("endpoint changes in step {step}")
        };
        if step % 10 == 0 {
            write_timeout(&installed, step).await;
        }
        last = wait::until(&what, async || {
            Some(installed.swaps().await).filter(|now| *now > last)
        })
        .await;
        talkers.assert_all_talk(&what);
    }
    assert_eq!(endpoint_changes, ENDPOINT_CHANGES);
    assert_eq!(certificates, CERTIFICATES);
    let steps = u64::try_from(STEPS).expect("a small number");
    assert!(last - first >= steps, "{} swaps", last - first);

    let metrics = installed.dataplane.metrics().await;
    assert_eq!(metrics.sum("ws_ingress_open_sockets", &[]), SOCKETS);
    assert_eq!(relays_ended(&installed).await, ended);
    let messages = talkers.finish().await;

    // What was written last is what new handshakes get.
    let fresh = installed.authority.issue(&[HOST]);
    write_secret(&installed, &fresh).await;
    write_endpoint(&installed, echo.address, 2).await;
    wait::until("the last certificate", async || {
        (shown(&installed).await? == fresh.leaf).then_some(())
    })
    .await;
    installed.takes(HOST, "/").await;
    println!("{} swaps, {messages} messages echoed", last - first);
}
