use std::num::NonZeroU16;
use std::time::Duration;

use route_table::{
    Backend, BackendKey, CertificateKey, CertificateResource, Endpoint, EndpointState, HostPattern,
    HostTls, NonUpgrade, OnPlain, OriginPolicy, PathMatch, PrivateKey, Resources, Route,
    RouteHostname, RouteKey, RouteTable, Rule, Timeouts, WeightedBackend,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::*;
use crate::{Addresses, Config, Dataplane, Limits, Stop};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const HOST: &str = "chat.example.com";
const ORDINARY: &str = "GET / HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";

/// One route for every path of its host on the plain listener, without any backend.
fn table(closed: bool) -> Arc<RouteTable> {
    table_with(closed, NonUpgrade::Reject, None)
}

fn table_with(
    closed: bool,
    non_upgrade: NonUpgrade,
    backend: Option<SocketAddr>,
) -> Arc<RouteTable> {
    let backend_key = BackendKey {
        namespace: "default".into(),
        service: "chat".into(),
        port: 80.try_into().unwrap(),
    };
    let endpoints = backend.map(|address| Endpoint {
        address,
        state: EndpointState::Ready,
    });
    let backend = Backend {
        endpoints: endpoints.into_iter().collect(),
    };
    let backend_ref = WeightedBackend {
        backend: backend_key.clone().into(),
        weight: 1,
        proxy_protocol: None,
    };
    let second = Duration::from_secs(1);
    let rule = Rule {
        name: "0".into(),
        matches: vec![PathMatch::prefix("/").unwrap().into()],
        non_upgrade,
        origins: OriginPolicy::default(),
        filters: Arc::default(),
        backends: vec![backend_ref],
        timeouts: Timeouts {
            connect: second,
            handshake: second,
            read: second,
            send: second,
        },
    };
    let route = Route {
        created: None,
        hostnames: vec![RouteHostname {
            pattern: HostPattern::parse("chat.example.com").unwrap(),
            tls: HostTls::None,
        }],
        rules: vec![rule],
        closed,
    };
    let key = RouteKey {
        namespace: "default".into(),
        name: "chat".into(),
    };
    let resources = Resources {
        routes: [(key, Arc::new(route))].into(),
        backends: [(backend_key, Arc::new(backend))].into(),
        ..Resources::default()
    };
    let (table, rejected) = RouteTable::build(&resources, &RouteTable::empty());
    assert_eq!(rejected, []);
    Arc::new(table)
}

/// The same host with TLS and without any rule that could serve it.
fn tls_table() -> (Arc<RouteTable>, TlsConnector) {
    let issued = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let certificate = CertificateKey {
        namespace: "default".into(),
        secret: "chat-tls".into(),
    };
    let served = CertificateResource::Serve {
        chain: vec![issued.cert.der().clone()],
        key: PrivateKey::from_der(issued.signing_key.serialize_der()),
    };
    let route = Route {
        created: None,
        hostnames: vec![RouteHostname {
            pattern: HostPattern::parse(HOST).unwrap(),
            tls: HostTls::Terminate {
                certificates: vec![certificate.clone()],
                plain: OnPlain::Refuse,
            },
        }],
        rules: Vec::new(),
        closed: false,
    };
    let key = RouteKey {
        namespace: "default".into(),
        name: "chat".into(),
    };
    let resources = Resources {
        routes: [(key, Arc::new(route))].into(),
        certificates: [(certificate, Arc::new(served))].into(),
        ..Resources::default()
    };
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let client = client.with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let table = RouteTable::build(&resources, &RouteTable::empty()).0;
    (Arc::new(table), TlsConnector::from(Arc::new(client)))
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn config() -> Config {
    let local = "127.0.0.1:0".parse().unwrap();
    Config {
        https_address: local,
        http_address: local,
        https_public_port: NonZeroU16::MIN,
        status_address: local,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        trusted_proxies: Vec::new(),
        proxy_protocol_peers: Vec::new(),
        loopback: route_table::Loopback::Allow,
        resolver: None,
        backend_ca_file: None,
        backend_source_addresses: Vec::new(),
        limits: Limits::default(),
    }
}

/// Serves the table while a test asks.
async fn serve<T>(
    table: Arc<RouteTable>,
    config: Config,
    asking: impl AsyncFnOnce(Addresses) -> T,
) -> T {
    let (_tables, receiver) = watch::channel(table);
    let dataplane = Dataplane::bind(config, receiver).unwrap();
    let addresses = dataplane.addresses();
    let (stop, stopped) = watch::channel(Stop::Serve);
    let asking = async {
        let answers = asking(addresses).await;
        stop.send_replace(Stop::Cut);
        answers
    };
    let (answers, drained) = tokio::join!(asking, dataplane.run(stopped));
    drained.unwrap();
    answers
}

/// Serves the table, sends both kinds of requests, and returns the answers and the metrics after them.
async fn serve_and_ask(table: Arc<RouteTable>) -> [String; 3] {
    serve(table, config(), async |addresses| {
        let upgrade = ask(addresses.http, UPGRADE).await;
        let ordinary = ask(addresses.http, ORDINARY).await;
        let metrics = ask(
            addresses.status,
            "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        [upgrade, ordinary, metrics]
    })
    .await
}

#[tokio::test]
async fn a_closed_route_is_refused_in_its_own_words_and_counted_apart() {
    let [upgrade, ordinary, metrics] = serve_and_ask(table(true)).await;
    for answer in [upgrade, ordinary] {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: "), "{answer}");
        let sentence = "This route asks for what this proxy cannot do; try again.";
        assert!(answer.contains(sentence), "{answer}");
    }
    for family in ["handshakes", "requests"] {
        let line = format!("{family}_total{{outcome=\"unsupported\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn an_open_route_without_a_backend_is_no_closed_one() {
    let [upgrade, ordinary, metrics] = serve_and_ask(table(false)).await;
    assert!(upgrade.contains("No endpoint is ready"), "{upgrade}");
    assert!(ordinary.starts_with("HTTP/1.1 426 "), "{ordinary}");
    assert!(!metrics.contains("unsupported"), "{metrics}");
}

/// The time to the first head in the tests of it.
const HEAD: Duration = Duration::from_secs(2);

const PROXY_HEADER: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 5123 443\r\n";

/// How long a client that sends these parts, a third of `HEAD` apart, is borne; and the metrics after it.
async fn borne(proxy_header_is_due: bool, tls: bool, parts: &[&str]) -> (Duration, String) {
    let mut config = config();
    config.limits.head = HEAD;
    if proxy_header_is_due {
        config.proxy_protocol_peers = vec!["127.0.0.0/8".parse().unwrap()];
    }
    serve(table(false), config, async |addresses| {
        let address = if tls { addresses.https } else { addresses.http };
        let mut stream = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        for part in parts {
            stream.write_all(part.as_bytes()).await.unwrap();
            // The pause is what is tested: see below.
            tokio::time::sleep(HEAD / 3).await;
        }
        let mut answer = Vec::new();
        // Its end, or a reset because something was left unread.
        let _ = stream.read_to_end(&mut answer).await;
        let borne = began.elapsed();
        assert_eq!(answer, b"");
        let metrics = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        (borne, ask(addresses.status, metrics).await)
    })
    .await
}

/// The pauses between the parts are what is tested: no stage may give itself time anew.
#[tokio::test]
async fn the_time_to_the_first_head_begins_at_accept_and_no_stage_resets_it() {
    let cases: [(bool, bool, &[&str]); 6] = [
        (false, false, &[]),
        (false, false, &["GET / HT", "TP/1.1\r\n", "Host: a\r\n"]),
        (false, true, &[]),
        (true, false, &["PROXY ", "TCP4 ", "203."]),
        // The header is whole after two thirds of the time.
        (true, false, &["PROXY ", "TCP4 ", &PROXY_HEADER[11..]]),
        (true, true, &["PROXY ", "TCP4 ", &PROXY_HEADER[11..]]),
    ];
    let waiting = cases.map(|(due, tls, parts)| borne(due, tls, parts));
    let waited = futures_util::future::join_all(waiting).await;
    for ((_, _, parts), (borne, metrics)) in cases.into_iter().zip(waited) {
        // A time that began anew with the TLS handshake or the head would be over at five thirds.
        let (least, most) = (HEAD * 99 / 100, HEAD * 8 / 5);
        assert!((least..most).contains(&borne), "{parts:?}: {borne:?}");
        let timed_out = metrics.contains("proxy_headers_total{outcome=\"timeout\"} 1");
        assert_eq!(timed_out, parts.contains(&"203."), "{parts:?}: {metrics}");
    }
}

#[tokio::test]
async fn a_client_that_pauses_within_its_body_gets_408_and_the_backend_no_whole_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let mut config = config();
    config.limits.request_body = Duration::from_millis(200);
    let reading = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        // A reset is an end too.
        let _ = stream.read_to_string(&mut request).await;
        request
    };
    let table = table_with(false, NonUpgrade::Forward, Some(backend));
    let asking = serve(table, config, async |addresses: Addresses| {
        let request = ORDINARY.replace("GET", "POST");
        let request = request.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n");
        ask(addresses.http, &(request + "5\r\nhello\r\n")).await
    });
    let (answer, request) = tokio::join!(asking, reading);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(request.ends_with("5\r\nhello\r\n"), "{request}");
}

/// Whether a TLS handshake succeeds under these limits; the metrics after it.
async fn handshake_under(limits: Limits) -> (bool, String) {
    let mut config = config();
    config.limits = limits;
    let (table, connector) = tls_table();
    serve(table, config, async |addresses: Addresses| {
        let tcp = TcpStream::connect(addresses.https).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let succeeds = connector.connect(name, tcp).await.is_ok();
        let metrics = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        (succeeds, ask(addresses.status, metrics).await)
    })
    .await
}

#[tokio::test]
async fn handshakes_that_cannot_be_computed_in_time_are_closed_and_counted_by_name() {
    let none_at_once = |queue| Limits {
        tls_handshakes: 0,
        tls_handshake_queue: queue,
        tls_handshake_wait: Duration::from_millis(10),
        ..Limits::default()
    };
    for (limits, outcome) in [
        (none_at_once(0), "queue_full"),
        (none_at_once(1), "queue_timeout"),
        (Limits::default(), "accepted"),
    ] {
        let (succeeds, metrics) = handshake_under(limits).await;
        assert_eq!(succeeds, outcome == "accepted", "{outcome}");
        let line = format!("tls_handshakes_total{{outcome=\"{outcome}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
        assert!(metrics.contains("tls_handshakes_waiting 0"), "{metrics}");
    }
}
