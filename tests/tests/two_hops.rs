//! Two hops: an outer proxy that ends wss and leads to an inner one by another name, plain and over TLS, with nginx in either place.
//!
//! Shown at the far end: what the backend is told, that messages and close codes pass, and the address that it takes for the client's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use tempfile::TempDir;
use tests::backend::{Backend, SWITCHING, fill};
use tests::certificate::{Authority, Issued};
use tests::dns::Dns;
use tests::frame;
use tests::gateway::{Gateway, Settings};
use tests::manifests::{
    Manifests, Rule, Security, Tls, endpoints, external, route, secret, service,
};
use tests::process::Process;
use tests::raw::{Connection, Request, upgrade};
use tests::wait;
use tokio::net::TcpStream;
use tokio::process::Command;

const OUTER: &str = "outer.example.com";
const INNER: &str = "inner.example.com";
/// The client's address; every proxy here is at 127.0.0.1.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
const PROXY: &str = "127.0.0.1";

/// Between the hops.
#[derive(Clone, Copy, PartialEq)]
enum Hop {
    Plain,
    Tls,
}

const HOPS: [Hop; 2] = [Hop::Plain, Hop::Tls];

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
        _folder: TempDir,
        _process: Process,
    },
}

/// ws-ingress in front of the backend, under the inner name.
async fn inner_ws_ingress(hop: Hop, authority: &Authority, backend: SocketAddr) -> Proxy {
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
    let gateway = Gateway::start(&[files.path()], &Settings::default()).await;
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
    let dns = Dns::start().await;
    dns.leads(INNER, &[PROXY], 60);
    let files = Manifests::new();
    let pem = authority.root_pem();
    let security = match hop {
        Hop::Plain => Security::Plain,
        Hop::Tls => Security::TlsBy(&pem),
    };
    let rules = [Rule::to_external("inner")];
    let routes = route("outer", &[OUTER], &Tls::Terminate("outer-tls"), &rules);
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

/// What nginx needs to pass an upgrade on.
const UPGRADE: &str = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n\
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Real-IP $remote_addr;\n";

/// Real nginx with these `server` blocks' insides for `name`; any other name gets 421.
async fn nginx(name: &str, tls: Option<&Issued>, authority: &Authority, location: &str) -> Proxy {
    let folder = TempDir::with_prefix("ws-ingress-nginx-").expect("a temporary folder");
    let path = folder.path();
    let port = free_port();
    let (ssl, certificate) = match tls {
        None => ("", String::new()),
        Some(issued) => {
            write(path, "chain.pem", &issued.chain_pem);
            write(path, "key.pem", &issued.key_pem);
            (
                " ssl",
                "ssl_certificate chain.pem; ssl_certificate_key key.pem;".to_owned(),
            )
        }
    };
    write(path, "authority.pem", &authority.root_pem());
    let listen = format!("127.0.0.1:{port}{ssl}");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary
        .map(|what| format!("{what}_temp_path {what};\n"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr warn;\n\
         events {{}}\n\
         http {{\n\
         access_log off;\n{temporary}{certificate}\n\
         server {{ listen {listen} default_server; return 421; }}\n\
         server {{ listen {listen}; server_name {name}; location / {{\n{UPGRADE}{location}\n}} }}\n\
         }}\n"
    );
    write(path, "nginx.conf", &text);
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(path)
        .args(["-c", "nginx.conf", "-e", "stderr"]);
    let process = Process::spawn("nginx", command);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait::until("nginx listens", async || {
        TcpStream::connect(address).await.ok()
    })
    .await;
    Proxy {
        address,
        _parts: Parts::Nginx {
            _folder: folder,
            _process: process,
        },
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("write a file of nginx");
}

/// nginx cannot be asked which port the kernel chose.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound listener").port()
}

/// A client of the outer name opens a socket, talks, and closes it; what the backend was told.
async fn talk(outer: &Proxy, authority: &Authority, backend: &mut Backend) -> Request {
    let root = authority.root();
    let client = Connection::tls_from(CLIENT, outer.address, OUTER, root).await;
    let mut client = client.expect("a TLS handshake with the outer hop");
    // What a client says of itself is not believed anywhere.
    let spoofed = "X-Real-IP: 203.0.113.9\r\nX-Forwarded-For: 203.0.113.9\r\n";
    client
        .send(upgrade(OUTER, "/chat?room=1", spoofed))
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

#[tokio::test]
async fn ws_ingress_leads_to_ws_ingress() {
    for hop in HOPS {
        let authority = Authority::new();
        let mut backend = Backend::played();
        let inner = inner_ws_ingress(hop, &authority, backend.address).await;
        let outer = outer_ws_ingress(hop, &authority, inner.address).await;
        let seen = talk(&outer, &authority, &mut backend).await;
        assert_eq!(host(&seen), INNER);
        // The inner hop was told of no proxy that it could believe, and so names the one that it sees.
        assert_eq!(seen.all("x-real-ip"), [PROXY]);
        assert_eq!(seen.all("x-forwarded-for"), [PROXY]);
    }
}

#[tokio::test]
async fn ws_ingress_leads_to_nginx() {
    for hop in HOPS {
        let authority = Authority::new();
        let mut backend = Backend::played();
        let certificate = authority.issue(&[INNER]);
        let tls = (hop == Hop::Tls).then_some(&certificate);
        // nginx believes the outer hop.
        let location = format!(
            "set_real_ip_from {PROXY}; real_ip_header X-Real-IP;\n\
             proxy_set_header Host $host; proxy_pass http://{};",
            backend.address
        );
        let inner = nginx(INNER, tls, &authority, &location).await;
        let outer = outer_ws_ingress(hop, &authority, inner.address).await;
        let seen = talk(&outer, &authority, &mut backend).await;
        assert_eq!(host(&seen), INNER);
        let client = CLIENT.to_string();
        assert_eq!(seen.all("x-real-ip"), [client.as_str()]);
        // What the outer hop said, and the address that nginx took from it.
        let twice = format!("{CLIENT}, {CLIENT}");
        assert_eq!(seen.all("x-forwarded-for"), [twice.as_str()]);
    }
}

#[tokio::test]
async fn nginx_leads_to_ws_ingress() {
    for hop in HOPS {
        let authority = Authority::new();
        let mut backend = Backend::played();
        let inner = inner_ws_ingress(hop, &authority, backend.address).await;
        let certificate = authority.issue(&[OUTER]);
        let scheme = match hop {
            Hop::Plain => "http",
            Hop::Tls => "https",
        };
        let location = format!(
            "proxy_ssl_server_name on; proxy_ssl_name {INNER};\n\
             proxy_ssl_verify on; proxy_ssl_trusted_certificate authority.pem;\n\
             proxy_set_header Host {INNER}; proxy_pass {scheme}://{};",
            inner.address
        );
        let outer = nginx(OUTER, Some(&certificate), &authority, &location).await;
        let seen = talk(&outer, &authority, &mut backend).await;
        assert_eq!(seen.header("host"), Some(INNER));
        assert_eq!(seen.all("x-real-ip"), [PROXY]);
        assert_eq!(seen.all("x-forwarded-for"), [PROXY]);
    }
}
