//! Upstream connections of ordinary HTTP: kept for the next request, never past their time, and never by one that could hurt
//! another client.

use std::time::Duration;

use rustix::process::Signal;
use tests::backend::Backend;
use tests::gateway::Settings;
use tests::manifests::{Rule, endpoints, slice};
use tests::raw::{Connection, End};
use tests::scene::{ENDPOINTS_FILE, HOST, SERVICE, Scene};
use tests::wait::within;
use tokio::time::Instant;

/// An answer that leaves its connection in order.
const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";

/// What nobody asked for, and nobody may get.
const FOREIGN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

async fn scene(backends: &[&Backend]) -> Scene {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let rules = [Rule::to(SERVICE).forward()];
    Scene::with_rules(&rules, &[(SERVICE, &addresses)]).await
}

fn request(method: &str, more: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

fn get() -> String {
    request("GET", "")
}

/// A good exchange of a client of its own; the backend's connection waits after it.
async fn idle(scene: &Scene, backend: &mut Backend) -> Connection {
    let (mut client, mut server, _) = scene.asked(backend, get()).await;
    server.send(WELL).await.expect("the proxy listens");
    let response = client.response("GET").await.expect("an answer");
    assert_eq!(response.text(), "well");
    scene.gateway.idle_upstreams(1).await;
    server
}

async fn reused(scene: &Scene) -> u64 {
    let metrics = scene.gateway.metrics().await;
    metrics.sum(
        "ws_ingress_upstream_requests_total",
        &[("connection", "reused")],
    )
}

#[tokio::test]
async fn requests_of_several_clients_share_a_connection() {
    let mut backend = Backend::played();
    let scene = scene(&[&backend]).await;
    let mut server = idle(&scene, &mut backend).await;
    for (asked, answer) in [
        (get(), WELL.to_owned()),
        (
            request("POST", "Content-Length: 5\r\n") + "hello",
            WELL.to_owned(),
        ),
        (
            request("HEAD", ""),
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_owned(),
        ),
        (get(), "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        (
            get(),
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n".to_owned(),
        ),
        (
            get(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n"
                .to_owned(),
        ),
    ] {
        let mut client = scene.raw().await;
        client.send(&asked).await.expect("a request");
        let seen = server.request().await.expect("the same connection");
        if seen.method == "POST" {
            assert_eq!(server.exactly(5).await.expect("the body"), b"hello");
        }
        server.send(&answer).await.expect("the proxy listens");
        let response = client.response(&seen.method).await.expect("an answer");
        assert!(answer.contains(&response.status.to_string()), "{answer}");
        scene.gateway.idle_upstreams(1).await;
    }
    assert_eq!(backend.connections(), 1);
    assert_eq!(reused(&scene).await, 6);
}

#[tokio::test]
async fn a_connection_waits_less_long_than_usual_backends_and_than_this_one_says() {
    // Node ends an idle connection after 5 s, and says so; this one says less.
    for (says, least, most) in [("", 3, 10), ("Keep-Alive: timeout=2\r\n", 0, 3)] {
        let mut backend = Backend::played();
        let scene = scene(&[&backend]).await;
        let (mut client, mut server, _) = scene.asked(&mut backend, get()).await;
        let answer = WELL.replace("\r\n\r\n", &format!("\r\n{says}\r\n"));
        server.send(answer).await.expect("the proxy listens");
        client.response("GET").await.expect("an answer");
        let started = Instant::now();
        assert_eq!(server.end().await, (Vec::new(), End::Fin));
        let took = started.elapsed().as_secs();
        assert!((least..most).contains(&took), "{took} s after {says:?}");
        scene.gateway.idle_upstreams(0).await;
    }
}

#[tokio::test]
async fn connections_of_an_endpoint_that_left_or_terminates_are_closed_and_not_used() {
    let terminating = "ready: false, serving: true, terminating: true";
    for leaves in [true, false] {
        let (mut backend, mut other) = (Backend::played(), Backend::played());
        let scene = scene(&[&backend]).await;
        // One that is idle, and one whose answer is still on its way.
        let (mut client, mut busy, _) = scene.asked(&mut backend, get()).await;
        let (mut second, mut waiting, _) = scene.asked(&mut backend, get()).await;
        waiting.send(WELL).await.expect("the proxy listens");
        second.response("GET").await.expect("an answer");
        scene.gateway.idle_upstreams(1).await;

        let mut slices = endpoints(SERVICE, &[other.address]);
        if !leaves {
            slices += &slice(SERVICE, backend.address, terminating);
        }
        let started = Instant::now();
        scene.manifests.write(ENDPOINTS_FILE, &slices);
        assert_eq!(waiting.end().await.1, End::Fin);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}: it grew old");

        let started = Instant::now();
        busy.send(WELL).await.expect("the proxy listens");
        let answer = client.response("GET").await.expect("the whole answer");
        assert_eq!(answer.text(), "well");
        assert_eq!(busy.end().await.1, End::Fin);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}: it grew old");
        let (_client, _server, _) = scene.asked(&mut other, get()).await;
        assert_eq!(backend.connections(), 2);
    }
}

#[tokio::test]
async fn drain_does_not_wait_for_idle_connections() {
    let mut backend = Backend::played();
    let rules = [Rule::to(SERVICE).forward()];
    let settings = Settings {
        drain_timeout: "10s",
        ..Settings::default()
    };
    let mut scene = Scene::start(&rules, &[(SERVICE, &[backend.address])], &settings).await;
    let mut server = idle(&scene, &mut backend).await;
    let started = Instant::now();
    scene.gateway.signal(Signal::TERM);
    scene.gateway.drained(Duration::from_secs(10)).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}: it grew old");
    assert_eq!(server.end().await.1, End::Fin);
}

/// A connection that the backend ends when the next request has arrived on it: too late for the proxy to know before.
async fn ended_at_the_next_request(asked: &str, last_words: &str) -> (Scene, Backend, Connection) {
    let mut backend = Backend::played();
    let scene = scene(&[&backend]).await;
    let mut server = idle(&scene, &mut backend).await;
    let mut client = scene.raw().await;
    client.send(asked).await.expect("a request");
    server.request().await.expect("the same connection");
    server.send(last_words).await.expect("the proxy listens");
    drop(server);
    (scene, backend, client)
}

#[tokio::test]
async fn what_may_be_sent_twice_is_sent_again_over_a_fresh_connection() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"] {
        let asked = request(method, "");
        let (scene, mut backend, mut client) = ended_at_the_next_request(&asked, "").await;
        let (mut server, seen) = backend.next().await;
        assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/"));
        server.send(WELL).await.expect("the proxy listens");
        let response = client.response(method).await.expect("an answer");
        assert_eq!(response.status, 200, "{method}");
        let metrics = scene.gateway.metrics().await;
        let retried = [("connection", "retried")];
        let retried = metrics.sum("ws_ingress_upstream_requests_total", &retried);
        assert_eq!(retried, 1);
        scene.gateway.assert_quiet_log();
    }
}

#[tokio::test]
async fn what_may_not_be_sent_twice_is_502() {
    let cases = [
        ("POST", ""),
        ("PATCH", ""),
        ("GET", "H"),
        ("GET", "HTTP/1.1 100 Continue\r\n\r\n"),
    ];
    for (method, last_words) in cases {
        let asked = request(method, "");
        let (_scene, backend, mut client) = ended_at_the_next_request(&asked, last_words).await;
        let response = client.response(method).await.expect("an answer");
        assert_eq!(response.status, 502, "{method} after {last_words:?}");
        assert_eq!(backend.connections(), 1, "{method} after {last_words:?}");
    }
    // A body that was sent, of a method that is idempotent.
    let asked = request("PUT", "Content-Length: 4\r\n") + "body";
    let (_scene, backend, mut client) = ended_at_the_next_request(&asked, "").await;
    assert_eq!(client.response("PUT").await.expect("an answer").status, 502);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_request_is_sent_twice_at_most_and_once_over_a_fresh_connection() {
    let (_scene, mut backend, mut client) = ended_at_the_next_request(&get(), "").await;
    drop(backend.next().await);
    assert_eq!(client.response("GET").await.expect("an answer").status, 502);
    assert_eq!(backend.connections(), 2);

    let mut backend = Backend::played();
    let scene = scene(&[&backend]).await;
    let (mut client, server, _) = scene.asked(&mut backend, get()).await;
    drop(server);
    assert_eq!(client.response("GET").await.expect("an answer").status, 502);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_post_right_after_the_backend_ended_an_idle_connection_is_served() {
    let mut backend = Backend::played();
    let scene = scene(&[&backend]).await;
    for _ in 0..5 {
        drop(idle(&scene, &mut backend).await);
        let asked = request("POST", "Content-Length: 5\r\n") + "hello";
        let (mut client, mut server, _) = scene.asked(&mut backend, asked).await;
        assert_eq!(server.exactly(5).await.expect("the body"), b"hello");
        server.send(WELL).await.expect("the proxy listens");
        drop(server);
        assert_eq!(
            client.response("POST").await.expect("an answer").status,
            200
        );
        scene.gateway.idle_upstreams(0).await;
    }
}

#[tokio::test]
async fn a_connection_whose_exchange_did_not_end_cleanly_meets_no_second_client() {
    let with = |answer: &str| format!("{answer}{FOREIGN}");
    let upload = request("POST", "Content-Length: 10\r\n") + "hello";
    let cases = [
        ("more than was asked for", get(), with(WELL), 200),
        (
            "a body after HEAD",
            request("HEAD", ""),
            WELL.to_owned(),
            200,
        ),
        (
            "a body after 204",
            get(),
            with("HTTP/1.1 204 No Content\r\n\r\n"),
            204,
        ),
        (
            "a body after 304",
            get(),
            with("HTTP/1.1 304 Not Modified\r\n\r\n"),
            304,
        ),
        (
            "bytes after the last chunk",
            get(),
            with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n"),
            200,
        ),
        (
            "a length and chunks",
            get(),
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
            502,
        ),
        (
            "a 101 that nobody asked for",
            get(),
            with(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            ),
            502,
        ),
        ("no HTTP", get(), "SSH-2.0-OpenSSH\r\n\r\n".to_owned(), 502),
        (
            "HTTP/1.0",
            get(),
            WELL.replace(
                "HTTP/1.1 200 OK",
                "HTTP/1.0 200 OK\r\nConnection: keep-alive",
            ),
            200,
        ),
        (
            "a wish to close",
            get(),
            WELL.replace("OK", "OK\r\nConnection: close"),
            200,
        ),
        (
            "an answer before the upload was read",
            upload,
            WELL.to_owned(),
            200,
        ),
    ];
    for (kind, asked, answer, status) in cases {
        let mut backend = Backend::played();
        let scene = scene(&[&backend]).await;
        let (mut client, mut server, seen) = scene.asked(&mut backend, asked).await;
        server.send(answer).await.expect("the proxy listens");
        let response = client.response(&seen.method).await.expect("an answer");
        assert_eq!(response.status, status, "{kind}");
        assert!(!response.text().contains("evil"), "{kind}");
        let what = format!("the end of a connection after {kind}");
        let started = Instant::now();
        within(&what, server.end()).await;
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "{kind}: it grew old"
        );
        let (mut client, mut server, _) = scene.asked(&mut backend, get()).await;
        server.send(WELL).await.expect("the proxy listens");
        let response = client.response("GET").await.expect("an answer");
        assert_eq!(response.text(), "well", "{kind}");
        scene.gateway.assert_quiet_log();
    }
}

#[tokio::test]
async fn bytes_that_come_while_a_connection_waits_reach_nobody() {
    let mut backend = Backend::played();
    let scene = scene(&[&backend]).await;
    let mut server = idle(&scene, &mut backend).await;
    server.send(FOREIGN).await.expect("the proxy listens");
    // Asked at once: whether the bytes are noticed before or after, they are no answer to this.
    let (mut client, mut fresh, _) = scene.asked(&mut backend, get()).await;
    fresh.send(WELL).await.expect("the proxy listens");
    let response = client.response("GET").await.expect("an answer");
    assert_eq!(response.text(), "well");
    assert_ne!(server.end().await.1, End::CloseNotify);
}

#[tokio::test]
async fn an_upgrade_never_takes_a_connection_that_waits() {
    let mut backend = Backend::played();
    let scene = scene(&[&backend]).await;
    let server = idle(&scene, &mut backend).await;
    let tunnel = scene.tunnel(&mut backend).await;
    assert_eq!(backend.connections(), 2);
    drop((server, tunnel));
}

#[tokio::test]
async fn an_idle_connection_is_no_load() {
    let (mut one, mut two) = (Backend::played(), Backend::played());
    let scene = scene(&[&one, &two]).await;
    let mut client = scene.raw().await;
    client.send(get()).await.expect("a request");
    let (_long_poll, busy_is_one) = tokio::select! {
        (server, _) = one.next() => (server, true),
        (server, _) = two.next() => (server, false),
    };
    let (busy, free) = if busy_is_one {
        (&mut one, &mut two)
    } else {
        (&mut two, &mut one)
    };
    // The free one has nothing open each time, the other a request: of two endpoints the less loaded takes the next.
    let mut server = idle(&scene, free).await;
    for _ in 0..10 {
        let mut client = scene.raw().await;
        client.send(get()).await.expect("a request");
        server.request().await.expect("the free endpoint");
        server.send(WELL).await.expect("the proxy listens");
        client.response("GET").await.expect("an answer");
        scene.gateway.idle_upstreams(1).await;
    }
    assert_eq!(busy.connections(), 1);
}
