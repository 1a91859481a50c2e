//! What a client gets when there is no tunnel: the status that says why, or the backend's own words.

use rustls::AlertDescription;
use tests::backend::{Backend, Deaf, SWITCHING, refusing};
use tests::client::alert;
use tests::echo_process::EchoProcess;
use tests::manifests::{Rule, slice};
use tests::raw::{Connection, Response, upgrade};
use tests::scene::{ENDPOINTS_FILE, HOST, OTHER_HOST, SERVICE, Scene};
use tests::wait;

async fn refusal(scene: &Scene, path: &str) -> Response {
    scene.ask(&upgrade(HOST, path, "")).await
}

/// What a client gets when the backend answers its upgrade with this text.
async fn refusal_of_answer(answer: &str) -> Response {
    let backend = Backend::answering(answer);
    let scene = Scene::in_front_of(backend.address).await;
    // A subprotocol and an extension are offered, so that others are unoffered.
    let more =
        "Sec-WebSocket-Protocol: chat.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let response = scene.ask(&upgrade(HOST, "/", more)).await;
    assert_eq!(backend.connections(), 1, "an answer is not asked for twice");
    scene.gateway.assert_quiet_log();
    response
}

#[tokio::test]
async fn an_unknown_path_is_404() {
    let backend = Backend::accepting();
    let scene = Scene::with_rules(
        &[Rule::to(SERVICE).exact("/chat")],
        &[(SERVICE, &[backend.address])],
    )
    .await;
    assert_eq!(refusal(&scene, "/chat/").await.status, 404);
    assert_eq!(refusal(&scene, "/").await.status, 404);
    assert_eq!(
        scene
            .ask(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await
            .status,
        404
    );
    assert_eq!(backend.connections(), 0);
    assert_eq!(refusal(&scene, "/chat?a=b").await.status, 101);
}

#[tokio::test]
async fn a_host_other_than_the_server_name_is_421() {
    let backend = Backend::accepting();
    let scene = Scene::in_front_of(backend.address).await;
    for host in [OTHER_HOST, "unknown.example.com"] {
        assert_eq!(
            scene.ask(&upgrade(host, "/", "")).await.status,
            421,
            "{host}"
        );
    }
    assert_eq!(backend.connections(), 0);
    for host in ["CHAT.example.com", "chat.example.com:8443"] {
        assert_eq!(
            scene.ask(&upgrade(host, "/", "")).await.status,
            101,
            "{host} is the same host"
        );
    }
}

#[tokio::test]
async fn an_unknown_server_name_gets_the_alert_and_nothing_else() {
    let backend = Backend::accepting();
    let scene = Scene::in_front_of(backend.address).await;
    let Err(error) = scene.raw_as("unknown.example.com").await else {
        panic!("an unknown name was served")
    };
    assert_eq!(
        alert(&error),
        Some(AlertDescription::UnrecognisedName),
        "{error}"
    );
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn plain_text_on_the_tls_port_is_closed_without_noise() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    for bytes in [
        upgrade(HOST, "/", "").as_bytes(),
        b"\x00\xff".repeat(300).as_slice(),
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut connection = Connection::plain(scene.gateway.https)
            .await
            .expect("a connection");
        connection.send(bytes).await.expect("bytes");
        let _ = connection.finish().await;
        let (answer, _) = connection.end().await;
        assert!(
            !answer.starts_with(b"HTTP"),
            "plain text on the TLS port is not served"
        );
    }
    assert_eq!(scene.client().status().await, Some(101));
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn without_a_ready_endpoint_it_is_503_with_retry_after() {
    let backend = Backend::accepting();
    let scene = Scene::with_rules(&[Rule::to(SERVICE).forward()], &[(SERVICE, &[])]).await;
    let requests = [
        upgrade(HOST, "/", ""),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    ];
    for request in &requests {
        let response = scene.ask(request).await;
        assert_eq!(response.status, 503);
        let seconds: Option<u32> = response
            .header("retry-after")
            .and_then(|value| value.parse().ok());
        assert!(
            seconds.is_some_and(|seconds| seconds > 0),
            "{:?}",
            response.headers
        );
    }
    // An endpoint that is not ready, or that terminates, takes no new sockets.
    let conditions = [
        "ready: false",
        "ready: false, serving: true, terminating: true",
        "ready: true",
    ];
    for (conditions, expected) in conditions.into_iter().zip([503, 503, 101]) {
        scene
            .manifests
            .write(ENDPOINTS_FILE, &slice(SERVICE, backend.address, conditions));
        let what = format!("{expected} with an endpoint of {conditions}");
        wait::until(&what, async || {
            (refusal(&scene, "/").await.status == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_refused_connect_is_502() {
    let scene =
        Scene::with_rules(&[Rule::to(SERVICE).forward()], &[(SERVICE, &[refusing()])]).await;
    assert_eq!(refusal(&scene, "/").await.status, 502);
    assert_eq!(
        scene
            .ask(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await
            .status,
        502
    );
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_connect_that_takes_too_long_is_504() {
    let deaf = Deaf::new().await;
    let rules = [Rule::to(SERVICE).timeout("connect", "300ms")];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[deaf.address])]).await;
    assert_eq!(refusal(&scene, "/").await.status, 504);
}

#[tokio::test]
async fn a_backend_that_never_answers_is_504() {
    let silent = Backend::silent();
    let rules = [Rule::to(SERVICE).timeout("handshake", "300ms")];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[silent.address])]).await;
    assert_eq!(refusal(&scene, "/").await.status, 504);
    assert_eq!(silent.connections(), 1);
}

/// What is a whole answer and proves nothing is in `handshake.rs`.
#[tokio::test]
async fn an_answer_that_is_no_http_is_502() {
    // Each is followed by the end of the stream, so nothing here waits for a timeout.
    for answer in [
        "220 mail.example.com ESMTP\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgra",
    ] {
        assert_eq!(refusal_of_answer(answer).await.status, 502, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_with_status_200_opens_no_tunnel() {
    let answer = SWITCHING
        .replace("101 Switching Protocols", "200 OK")
        .replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nok");
    let response = refusal_of_answer(&answer).await;
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
}

#[tokio::test]
async fn a_backend_that_ends_without_an_answer_is_502() {
    let mut backend = Backend::played();
    let scene = Scene::in_front_of(backend.address).await;
    for reset in [false, true] {
        let (mut client, connection, _) = scene.asked(&mut backend, upgrade(HOST, "/", "")).await;
        if reset {
            connection.reset();
        } else {
            drop(connection);
        }
        assert_eq!(
            client.response("GET").await.expect("an answer").status,
            502,
            "reset: {reset}"
        );
    }
}

#[tokio::test]
async fn a_backends_own_refusal_passes_whole() {
    let body = "a body of its own ".repeat(5_000);
    let length = body.len();
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let cases = [
        (
            401,
            format!(
                "WWW-Authenticate: Bearer realm=\"chat\"\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
            "www-authenticate",
        ),
        (
            403,
            format!("X-Why: because\r\nContent-Length: {length}\r\n\r\n{body}"),
            "x-why",
        ),
        (
            404,
            format!("X-Why: nothing here\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
            "x-why",
        ),
        (
            302,
            format!("Location: https://login.example.com/\r\nConnection: close\r\n\r\n{body}"),
            "location",
        ),
        (
            426,
            format!(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
            "upgrade",
        ),
        (
            503,
            format!("Retry-After: 77\r\nContent-Length: {length}\r\n\r\n{body}"),
            "retry-after",
        ),
    ];
    for (status, rest, header) in cases {
        let expected = rest
            .lines()
            .next()
            .and_then(|line| line.split_once(": "))
            .map(|(_, value)| value);
        let response = refusal_of_answer(&format!("HTTP/1.1 {status} Own Words\r\n{rest}")).await;
        assert_eq!(response.status, status);
        assert_eq!(response.header(header), expected, "{status}");
        assert!(
            response.text() == body,
            "{status}: {} of {length} bytes",
            response.body.len()
        );
    }
}

#[tokio::test]
async fn refusals_are_counted_by_outcome() {
    let backend = Backend::accepting();
    let scene = Scene::in_front_of(backend.address).await;
    scene.ask(&upgrade(OTHER_HOST, "/", "")).await;
    let mut open = scene.raw().await;
    open.send(upgrade(HOST, "/", "")).await.expect("a request");
    assert_eq!(open.response("GET").await.expect("an answer").status, 101);
    scene.gateway.open_sockets(1).await;
    let metrics = scene.gateway.metrics().await;
    assert!(
        metrics.sum("ws_ingress_handshakes_total", &[]) >= 2,
        "{metrics:?}"
    );
    assert!(
        metrics.has("ws_ingress_table_generation") && metrics.has("ws_ingress_table_age_seconds"),
        "{metrics:?}"
    );
    drop(open);
    assert_eq!(scene.relays_ended(None).await, 1, "relays ended");
}
