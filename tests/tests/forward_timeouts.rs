//! `timeouts.read` and `timeouts.send` of ordinary HTTP and of sockets at the recipe's 60 s scaled down: a fiftieth of it, 1.2 s.
//! Between two reads, or two writes, not in all: what talks every 300 ms lives, what is silent is ended.

use std::time::Duration;

use tests::backend::Backend;
use tests::frame;
use tests::manifests::Rule;
use tests::raw::{Connection, End};
use tests::scene::{HOST, SERVICE, Scene};
use tests::wait::within;
use tokio::time::{Instant, sleep, timeout};

/// `proxy_read_timeout 60s` and `proxy_send_timeout 60s` of the recipe, and a quarter of it.
const LIMIT_TEXT: &str = "1200ms";
const LIMIT: Duration = Duration::from_millis(1200);
const PACE: Duration = Duration::from_millis(300);

/// What the limit may take on a busy machine.
const ABOUT_THE_LIMIT: Duration = Duration::from_secs(5);

/// How often the talking side talks: in sum far longer than the limit.
const TIMES: usize = 8;

async fn scene(backend: &Backend, field: &'static str) -> Scene {
    let rules = [Rule::to(SERVICE).forward().timeout(field, LIMIT_TEXT)];
    Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await
}

fn request(method: &str, more: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

#[track_caller]
fn assert_about_the_limit(since: Instant) {
    let took = since.elapsed();
    assert!((LIMIT..ABOUT_THE_LIMIT).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_stream_of_events_lives_while_it_talks_and_is_cut_when_it_is_silent() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "read").await;
    let (mut client, mut server, _) = scene.asked(&mut backend, request("GET", "")).await;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    server.send(head).await.expect("the proxy listens");
    client.through("\r\n\r\n").await.expect("a head");
    for _ in 0..TIMES {
        // The pause is the behaviour under test.
        sleep(PACE).await;
        server
            .send("3\r\n:\n\n\r\n")
            .await
            .expect("the proxy listens");
        client.through(":\n\n").await.expect("an event");
    }
    let silent_since = Instant::now();
    let (rest, end) = client.end().await;
    assert_about_the_limit(silent_since);
    // No last chunk, and no orderly end either: an EventSource comes back, and nobody takes it for whole.
    assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"));
    assert_ne!(end, End::CloseNotify);
    server.end().await;
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_backend_that_says_nothing_is_504_and_an_interim_answer_is_a_sign_of_life() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "read").await;
    let (mut client, mut server, _) = scene.asked(&mut backend, request("GET", "")).await;
    for _ in 0..TIMES {
        // The pause is the behaviour under test.
        sleep(PACE).await;
        let processing = "HTTP/1.1 102 Processing\r\n\r\n";
        server.send(processing).await.expect("the proxy listens");
    }
    let silent_since = Instant::now();
    let response = client.response("GET").await.expect("an answer");
    assert_eq!(response.status, 504);
    assert_about_the_limit(silent_since - PACE);
    server.end().await;
}

#[tokio::test]
async fn a_socket_lives_while_it_talks_and_is_closed_with_1001_when_it_is_silent() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "read").await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    for _ in 0..TIMES {
        // The pause is the behaviour under test.
        sleep(PACE).await;
        let text = frame::unmasked(frame::TEXT, b"talk");
        server.send(text).await.expect("an open tunnel");
        assert_eq!(client.frame().await.expect("a frame").opcode, frame::TEXT);
    }
    let silent_since = Instant::now();
    for side in [&mut client, &mut server] {
        let close = side.frame().await.expect("a Close, not 1006");
        assert_eq!(close.close_code(), Some(1001));
    }
    assert_about_the_limit(silent_since);
}

/// Sends the same bytes until that fails.
async fn send_without_end(connection: &mut Connection, piece: &[u8]) {
    let sending = async { while connection.send(piece).await.is_ok() {} };
    within("the end of a stalled stream", sending).await;
}

/// Sends until nobody takes a byte for a while, which is far shorter than the limit.
async fn send_all_that_is_taken(client: &mut Connection) {
    let piece = vec![b'u'; 16 * 1024];
    while let Ok(sent) = timeout(PACE, client.send(&piece)).await {
        sent.expect("the proxy reads or waits");
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_an_answer_is_ended_after_the_rules_send_limit() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "send").await;
    let client = Connection::narrow_tls(scene.gateway.https, HOST, scene.authority.root()).await;
    let mut client = client.expect("a TLS handshake");
    client.send(request("GET", "")).await.expect("a request");
    let (mut server, _) = backend.next().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
    server.send(head).await.expect("the proxy listens");
    let started = Instant::now();
    send_without_end(&mut server, &[b'd'; 16 * 1024]).await;
    assert_about_the_limit(started);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    const BODY: usize = 32 << 20;
    // More than the kernel holds for the proxy, so that each part lets it write on.
    const PART: usize = 5 << 20;
    const PARTS: usize = 4;
    let mut backend = Backend::played();
    // Longer than elsewhere: a part is also decrypted in this time, by a machine that may be busy.
    let rules = [Rule::to(SERVICE).forward().timeout("send", "3s")];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let client = Connection::narrow_tls(scene.gateway.https, HOST, scene.authority.root()).await;
    let mut client = client.expect("a TLS handshake");
    client.send(request("GET", "")).await.expect("a request");
    let (mut server, _) = backend.next().await;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
    let sending = async {
        server.send(answer).await.expect("the proxy listens");
        server
            .send(vec![b'd'; BODY])
            .await
            .expect("the proxy listens");
    };
    let reading = async {
        client.through("\r\n\r\n").await.expect("a head");
        for _ in 0..PARTS {
            // The pause is the behaviour under test: in sum far longer than the limit.
            sleep(Duration::from_secs(1)).await;
            client.exactly(PART).await.expect("a part of it");
        }
        let rest = client.exactly(BODY - PARTS * PART).await;
        rest.expect("the rest of it");
    };
    tokio::join!(sending, reading);
}

#[tokio::test]
async fn a_backend_that_stops_reading_an_upload_is_ended_after_the_rules_send_limit() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "send").await;
    let head = request("POST", "Content-Length: 1000000000\r\n");
    let (mut client, mut server, _) = scene.asked(&mut backend, head).await;
    let started = Instant::now();
    send_all_that_is_taken(&mut client).await;
    let answer = client.response("POST").await.expect("an answer");
    assert_eq!(answer.status, 504);
    assert_about_the_limit(started);
    server.end().await;
    let metrics = scene.gateway.metrics().await;
    let outcome = [("outcome", "answer_timeout")];
    assert_eq!(metrics.sum("ws_ingress_requests_total", &outcome), 1);
}

#[tokio::test]
async fn a_client_that_pauses_within_its_upload_is_no_silence_of_the_backend() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "read").await;
    let head = request("POST", "Content-Length: 10\r\n") + "hello";
    let (mut client, mut server, _) = scene.asked(&mut backend, head).await;
    server.exactly(5).await.expect("the first half");
    // The pause is the behaviour under test: the time of the backend has not begun.
    assert!(client.quiet_for(2 * LIMIT).await);
    // The backend's time begins when the proxy has the second half, before the backend has it.
    let started = Instant::now();
    client.send("again").await.expect("the second half");
    server.exactly(5).await.expect("the second half");
    let response = client.response("POST").await.expect("an answer");
    assert_eq!(response.status, 504);
    assert_about_the_limit(started);
}

#[tokio::test]
async fn each_request_on_a_shared_connection_has_the_limits_of_its_own_rule() {
    let mut backend = Backend::played();
    let rules = [
        Rule::to(SERVICE).named("patient").prefix("/").forward(),
        Rule::to(SERVICE)
            .named("hasty")
            .prefix("/hasty")
            .forward()
            .timeout("send", LIMIT_TEXT),
    ];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let (mut first, mut server, _) = scene.asked(&mut backend, request("GET", "")).await;
    let well = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";
    server.send(well).await.expect("the proxy listens");
    first.response("GET").await.expect("an answer");
    scene.gateway.idle_upstreams(1).await;

    let mut client = scene.raw().await;
    let head = request("POST", "Content-Length: 1000000000\r\n").replace("POST /", "POST /hasty");
    client.send(head).await.expect("a request");
    server.request().await.expect("the same connection");
    let started = Instant::now();
    send_all_that_is_taken(&mut client).await;
    let answer = client.response("POST").await.expect("an answer");
    assert_eq!(answer.status, 504);
    assert_about_the_limit(started);
}
