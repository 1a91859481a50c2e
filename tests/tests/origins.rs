//! `allowedOrigins` and `allowMissingOrigin`: whose pages reach a backend.

use tests::backend::Backend;
use tests::client::talk;
use tests::echo_process::EchoProcess;
use tests::manifests::Rule;
use tests::raw::upgrade;
use tests::scene::{HOST, SERVICE, Scene};

const LIST: &str = "allowedOrigins: [\"https://app.example.com\", \"https://*.example.org\", \"http://localhost:3000\"]";

fn origin(values: &[&str]) -> String {
    let fields = values.iter().map(|value| format!("Origin: {value}\r\n"));
    fields.collect::<Vec<_>>().concat()
}

/// What a handshake and an ordinary request with these Origins get.
async fn statuses(scene: &Scene, path: &str, origins: &[&str]) -> [u16; 2] {
    let origins = origin(origins);
    let upgraded = scene.ask(&upgrade(HOST, path, &origins)).await;
    let ordinary =
        format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{origins}Content-Length: 0\r\n\r\n");
    [upgraded.status, scene.ask(&ordinary).await.status]
}

#[tokio::test]
async fn foreign_pages_reach_no_backend() {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let rule = Rule::to(SERVICE).forward().with(LIST);
    let scene = Scene::with_rules(&[rule], &[(SERVICE, &[backend.address])]).await;
    let app = "https://app.example.com";
    for origins in [
        &["https://evil.example"][..],
        &["null"],
        &["http://app.example.com"],
        &["https://app.example.com:8443"],
        &["https://app.example.com.evil.example"],
        &["https://example.org"],
        &["https://evilexample.org"],
        &["https://evil.example/https://app.example.com"],
        &["https://app.example.com https://app.example.com"],
        &["https://app.example.com/"],
        &[""],
        &[app, app],
        &[app, "https://evil.example"],
    ] {
        assert_eq!(
            statuses(&scene, "/", origins).await,
            [403, 403],
            "{origins:?}"
        );
    }
    // The field cannot be hidden from a proxy behind this one either.
    let hidden =
        upgrade(HOST, "/", &origin(&[app])).replace("Connection: ", "Connection: Origin, ");
    assert_eq!(scene.ask(&hidden).await.status, 400);
    assert_eq!(backend.connections(), 0, "no backend heard of it");
    for origins in [
        &[][..],
        &[app],
        &["https://app.example.com:443"],
        &["HTTPS://App.Example.COM"],
        &["https://a.example.org"],
        &["https://a.b.example.org"],
        &["http://localhost:3000"],
    ] {
        assert_eq!(
            statuses(&scene, "/", origins).await,
            [204, 204],
            "{origins:?}"
        );
    }
    let metrics = scene.gateway.metrics().await;
    let foreign = [("outcome", "foreign_origin")];
    assert_eq!(metrics.sum("ws_ingress_handshakes_total", &foreign), 13);
    assert_eq!(metrics.sum("ws_ingress_requests_total", &foreign), 13);
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_handshake_without_origin_can_be_refused_with_and_without_a_list() {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let rule = |path: &str| {
        Rule::to(SERVICE)
            .prefix(path)
            .forward()
            .with("allowMissingOrigin: false")
    };
    let rules = [rule("/any"), rule("/listed").with(LIST)];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    // Ordinary HTTP without Origin is what a browser sends for a page of the same host.
    for path in ["/any", "/listed"] {
        assert_eq!(statuses(&scene, path, &[]).await, [403, 204], "{path}");
    }
    assert_eq!(backend.connections(), 2);
    let foreign = &["https://any.example"];
    assert_eq!(statuses(&scene, "/any", foreign).await, [204, 204]);
    assert_eq!(statuses(&scene, "/listed", foreign).await, [403, 403]);
}

#[tokio::test]
async fn a_client_of_an_allowed_page_talks() {
    let echo = EchoProcess::start("echo").await;
    let rule = Rule::to(SERVICE)
        .with(LIST)
        .with("allowMissingOrigin: false");
    let scene = Scene::with_rules(&[rule], &[(SERVICE, &[echo.address])]).await;
    let from = |origin| scene.client().header("Origin", origin);
    let mut socket = from("https://app.example.com").connect().await;
    talk(&mut socket, "from a page").await;
    assert_eq!(from("https://evil.example").status().await, Some(403));
    assert_eq!(scene.client().status().await, Some(403));
}

#[tokio::test]
async fn another_spelling_of_a_path_does_not_lead_past_its_origins() {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let rules = [
        Rule::to(SERVICE).prefix("/socket").forward().with(LIST),
        Rule::to(SERVICE).forward(),
    ];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let evil = &["https://evil.example"];
    assert_eq!(statuses(&scene, "/page", evil).await, [204, 204]);
    // Browsers send these as they are written, and servers read them as /socket.
    for path in ["/%73ocket", "/sock%65t/x", "/%73%6F%63%6b%65%74"] {
        assert_eq!(statuses(&scene, path, evil).await, [403, 403], "{path}");
    }
    assert_eq!(backend.connections(), 2, "those for the page");
}
