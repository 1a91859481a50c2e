//! One side goes away in the middle: the other hears of it, nothing broken off looks complete, and nothing is left taken.

use std::net::SocketAddr;
use std::time::Duration;

use tests::backend::{Backend, SWITCHING, fill};
use tests::gateway::Settings;
use tests::manifests::{Rule, endpoints};
use tests::raw::{Connection, End, upgrade};
use tests::scene::{ENDPOINTS_FILE, HOST, SERVICE, Scene};
use tests::wait::{self, within};
use tokio::time::timeout;

/// How long "nobody else is let in" is watched.
const QUIET: Duration = Duration::from_millis(300);

async fn scene(backend: &Backend) -> Scene {
    let rules = [Rule::to(SERVICE).forward().timeout("read", "3s")];
    Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await
}

fn get(more: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n{more}")
}

/// The ways in which one side leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// `close_notify` and FIN.
    InGoodOrder,
    Fin,
    Reset,
}

impl Leaves {
    const ALL: [Self; 3] = [Self::InGoodOrder, Self::Fin, Self::Reset];

    async fn with(self, mut connection: Connection) {
        match self {
            Self::InGoodOrder => connection.finish().await.expect("an end"),
            Self::Fin => drop(connection),
            Self::Reset => connection.reset(),
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_download_ends_it_at_the_backend() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let piece = format!("10000\r\n{}\r\n", "d".repeat(0x10000));
    for how in Leaves::ALL {
        let (mut client, mut server, _) = scene.asked(&mut backend, get("")).await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        server.send(head).await.expect("the proxy listens");
        server.send(&piece).await.expect("the proxy listens");
        client.exactly(1000).await.expect("a part of it");
        how.with(client).await;
        let ended = async { while server.send(&piece).await.is_ok() {} };
        within(&format!("the end of a download left by {how:?}"), ended).await;
    }
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_ends_the_request_at_the_backend() {
    let mut backend = Backend::played();
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    for how in Leaves::ALL {
        for begun in [
            "",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        ] {
            let (mut client, mut server, _) = scene.asked(&mut backend, get("")).await;
            server.send(begun).await.expect("the proxy listens");
            if !begun.is_empty() {
                client.exactly(1).await.expect("the answer's head");
            }
            how.with(client).await;
            server.end().await;
        }
    }
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn an_upload_that_cannot_be_read_is_400_and_no_fault_of_the_backend() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let post = get("").replace("GET", "POST");
    let chunked = post.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n");
    for broken in ["5\r\nhello\r\nfive\r\n", "4\r\nhello\r\n0\r\n\r\n"] {
        let (mut client, mut server, _) = scene.asked(&mut backend, &chunked).await;
        client.send(broken).await.expect("the proxy reads");
        let answer = client.response("POST").await.expect("an answer");
        assert_eq!(answer.status, 400, "{broken:?}");
        let (seen, _) = server.end().await;
        assert!(!seen.ends_with(b"0\r\n\r\n"), "{broken:?}");
    }
    for how in Leaves::ALL {
        let long = post.replace("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\nhello");
        let (client, mut server, _) = scene.asked(&mut backend, long).await;
        server.exactly(5).await.expect("a part of the body");
        how.with(client).await;
        server.end().await;
    }
    wait::until("five broken bodies", async || {
        let metrics = scene.gateway.metrics().await;
        let all = metrics.sum("ws_ingress_requests_total", &[]);
        let broken = metrics.sum("ws_ingress_requests_total", &[("outcome", "broken_body")]);
        assert_eq!(all, broken, "another outcome");
        (broken == 5).then_some(())
    })
    .await;
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_client_that_sent_more_before_it_left_ends_the_request_within_the_read_limit() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    // Nobody reads on behind the first byte of another request, so its end is not seen either.
    let (client, mut server, _) = scene.asked(&mut backend, get("G")).await;
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn an_answer_that_the_backend_breaks_off_never_looks_complete() {
    let heads = [
        ("a length", "Content-Length: 100\r\n\r\nonly this"),
        ("chunks", "Transfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n"),
        (
            "a cut chunk",
            "Transfer-Encoding: chunked\r\n\r\n64\r\nonly this",
        ),
        (
            "no last line",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\n",
        ),
    ];
    let mut complete = Vec::new();
    for (kind, rest) in heads {
        for how in [Leaves::Fin, Leaves::Reset] {
            if let Some(seen) = broken_off(kind, rest, how).await {
                complete.push(seen);
            }
        }
    }
    // The end of the stream is the end of such a body; a reset never is.
    complete.extend(
        broken_off(
            "the end of the stream",
            "Connection: close\r\n\r\nonly",
            Leaves::Reset,
        )
        .await,
    );
    assert!(complete.is_empty(), "{complete:#?}");
}

#[tokio::test]
async fn an_early_answer_that_ends_with_its_connection_is_not_whole_after_a_reset() {
    // Each is a race of the upload with the reset.
    const TRIES: usize = 20;
    const BODY: usize = 4 << 20;
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {BODY}\r\n\r\n");
    for number in 0..TRIES {
        let (mut client, mut server, _) = scene.asked(&mut backend, &head).await;
        let uploading = async {
            // It may be cut.
            let _ = client.send(vec![b'u'; BODY]).await;
            client.response("POST").await
        };
        let resetting = async {
            let answer = "HTTP/1.1 200 OK\r\n\r\nonly a part";
            server.send(answer).await.expect("the proxy listens");
            server.reset();
        };
        let (response, ()) = tokio::join!(uploading, resetting);
        if let Ok(response) = response {
            let text = response.text();
            assert_eq!(response.status, 502, "try {number}: whole: {text:?}");
        }
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_sees_that_an_answer_was_broken_off() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    for how in [Leaves::Fin, Leaves::Reset] {
        let asked = get("").replace("HTTP/1.1", "HTTP/1.0");
        let (mut client, mut server, _) = scene.asked(&mut backend, asked).await;
        let part = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n";
        server.send(part).await.expect("the proxy listens");
        client.holds(1).await.expect("the beginning of the answer");
        how.with(server).await;
        // Its body ends with the stream (RFC 9112 §6.3): only an end without close_notify says that it is not whole.
        let (_, end) = client.end().await;
        assert_ne!(end, End::CloseNotify, "{how:?}");
    }
}

#[tokio::test]
async fn what_came_before_the_cut_reaches_the_client_and_never_looks_complete() {
    for (rest, framing, complete) in [
        (
            "Content-Length: 100\r\n\r\nonly this",
            "content-length: 100\r\n",
            "no body of this length",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
            "transfer-encoding: chunked\r\n",
            "\r\n0\r\n",
        ),
    ] {
        // All at once, the end included: the proxy knows of the cut before it has sent anything.
        let backend = Backend::answering(&format!("HTTP/1.1 403 No\r\n{rest}"));
        let scene = scene(&backend).await;
        for asked in [get(""), upgrade(HOST, "/", "")] {
            let mut client = scene.raw().await;
            client.send(&asked).await.expect("a request");
            let (bytes, _) = client.end().await;
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            assert!(text.starts_with("http/1.1 403 no\r\n"), "{text:?}");
            assert!(text.contains(framing), "{text:?}");
            assert!(text.contains("only this"), "{text:?}");
            assert!(!text.contains(complete), "{text:?}");
        }
    }
}

/// What a client read as complete, in either kind of request, when the backend ended inside this answer.
async fn broken_off(kind: &str, rest: &str, how: Leaves) -> Option<String> {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    for asked in [get(""), upgrade(HOST, "/", "")] {
        let (mut client, mut server, _) = scene.asked(&mut backend, &asked).await;
        let answer = format!("HTTP/1.1 403 No\r\n{rest}");
        server.send(answer).await.expect("the proxy listens");
        // The head and a part of the body are with the client before the backend ends.
        client.holds(1).await.expect("the beginning of the answer");
        how.with(server).await;
        if let Ok(response) = client.response("GET").await
            && response.status != 502
        {
            let text = response.text();
            return Some(format!("{kind}, {how:?}: {text:?} for {asked}"));
        }
    }
    None
}

/// So few files that a leak of one connection a handshake would soon be felt: (200 - 128 - 8) / 2 = 32 connections.
const FEW_FILES: u32 = 200;
const MORE_THAN_ALLOWED: usize = 40;

async fn narrow_gateway(address: SocketAddr) -> Scene {
    let settings = Settings {
        open_files: Some(FEW_FILES),
        ..Settings::default()
    };
    let rules = [Rule::to(SERVICE).timeout("handshake", "1s")];
    Scene::start(&rules, &[(SERVICE, &[address])], &settings).await
}

#[tokio::test]
async fn handshakes_that_clients_break_off_leave_nothing_taken() {
    let mut backend = Backend::played();
    let scene = narrow_gateway(backend.address).await;
    let https = scene.gateway.https;
    for _ in 0..MORE_THAN_ALLOWED {
        // Before TLS, in its first message, before the request, and in the middle of it.
        drop(Connection::plain(https).await);
        let mut hello = Connection::plain(https).await.expect("a connection");
        hello.send(b"\x16\x03\x01\x02").await.expect("bytes");
        drop(hello);
        drop(scene.raw().await);
        let mut half = scene.raw().await;
        half.send("GET / HTTP/1.1\r\nHo").await.expect("bytes");
        half.reset();
    }
    for number in 0..MORE_THAN_ALLOWED {
        // While the backend is asked; then it answers into the void, or never.
        let (client, mut server, request) = scene.asked(&mut backend, upgrade(HOST, "/", "")).await;
        client.reset();
        if number % 2 == 0 {
            // The proxy may have ended it already.
            let _ = server.send(fill(SWITCHING, &request)).await;
        }
        server.end().await;
    }
    drop(scene.tunnel(&mut backend).await);
    scene.gateway.open_sockets(0).await;
    assert_places_are_free(&scene, &mut backend).await;
    scene.gateway.assert_quiet_log();
}

/// Beside the endpoint of the broken handshakes comes a fresh one. Of two, the one with fewer open sockets is taken: they
/// share new sockets in halves, unless a place at the first was never given back.
async fn assert_places_are_free(scene: &Scene, used: &mut Backend) {
    let mut fresh = Backend::played();
    let before = scene.swaps().await;
    let addresses = [used.address, fresh.address];
    scene
        .manifests
        .write(ENDPOINTS_FILE, &endpoints(SERVICE, &addresses));
    wait::until("the second endpoint", async || {
        (scene.swaps().await > before).then_some(())
    })
    .await;
    let mut open = Vec::new();
    let mut shares = [0, 0];
    for _ in 0..10 {
        let mut client = scene.raw().await;
        client
            .send(upgrade(HOST, "/", ""))
            .await
            .expect("a request");
        let (share, (mut server, request)) = tokio::select! {
            connection = used.next() => (0, connection),
            connection = fresh.next() => (1, connection),
        };
        shares[share] += 1;
        server
            .send(fill(SWITCHING, &request))
            .await
            .expect("the proxy reads the answer");
        assert_eq!(client.response("GET").await.expect("an answer").status, 101);
        open.push((client, server));
    }
    assert_eq!(shares, [5, 5], "sockets at the used and the fresh endpoint");
}

#[tokio::test]
async fn connections_over_the_limit_wait_and_are_served_once_others_left() {
    let backend = Backend::accepting();
    let scene = narrow_gateway(backend.address).await;
    let mut silent = Vec::new();
    for _ in 0..2 * MORE_THAN_ALLOWED {
        let connection = Connection::plain(scene.gateway.https).await;
        silent.push(connection.expect("the kernel takes it"));
    }
    // That nobody else is let in can only be watched for a while.
    let waiting = timeout(QUIET, scene.raw_as(HOST)).await;
    assert!(waiting.is_err(), "a connection over the limit was served");
    drop(silent);
    assert_eq!(scene.client().status().await, Some(101));
    let readiness = scene.gateway.readiness().await;
    assert_eq!(readiness.map(|(status, _)| status), Some(200));
}
