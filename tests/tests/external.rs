//! External backends: how their names are looked up, where they may lead, and that TLS to them is verified.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use tests::backend::Backend;
use tests::certificate::Authority;
use tests::client::{Dial, WebSocket};
use tests::dns::{Dns, Says};
use tests::echo_process::{EchoProcess, common_port};
use tests::gateway::{Gateway, Settings};
use tests::manifests::{Manifests, Rule, Security, Tls, external, route, secret};
use tests::raw::{Connection, upgrade};
use tests::wait;
use tokio::task::JoinSet;
use tokio::time::Instant;

const HOST: &str = "outer.example.com";
const NAME: &str = "inner.example.com";
const BACKEND: &str = "inner";
const ROUTE_FILE: &str = "route.yaml";

/// Clients of a crowd.
const CROWD: usize = 50;

/// A gateway with one route, whose rule leads to [`NAME`], and the name server that it asks.
struct Scene {
    dns: Dns,
    manifests: Manifests,
    gateway: Gateway,
}

impl Scene {
    async fn start(port: u16, security: &Security<'_>, dns: Dns) -> Self {
        Self::start_with(port, security, dns, Rule::to_external(BACKEND), &[]).await
    }

    async fn start_with(
        port: u16,
        security: &Security<'_>,
        dns: Dns,
        rule: Rule,
        flags: &[&str],
    ) -> Self {
        let manifests = Manifests::new();
        let backend = external(BACKEND, NAME, port, security);
        manifests.write("external.yaml", &backend);
        manifests.write(ROUTE_FILE, &route("outer", &[HOST], &Tls::Plain, &[rule]));
        let mut settings = Settings::default();
        let resolver = ["--resolver".to_owned(), dns.address.to_string()];
        settings.flags.extend(resolver);
        settings.flags.extend(flags.iter().map(ToString::to_string));
        let gateway = Gateway::start(&[manifests.path()], &settings).await;
        Self {
            dns,
            manifests,
            gateway,
        }
    }

    fn client(&self) -> Dial {
        Dial::ws(self.gateway.http, HOST)
    }

    async fn becomes(&self, status: u16) {
        wait::until(&format!("an answer of {status}"), async || {
            (self.client().status().await? == status).then_some(())
        })
        .await;
    }

    async fn lookups(&self, outcome: &str) -> u64 {
        let metrics = self.gateway.metrics().await;
        metrics.sum("ws_ingress_name_lookups_total", &[("outcome", outcome)])
    }
}

/// Who answers a new socket.
async fn server(dial: &Dial) -> (WebSocket, String) {
    let mut socket = dial.clone().path("/").connect().await;
    let hello = wait::within("the first message", socket.next()).await;
    let hello = hello.expect("a message").expect("an open socket");
    let hello: Value = serde_json::from_str(hello.to_text().expect("text")).expect("JSON");
    let name = hello["name"].as_str().unwrap_or_default().to_owned();
    (socket, name)
}

/// Two backends on one port, at 127.0.0.1 and 127.0.0.2.
async fn two() -> (u16, [EchoProcess; 2]) {
    let addresses = ["127.0.0.1", "127.0.0.2"].map(|text| text.parse().expect("an address"));
    let port = common_port(&addresses);
    let [first, second] = addresses.map(|ip| SocketAddr::new(ip, port));
    let first = EchoProcess::start_at(first, "first", &[]).await;
    let second = EchoProcess::start_at(second, "second", &[]).await;
    (port, [first, second])
}

#[tokio::test]
async fn the_backend_is_asked_for_by_its_own_name() {
    let mut backend = Backend::played();
    let dns = Dns::start().await;
    dns.leads(NAME, &["127.0.0.1"], 60);
    let port = backend.address.port();
    let rule = Rule::to_external(BACKEND).forward();
    let scene = Scene::start_with(port, &Security::Plain, dns, rule, &[]).await;
    for request in [
        upgrade(HOST, "/a?b", ""),
        format!("GET /a?b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    ] {
        let mut client = Connection::plain(scene.gateway.http).await.unwrap();
        client.send(request).await.unwrap();
        let (_, seen) = backend.next().await;
        assert_eq!(seen.target, "/a?b");
        assert_eq!(seen.all("host"), [format!("{NAME}:{port}")]);
        assert_eq!(seen.all("x-forwarded-host"), [HOST]);
    }
}

#[tokio::test]
async fn a_name_is_looked_up_again_when_its_time_is_over_and_open_sockets_stay() {
    let (port, _backends) = two().await;
    let dns = Dns::start().await;
    dns.leads(NAME, &["127.0.0.1"], 1);
    let scene = Scene::start(port, &Security::Plain, dns).await;
    let (mut socket, name) = server(&scene.client()).await;
    assert_eq!(name, "first");
    scene.dns.leads(NAME, &["127.0.0.2"], 1);
    wait::until("new sockets go to the new address", async || {
        (server(&scene.client()).await.1 == "second").then_some(())
    })
    .await;
    let message = tokio_tungstenite::tungstenite::Message::text("still here");
    futures_util::SinkExt::send(&mut socket, message.clone())
        .await
        .unwrap();
    let echoed = wait::within("an echo", socket.next()).await;
    assert_eq!(echoed.unwrap().unwrap(), message);
}

#[tokio::test]
async fn several_addresses_share_the_sockets() {
    let (port, _backends) = two().await;
    let dns = Dns::start().await;
    dns.leads(NAME, &["127.0.0.1", "127.0.0.2"], 60);
    let scene = Scene::start(port, &Security::Plain, dns).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(server(&scene.client()).await);
    }
    let first = open.iter().filter(|(_, name)| name == "first").count();
    assert_eq!(first, 5);
}

#[tokio::test]
async fn both_families_are_asked_for() {
    // Without IPv6 here there is nobody to connect to.
    let Ok(free) = std::net::TcpListener::bind("[::1]:0") else {
        return;
    };
    drop(free);
    let backend = EchoProcess::start_on("::1".parse().unwrap(), "sixth", &[]).await;
    let dns = Dns::start().await;
    dns.leads(NAME, &["::1"], 60);
    let scene = Scene::start(backend.address.port(), &Security::Plain, dns).await;
    assert_eq!(server(&scene.client()).await.1, "sixth");
}

#[tokio::test]
async fn a_crowd_shares_one_look_up() {
    let backend = EchoProcess::start("only").await;
    let dns = Dns::start().await;
    dns.says(NAME, Says::Nothing);
    let port = backend.address.port();
    let scene = Scene::start(port, &Security::Plain, dns).await;
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let client = scene.client();
        crowd.spawn(async move { client.status().await });
    }
    // The question is asked again by itself after two seconds: each name server may lose one.
    wait::until("the name is asked for", async || {
        (scene.dns.asked(NAME) > 0).then_some(())
    })
    .await;
    scene.dns.leads(NAME, &["127.0.0.1"], 60);
    while let Some(status) = crowd.join_next().await {
        assert_eq!(status.unwrap(), Some(101));
    }
    let asked = scene.dns.asked(NAME);
    assert!(asked <= 4, "{CROWD} clients, {asked} questions");
}

#[tokio::test]
async fn silent_name_servers_hold_a_request_no_longer_than_a_connect() {
    let dns = Dns::start().await;
    dns.says(NAME, Says::Nothing);
    let rule = Rule::to_external(BACKEND).timeout("connect", "300ms");
    let scene = Scene::start_with(80, &Security::Plain, dns, rule, &[]).await;
    let begun = Instant::now();
    assert_eq!(scene.client().status().await, Some(503));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn the_last_answer_stays_while_name_servers_fail() {
    let backend = EchoProcess::start("only").await;
    let dns = Dns::start().await;
    dns.leads(NAME, &["127.0.0.1"], 1);
    let port = backend.address.port();
    let scene = Scene::start(port, &Security::Plain, dns).await;
    assert_eq!(scene.client().status().await, Some(101));
    scene.dns.says(NAME, Says::Failure);
    wait::until("look-ups fail", async || {
        (scene.lookups("failed_kept").await > 1).then_some(())
    })
    .await;
    assert_eq!(scene.client().status().await, Some(101));
    assert_eq!(scene.lookups("failed").await, 0);
}

#[tokio::test]
async fn without_any_answer_failing_name_servers_are_a_503() {
    let dns = Dns::start().await;
    dns.says(NAME, Says::Failure);
    let scene = Scene::start(80, &Security::Plain, dns).await;
    scene.becomes(503).await;
    assert!(scene.lookups("failed").await > 0);
}

#[tokio::test]
async fn a_name_that_is_gone_takes_no_new_sockets_until_it_is_back() {
    let backend = EchoProcess::start("only").await;
    let dns = Dns::start().await;
    dns.leads(NAME, &["127.0.0.1"], 1);
    let port = backend.address.port();
    let scene = Scene::start(port, &Security::Plain, dns).await;
    assert_eq!(scene.client().status().await, Some(101));
    scene.dns.says(NAME, Says::NoSuchName);
    scene.becomes(503).await;
    scene.dns.leads(NAME, &["127.0.0.1"], 1);
    scene.becomes(101).await;
}

#[tokio::test]
async fn an_answer_too_long_for_udp_comes_over_tcp() {
    let backend = EchoProcess::start("only").await;
    let dns = Dns::start().await;
    // 40 addresses take 640 bytes; nobody but the first is there.
    let mut addresses = vec!["127.0.0.1".to_owned()];
    addresses.extend((1..40).map(|last| format!("169.254.0.{last}")));
    let addresses = addresses.iter().map(String::as_str).collect::<Vec<_>>();
    dns.leads(NAME, &addresses, 60);
    let port = backend.address.port();
    let scene = Scene::start(port, &Security::Plain, dns).await;
    assert_eq!(server(&scene.client()).await.1, "only");
    assert!(scene.dns.asked_over_tcp() > 0);
}

/// Linux would connect to the backend at some of these.
#[tokio::test]
async fn addresses_that_no_route_may_reach_are_refused_after_dns_too() {
    for address in [
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "::",
        "::ffff:0.0.0.0",
    ] {
        let backend = Backend::accepting();
        let dns = Dns::start().await;
        dns.leads(NAME, &[address], 1);
        let port = backend.address.port();
        let scene = Scene::start(port, &Security::Plain, dns).await;
        scene.becomes(503).await;
        assert!(scene.lookups("denied").await > 0, "{address}");
        assert_eq!(backend.connections(), 0, "{address}");
        // Beside one that is permitted it is left out.
        scene.dns.leads(NAME, &[address, "127.0.0.1"], 1);
        scene.becomes(101).await;
    }
}

#[tokio::test]
async fn names_are_looked_up_only_while_a_route_needs_them() {
    let backend = EchoProcess::start("only").await;
    let dns = Dns::start().await;
    let other = "other.example.com";
    dns.leads(NAME, &["127.0.0.1"], 1);
    dns.leads(other, &["127.0.0.1"], 1);
    let port = backend.address.port();
    let scene = Scene::start(port, &Security::Plain, dns).await;
    let backends = external("other", other, port, &Security::Plain);
    scene.manifests.write("other.yaml", &backends);
    scene.becomes(101).await;
    assert_eq!(scene.dns.asked(other), 0, "no route needs it");

    let rules = [Rule::to_external("other")];
    let routes = route("outer", &[HOST], &Tls::Plain, &rules);
    scene.manifests.write(ROUTE_FILE, &routes);
    wait::until("the other name is looked up", async || {
        (scene.dns.asked(other) > 0).then_some(())
    })
    .await;
    // A look-up that was under way may still have come.
    let (asked, since) = (scene.dns.asked(NAME) + 1, scene.dns.asked(other));
    wait::until("the other name is looked up again and again", async || {
        (scene.dns.asked(other) > since + 3).then_some(())
    })
    .await;
    assert!(scene.dns.asked(NAME) <= asked, "nobody needs it any more");
}

/// An ingress of our own over TLS, as the far end.
async fn far_end(name: &str, authority: &Authority, echo: SocketAddr) -> (Manifests, Gateway) {
    let manifests = Manifests::new();
    manifests.write(
        "certificate.yaml",
        &secret("tls", &authority.issue(&[name])),
    );
    let rules = [Rule::to("chat").forward()];
    let routes = route("inner", &[name], &Tls::Terminate("tls"), &rules);
    let service = tests::manifests::service("chat");
    let endpoints = tests::manifests::endpoints("chat", &[echo]);
    manifests.write("route.yaml", &(routes + &service + &endpoints));
    let gateway = Gateway::start(&[manifests.path()], &Settings::default()).await;
    (manifests, gateway)
}

#[tokio::test]
async fn tls_is_verified_by_the_authorities_that_are_named() {
    let echo = EchoProcess::start("only").await;
    let (good, other) = (Authority::new(), Authority::new());
    let (_files, far) = far_end(NAME, &good, echo.address).await;
    let folder = tempfile::tempdir().unwrap();
    let system = folder.path().join("authorities.pem");
    let (good_pem, other_pem) = (good.root_pem(), other.root_pem());
    for (security, flagged, expected) in [
        (Security::TlsBy(&good_pem), None, 101),
        (Security::TlsBy(&other_pem), None, 502),
        // The named ones alone count.
        (Security::TlsBy(&other_pem), Some(&good_pem), 502),
        // Those of this machine do not know ours.
        (Security::Tls, None, 502),
        (Security::Tls, Some(&good_pem), 101),
    ] {
        let dns = Dns::start().await;
        dns.leads(NAME, &["127.0.0.1"], 60);
        let mut flags = Vec::new();
        if let Some(pem) = flagged {
            std::fs::write(&system, pem).unwrap();
            flags.extend(["--backend-ca-file", system.to_str().unwrap()]);
        }
        let rule = Rule::to_external(BACKEND).forward();
        let scene = Scene::start_with(far.https.port(), &security, dns, rule, &flags).await;
        assert_eq!(scene.client().status().await, Some(expected), "{flagged:?}");
        // Ordinary HTTP goes the same way.
        let mut client = Connection::plain(scene.gateway.http).await.unwrap();
        let request = format!("GET /bytes/100000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.send(request).await.unwrap();
        let answer = client.response("GET").await.unwrap();
        let (status, bytes) = if expected == 101 {
            (200, 100_000)
        } else {
            (502, answer.body.len())
        };
        assert_eq!((answer.status, answer.body.len()), (status, bytes));
        let failed = scene.gateway.metrics().await;
        let failed = failed.sum("ws_ingress_handshakes_total", &[("outcome", "backend_tls")]);
        assert_eq!(failed, u64::from(expected == 502));
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_and_plain_text_is_never_fallen_back_to() {
    let echo = EchoProcess::start("only").await;
    let authority = Authority::new();
    let (_files, far) = far_end("else.example.com", &authority, echo.address).await;
    let plain = Backend::accepting();
    let pem = authority.root_pem();
    for port in [far.https.port(), plain.address.port()] {
        let dns = Dns::start().await;
        dns.leads(NAME, &["127.0.0.1"], 60);
        let rule = Rule::to_external(BACKEND).timeout("connect", "500ms");
        let scene = Scene::start_with(port, &Security::TlsBy(&pem), dns, rule, &[]).await;
        let status = scene.client().status().await;
        assert!(matches!(status, Some(502 | 504)), "{status:?}");
    }
    assert_eq!(echo.handshakes().await, 0);
    assert!(plain.requests().is_empty(), "{:?}", plain.requests());
}
