use std::num::NonZeroU16;
use std::time::Duration;

use route_table::{
    HostPattern, HostTls, NonUpgrade, OriginPolicy, PathMatch, Resources, Route, RouteHostname,
    RouteKey, RouteTable, Rule, Timeouts,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::*;
use crate::{Config, Dataplane, Limits, Stop};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ORDINARY: &str = "GET / HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";

/// One route for every path of its host on the plain listener, without any backend.
fn table(closed: bool) -> Arc<RouteTable> {
    let second = Duration::from_secs(1);
    let rule = Rule {
        name: "0".into(),
        matches: vec![PathMatch::prefix("/").unwrap().into()],
        non_upgrade: NonUpgrade::Reject,
        origins: OriginPolicy::default(),
        filters: Arc::default(),
        backends: Vec::new(),
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
        ..Resources::default()
    };
    let (table, rejected) = RouteTable::build(&resources, &RouteTable::empty());
    assert_eq!(rejected, []);
    Arc::new(table)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Serves the table, sends both kinds of requests, and returns the answers and the metrics after them.
async fn serve_and_ask(table: Arc<RouteTable>) -> [String; 3] {
    let local = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        https_address: local,
        http_address: local,
        https_public_port: NonZeroU16::MIN,
        status_address: local,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        trusted_proxies: Vec::new(),
        limits: Limits::default(),
    };
    let (_tables, receiver) = watch::channel(table);
    let dataplane = Dataplane::bind(config, receiver).unwrap();
    let addresses = dataplane.addresses();
    let (stop, stopped) = watch::channel(Stop::Serve);
    let asking = async {
        let upgrade = ask(addresses.http, UPGRADE).await;
        let ordinary = ask(addresses.http, ORDINARY).await;
        let metrics = ask(
            addresses.status,
            "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        stop.send_replace(Stop::Cut);
        [upgrade, ordinary, metrics]
    };
    let (answers, drained) = tokio::join!(asking, dataplane.run(stopped));
    drained.unwrap();
    answers
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
