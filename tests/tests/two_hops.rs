//! Two hops: an outer proxy that ends wss and leads to an inner one by another name, plain and over TLS, with nginx in either place.
//!
//! Shown at the far end: what the backend is told of the client, who lies about himself, and that messages and close codes pass.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tests::backend::{Backend, SWITCHING, fill, refusing};
use tests::certificate::{Authority, Issued};
use tests::dns::Dns;
use tests::frame;
use tests::gateway::{Gateway, Settings};
use tests::manifests::{
    Manifests, Rule, Security, Tls, endpoints, external, route, secret, service,
};
use tests::nginx::{Nginx, Prepared};
use tests::raw::{Connection, Request, upgrade};

const OUTER: &str = "outer.example.com";
const INNER: &str = "inner.example.com";
/// The client's address; every proxy here is at 127.0.0.1.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
const PROXY: &str = "127.0.0.1";
/// Whom the client says that he is.
const CLAIMED: &str = "203.0.113.9";

/// Between the hops.
#[derive(Clone, Copy, PartialEq)]
enum Hop {
    Plain,
    Tls,
}

const HOPS: [Hop; 2] = [Hop::Plain, Hop::Tls];

/// Whether the inner hop was told that the outer one is a proxy, and how that one says who the client is.
#[derive(Clone, Copy)]
enum Told {
    OfProxy,
    OfProxyHeaders,
    Nothing,
}

/// One proxy, whatever it is, and what it was made of.
struct Proxy {
    address: SocketAddr,
    _parts: Parts,
}

enum Parts {
    WsIngress {
        _files: Manifests,
        _gateway: Gateway,
        _dns: Option<Dns>,
    },
    Nginx {
        _nginx: Nginx,
    },
}

/// ws-ingress in front of the backend, under the inner name.
async fn inner_ws_ingress(
    hop: Hop,
    told: Told,
    authority: &Authority,
    backend: SocketAddr,
) -> Proxy {
    let files = Manifests::new();
    let tls = match hop {
        Hop::Plain => Tls::Plain,
        Hop::Tls => Tls::Terminate("inner-tls"),
    };
    let routes = route("inner", &[INNER], &tls, &[Rule::to("chat")]);
    files.write(
        "certificate.yaml",
        &secret("inner-tls", &authority.issue(&[INNER])),
    );
    files.write(
        "route.yaml",
        &(routes + &service("chat") + &endpoints("chat", &[backend])),
    );
    let settings = match told {
        Told::OfProxy => Settings::with(&["--trusted-proxy-cidr", &format!("{PROXY}/32")]),
        Told::OfProxyHeaders => Settings::with(&["--proxy-protocol-cidr", &format!("{PROXY}/32")]),
        Told::Nothing => Settings::default(),
    };
    let gateway = Gateway::start(&[files.path()], &settings).await;
    let address = match hop {
        Hop::Plain => gateway.http,
        Hop::Tls => gateway.https,
    };
    Proxy {
        address,
        _parts: Parts::WsIngress {
            _files: files,
            _gateway: gateway,
            _dns: None,
        },
    }
}

/// ws-ingress that ends wss under the outer name and leads to the inner one.
async fn outer_ws_ingress(hop: Hop, authority: &Authority, inner: SocketAddr) -> Proxy {
    outer_with(Rule::to_external("inner"), hop, authority, inner).await
}

async fn outer_with(rule: Rule, hop: Hop, authority: &Authority, inner: SocketAddr) -> Proxy {
    let dns = Dns::start().await;
    dns.leads(INNER, &[PROXY], 60);
    let files = Manifests::new();
    let pem = authority.root_pem();
    let security = match hop {
        Hop::Plain => Security::Plain,
        Hop::Tls => Security::TlsBy(&pem),
    };
    let routes = route("outer", &[OUTER], &Tls::Terminate("outer-tls"), &[rule]);
    files.write(
        "certificate.yaml",
        &secret("outer-tls", &authority.issue(&[OUTER])),
    );
    files.write(
        "route.yaml",
        &(routes + &external("inner", INNER, inner.port(), &security)),
    );
    let settings = Settings {
        flags: vec!["--resolver".to_owned(), dns.address.to_string()],
        ..Settings::default()
    };
    let gateway = Gateway::start(&[files.path()], &settings).await;
    Proxy {
        address: gateway.https,
        _parts: Parts::WsIngress {
            _files: files,
            _gateway: gateway,
            _dns: Some(dns),
        },
    }
}

/// What nginx needs to pass an upgrade on, and the client's address with it, as the recipe has it.
const UPGRADE: &str = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n\
    proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n";

/// Real nginx with this `location` for `name`; any other name gets 421. `None` when nginx is not installed, which is recorded.
fn nginx(name: &str, tls: Option<&Issued>, location: &str) -> Option<(Prepared, SocketAddr)> {
    let address = refusing();
    let (ssl, certificate) = match tls {
        None => ("", String::new()),
        Some(_) => (
            " ssl",
            format!(
                "ssl_certificate /etc/nginx/tls/{name}.crt; ssl_certificate_key /etc/nginx/tls/{name}.key;"
            ),
        ),
    };
    let text = format!(
        "{certificate}\n\
         server {{ listen {address}{ssl} default_server; return 421; }}\n\
         server {{ listen {address}{ssl}; server_name {name}; location / {{\n{UPGRADE}{location}\n}} }}\n"
    );
    let prepared = Prepared::of(text)?;
    let prepared = match tls {
        None => prepared,
        Some(issued) => prepared.with_certificate(name, issued),
    };
    Some((prepared, address))
}

async fn run((prepared, address): (Prepared, SocketAddr)) -> Proxy {
    Proxy {
        address,
        _parts: Parts::Nginx {
            _nginx: prepared.start(address).await,
        },
    }
}

/// A client of the outer name opens a socket, talks, and closes it; what the backend was told.
async fn talk(outer: &Proxy, authority: &Authority, backend: &mut Backend) -> Request {
    let root = authority.root();
    let client = Connection::tls_from(CLIENT, outer.address, OUTER, root).await;
    let mut client = client.expect("a TLS handshake with the outer hop");
    // What a client says of itself is not believed anywhere.
    let spoofed = format!(
        "X-Real-IP: {CLAIMED}\r\nX-Forwarded-For: {CLAIMED}\r\nForwarded: for={CLAIMED};host=x.example.com;proto=http\r\n"
    );
    client
        .send(upgrade(OUTER, "/chat?room=1", &spoofed))
        .await
        .expect("a request");
    let (mut server, seen) = backend.next().await;
    server
        .send(fill(SWITCHING, &seen))
        .await
        .expect("an answer");
    let answer = client.response("GET").await.expect("an answer");
    assert_eq!(answer.status, 101);

    client
        .send(frame::masked(frame::TEXT, b"hello"))
        .await
        .expect("an open tunnel");
    assert_eq!(server.frame().await.expect("a frame").payload, b"hello");
    let large = vec![b'x'; 200_000];
    server
        .send(frame::unmasked(frame::BINARY, &large))
        .await
        .expect("an open tunnel");
    assert_eq!(client.frame().await.expect("a frame").payload, large);
    // 4321, and it arrives as it was sent.
    let close = [&4321_u16.to_be_bytes()[..], b"enough"].concat();
    server
        .send(frame::unmasked(frame::CLOSE, &close))
        .await
        .expect("an open tunnel");
    assert_eq!(client.frame().await.expect("a Close").payload, close);
    client
        .send(frame::masked(frame::CLOSE, &close))
        .await
        .expect("an open tunnel");
    assert_eq!(server.frame().await.expect("a Close").payload, close);
    assert_eq!(seen.target, "/chat?room=1");
    assert_eq!(seen.all("sec-websocket-key").len(), 1);
    seen
}

/// The host of a field that may have a port.
fn host(seen: &Request) -> &str {
    let host = seen.header("host").unwrap_or_default();
    host.split(':').next().unwrap_or_default()
}

#[track_caller]
fn check(seen: &Request, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(seen.all(name), [*value], "{name}");
    }
}

#[tokio::test]
async fn ws_ingress_leads_to_ws_ingress() {
    for hop in HOPS {
        let authority = Authority::new();
        let mut backend = Backend::played();
        let inner = inner_ws_ingress(hop, Told::OfProxy, &authority, backend.address).await;
        let outer = outer_ws_ingress(hop, &authority, inner.address).await;
        let seen = talk(&outer, &authority, &mut backend).await;
        assert_eq!(host(&seen), INNER);
        check(
            &seen,
            &[
                ("x-real-ip", "127.0.0.5"),
                ("x-forwarded-for", "127.0.0.5, 127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", OUTER),
                ("x-forwarded-port", "443"),
                (
                    "forwarded",
                    "for=127.0.0.5;host=outer.example.com;proto=https, for=127.0.0.1",
                ),
            ],
        );
    }
}

#[tokio::test]
async fn an_inner_hop_that_was_told_of_no_proxy_names_the_one_that_it_sees() {
    for hop in HOPS {
        let authority = Authority::new();
        let mut backend = Backend::played();
        let inner = inner_ws_ingress(hop, Told::Nothing, &authority, backend.address).await;
        let outer = outer_ws_ingress(hop, &authority, inner.address).await;
        let seen = talk(&outer, &authority, &mut backend).await;
        assert_eq!(host(&seen), INNER);
        check(&seen, &[("x-real-ip", PROXY), ("x-forwarded-for", PROXY)]);
        let forwarded = seen.header("forwarded").unwrap_or_default();
        assert!(forwarded.starts_with("for=127.0.0.1;"), "{forwarded}");
    }
}

#[tokio::test]
async fn a_proxy_header_between_the_hops_names_the_client_before_tls() {
    for (hop, version) in [(Hop::Plain, "V1"), (Hop::Tls, "V1"), (Hop::Tls, "V2")] {
        let authority = Authority::new();
        let mut backend = Backend::played();
        let inner = inner_ws_ingress(hop, Told::OfProxyHeaders, &authority, backend.address).await;
        let rule = Rule::to_external("inner").proxy_protocol(version);
        let outer = outer_with(rule, hop, &authority, inner.address).await;
        let seen = talk(&outer, &authority, &mut backend).await;
        assert_eq!(host(&seen), INNER);
        check(
            &seen,
            &[("x-real-ip", "127.0.0.5"), ("x-forwarded-for", "127.0.0.5")],
        );
    }
}

#[tokio::test]
async fn ws_ingress_leads_to_nginx() {
    for hop in HOPS {
        let authority = Authority::new();
        let mut backend = Backend::played();
        let certificate = authority.issue(&[INNER]);
        let tls = (hop == Hop::Tls).then_some(&certificate);
        // nginx believes the outer hop, and tells what it took from it.
        let location = format!(
            "set_real_ip_from {PROXY}; real_ip_header X-Real-IP;\n\
             proxy_set_header X-Nginx-Client $remote_addr; proxy_set_header X-Nginx-Peer $realip_remote_addr;\n\
             proxy_set_header X-Nginx-Forwarded-For $http_x_forwarded_for; proxy_set_header X-Nginx-Host $host;\n\
             proxy_set_header Host $host; proxy_pass http://{};",
            backend.address
        );
        let Some(inner) = nginx(INNER, tls, &location) else {
            return;
        };
        let inner = run(inner).await;
        let outer = outer_ws_ingress(hop, &authority, inner.address).await;
        let seen = talk(&outer, &authority, &mut backend).await;
        check(
            &seen,
            &[
                ("host", INNER),
                ("x-nginx-host", INNER),
                ("x-nginx-client", "127.0.0.5"),
                ("x-nginx-peer", PROXY),
                ("x-nginx-forwarded-for", "127.0.0.5"),
                ("x-real-ip", "127.0.0.5"),
                // What the outer hop said, and the address that nginx took from it.
                ("x-forwarded-for", "127.0.0.5, 127.0.0.5"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", OUTER),
                (
                    "forwarded",
                    "for=127.0.0.5;host=outer.example.com;proto=https",
                ),
            ],
        );
    }
}

#[tokio::test]
async fn nginx_leads_to_ws_ingress() {
    for hop in HOPS {
        let authority = Authority::new();
        let mut backend = Backend::played();
        let inner = inner_ws_ingress(hop, Told::OfProxy, &authority, backend.address).await;
        let certificate = authority.issue(&[OUTER]);
        let scheme = match hop {
            Hop::Plain => "http",
            Hop::Tls => "https",
        };
        let location = format!(
            "proxy_ssl_server_name on; proxy_ssl_name {INNER};\n\
             proxy_ssl_verify on; proxy_ssl_trusted_certificate /etc/nginx/tls/authority.pem;\n\
             proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;\n\
             proxy_set_header Host {INNER}; proxy_pass {scheme}://{};",
            inner.address
        );
        let Some((outer, address)) = nginx(OUTER, Some(&certificate), &location) else {
            return;
        };
        let outer = outer.with_file("authority.pem", &authority.root_pem());
        let outer = run((outer, address)).await;
        let seen = talk(&outer, &authority, &mut backend).await;
        check(
            &seen,
            &[
                ("host", INNER),
                ("x-real-ip", "127.0.0.5"),
                // nginx keeps what the client claims, as everybody's; from the right, the first address that is no proxy's is the client.
                ("x-forwarded-for", "203.0.113.9, 127.0.0.5, 127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", OUTER),
                // nginx passes the client's own on, and nobody believes it.
                (
                    "forwarded",
                    "for=127.0.0.5;host=outer.example.com;proto=https, for=127.0.0.1",
                ),
            ],
        );
    }
}
