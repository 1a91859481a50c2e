//! Changes while sockets are open: new handshakes follow within seconds, open sockets never notice.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tests::client::{certificate_shown, close_code, next, shown_on, talk, tls_over};
use tests::echo_process::EchoProcess;
use tests::manifests::{Rule, Tls, endpoints, route, secret, secret_of};
use tests::scene::{CERTIFICATE_FILE, ENDPOINTS_FILE, HOST, ROUTE_FILE, SECRET, SERVICE, Scene};
use tests::talkers::Talkers;
use tests::wait;
use tokio::net::TcpStream;

async fn shown(scene: &Scene) -> Option<CertificateDer<'static>> {
    certificate_shown(scene.gateway.https, HOST, scene.authority.root())
        .await
        .ok()
}

/// Waits until new sockets are served by this backend.
async fn served_by(scene: &Scene, backend: &EchoProcess) {
    let what = format!("new sockets reach {}", backend.address);
    wait::until(&what, async || {
        let mut socket = scene.client().path("/").try_connect().await.ok()?.0;
        let hello = next(&mut socket).await.into_text().ok()?;
        hello.contains(&backend.address.to_string()).then_some(())
    })
    .await;
}

async fn status_becomes(scene: &Scene, path: &str, expected: u16) {
    let what = format!("{expected} for {path}");
    wait::until(&what, async || {
        (scene.client().path(path).status().await == Some(expected)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_to_the_next_handshake_and_the_open_socket_lives() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let mut open = scene.client().connect().await;
    let fresh = scene.authority.issue(&[HOST]);
    // A browser connects ahead of its first request; this one is accepted before the next is shown anything.
    let early = TcpStream::connect(scene.gateway.https).await;
    assert_ne!(shown(&scene).await, Some(fresh.leaf.clone()));
    scene
        .manifests
        .write(CERTIFICATE_FILE, &secret(SECRET, &fresh));
    wait::until("the new certificate", async || {
        (shown(&scene).await? == fresh.leaf).then_some(())
    })
    .await;
    talk(&mut open, "opened under the old certificate").await;
    let early = early.expect("a listener");
    let early = tls_over(early, HOST, scene.authority.root()).await;
    let early = early.expect("a TLS handshake");
    assert_eq!(shown_on(&early).expect("a certificate"), fresh.leaf);
}

#[tokio::test]
async fn with_a_foreign_key_the_last_good_certificate_serves_on_and_the_finding_says_so() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let mut open = scene.client().connect().await;
    let before = shown(&scene).await;
    let (fresh, foreign) = (
        scene.authority.issue(&[HOST]),
        scene.authority.issue(&[HOST]),
    );
    scene.manifests.write(
        CERTIFICATE_FILE,
        &secret_of(SECRET, &fresh.chain_pem, &foreign.key_pem),
    );
    let finding = "finding: WebSocketRoute default/chat: ResolvedRefs=False InvalidCertificateRef";
    scene.gateway.log().with(finding).await;
    assert_eq!(shown(&scene).await, before);
    talk(&mut open, "still here").await;
    let mut new = scene.client().connect().await;
    talk(&mut new, "and new ones too").await;

    scene
        .manifests
        .write(CERTIFICATE_FILE, &secret(SECRET, &fresh));
    let ended = "ended: WebSocketRoute default/chat: ResolvedRefs=False InvalidCertificateRef";
    scene.gateway.log().with(ended).await;
    wait::until("the mended certificate", async || {
        (shown(&scene).await? == fresh.leaf).then_some(())
    })
    .await;
    let keys = [&foreign.key_pem, &fresh.key_pem]
        .map(|pem| pem.lines().nth(1).unwrap_or_default().to_owned());
    for line in scene.gateway.log().all() {
        assert!(
            !keys.iter().any(|key| line.contains(key.as_str())),
            "a private key in the log"
        );
    }
}

#[tokio::test]
async fn endpoints_that_come_and_go_are_followed_by_new_handshakes_only() {
    let (one, two) = (
        EchoProcess::start("one").await,
        EchoProcess::start("two").await,
    );
    let scene = Scene::in_front_of(one.address).await;
    let mut open = scene.client().connect().await;
    let write = |addresses: &[SocketAddr]| {
        scene
            .manifests
            .write(ENDPOINTS_FILE, &endpoints(SERVICE, addresses))
    };

    write(&[one.address, two.address]);
    served_by(&scene, &two).await;
    let before = (one.handshakes().await, two.handshakes().await);
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(scene.client().connect().await);
    }
    assert!(
        one.handshakes().await > before.0,
        "the first endpoint is still used"
    );
    assert!(
        two.handshakes().await > before.1,
        "the second endpoint is used"
    );
    talk(&mut open, "an endpoint was added").await;

    write(&[two.address]);
    // The removed endpoint gets no new socket once the change is in; until then both do.
    wait::until("no new socket reaches the removed endpoint", async || {
        let before = one.handshakes().await;
        for _ in 0..10 {
            scene.client().status().await;
        }
        (one.handshakes().await == before).then_some(())
    })
    .await;
    talk(&mut open, "my own endpoint was removed").await;

    // A file that is only emptied keeps what it held.
    scene.manifests.remove(ENDPOINTS_FILE);
    status_becomes(&scene, "/", 503).await;
    talk(&mut open, "no endpoint is left").await;
}

#[tokio::test]
async fn a_changed_or_deleted_route_is_followed_by_new_handshakes_only() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let mut open = scene.client().connect().await;

    scene.write_route(&[Rule::to(SERVICE).named("moved").exact("/moved")]);
    status_becomes(&scene, "/", 404).await;
    assert_eq!(scene.client().path("/moved").status().await, Some(101));
    talk(&mut open, "my path was moved").await;

    scene.manifests.remove(ROUTE_FILE);
    wait::until("no certificate for a host without a route", async || {
        shown(&scene).await.is_none().then_some(())
    })
    .await;
    talk(&mut open, "my route was deleted").await;

    scene.write_route(&[Rule::to(SERVICE).named("back")]);
    status_becomes(&scene, "/", 101).await;
    talk(&mut open, "a route came back").await;
    drop(open);
}

/// Sockets that talk during the swaps.
const SOCKETS: u64 = 100;
const SWAPS: u64 = 200;

/// Time between two messages of one socket: 2000 messages a second in all leave two cores room for the swaps.
const PACE: Duration = Duration::from_millis(50);

/// The `step`th change: each differs from what was there before, and together they touch the talking sockets' route,
/// certificate and endpoint, removal included.
fn change(scene: &Scene, step: usize, own: SocketAddr, other: SocketAddr) -> &'static str {
    let write_route = |rule: Rule| {
        scene.manifests.write(
            ROUTE_FILE,
            &route("chat", &[HOST], &Tls::Terminate(SECRET), &[rule]),
        );
    };
    let write_endpoints = |addresses: &[SocketAddr]| {
        scene
            .manifests
            .write(ENDPOINTS_FILE, &endpoints(SERVICE, addresses));
    };
    match step % 8 {
        0 => {
            scene.manifests.write(
                CERTIFICATE_FILE,
                &secret(SECRET, &scene.authority.issue(&[HOST])),
            );
            "a new certificate"
        }
        1 => {
            write_endpoints(&[own, other]);
            "a second endpoint"
        }
        2 => {
            write_endpoints(&[other]);
            "the endpoint of the sockets removed"
        }
        3 => {
            scene.manifests.remove(ENDPOINTS_FILE);
            "no endpoint left"
        }
        4 => {
            write_route(
                Rule::to(SERVICE)
                    .named(&format!("rule-{step}"))
                    .exact("/elsewhere"),
            );
            "the path of the sockets moved away"
        }
        5 => {
            scene.manifests.remove(ROUTE_FILE);
            "the route of the sockets deleted"
        }
        6 => {
            let seconds = 600 + step;
            write_route(Rule::to(SERVICE).timeout("read", &format!("{seconds}s")));
            "the route back, with another timeout"
        }
        _ => {
            write_endpoints(&[own]);
            "the endpoint back"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_swaps_close_no_socket_and_lose_no_byte() {
    let (echo, other) = (
        EchoProcess::start("echo").await,
        EchoProcess::start("other").await,
    );
    let scene = Scene::in_front_of(echo.address).await;
    let mut talkers = Talkers::start(&scene.client(), SOCKETS, PACE).await;

    let swaps = async || {
        Some(
            scene
                .gateway
                .try_metrics()
                .await?
                .sum("ws_ingress_table_swaps_total", &[]),
        )
    };
    let first = wait::until("metrics", swaps).await;
    let mut last = first;
    for step in 0.. {
        if last - first >= SWAPS {
            break;
        }
        let what = change(&scene, step, echo.address, other.address);
        let what = format!("swap {step}: {what}");
        // One at a time, so that no two changes melt into one swap.
        last = wait::until(&what, async || swaps().await.filter(|now| *now > last)).await;
        talkers.assert_all_talk(&what);
    }
    scene.gateway.open_sockets(SOCKETS).await;
    let messages = talkers.finish().await;
    let ended = scene
        .gateway
        .log()
        .all()
        .iter()
        .filter(|line| line.contains("panicked"))
        .count();
    assert_eq!(ended, 0);
    println!("{} swaps, {messages} messages echoed", last - first);
}

#[tokio::test]
async fn a_route_change_between_hello_and_close_does_not_change_the_close() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let mut open = scene.client().path("/").connect().await;
    next(&mut open).await;
    scene.manifests.remove(ROUTE_FILE);
    wait::until("the route is gone", async || {
        shown(&scene).await.is_none().then_some(())
    })
    .await;
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: 4001.into(),
        reason: "mine".into(),
    };
    open.close(Some(frame)).await.expect("an open socket");
    assert_eq!(close_code(&mut open).await, 4001);
}
