//! Which rule takes a request: by path, headers, query parameters and subprotocols, as Gateway API orders them. Every client here is a
//! real one, and the backend says which rule sent it.

use serde_json::Value;
use tests::backend::Backend;
use tests::client::{Dial, next, talk};
use tests::echo_process::EchoProcess;
use tests::manifests::Rule;
use tests::raw::upgrade;
use tests::scene::{HOST, SERVICE, Scene};

/// The name of the rule that took this client; its socket works.
async fn rule(dial: &Dial) -> String {
    let mut socket = dial.connect().await;
    let hello = next(&mut socket).await.into_text().expect("a text message");
    let hello: Value = serde_json::from_str(&hello).expect("JSON");
    talk(&mut socket, "and back").await;
    let rule = hello["rule"].as_str().expect("the rule");
    rule.rsplit('/').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_most_specific_rule_takes_a_client() {
    let echo = EchoProcess::start_with("echo", &["--subprotocol", "chat.v1"]).await;
    let to = |name: &str| Rule::to(SERVICE).named(name);
    let beta = "headers: [{ name: X-Env, value: beta }]";
    let version = "queryParams: [{ name: v, value: 2 b }]";
    let graphql = "subprotocols: [graphql-transport-ws, graphql-ws]";
    // The least specific first, so that their order decides nothing.
    let rules = [
        to("any"),
        to("chat").prefix("/chat"),
        to("graphql").prefix("/chat").asking(graphql),
        to("version").prefix("/chat").asking(version),
        to("beta").prefix("/chat").asking(beta),
        to("beta-version")
            .prefix("/chat")
            .asking(&format!("{beta}, {version}")),
        to("blue")
            .prefix("/chat")
            .asking("headers: [{ name: X-Env, value: beta }, { name: x-tenant, value: blue }]"),
        to("room").prefix("/chat/room"),
        to("lobby").exact("/chat/room/lobby").asking(graphql),
        to("second").prefix("/chat").asking(beta),
    ];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[echo.address])]).await;
    let dial = |path: &str| scene.client().path(path);
    let beta = |path: &str| dial(path).header("X-Env", "beta");
    // A client that offers something wants something agreed to, and the backend agrees to this one whatever the rule asks for.
    let offers = |dial: Dial, name: &str| dial.subprotocol("chat.v1").subprotocol(name);
    for (expected, client) in [
        ("any", dial("/")),
        ("any", beta("/chatter?v=2+b")),
        ("chat", dial("/chat?v=2")),
        ("chat", dial("/chat").header("X-Env", "Beta")),
        ("chat", offers(dial("/chat"), "graphql")),
        ("graphql", offers(dial("/chat"), "graphql-ws")),
        ("version", offers(dial("/chat?a=1&v=2+b"), "graphql-ws")),
        ("version", dial("/chat?%76=2%20b&v=3")),
        ("chat", dial("/chat?v=3&v=2+b")),
        ("beta", offers(beta("/chat/x"), "graphql-ws")),
        ("beta-version", beta("/chat?v=2+b")),
        ("blue", beta("/chat?v=2+b").header("X-TENANT", "blue")),
        // A longer path comes before any header.
        ("room", beta("/chat/room?v=2+b")),
        // What does not fit is no match, however exact its path is.
        ("room", dial("/chat/room/lobby")),
        ("lobby", offers(dial("/chat/room/lobby"), "graphql-ws")),
    ] {
        assert_eq!(rule(&client).await, expected);
    }
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_request_that_meets_no_conditions_is_404_and_reaches_no_backend() {
    let backend = Backend::accepting();
    let rules = [
        Rule::to(SERVICE)
            .prefix("/chat")
            .asking("headers: [{ name: X-Env, value: beta }]"),
        Rule::to(SERVICE)
            .prefix("/v")
            .asking("queryParams: [{ name: v, value: '2' }]"),
        Rule::to(SERVICE)
            .prefix("/graphql")
            .asking("subprotocols: [graphql-ws]")
            .forward(),
    ];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let offer = "Sec-WebSocket-Protocol: graphql-ws\r\n";
    let ordinary = format!("GET /graphql HTTP/1.1\r\nHost: {HOST}\r\n{offer}\r\n");
    for request in [
        upgrade(HOST, "/chat", ""),
        upgrade(HOST, "/chat", "X-Env: gamma\r\n"),
        // Two lines are one value, and what the client keeps from the backend is kept from the rules.
        upgrade(HOST, "/chat", "X-Env: beta\r\nX-Env: beta\r\n"),
        upgrade(HOST, "/chat", "X-Env: beta\r\nConnection: X-Env\r\n"),
        upgrade(HOST, "/v?v=1&v=2", ""),
        upgrade(HOST, "/v", ""),
        upgrade(HOST, "/graphql", "Sec-WebSocket-Protocol: mqtt\r\n"),
        upgrade(HOST, "/graphql", ""),
        // An ordinary request has no subprotocols, even if it carries the header.
        ordinary,
    ] {
        let response = scene.ask(&request).await;
        assert_eq!(response.status, 404, "{request}");
        let body = String::from_utf8_lossy(&response.body);
        let words = "none serves it with these headers, query parameters and subprotocols";
        assert!(body.contains(words), "{body}");
    }
    assert_eq!(backend.connections(), 0);
    let metrics = scene.gateway.metrics().await;
    let refused = |name| metrics.sum(name, &[("outcome", "no_rule")]);
    assert_eq!(refused("ws_ingress_handshakes_total"), 8);
    assert_eq!(refused("ws_ingress_requests_total"), 1);
    for request in [
        upgrade(HOST, "/chat", "X-Env: beta\r\n"),
        upgrade(HOST, "/v?v=2&v=1", ""),
        upgrade(HOST, "/graphql", offer),
    ] {
        assert_eq!(scene.ask(&request).await.status, 101, "{request}");
    }
}
