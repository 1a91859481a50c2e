//! `tls.plain`: what the plain listener does with a host that is served over TLS.

use tests::backend::Backend;
use tests::client::{Dial, talk};
use tests::echo_process::EchoProcess;
use tests::gateway::Settings;
use tests::manifests::{Rule, Tls, in_class, route};
use tests::raw::{Connection, Response, upgrade};
use tests::scene::{HOST, ROUTE_FILE, SECRET, SERVICE, Scene};
use tests::wait;

const HOSTS: [&str; 2] = [HOST, "*.rt.example.com"];

/// A route over TLS for two hosts and two paths; `plain` is a line of its tls block, or empty.
fn chat(plain: &str) -> String {
    let rules = [
        Rule::to(SERVICE).prefix("/chat").forward(),
        Rule::to(SERVICE).exact("/headers").forward(),
    ];
    let text = route("chat", &HOSTS, &Tls::Terminate(SECRET), &rules);
    text.replace(
        "mode: Terminate\n",
        &format!("mode: Terminate\n    {plain}\n"),
    )
}

fn request(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[track_caller]
fn check_redirect(answer: &Response, location: &str) {
    assert_eq!(answer.status, 308, "{answer:?}");
    assert_eq!(answer.header("location"), Some(location));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.body.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn by_default_everything_is_redirected_to_https_and_no_backend_hears_of_it() {
    let backend = Backend::accepting();
    let settings = Settings::with(&["--https-public-port", "8443"]);
    let scene = Scene::of_routes(&chat(""), &HOSTS, backend.address, &settings).await;
    // The path and the query are those that came, whether a rule takes them or not; the host is the one that was judged.
    for (target, host, location) in [
        (
            "/chat?a=%2F&b",
            HOST,
            "https://chat.example.com:8443/chat?a=%2F&b",
        ),
        ("/", "chat.example.com:80", "https://chat.example.com:8443/"),
        (
            "/?",
            "CHAT.example.com.:8080",
            "https://chat.example.com:8443/?",
        ),
        (
            "//x.example/%C3%BC",
            HOST,
            "https://chat.example.com:8443//x.example/%C3%BC",
        ),
        (
            "/a",
            "b.c.rt.example.com",
            "https://b.c.rt.example.com:8443/a",
        ),
        (
            "http://chat.example.com/b?c",
            HOST,
            "https://chat.example.com:8443/b?c",
        ),
    ] {
        let ordinary = scene.ask_plain(&request(target, host)).await;
        check_redirect(&ordinary, location);
        let upgraded = scene.ask_plain(&upgrade(host, target, "")).await;
        check_redirect(&upgraded, location);
    }
    // What cannot be judged is refused as everywhere, and what nobody has is 404.
    for (target, host, status) in [
        ("/a/../b", HOST, 400),
        ("/", "chat.example.com/x", 400),
        ("/", "unknown.example.com", 404),
        ("/", "rt.example.com", 404),
    ] {
        let answer = scene.ask_plain(&request(target, host)).await;
        assert_eq!(answer.status, status, "{target} at {host}");
    }
    // A request behind a redirected upgrade is never read.
    let mut connection = Connection::plain(scene.gateway.http)
        .await
        .expect("a connection");
    let two = upgrade(HOST, "/chat", "") + &request("/second", HOST);
    connection.send(two).await.expect("two requests");
    let (answers, _) = connection.end().await;
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");

    assert_eq!(backend.connections(), 0, "a redirect needs no backend");
    let metrics = scene.gateway.metrics().await;
    let redirected = [("outcome", "redirected_to_https")];
    assert_eq!(metrics.sum("ws_ingress_handshakes_total", &redirected), 7);
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn the_usual_port_is_not_written() {
    let backend = Backend::accepting();
    let settings = Settings::default();
    let scene = Scene::of_routes(&chat(""), &HOSTS, backend.address, &settings).await;
    let answer = scene
        .ask_plain(&request("/chat", "chat.example.com:8080"))
        .await;
    check_redirect(&answer, "https://chat.example.com/chat");
}

#[tokio::test]
async fn refuse_says_to_use_tls() {
    let backend = Backend::accepting();
    let settings = Settings::default();
    let scene = Scene::of_routes(&chat("plain: Refuse"), &HOSTS, backend.address, &settings).await;
    for target in ["/chat", "/nothing"] {
        let ordinary = scene.ask_plain(&request(target, HOST)).await;
        let upgraded = scene.ask_plain(&upgrade(HOST, target, "")).await;
        for answer in [ordinary, upgraded] {
            assert_eq!(answer.status, 403);
            assert!(answer.text().contains("wss://"), "{}", answer.text());
        }
    }
    assert_eq!(backend.connections(), 0);
    assert_eq!(scene.ask(&upgrade(HOST, "/chat", "")).await.status, 101);
}

#[tokio::test]
async fn serve_has_the_same_rules_on_both_listeners() {
    let echo = EchoProcess::start("echo").await;
    let settings = Settings::default();
    let scene = Scene::of_routes(&chat("plain: Serve"), &HOSTS, echo.address, &settings).await;
    let plain = Dial::ws(scene.gateway.http, HOST).path("/chat?quiet");
    talk(&mut plain.connect().await, "without TLS").await;
    talk(
        &mut scene.client().path("/chat?quiet").connect().await,
        "with TLS",
    )
    .await;
    assert_eq!(scene.ask_plain(&request("/other", HOST)).await.status, 404);
    for (answer, scheme) in [
        (scene.ask_plain(&request("/headers", HOST)).await, "http"),
        (scene.ask(&request("/headers", HOST)).await, "https"),
    ] {
        let seen = answer.text();
        assert!(
            seen.contains(&format!("[\"x-forwarded-proto\",\"{scheme}\"]")),
            "{seen}"
        );
    }
}

/// It is part of the TLS of a hostname: whoever says something else than the owner loses the name.
#[tokio::test]
async fn it_belongs_to_the_owner_of_the_hostname() {
    let backend = Backend::accepting();
    let settings = Settings::default();
    let other = chat("plain: Serve").replace("name: chat\nspec", "name: other\nspec");
    let routes = chat("plain: Refuse") + &other;
    let scene = Scene::of_routes(&routes, &HOSTS, backend.address, &settings).await;
    scene.gateway.log().with("TLSConflict").await;
    assert_eq!(scene.ask_plain(&request("/chat", HOST)).await.status, 403);
    assert_eq!(scene.ask(&upgrade(HOST, "/chat", "")).await.status, 101);

    // Its owner goes, and with it its word.
    scene
        .manifests
        .write(ROUTE_FILE, &(in_class("else", &chat("")) + &other));
    wait::until("the other route serves without TLS", async || {
        (scene.ask_plain(&upgrade(HOST, "/chat", "")).await.status == 101).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tls_that_a_trusted_proxy_ended_is_tls() {
    let backend = EchoProcess::start("first").await;
    for (plain, status) in [("plain: Redirect", 308), ("plain: Refuse", 403)] {
        let settings = Settings::with(&["--trusted-proxy-cidr", "127.0.0.1/32"]);
        let scene = Scene::of_routes(&chat(plain), &HOSTS, backend.address, &settings).await;
        // Else it would be redirected through its proxy for ever.
        let https = "X-Forwarded-Proto: https\r\n";
        let ordinary = |proto| format!("GET /headers HTTP/1.1\r\nHost: {HOST}\r\n{proto}\r\n");
        assert_eq!(scene.ask_plain(&ordinary(https)).await.status, 200);
        for proto in [https, "X-Forwarded-Proto: wss\r\n"] {
            let opened = scene.ask_plain(&upgrade(HOST, "/chat", proto)).await;
            assert_eq!(opened.status, 101, "{plain}, {proto}");
        }
        for proto in [
            "",
            "X-Forwarded-Proto: http\r\n",
            "X-Forwarded-Proto: ws\r\n",
            // Of two words, nobody knows which is the proxy's.
            "X-Forwarded-Proto: https, http\r\n",
            "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https\r\n",
        ] {
            assert_eq!(scene.ask_plain(&ordinary(proto)).await.status, status);
            let refused = scene.ask_plain(&upgrade(HOST, "/chat", proto)).await;
            assert_eq!(refused.status, status, "{plain}");
        }

        let settings = Settings::default();
        let scene = Scene::of_routes(&chat(plain), &HOSTS, backend.address, &settings).await;
        assert_eq!(scene.ask_plain(&ordinary(https)).await.status, status);

        // Whom a PROXY header names is the peer, whoever the load balancer is that wrote it.
        let settings = Settings::with(&[
            "--trusted-proxy-cidr",
            "127.0.0.1/32",
            "--proxy-protocol-cidr",
            "127.0.0.1/32",
        ]);
        let scene = Scene::of_routes(&chat(plain), &HOSTS, backend.address, &settings).await;
        for (client, expected) in [("203.0.113.9", status), ("127.0.0.1", 200)] {
            let header = format!("PROXY TCP4 {client} 192.0.2.1 5123 80\r\n");
            let answer = scene.ask_plain(&(header + &ordinary(https))).await;
            assert_eq!(answer.status, expected, "{plain} of {client}");
        }
    }
}
