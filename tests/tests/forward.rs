//! The nginx recipe `map $http_upgrade $connection_upgrade`: on one path an upgrade is tunnelled and an ordinary
//! request is forwarded, or refused, as `nonUpgrade` says.

use tests::backend::Backend;
use tests::client::{Dial, talk};
use tests::echo_process::EchoProcess;
use tests::manifests::Rule;
use tests::raw::upgrade;
use tests::scene::{HOST, PLAIN_HOST, SERVICE, Scene};

/// `/` is forwarded, `/upgrades` is for upgrades only; both lead to the same backend.
async fn scene(echo: &EchoProcess) -> Scene {
    let rules = [
        Rule::to(SERVICE).named("all").prefix("/").forward(),
        Rule::to(SERVICE).named("upgrades").prefix("/upgrades"),
    ];
    Scene::with_rules(&rules, &[(SERVICE, &[echo.address])]).await
}

fn request(method: &str, host: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

/// The headers that the echo backend got, as pairs.
fn headers_seen(body: &str) -> Vec<(String, String)> {
    let seen: serde_json::Value = serde_json::from_str(body).expect("JSON");
    serde_json::from_value(seen["headers"].clone()).expect("pairs")
}

fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers
        .iter()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

#[tokio::test]
async fn on_one_path_an_upgrade_is_tunnelled_and_an_ordinary_request_forwarded() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let mut socket = scene.client().path("/?quiet").connect().await;
    talk(&mut socket, "through the tunnel").await;
    let page = scene.ask(&request("GET", HOST, "/", "")).await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.body, include_bytes!("../src/page.html"));
    talk(&mut socket, "still through the tunnel").await;
}

#[tokio::test]
async fn an_ordinary_request_is_refused_where_only_upgrades_are_served() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let refused = scene.ask(&request("GET", HOST, "/upgrades", "")).await;
    assert_eq!(refused.status, 426);
    let protocol = refused.header("upgrade").map(str::to_ascii_lowercase);
    assert_eq!(protocol.as_deref(), Some("websocket"));
    let mut socket = scene.client().path("/upgrades?quiet").connect().await;
    talk(&mut socket, "an upgrade is served").await;
}

#[tokio::test]
async fn a_body_is_streamed_both_ways() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let mut connection = scene.raw().await;
    let head = request("POST", HOST, "/echo", "Transfer-Encoding: chunked\r\n");
    connection
        .send(format!("{head}5\r\nfirst\r\n"))
        .await
        .expect("a request");
    // The head and the first chunk come back before the body has ended: nothing collects it on the way.
    let mut early = Vec::new();
    while !early.ends_with(b"first") {
        early.extend(
            connection
                .exactly(1)
                .await
                .expect("the part that was sent already"),
        );
    }
    connection
        .send("6\r\nsecond\r\n0\r\n\r\n")
        .await
        .expect("the rest of the body");
    let mut rest = Vec::new();
    while !rest.ends_with(b"0\r\n\r\n") {
        rest.extend(connection.exactly(1).await.expect("the rest of the echo"));
    }
    assert!(rest.windows(6).any(|part| part == b"second"));
}

#[tokio::test]
async fn a_posted_body_with_a_length_arrives_whole() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let body = "0123456789".repeat(30_000);
    let head = request(
        "POST",
        HOST,
        "/echo",
        &format!("Content-Length: {}\r\n", body.len()),
    );
    let response = scene.ask(&format!("{head}{body}")).await;
    assert_eq!(response.status, 200);
    assert!(
        response.body == body.as_bytes(),
        "{} of {} bytes came back",
        response.body.len(),
        body.len()
    );
}

#[tokio::test]
async fn big_chunked_and_headless_answers_pass_whole() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let big = scene.ask(&request("GET", HOST, "/bytes/5000000", "")).await;
    assert_eq!((big.status, big.body.len()), (200, 5_000_000));
    let chunked = scene.ask(&request("GET", HOST, "/chunks/500", "")).await;
    assert_eq!((chunked.status, chunked.body.len()), (200, 500 * 1024));
    assert_eq!(chunked.header("content-length"), None);
    let head = scene.ask(&request("HEAD", HOST, "/bytes/777", "")).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("777"))
    );
    let refused = scene.ask(&request("GET", HOST, "/nothing", "")).await;
    assert_eq!(refused.status, 404, "the backend's own answer");
}

#[tokio::test]
async fn the_proxy_says_who_the_client_is_and_drops_what_the_client_claims() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let spoofed = "X-Real-IP: 10.9.9.9\r\nX-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: spoofed\r\n\
                   X-Forwarded-Host: spoofed\r\nX-Ws-Ingress-Rule: spoofed\r\nx_real_ip: 10.9.9.9\r\n\
                   X_Forwarded_For: 10.9.9.9\r\nX-Kept: yes\r\n";
    let response = scene.ask(&request("GET", HOST, "/headers", spoofed)).await;
    let headers = headers_seen(&response.text());
    let expected = [
        ("host", HOST),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", HOST),
        ("x-ws-ingress-rule", "default/chat/all"),
        ("x-kept", "yes"),
    ];
    for (name, value) in expected {
        assert_eq!(values(&headers, name), [value], "{name}");
    }
    let claimed = headers
        .iter()
        .any(|(_, value)| value.contains("spoofed") || value.contains("10.9.9.9"));
    assert!(
        !claimed,
        "a client's claim reached the backend: {headers:?}"
    );
}

#[tokio::test]
async fn hop_by_hop_headers_end_at_the_proxy() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let hops = "Connection: close, X-Nominated\r\nX-Nominated: a\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\n\
                TE: trailers\r\nProxy-Authorization: b\r\n";
    let response = scene.ask(&request("GET", HOST, "/headers", hops)).await;
    let headers = headers_seen(&response.text());
    for name in [
        "x-nominated",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
    ] {
        assert!(
            values(&headers, name).is_empty(),
            "{name} reached the backend: {headers:?}"
        );
    }
}

#[tokio::test]
async fn a_426_names_the_protocol_that_can_be_had() {
    let fields = "Connection: Upgrade\r\nContent-Length: 4\r\n\r\nwell";
    for (named, expected) in [("websocket", Some("websocket")), ("h2c", None)] {
        let answer = format!("HTTP/1.1 426 Upgrade Required\r\nUpgrade: {named}\r\n{fields}");
        let backend = Backend::answering(&answer);
        let rules = [Rule::to(SERVICE).forward()];
        let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
        let mut client = scene.raw().await;
        for _ in 0..2 {
            // The connection serves on: nothing was upgraded.
            client
                .send(request("GET", HOST, "/", ""))
                .await
                .expect("a request");
            let response = client.response("GET").await.expect("an answer");
            assert_eq!((response.status, response.text().as_str()), (426, "well"));
            assert_eq!(response.header("upgrade"), expected);
        }
    }
}

#[tokio::test]
async fn an_upgrade_reaches_the_backend_with_exact_spelling_and_true_facts() {
    let mut backend = Backend::played();
    let scene = Scene::in_front_of(backend.address).await;
    let more = "X-Forwarded-For: 10.9.9.9\r\nX-Ws-Ingress-Rule: spoofed\r\nOrigin: https://app.example.com\r\n\
                Cookie: a=b\r\nSec-WebSocket-Protocol: chat.v1, chat.v2\r\n";
    let (_client, _server, seen) = scene
        .asked(&mut backend, upgrade(HOST, "/path?query=1", more))
        .await;
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("GET", "/path?query=1")
    );
    // Some backends compare these names byte by byte.
    let names: Vec<_> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
    for name in [
        "Host",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
    ] {
        assert_eq!(
            names.iter().filter(|seen| **seen == name).count(),
            1,
            "{name} in {names:?}"
        );
    }
    let expected = [
        ("host", HOST),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", HOST),
        ("x-ws-ingress-rule", "default/chat/talk"),
        ("origin", "https://app.example.com"),
        ("cookie", "a=b"),
        ("sec-websocket-version", "13"),
    ];
    for (name, value) in expected {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    let offered = seen
        .header("sec-websocket-protocol")
        .unwrap_or_default()
        .replace(' ', "");
    assert_eq!(offered, "chat.v1,chat.v2");
}

#[tokio::test]
async fn an_absolute_target_with_an_empty_path_becomes_a_slash() {
    let mut backend = Backend::played();
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    // RFC 9112 §3.2.2: a server takes the absolute form; RFC 9110 §4.2.3: an empty path is the same as "/".
    let target = format!("http://{HOST}?x=1");
    for asked in [
        upgrade(HOST, &target, ""),
        request("GET", HOST, &target, ""),
    ] {
        let (_client, _server, seen) = scene.asked(&mut backend, &asked).await;
        assert_eq!(seen.target, "/?x=1", "{asked}");
        assert_eq!(seen.all("host"), [HOST]);
    }
}

#[tokio::test]
async fn a_host_without_tls_is_served_on_the_plain_listener_only() {
    let echo = EchoProcess::start("echo").await;
    let scene = scene(&echo).await;
    let mut socket = Dial::ws(scene.gateway.http, PLAIN_HOST).connect().await;
    talk(&mut socket, "without TLS").await;
    let seen = scene
        .ask_plain(&request("GET", PLAIN_HOST, "/headers", ""))
        .await;
    assert_eq!(
        values(&headers_seen(&seen.text()), "x-forwarded-proto"),
        ["http"]
    );

    let unknown = "unknown.example.com";
    let refused = scene.ask_plain(&request("GET", unknown, "/", "")).await;
    assert_eq!(refused.status, 404);
    assert_eq!(
        Dial::ws(scene.gateway.http, unknown).status().await,
        Some(404)
    );
    assert!(
        scene.raw_as(PLAIN_HOST).await.is_err(),
        "a host with mode None has no certificate"
    );
}

#[tokio::test]
async fn the_longest_path_wins_and_weights_share_the_sockets() {
    let (one, two) = (
        EchoProcess::start("one").await,
        EchoProcess::start("two").await,
    );
    let rules = [
        Rule::to("one").named("short").prefix("/"),
        Rule::to("two").named("long").prefix("/two"),
        Rule::to("two").named("exact").exact("/exactly"),
        Rule::to("one")
            .named("shared")
            .prefix("/shared")
            .weight(1)
            .and("two", 1),
        Rule::to("one")
            .named("never")
            .prefix("/never")
            .weight(1)
            .and("two", 0),
    ];
    let scene =
        Scene::with_rules(&rules, &[("one", &[one.address]), ("two", &[two.address])]).await;
    for (path, expected) in [
        ("/", 1),
        ("/two", 2),
        ("/two/x", 2),
        ("/twofold", 1),
        ("/exactly", 2),
        ("/exactly/x", 1),
        ("/never", 1),
    ] {
        let before = (one.handshakes().await, two.handshakes().await);
        scene.client().path(path).connect().await;
        let served = (
            one.handshakes().await - before.0,
            two.handshakes().await - before.1,
        );
        assert_eq!(
            served,
            if expected == 1 { (1, 0) } else { (0, 1) },
            "{path}"
        );
    }
    let before = (one.handshakes().await, two.handshakes().await);
    for _ in 0..40 {
        scene.client().path("/shared").connect().await;
    }
    let shares = (
        one.handshakes().await - before.0,
        two.handshakes().await - before.1,
    );
    assert_eq!(shares.0 + shares.1, 40);
    // Forty fair coins leave this range once in ten million runs; equal weights must also not be one-sided.
    assert!((4..=36).contains(&shares.0), "{shares:?}");
}
