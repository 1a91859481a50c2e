//! Upstream connections of ordinary HTTP to external backends: kept for the next request to the same name over the same TLS, and for
//! nothing else at their address.

use tests::backend::Backend;
use tests::certificate::Authority;
use tests::dns::Dns;
use tests::echo_process::{EchoProcess, common_port};
use tests::gateway::{Gateway, Settings};
use tests::manifests::{
    Manifests, Rule, Security, Tls, endpoints, external, route, secret, service,
};
use tests::raw::Connection;
use tests::wait;

/// What clients ask for, and where it leads.
const HOST: &str = "outer.example.com";
const NAME: &str = "inner.example.com";
const OTHER_NAME: &str = "else.example.com";

const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";

/// Two rules, `/one` and `/other`, each with an external backend of its name at one port.
struct Scene {
    dns: Dns,
    manifests: Manifests,
    gateway: Gateway,
}

impl Scene {
    /// Both names lead to 127.0.0.1.
    async fn start(one: &str, other: &str) -> Self {
        let dns = Dns::start().await;
        dns.leads(NAME, &["127.0.0.1"], 1);
        dns.leads(OTHER_NAME, &["127.0.0.1"], 1);
        let manifests = Manifests::new();
        manifests.write("one.yaml", one);
        manifests.write("other.yaml", other);
        let rules = [
            Rule::to_external("one").prefix("/one").forward(),
            Rule::to_external("other").prefix("/other").forward(),
        ];
        manifests.write("route.yaml", &route("outer", &[HOST], &Tls::Plain, &rules));
        let resolver = ["--resolver".to_owned(), dns.address.to_string()];
        let settings = Settings::with(&[&resolver[0], &resolver[1]]);
        let gateway = Gateway::start(&[manifests.path()], &settings).await;
        Self {
            dns,
            manifests,
            gateway,
        }
    }

    /// A request of a client of its own.
    async fn asks(&self, path: &str) -> Connection {
        let client = Connection::plain(self.gateway.http).await;
        let mut client = client.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.send(request).await.expect("the proxy reads");
        client
    }

    /// The status of its answer.
    async fn status(&self, path: &str) -> u16 {
        let answer = self.asks(path).await.response("GET").await;
        answer.expect("an answer").status
    }

    /// How many answers came over a connection that was `fresh`, `reused` or `retried`.
    async fn answered(&self, connection: &str) -> u64 {
        let metrics = self.gateway.metrics().await;
        let labels = [("connection", connection)];
        metrics.sum("ws_ingress_upstream_requests_total", &labels)
    }
}

async fn answer(server: &mut Connection, client: &mut Connection) {
    server.send(WELL).await.expect("the proxy listens");
    let answer = client.response("GET").await.expect("an answer");
    assert_eq!(answer.text(), "well");
}

#[tokio::test]
async fn requests_to_one_name_share_a_connection_and_those_to_another_at_its_address_do_not() {
    let mut backend = Backend::played();
    let port = backend.address.port();
    let one = external("one", NAME, port, &Security::Plain);
    let other = external("other", OTHER_NAME, port, &Security::Plain);
    let scene = Scene::start(&one, &other).await;
    let mut client = scene.asks("/one").await;
    let (mut server, _) = backend.next().await;
    answer(&mut server, &mut client).await;
    scene.gateway.idle_upstreams(1).await;

    let mut client = scene.asks("/one/again").await;
    let seen = server.request().await.expect("the same connection");
    assert_eq!(seen.target, "/one/again");
    answer(&mut server, &mut client).await;
    scene.gateway.idle_upstreams(1).await;

    let mut client = scene.asks("/other").await;
    let (mut other_server, seen) = backend.next().await;
    assert_eq!(seen.all("host"), [format!("{OTHER_NAME}:{port}")]);
    answer(&mut other_server, &mut client).await;
    assert_eq!(backend.connections(), 2);
    drop(server);
}

#[tokio::test]
async fn an_address_that_left_dns_gets_no_request_over_a_connection_that_waits() {
    let addresses = ["127.0.0.1", "127.0.0.2"].map(|text| text.parse().expect("an address"));
    let port = common_port(&addresses);
    let [first, second] = addresses.map(|ip| (ip, port).into());
    let _first = EchoProcess::start_at(first, "first", &[]).await;
    let _second = EchoProcess::start_at(second, "second", &[]).await;
    let one = external("one", NAME, port, &Security::Plain);
    let other = external("other", OTHER_NAME, port, &Security::Plain);
    let scene = Scene::start(&one, &other).await;
    for _ in 0..2 {
        assert_eq!(scene.status("/one").await, 404, "the backend's own");
        scene.gateway.idle_upstreams(1).await;
    }
    assert_eq!(
        (
            scene.answered("fresh").await,
            scene.answered("reused").await
        ),
        (1, 1)
    );

    scene.dns.leads(NAME, &["127.0.0.2"], 1);
    let asked = scene.dns.asked(NAME);
    wait::until("the name is looked up again, twice", async || {
        (scene.dns.asked(NAME) > asked + 1).then_some(())
    })
    .await;
    assert_eq!(scene.status("/one").await, 404);
    assert_eq!(
        (
            scene.answered("fresh").await,
            scene.answered("reused").await
        ),
        (2, 1)
    );
}

/// An ingress of our own over TLS, as the far end.
async fn far_end(authority: &Authority, echo: &EchoProcess) -> (Manifests, Gateway) {
    let manifests = Manifests::new();
    let issued = authority.issue(&[NAME]);
    manifests.write("certificate.yaml", &secret("tls", &issued));
    let rules = [Rule::to("chat").forward()];
    let text = route("inner", &[NAME], &Tls::Terminate("tls"), &rules)
        + &service("chat")
        + &endpoints("chat", &[echo.address]);
    manifests.write("route.yaml", &text);
    let gateway = Gateway::start(&[manifests.path()], &Settings::default()).await;
    (manifests, gateway)
}

#[tokio::test]
async fn a_connection_over_tls_is_kept_for_those_who_trust_the_same_authorities() {
    let echo = EchoProcess::start("only").await;
    let (good, stranger) = (Authority::new(), Authority::new());
    let (_files, far) = far_end(&good, &echo).await;
    let port = far.https.port();
    let (good, stranger) = (good.root_pem(), stranger.root_pem());
    let trusting = |name: &str, pem: &str| external(name, NAME, port, &Security::TlsBy(pem));
    // The same name and address, which the other would not take for what it is.
    let scene = Scene::start(&trusting("one", &good), &trusting("other", &stranger)).await;
    let handshakes = async || {
        let accepted = [("outcome", "accepted")];
        let metrics = far.metrics().await;
        metrics.sum("ws_ingress_tls_handshakes_total", &accepted)
    };
    for number in 0..3 {
        assert_eq!(scene.status("/one").await, 404, "the backend's own");
        scene.gateway.idle_upstreams(1).await;
        assert_eq!(scene.answered("reused").await, number);
    }
    assert_eq!(handshakes().await, 1);
    assert_eq!(scene.status("/other").await, 502);

    // The connection waits while its own backend comes to trust somebody else.
    let swaps = async || {
        let metrics = scene.gateway.metrics().await;
        metrics.sum("ws_ingress_table_swaps_total", &[])
    };
    let before = swaps().await;
    assert_eq!(scene.status("/one").await, 404);
    scene
        .manifests
        .write("one.yaml", &trusting("one", &stranger));
    wait::until("the next table", async || {
        (swaps().await > before).then_some(())
    })
    .await;
    assert_eq!(scene.status("/one").await, 502);
    assert_eq!(scene.answered("fresh").await, 1);
}
