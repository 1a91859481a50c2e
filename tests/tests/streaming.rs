//! Messages of ordinary HTTP pass as they come: nothing is collected on the way, nothing that was broken off looks whole.

use std::time::Duration;

use tests::backend::Backend;
use tests::manifests::Rule;
use tests::process::peak_bytes;
use tests::raw::{Connection, End};
use tests::scene::{HOST, SERVICE, Scene};
use tests::wait::{LIMIT, within};

/// An answer that leaves its connection in order.
const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";

/// How long "nothing comes" is watched: shorter than the second after which the proxy answers an Expect itself.
const QUIET: Duration = Duration::from_millis(300);

async fn scene(backend: &Backend) -> Scene {
    let rules = [Rule::to(SERVICE).forward()];
    Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await
}

fn request(method: &str, more: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

#[tokio::test]
async fn the_first_event_of_a_stream_arrives_at_once_and_a_client_that_leaves_ends_it() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let asked = request("GET", "Accept: text/event-stream\r\n");
    let (mut client, mut server, _) = scene.asked(&mut backend, asked).await;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    server.send(head).await.expect("the proxy listens");
    // The head alone, before any event: `onopen` of an EventSource.
    client.through("\r\n\r\n").await.expect("the answer's head");
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        server.send(chunk).await.expect("the proxy listens");
        client.through(&event).await.expect("the event");
    }
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn a_long_poll_is_answered_when_the_backend_has_something_to_say() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let (mut client, mut server, _) = scene.asked(&mut backend, request("GET", "")).await;
    assert!(client.quiet_for(QUIET).await);
    server.send(WELL).await.expect("the proxy listens");
    assert_eq!(
        client.response("GET").await.expect("an answer").text(),
        "well"
    );
}

#[tokio::test]
async fn answers_without_a_body_leave_the_clients_connection_in_order() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let mut client = scene.raw().await;
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", WELL),
    ] {
        client.send(request(method, "")).await.expect("a request");
        let mut server = backend.next().await.0;
        server.send(answer).await.expect("the proxy listens");
        let response = client.response(method).await.expect("an answer");
        assert!(answer.contains(&response.status.to_string()), "{answer}");
        // The next one gets a connection of its own.
        drop(server);
        scene.gateway.idle_upstreams(0).await;
    }
}

#[tokio::test]
async fn an_upload_begins_when_the_backend_says_100() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let expecting = request("POST", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let (mut client, mut server, seen) = scene.asked(&mut backend, &expecting).await;
    assert_eq!(seen.header("expect"), Some("100-continue"));
    assert!(
        client.quiet_for(QUIET).await,
        "the proxy spoke for the backend"
    );
    server
        .send("HTTP/1.1 100 Continue\r\n\r\n")
        .await
        .expect("the proxy listens");
    let told = client.through("\r\n\r\n").await.expect("a word");
    assert!(told.starts_with("HTTP/1.1 100 "), "{told}");
    client.send("hello").await.expect("the body");
    assert_eq!(server.exactly(5).await.expect("the body"), b"hello");
    server.send(WELL).await.expect("the proxy listens");
    assert_eq!(
        client.response("POST").await.expect("an answer").text(),
        "well"
    );
    scene.gateway.idle_upstreams(1).await;
}

#[tokio::test]
async fn an_upload_that_the_backend_refuses_is_never_sent() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let expecting = request("POST", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let (mut client, mut server, _) = scene.asked(&mut backend, &expecting).await;
    server
        .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        .await
        .expect("the proxy listens");
    let response = client.response("POST").await.expect("an answer");
    assert_eq!((response.status, response.text().as_str()), (413, "big"));
    // Nobody knows any more whether a body follows, on either side.
    assert_eq!(server.end().await, (Vec::new(), End::Fin));
    client.end().await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_is_not_lost_to_a_reset() {
    // More than the kernel takes for a proxy that reads nothing.
    const REST: usize = 8 << 20;
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let head = request("POST", "Content-Length: 100000000\r\n");
    for (head, status) in [(head.replace(" / ", " /a/../b "), 400), (head, 413)] {
        let mut client = scene.raw().await;
        client.send(head).await.expect("a request");
        if status == 413 {
            let mut server = backend.next().await.0;
            let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
            server.send(answer).await.expect("the proxy listens");
            server.end().await;
        }
        // A client that looks for an answer only after its body: nothing of it may fail.
        let piece = vec![b'u'; PIECE];
        for _ in 0..REST / PIECE {
            client.send(&piece).await.expect("the proxy reads on");
        }
        let response = client.response("POST").await.expect("an answer");
        assert_eq!(response.status, status);
        assert_eq!(client.end().await, (Vec::new(), End::CloseNotify));
        // And once the client ends, nobody waits any more.
        drop(client);
    }
}

#[tokio::test]
async fn an_early_answer_passes_although_its_backend_reads_no_more_and_ends() {
    // Each is a race of the answer with the reset behind it.
    const TRIES: usize = 20;
    const BODY: usize = 4 << 20;
    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
    let backend = Backend::answering(answer);
    let scene = scene(&backend).await;
    for number in 0..TRIES {
        let mut client = scene.raw().await;
        let head = request("POST", &format!("Content-Length: {BODY}\r\n"));
        client.send(head).await.expect("a request");
        client.send(vec![b'u'; BODY]).await.expect("its body");
        let response = client.response("POST").await.expect("an answer");
        assert_eq!(response.status, 413, "try {number}");
        assert_eq!(response.text(), "big", "try {number}");
    }
}

#[tokio::test]
async fn an_upload_begins_after_a_second_when_the_backend_does_not_know_of_expectations() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let expecting = request("POST", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let (mut client, mut server, _) = scene.asked(&mut backend, &expecting).await;
    let told = client.through("\r\n\r\n").await.expect("a word");
    assert!(told.starts_with("HTTP/1.1 100 "), "{told}");
    client.send("hello").await.expect("the body");
    assert_eq!(server.exactly(5).await.expect("the body"), b"hello");
    server.send(WELL).await.expect("the proxy listens");
    assert_eq!(
        client.response("POST").await.expect("an answer").text(),
        "well"
    );
}

#[tokio::test]
async fn early_hints_are_left_out_and_the_answer_follows() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let (mut client, mut server, _) = scene.asked(&mut backend, request("GET", "")).await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
    let answer = format!("{hints}HTTP/1.1 102 Processing\r\n\r\n{WELL}");
    server.send(answer).await.expect("the proxy listens");
    let response = client.response("GET").await.expect("an answer");
    assert_eq!((response.status, response.text().as_str()), (200, "well"));
    assert_eq!(response.header("link"), None);
}

#[tokio::test]
async fn announced_trailers_pass_both_ways_and_may_not_say_who_the_client_is() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let asked = request(
        "POST",
        "Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum, X-Real-IP\r\n",
    );
    let body = "5\r\nhello\r\n0\r\nX-Sum: 5\r\nX-Real-IP: 10.9.9.9\r\nX-Stray: 1\r\n\r\n";
    let (mut client, mut server, seen) = scene.asked(&mut backend, asked + body).await;
    assert_eq!(seen.header("trailer"), Some("x-sum"));
    assert_eq!(
        (seen.header("te"), seen.header("connection")),
        (Some("trailers"), Some("TE"))
    );
    let got = server.through("\r\n\r\n").await.expect("the body");
    assert_eq!(got, "5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n");

    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Digest\r\n\r\n\
                  4\r\nwell\r\n0\r\nX-Digest: 4\r\nX-Stray: 1\r\n\r\n";
    server.send(answer).await.expect("the proxy listens");
    let head = client.through("\r\n\r\n").await.expect("a head");
    assert!(
        head.to_ascii_lowercase().contains("trailer: x-digest\r\n"),
        "{head}"
    );
    let got = client.through("\r\n\r\n").await.expect("a body");
    assert_eq!(got, "4\r\nwell\r\n0\r\nX-Digest: 4\r\n\r\n");
    // Whole messages, both: the connection serves on.
    scene.gateway.idle_upstreams(1).await;
}

#[tokio::test]
async fn a_client_that_did_not_ask_for_trailers_gets_none() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let (mut client, mut server, seen) = scene.asked(&mut backend, request("GET", "")).await;
    assert_eq!(seen.header("te"), None);
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Digest\r\n\r\n\
                  4\r\nwell\r\n0\r\nX-Digest: 4\r\n\r\n";
    server.send(answer).await.expect("the proxy listens");
    client.through("\r\n\r\n").await.expect("a head");
    let got = client.through("0\r\n\r\n").await.expect("a body");
    assert_eq!(got, "4\r\nwell\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_get_may_have_a_body_of_unknown_length() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let asked = request("GET", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n";
    let (_client, mut server, seen) = scene.asked(&mut backend, asked).await;
    assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
    let got = server.through("0\r\n\r\n").await.expect("the body");
    assert_eq!(got, "5\r\nhello\r\n0\r\n\r\n");
}

#[tokio::test]
async fn an_upload_that_the_client_breaks_off_never_looks_complete() {
    for (fields, part) in [
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("Content-Length: 10\r\n", "hello"),
    ] {
        for reset in [true, false] {
            let mut backend = Backend::played();
            let scene = scene(&backend).await;
            let asked = request("POST", fields) + part;
            let (client, mut server, _) = scene.asked(&mut backend, asked).await;
            server.exactly(part.len()).await.expect("the part");
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            let (rest, _) = server.end().await;
            assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
        }
    }
}

/// A hundred mebibytes, far more than all buffers on the way together.
const MUCH: usize = 100 << 20;
const PIECE: usize = 64 << 10;

/// More than TLS, hyper and the allocator need for one stream, and a tenth of what passes.
const LITTLE: u64 = 10 << 20;

async fn send_much(connection: &mut Connection) {
    let piece = vec![b'm'; PIECE];
    for _ in 0..MUCH / PIECE {
        connection.send(&piece).await.expect("who listens");
    }
}

async fn read_much(connection: &mut Connection) {
    for _ in 0..MUCH / PIECE {
        connection.exactly(PIECE).await.expect("bytes");
    }
}

#[tokio::test]
async fn a_hundred_mebibytes_pass_both_ways_in_constant_memory() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    // Once through everything, so that what is allocated once is there.
    let (mut client, mut server, _) = scene.asked(&mut backend, request("GET", "")).await;
    server.send(WELL).await.expect("the proxy listens");
    client.response("GET").await.expect("an answer");
    drop(server);
    scene.gateway.idle_upstreams(0).await;
    let before = peak_bytes(scene.gateway.id());

    let head = request("POST", &format!("Content-Length: {MUCH}\r\n"));
    let (mut client, mut server, _) = scene.asked(&mut backend, head).await;
    let up = async { tokio::join!(send_much(&mut client), read_much(&mut server)) };
    tokio::time::timeout(6 * LIMIT, up)
        .await
        .expect("an upload");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
    server.send(head).await.expect("the proxy listens");
    within("a head", client.through("\r\n\r\n"))
        .await
        .expect("a head");
    let down = async { tokio::join!(send_much(&mut server), read_much(&mut client)) };
    tokio::time::timeout(6 * LIMIT, down)
        .await
        .expect("a download");

    let grown = peak_bytes(scene.gateway.id()) - before;
    assert!(grown < LITTLE, "{grown} bytes more at the most");
    // The connection is in order after it.
    scene.gateway.idle_upstreams(1).await;
}
