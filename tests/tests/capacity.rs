//! As many clients as there may be: who comes when there is room for few more is told to come again, at the limit nobody is accepted and
//! the pod is not ready, and both end when a tenth is free. Who is connected notices nothing of it.

use tests::client::{WebSocket, talk};
use tests::echo_process::EchoProcess;
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::raw::{Connection, upgrade};
use tests::scene::{HOST, SERVICE, Scene};
use tests::wait;
use tokio::task::JoinSet;

/// 40 connections: (216 open files - 128 - 8 idle upstream ones) / 2.
const OPEN_FILES: u32 = 216;
/// 95 % and 90 % of them.
const CROWDED: usize = 38;
const ROOMY: usize = 36;

const REASON: &str = "the limit of connections is reached";

async fn scene(echo: &EchoProcess) -> Scene {
    let settings = Settings {
        open_files: Some(OPEN_FILES),
        ..Settings::default()
    };
    let rules = [Rule::to(SERVICE).forward()];
    Scene::start(&rules, &[(SERVICE, &[echo.address])], &settings).await
}

async fn sockets(scene: &Scene, count: usize) -> Vec<WebSocket> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(scene.client().connect().await);
    }
    sockets
}

async fn sum(scene: &Scene, name: &str, labels: &[(&str, &str)]) -> u64 {
    scene.gateway.metrics().await.sum(name, labels)
}

/// Waits until so many connections are open.
async fn open_connections(scene: &Scene, count: usize) {
    let what = format!("{count} open connections");
    wait::until(&what, async || {
        let open = sum(scene, "ws_ingress_open_connections", &[]).await;
        (open == count as u64).then_some(())
    })
    .await;
}

async fn readiness(scene: &Scene) -> (u16, String) {
    scene.gateway.readiness().await.expect("an answer")
}

#[tokio::test]
async fn from_95_percent_on_new_clients_are_told_to_come_again_until_a_tenth_is_free() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    assert_eq!(sum(&scene, "ws_ingress_connection_limit", &[]).await, 40);
    let mut before = sockets(&scene, CROWDED).await;

    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut seconds = Vec::new();
    for request in [upgrade(HOST, "/", ""), get.clone()]
        .iter()
        .cycle()
        .take(40)
    {
        let refused = scene.ask(request).await;
        assert_eq!(refused.status, 503);
        assert!(refused.text().contains("try again"), "{}", refused.text());
        assert_eq!(refused.header("connection"), Some("close"));
        let retry_after = refused.header("retry-after").expect("when to try again");
        seconds.push(retry_after.parse::<u32>().expect("seconds"));
        open_connections(&scene, CROWDED).await;
    }
    // Not all at the same time.
    seconds.sort_unstable();
    seconds.dedup();
    assert!(seconds.len() > 2, "{seconds:?}");
    assert!(seconds.iter().all(|seconds| (5..=15).contains(seconds)));
    for (name, count) in [("handshakes", 20), ("requests", 20)] {
        let name = format!("ws_ingress_{name}_total");
        assert_eq!(sum(&scene, &name, &[("outcome", "crowded")]).await, count);
    }
    assert_eq!(readiness(&scene).await.0, 200);

    before.truncate(ROOMY + 1);
    open_connections(&scene, ROOMY + 1).await;
    assert_eq!(scene.ask(&get).await.status, 503);
    before.truncate(ROOMY);
    open_connections(&scene, ROOMY).await;
    assert_eq!(scene.ask(&get).await.status, 200);
    before.push(scene.client().connect().await);
    for socket in &mut before {
        talk(socket, "still here").await;
    }
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn at_the_limit_nobody_is_accepted_and_the_pod_is_not_ready_until_a_tenth_is_free() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let mut before = sockets(&scene, CROWDED).await;
    let idle = [scene.raw().await, scene.raw().await];
    open_connections(&scene, 40).await;
    let (status, page) = readiness(&scene).await;
    assert_eq!(status, 503);
    assert_eq!(page, format!("{REASON}\n"));
    assert_eq!(sum(&scene, "ws_ingress_accept_stops_total", &[]).await, 1);

    // They get as far as the kernel's queue, on either listener.
    let mut plain = Connection::plain(scene.gateway.http)
        .await
        .expect("a place in the queue");
    let (address, root) = (scene.gateway.https, scene.authority.root());
    let mut waiting = JoinSet::new();
    waiting.spawn(Connection::tls(address, HOST, root));
    for socket in &mut before {
        talk(socket, "still here").await;
    }
    open_connections(&scene, 40).await;

    drop(idle);
    before.truncate(ROOMY + 1);
    open_connections(&scene, ROOMY + 1).await;
    assert_eq!(readiness(&scene).await.0, 503);
    assert!(waiting.try_join_next().is_none());
    before.truncate(ROOMY);
    wait::until("it is ready again", async || {
        (readiness(&scene).await.0 == 200).then_some(())
    })
    .await;
    let mut served = waiting
        .join_all()
        .await
        .pop()
        .expect("one")
        .expect("a TLS handshake");
    served
        .send(upgrade(HOST, "/", ""))
        .await
        .expect("a request");
    let answer = served.response("GET").await.expect("an answer");
    assert_eq!(answer.status, 101);
    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    plain.send(get).await.expect("a request");
    plain.response("GET").await.expect("an answer");
    for socket in &mut before {
        talk(socket, "still here").await;
    }
    assert_eq!(scene.gateway.log().count(REASON), 1);
}

#[tokio::test]
async fn a_limit_of_open_files_that_may_be_raised_is_no_limit() {
    let echo = EchoProcess::start("echo").await;
    let settings = Settings {
        open_files: Some(OPEN_FILES),
        open_files_at_first: Some(OPEN_FILES / 2),
        ..Settings::default()
    };
    let rules = [Rule::to(SERVICE)];
    let scene = Scene::start(&rules, &[(SERVICE, &[echo.address])], &settings).await;
    assert_eq!(sum(&scene, "ws_ingress_connection_limit", &[]).await, 40);
    scene.gateway.assert_quiet_log();
}
