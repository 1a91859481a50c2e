//! Ordinary HTTP through `nonUpgrade: Forward`: when `timeouts.read` runs, and messages whose length two readers could
//! see differently.

use std::time::Duration;

use tests::backend::Backend;
use tests::manifests::Rule;
use tests::raw::upgrade;
use tests::scene::{HOST, SERVICE, Scene};
use tests::wait::within;
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// What a limit of a second may take on a busy machine.
const ABOUT_A_SECOND: Duration = Duration::from_secs(6);

/// Nobody takes a byte for this long once the way is full. A busy machine may say so before; then the client is who pauses.
const FULL: Duration = Duration::from_millis(300);

/// An answer with a body that a test recognises.
const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";

async fn scene(backend: &Backend) -> Scene {
    let rules = [Rule::to(SERVICE).forward().timeout("read", "1s")];
    Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await
}

fn request(method: &str, more: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

#[tokio::test]
async fn the_read_limit_does_not_run_while_a_body_is_sent() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let head = request("POST", "Content-Length: 1000000000\r\n");
    let (mut client, mut server, _) = scene.asked(&mut backend, head).await;
    // As much as the way to a backend that reads nothing takes: the proxy has more to send, and cannot.
    let piece = vec![b'u'; 64 * 1024];
    while let Ok(sent) = timeout(FULL, client.send(&piece)).await {
        sent.expect("the proxy reads or waits");
    }
    assert!(client.quiet_for(2 * SECOND).await, "the limit ran");
    // An answer before the end of the body, so that no limit of this test begins behind it.
    server.send(WELL).await.expect("the proxy listens");
    let response = client.response("POST").await.expect("an answer");
    assert_eq!((response.status, response.text().as_str()), (200, "well"));
}

#[tokio::test]
async fn the_read_limit_runs_once_the_body_is_sent() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    for asked in [
        request("GET", ""),
        request("POST", "Content-Length: 5\r\n") + "hello",
        request("POST", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n",
    ] {
        let started = Instant::now();
        let (mut client, mut server, _) = scene.asked(&mut backend, &asked).await;
        let response = client.response("GET").await.expect("an answer");
        let took = started.elapsed();
        assert_eq!(response.status, 504, "{asked}");
        assert!(
            (SECOND..ABOUT_A_SECOND).contains(&took),
            "{took:?}: {asked}"
        );
        server.end().await;
    }
}

#[tokio::test]
async fn a_body_that_pauses_longer_than_the_read_limit_is_not_passed_as_whole() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let (mut client, mut server, _) = scene.asked(&mut backend, request("GET", "")).await;
    let part = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    server.send(part).await.expect("the proxy listens");
    assert!(client.response("GET").await.is_err(), "a part as the whole");
    server.end().await;
}

#[tokio::test]
async fn an_answer_whose_length_is_in_doubt_is_502() {
    let (length, chunks) = ("Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n");
    let coded = "Transfer-Encoding: gzip, chunked\r\n";
    let answers = [
        (
            "a length and chunks",
            format!("{length}{chunks}"),
            "4\r\nwell\r\n0\r\n\r\n",
        ),
        (
            "chunks and a length",
            format!("{chunks}{length}"),
            "4\r\nwell\r\n0\r\n\r\n",
        ),
        (
            "an unknown coding",
            coded.to_owned(),
            "4\r\nwell\r\n0\r\n\r\n",
        ),
        (
            "an unknown coding alone",
            "Transfer-Encoding: gzip\r\n".to_owned(),
            "well",
        ),
        ("chunks twice", chunks.repeat(2), "4\r\nwell\r\n0\r\n\r\n"),
        (
            "two lengths",
            format!("{length}Content-Length: 5\r\n"),
            "well!",
        ),
        (
            "one length said twice",
            "Content-Length: 4, 4\r\n".to_owned(),
            "well",
        ),
        (
            "a length that is no number",
            "Content-Length: +4\r\n".to_owned(),
            "well",
        ),
    ];
    let mut taken = Vec::new();
    for (kind, fields, body) in answers {
        for (how, asked) in [
            ("forwarded", request("GET", "")),
            ("an upgrade", upgrade(HOST, "/", "")),
        ] {
            let backend = Backend::answering(&format!("HTTP/1.1 403 No\r\n{fields}\r\n{body}"));
            let status = scene(&backend).await.ask(&asked).await.status;
            if status != 502 {
                taken.push(format!("{kind}, {how}: {status}"));
            }
        }
    }
    assert!(taken.is_empty(), "not 502: {taken:#?}");
}

#[tokio::test]
async fn a_request_with_another_transfer_coding_than_chunked_reaches_no_backend() {
    let backend = Backend::answering(WELL);
    let scene = scene(&backend).await;
    let mut taken = Vec::new();
    for fields in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
    ] {
        let mut client = scene.raw().await;
        let asked = request("POST", fields) + "4\r\nbody\r\n0\r\n\r\n";
        client.send(asked).await.expect("a request");
        let answer = within("an answer", client.response("POST")).await;
        let status = answer.expect("an answer").status;
        if ![400, 501].contains(&status) {
            taken.push(format!("{fields:?}: {status}"));
        }
    }
    assert!(taken.is_empty(), "not 400 or 501: {taken:#?}");
    assert_eq!(backend.connections(), 0);
    let good = request("POST", "Transfer-Encoding: Chunked\r\n") + "4\r\nbody\r\n0\r\n\r\n";
    assert_eq!(scene.ask(&good).await.status, 200, "codings have no case");
}

#[tokio::test]
async fn a_request_with_a_length_and_chunks_is_never_passed_on_with_both() {
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let backend = Backend::answering(WELL);
        let scene = scene(&backend).await;
        let asked = request("POST", fields) + "4\r\nbody\r\n0\r\n\r\n";
        let status = scene.ask(&asked).await.status;
        // RFC 9112 §6.3 leaves the choice: refuse it, or remove the length and pass the chunks on.
        let seen = backend.requests();
        let lengths = seen
            .iter()
            .flat_map(|request| request.all("content-length"));
        assert_eq!(lengths.count(), 0, "{fields:?}");
        assert_eq!(
            status,
            if seen.is_empty() { 400 } else { 200 },
            "{fields:?}"
        );
    }
}
