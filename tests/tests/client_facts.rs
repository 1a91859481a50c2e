//! What a backend learns of the client, from strangers and from trusted proxies, and the id that a request has in all logs.

use tests::backend::{Backend, refusing};
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::raw::{Request, Response, upgrade};
use tests::scene::{HOST, OTHER_HOST, PLAIN_HOST, SERVICE, Scene};

/// Whoever connects in these tests is a trusted proxy, and so is a range behind it.
const TRUSTING: &[&str] = &[
    "--trusted-proxy-cidr",
    "127.0.0.0/8,10.0.0.0/8",
    "--log",
    "debug",
];

async fn scene(backend: &Backend, more: &[&str]) -> Scene {
    let settings = Settings::with(more);
    let rules = [Rule::to(SERVICE).forward()];
    Scene::start(&rules, &[(SERVICE, &[backend.address])], &settings).await
}

fn ordinary(host: &str, more: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

#[track_caller]
fn assert_seen(seen: &Request, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(seen.all(name), [*value], "{name}");
    }
}

/// What an upgrade and an ordinary request with these fields look like to the backend, over TLS.
async fn both_kinds(scene: &Scene, backend: &mut Backend, more: &str) -> [Request; 2] {
    let (_, _, upgraded) = scene.asked(backend, upgrade(HOST, "/", more)).await;
    let (_, _, forwarded) = scene.asked(backend, ordinary(HOST, more)).await;
    [upgraded, forwarded]
}

#[tokio::test]
async fn what_a_stranger_claims_is_replaced_whole() {
    let mut backend = Backend::played();
    let scene = scene(&backend, &[]).await;
    let claims = "X-Real-IP: 10.9.9.9\r\nX-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: spoofed\r\n\
         X-Forwarded-Host: spoofed\r\nX-Forwarded-Port: 999\r\nForwarded: for=spoofed\r\nX-Request-ID: spoofed\r\n\
         x_forwarded_for: spoofed\r\nX_Request_ID: spoofed\r\nX-Forwarded_Proto: spoofed\r\n";
    for seen in both_kinds(&scene, &mut backend, claims).await {
        let forwarded = format!("for=127.0.0.1;host={HOST};proto=https");
        assert_seen(
            &seen,
            &[
                ("x-real-ip", "127.0.0.1"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", HOST),
                ("x-forwarded-port", "443"),
                ("forwarded", &forwarded),
            ],
        );
        assert_eq!(seen.all("x-request-id").len(), 1);
        for (name, value) in &seen.headers {
            let claimed = ["spoofed", "10.9.9.9", "999"].contains(&value.as_str());
            assert!(!claimed && !name.contains('_'), "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_appended() {
    let mut backend = Backend::played();
    let scene = scene(&backend, TRUSTING).await;
    let told = "X-Forwarded-For: 198.51.100.1, 2001:db8::9\r\nX-Forwarded-For: 10.2.2.2\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: shop.example.com\r\nX-Forwarded-Port: 8080\r\nForwarded: for=198.51.100.77\r\n\
         X-Real-IP: 198.51.100.77\r\nX-Request-ID: one-of-the-proxys\r\n";
    for seen in both_kinds(&scene, &mut backend, told).await {
        let way =
            "for=\"[2001:db8::9]\";host=shop.example.com;proto=http, for=10.2.2.2, for=127.0.0.1";
        assert_seen(
            &seen,
            &[
                ("host", HOST),
                ("x-real-ip", "2001:db8::9"),
                (
                    "x-forwarded-for",
                    "198.51.100.1, 2001:db8::9, 10.2.2.2, 127.0.0.1",
                ),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "shop.example.com"),
                ("x-forwarded-port", "8080"),
                ("forwarded", way),
                ("x-request-id", "one-of-the-proxys"),
            ],
        );
    }
}

/// Where Werkzeug finds `HTTP_TRANSFER_ENCODING` it reads chunks, whichever way the name was written.
#[tokio::test]
async fn no_other_spelling_frames_a_message_or_makes_a_handshake() {
    let mut backend = Backend::played();
    let scene = scene(&backend, &[]).await;
    let aliases = "Transfer_Encoding: chunked\r\nContent_Length: 5\r\nProxy_Authorization: a\r\nKeep_Alive: a\r\n\
         Sec_WebSocket_Protocol: a\r\nSec-WebSocket_Key: a\r\nX_Own: 1\r\n";
    for seen in both_kinds(&scene, &mut backend, aliases).await {
        let names = seen.headers.iter().map(|(name, _)| name.to_lowercase());
        let aliases: Vec<_> = names.filter(|name| name.contains('_')).collect();
        assert_eq!(aliases, ["x_own"]);
    }
}

#[tokio::test]
async fn connection_cannot_take_away_what_is_told_of_the_client() {
    let mut backend = Backend::played();
    let scene = scene(&backend, &[]).await;
    let nominated = "Connection: x-real-ip, X-Forwarded-For, x-forwarded-proto, x-request-id, forwarded, x-mine\r\nX-Mine: a\r\n";
    for seen in both_kinds(&scene, &mut backend, nominated).await {
        assert_seen(
            &seen,
            &[
                ("x-real-ip", "127.0.0.1"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-proto", "https"),
            ],
        );
        assert_eq!(seen.all("x-request-id").len(), 1);
        assert_eq!(seen.all("forwarded").len(), 1);
        assert!(seen.header("x-mine").is_none(), "a nominated field passed");
    }
}

#[tokio::test]
async fn the_plain_listener_says_http_and_port_80() {
    let mut backend = Backend::played();
    let scene = scene(&backend, &[]).await;
    let mut client = tests::raw::Connection::plain(scene.gateway.http)
        .await
        .expect("a connection");
    let request = ordinary(PLAIN_HOST, "");
    client.send(request).await.expect("a request");
    let (_server, seen) = backend.next().await;
    let forwarded = format!("for=127.0.0.1;host={PLAIN_HOST};proto=http");
    assert_seen(
        &seen,
        &[
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "80"),
            ("forwarded", &forwarded),
        ],
    );
}

#[track_caller]
fn id_of(response: &Response) -> &str {
    let ids = response
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"));
    let ids: Vec<_> = ids.map(|(_, value)| value.as_str()).collect();
    assert_eq!(ids.len(), 1, "{}: {ids:?}", response.status);
    ids[0]
}

#[tokio::test]
async fn every_answer_has_the_id_that_the_backend_got() {
    // A backend that names the request itself does not get the last word: the log has ours.
    let answer = "HTTP/1.1 403 Forbidden\r\nX-Request-ID: theirs\r\nContent-Length: 0\r\n\r\n";
    for backend in [Backend::accepting(), Backend::answering(answer)] {
        let scene = scene(&backend, &[]).await;
        for request in [upgrade(HOST, "/", ""), ordinary(HOST, "")] {
            let response = scene.ask(&request).await;
            let seen = backend.requests().pop().expect("a request");
            assert_eq!(id_of(&response).len(), 32, "{}", id_of(&response));
            // An ordinary request to a backend that only upgrades is a 502, and has an id all the same.
            assert_eq!(seen.all("x-request-id"), [id_of(&response)]);
        }
    }
}

#[tokio::test]
async fn every_refusal_has_an_id_of_its_own() {
    let rules = [
        Rule::to(SERVICE).exact("/refused"),
        Rule::to("nobody").exact("/empty"),
    ];
    let services: [(&str, &[_]); 2] = [(SERVICE, &[refusing()]), ("nobody", &[])];
    let scene = Scene::with_rules(&rules, &services).await;
    let good = |path| upgrade(HOST, path, "X-Request-ID: claimed\r\n");
    let requests = [
        (421, upgrade(OTHER_HOST, "/refused", "")),
        (404, good("/nothing")),
        (405, good("/refused").replace("GET ", "POST ")),
        (426, good("/refused").replace(": 13", ": 8")),
        (426, ordinary(HOST, "").replace("GET /", "GET /refused")),
        (400, good("/refused").replace("dGhl", "")),
        (400, good("/a/../refused")),
        (414, good(&format!("/{}", "a".repeat(9000)))),
        (502, good("/refused")),
        (503, good("/empty")),
    ];
    let mut ids = Vec::new();
    for (status, request) in requests {
        let response = scene.ask(&request).await;
        assert_eq!(response.status, status, "{request}");
        ids.push(id_of(&response).to_owned());
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "two requests have one id: {ids:?}");
    assert!(
        !ids.contains(&"claimed".to_owned()),
        "a stranger's id was kept"
    );
}

#[tokio::test]
async fn the_log_names_the_request_in_each_of_its_lines() {
    let backend = Backend::accepting();
    let scene = scene(&backend, TRUSTING).await;
    let refused = upgrade(HOST, "/a/../b", "X-Request-ID: the-refused-one\r\n");
    assert_eq!(scene.ask(&refused).await.status, 400);
    let opened = upgrade(HOST, "/", "X-Request-ID: the-opened-one\r\n");
    assert_eq!(scene.ask(&opened).await.status, 101);
    for (id, line) in [
        ("the-refused-one", "request refused"),
        ("the-opened-one", "relay ended"),
    ] {
        let logged = scene.gateway.log().with(line).await;
        assert!(logged.contains(id), "no {id} in {logged:?}");
    }
}
