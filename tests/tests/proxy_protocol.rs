//! The PROXY protocol from load balancers in front: from their ranges a header must come, from elsewhere none is read.

use tests::backend::Backend;
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::raw::{Connection, End, Request, upgrade};
use tests::scene::{HOST, PLAIN_HOST, SERVICE, Scene};

/// Everybody here is a load balancer, and proxies that speak through it are trusted.
const DUE: &[&str] = &[
    "--proxy-protocol-cidr",
    "127.0.0.0/8",
    "--trusted-proxy-cidr",
    "203.0.113.64/26",
];
const ELSEWHERE: &[&str] = &["--proxy-protocol-cidr", "192.0.2.0/24"];

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 5123 443\r\n";

/// A header of version 2 with a TLV behind the addresses.
fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let tlv = b"\x02\0\x03abc";
    header.extend([command, family]);
    let length = u16::try_from(addresses.len() + tlv.len()).expect("a short header");
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header.extend(tlv);
    header
}

async fn scene(backend: &Backend, more: &[&str]) -> Scene {
    let settings = Settings::with(more);
    let rules = [Rule::to(SERVICE).forward()];
    Scene::start(&rules, &[(SERVICE, &[backend.address])], &settings).await
}

/// A connection to the listener with or without TLS that begins with these bytes.
async fn begun(scene: &Scene, tls: bool, first: &[u8]) -> Connection {
    let gateway = &scene.gateway;
    let root = scene.authority.root();
    if tls {
        let connected = Connection::tls_after(first, gateway.https, HOST, root).await;
        return connected.expect("a TLS handshake after the header");
    }
    let mut connection = Connection::plain(gateway.http).await.expect("a connection");
    connection.send(first).await.expect("bytes");
    connection
}

/// What the backend sees of an upgrade and of an ordinary request behind this header.
async fn seen_behind(
    scene: &Scene,
    backend: &mut Backend,
    header: &[u8],
    more: &str,
) -> Vec<Request> {
    let mut seen = Vec::new();
    for (tls, host) in [(true, HOST), (false, PLAIN_HOST)] {
        let ordinary = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
        for request in [upgrade(host, "/", more), ordinary] {
            let mut client = begun(scene, tls, header).await;
            client.send(request).await.expect("a request");
            let (_server, request) = backend.next().await;
            seen.push(request);
        }
    }
    seen
}

async fn counted(scene: &Scene, outcome: &str) -> u64 {
    let metrics = scene.gateway.metrics().await;
    metrics.sum("ws_ingress_proxy_headers_total", &[("outcome", outcome)])
}

#[tokio::test]
async fn the_client_is_whom_the_header_names() {
    let mut backend = Backend::played();
    let scene = scene(&backend, DUE).await;
    let v4 = [203, 0, 113, 9, 192, 0, 2, 1, 20, 3, 1, 187];
    let mut v6 = [0; 36];
    v6[..16].copy_from_slice(&[32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    let cases: [(&[u8], &str); 6] = [
        (V1, "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n", "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&v2(0x21, 0x11, &v4), "203.0.113.9"),
        (&v2(0x21, 0x21, &v6), "2001:db8::9"),
        // LOCAL, a health check: what it names does not count.
        (&v2(0x20, 0x11, &v4), "127.0.0.1"),
    ];
    for (header, client) in cases {
        for seen in seen_behind(&scene, &mut backend, header, "").await {
            assert_eq!(seen.all("x-real-ip"), [client]);
            assert_eq!(seen.all("x-forwarded-for"), [client]);
        }
    }
    assert_eq!(counted(&scene, "proxied").await, 16);
    assert_eq!(counted(&scene, "local").await, 8);
}

#[tokio::test]
async fn whom_the_header_names_may_be_a_trusted_proxy() {
    let mut backend = Backend::played();
    let scene = scene(&backend, DUE).await;
    let header = b"PROXY TCP4 203.0.113.70 192.0.2.1 5123 443\r\n";
    let more = "X-Forwarded-For: 198.51.100.1\r\n";
    for seen in seen_behind(&scene, &mut backend, header, more).await {
        assert_eq!(seen.all("x-real-ip"), ["198.51.100.1"]);
        assert_eq!(seen.all("x-forwarded-for"), ["198.51.100.1, 203.0.113.70"]);
    }
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_with_what_follows() {
    let mut backend = Backend::played();
    let scene = scene(&backend, DUE).await;
    let whole = [V1, upgrade(PLAIN_HOST, "/", "").as_bytes()].concat();
    // At each of its bytes, so that both reads of version 1 and the border to the request are cut somewhere.
    for cut in 1..=V1.len() + 1 {
        let mut client = begun(&scene, false, &whole[..cut]).await;
        client.send(&whole[cut..]).await.expect("the rest");
        let (_server, seen) = backend.next().await;
        assert_eq!(seen.all("x-real-ip"), ["203.0.113.9"], "cut at {cut}");
    }
}

#[tokio::test]
async fn a_connection_without_a_good_header_is_closed_and_counted() {
    let backend = Backend::accepting();
    let scene = scene(&backend, DUE).await;
    let request = upgrade(PLAIN_HOST, "/", "");
    let garbled = [&V1[..15], b"\r\n", request.as_bytes()].concat();
    let too_long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat();
    let mut huge = v2(0x21, 0x11, &[0; 12]);
    huge[14..16].copy_from_slice(&[255, 255]);
    let cases: [(&str, &[u8]); 7] = [
        ("missing", request.as_bytes()),
        ("missing", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("missing", b"\x00"),
        ("malformed", &garbled),
        ("malformed", &v2(0x21, 0x99, &[0; 12])),
        ("too_long", &too_long),
        ("too_long", &huge),
    ];
    for address in [scene.gateway.http, scene.gateway.https] {
        for (outcome, bytes) in cases {
            let before = counted(&scene, outcome).await;
            let mut connection = Connection::plain(address).await.expect("a connection");
            connection.send(bytes).await.expect("bytes");
            let (answer, end) = connection.end().await;
            assert_eq!(answer, b"", "{outcome}");
            assert!(matches!(end, End::Fin | End::Reset), "{outcome}");
            assert_eq!(counted(&scene, outcome).await, before + 1, "{outcome}");
        }
    }
    // One that ends before its header is no error of ours either.
    let mut connection = begun(&scene, false, &V1[..20]).await;
    connection.finish().await.expect("an end");
    assert_eq!(connection.end().await.0, b"");
    assert_eq!(counted(&scene, "ended").await, 1);
    assert_eq!(backend.connections(), 0);
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn from_elsewhere_a_header_is_bytes_like_any_others() {
    let backend = Backend::accepting();
    let scene = scene(&backend, ELSEWHERE).await;
    let mut claiming = begun(&scene, false, V1).await;
    claiming
        .send(upgrade(PLAIN_HOST, "/", ""))
        .await
        .expect("a request");
    let answer = claiming.response("GET").await.expect("an answer");
    assert_eq!(answer.status, 400);
    let root = scene.authority.root();
    let claiming = Connection::tls_after(V1, scene.gateway.https, HOST, root).await;
    assert!(claiming.is_err(), "a header was read from a stranger");
    assert_eq!(backend.connections(), 0);

    assert_eq!(scene.ask(&upgrade(HOST, "/", "")).await.status, 101);
    let seen = backend.requests().pop().expect("a request");
    assert_eq!(seen.all("x-real-ip"), ["127.0.0.1"]);
    let metrics = scene.gateway.metrics().await;
    assert_eq!(metrics.sum("ws_ingress_proxy_headers_total", &[]), 0);
}

/// A scene whose backend gets a header of this version; whoever connects is believed what it says of its client.
async fn announcing(backend: &Backend, version: &'static str, more: &[&str]) -> Scene {
    let settings = Settings::with(more);
    let rules = [Rule::to(SERVICE).forward().proxy_protocol(version)];
    Scene::start(&rules, &[(SERVICE, &[backend.address])], &settings).await
}

/// The header that a connection of the proxy begins with, as version 1 would write it.
async fn header_of(server: &mut Connection, version: &str) -> String {
    if version == "V1" {
        return server.line().await.expect("a header");
    }
    let fixed = server.exactly(16).await.expect("a header");
    assert_eq!(fixed[..14], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    assert_eq!(fixed[14..], [0, 12], "no more than the addresses");
    let ends = server.exactly(12).await.expect("addresses");
    let address = |at: usize| {
        ends[at..at + 4]
            .iter()
            .map(u8::to_string)
            .collect::<Vec<_>>()
            .join(".")
    };
    let port = |at: usize| u16::from_be_bytes([ends[at], ends[at + 1]]);
    format!(
        "PROXY TCP4 {} {} {} {}",
        address(0),
        address(4),
        port(8),
        port(10)
    )
}

#[tokio::test]
async fn a_backend_that_wants_a_header_gets_it_before_anything_else() {
    for version in ["V1", "V2"] {
        let mut backend = Backend::played();
        let scene = announcing(&backend, version, &[]).await;
        for request in [
            upgrade(HOST, "/", ""),
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ] {
            let mut client = scene.raw().await;
            let (from, to) = client.addresses();
            client.send(request).await.expect("a request");
            let mut server = backend.next_connection().await;
            let header = header_of(&mut server, version).await;
            let (from_port, to_port) = (from.port(), to.port());
            let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from_port} {to_port}");
            assert_eq!(header, expected);
            let seen = server.request().await.expect("a request after the header");
            assert_eq!(seen.header("host"), Some(HOST));
        }
    }
}

#[tokio::test]
async fn the_header_names_whom_a_header_named() {
    let mut backend = Backend::played();
    let scene = announcing(&backend, "V1", DUE).await;
    let mut client = begun(&scene, true, V1).await;
    client
        .send(upgrade(HOST, "/", ""))
        .await
        .expect("a request");
    let mut server = backend.next_connection().await;
    let header = server.line().await.expect("a header");
    assert_eq!(header, "PROXY TCP4 203.0.113.9 192.0.2.1 5123 443");
}

/// One connection of a trusted proxy carries many clients; none of them may be taken for another.
#[tokio::test]
async fn requests_of_two_clients_never_share_a_connection_with_a_header() {
    const TRUSTING: &[&str] = &["--trusted-proxy-cidr", "127.0.0.0/8"];
    let mut backend = Backend::played();
    let scene = announcing(&backend, "V1", TRUSTING).await;
    let mut client = scene.raw().await;
    let (_, to) = client.addresses();
    for address in ["198.51.100.1", "198.51.100.2", "198.51.100.1"] {
        let request =
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {address}\r\n\r\n");
        client.send(request).await.expect("a request");
        let mut server = backend.next_connection().await;
        let header = server.line().await.expect("a header");
        let expected = format!("PROXY TCP4 {address} 127.0.0.1 0 {}", to.port());
        assert_eq!(header, expected);
        let seen = server.request().await.expect("a request after the header");
        assert_eq!(seen.all("x-real-ip"), [address]);
        server
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .expect("an answer");
        assert_eq!(client.response("GET").await.expect("an answer").status, 200);
        // It is not kept for anybody.
        assert_eq!(server.end().await.0, b"");
    }
}
