//! The recipe's inner hop, as nginx and as ws-ingress: alone, and behind the outer nginx, which ends wss and sends the other host name.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tests::backend::{Backend, refusing};
use tests::certificate::Authority;
use tests::dns::Dns;
use tests::gateway::{Gateway, Settings};
use tests::manifests::{Manifests, secret};
use tests::nginx::{Nginx, Prepared, examples};
use tests::raw::{Connection, Request, upgrade};
use tests::scene::HOST;

use crate::sides::{SECOND_HOST, copy};

const INNER_HOST: &str = "inner.example.net";
/// The client's address; every proxy here is at 127.0.0.1.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));

/// An inner hop, and where it takes plain HTTP.
struct Inner {
    address: SocketAddr,
    _running: (Option<Nginx>, Option<(Gateway, Manifests)>),
}

async fn nginx_in_front_of(backend: SocketAddr) -> Option<Inner> {
    let address = refusing();
    let running = Prepared::new("inner.conf")?
        .with("listen 80", &format!("listen {address}"))
        .with("server 127.0.0.1:8282", &format!("server {backend}"))
        .start(address)
        .await;
    Some(Inner {
        address,
        _running: (Some(running), None),
    })
}

async fn ours_in_front_of(backend: SocketAddr) -> Inner {
    let manifests = Manifests::new();
    copy("inner", backend, "60s", &manifests);
    let gateway = Gateway::start(&[manifests.path()], &Settings::default()).await;
    Inner {
        address: gateway.http,
        _running: (None, Some((gateway, manifests))),
    }
}

/// Upgrades through `client` and sees a byte go each way; what the backend was asked.
async fn talks(mut client: Connection, host: &str, backend: &mut Backend) -> Request {
    let request = upgrade(host, "/chat/room?a=b", "");
    client.send(request).await.expect("a request");
    let (mut server, seen) = backend.next().await;
    let answer = tests::backend::fill(tests::backend::SWITCHING, &seen);
    server.send(answer + "down").await.expect("a way down");
    let answer = client.response("GET").await.expect("an answer");
    assert_eq!(answer.status, 101);
    assert_eq!(client.exactly(4).await.expect("bytes"), b"down");
    client.send("up").await.expect("a way up");
    assert_eq!(server.exactly(2).await.expect("bytes"), b"up");
    assert_eq!(seen.target, "/chat/room?a=b");
    seen
}

#[tokio::test]
async fn the_inner_hop_is_the_same_as_nginx_and_as_manifests() {
    let mut backend = Backend::played();
    let Some(nginx) = nginx_in_front_of(backend.address).await else {
        return;
    };
    let ours = ours_in_front_of(backend.address).await;
    for inner in [&nginx, &ours] {
        let client = Connection::plain(inner.address).await.expect("plain");
        let seen = talks(client, INNER_HOST, &mut backend).await;
        for (name, value) in [
            ("host", INNER_HOST),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
        ] {
            assert_eq!(seen.all(name), [value], "{name}");
        }
    }
}

#[tokio::test]
async fn an_outer_nginx_leads_to_our_inner_hop_as_to_its_own() {
    let mut backend = Backend::played();
    let Some(nginx) = nginx_in_front_of(backend.address).await else {
        return;
    };
    let ours = ours_in_front_of(backend.address).await;
    let authority = Authority::new();
    for inner in [&nginx, &ours] {
        let address = refusing();
        let Some(outer) = Prepared::new("outer.conf") else {
            return;
        };
        let _outer = outer
            .with("listen 443 ssl", &format!("listen {address} ssl"))
            .with_certificate(HOST, &authority.issue(&[HOST]))
            .with_certificate(SECOND_HOST, &authority.issue(&[SECOND_HOST]))
            .with(
                "server inner.example.net:80",
                &format!("server {}", inner.address),
            )
            .start(address)
            .await;
        let client = Connection::tls(address, SECOND_HOST, authority.root()).await;
        let seen = talks(client.expect("TLS"), SECOND_HOST, &mut backend).await;
        assert_eq!(seen.all("host"), [INNER_HOST]);
    }
}

/// The recipe's outer hop as manifests, with this port instead of the inner hop's 80.
async fn our_outer_hop(authority: &Authority, dns: &Dns, port: u16) -> (Gateway, Manifests) {
    let path = examples().join("outer/two-hops.yaml");
    let text = fs::read_to_string(path).expect("a manifest of the example");
    assert_eq!(text.matches("  port: 80\n").count(), 1);
    let text = text.replace("  port: 80\n", &format!("  port: {port}\n"));
    let manifests = Manifests::new();
    manifests.write("two-hops.yaml", &text);
    let issued = authority.issue(&[SECOND_HOST]);
    manifests.write("certificate.yaml", &secret("rt-tls", &issued));
    let resolver = dns.address.to_string();
    let settings = Settings::with(&["--resolver", &resolver]);
    let gateway = Gateway::start(&[manifests.path()], &settings).await;
    (gateway, manifests)
}

#[tokio::test]
async fn our_outer_hop_leads_to_either_inner_hop_by_its_name() {
    let mut backend = Backend::played();
    let Some(nginx) = nginx_in_front_of(backend.address).await else {
        return;
    };
    let ours = ours_in_front_of(backend.address).await;
    let (authority, dns) = (Authority::new(), Dns::start().await);
    dns.leads(INNER_HOST, &["127.0.0.1"], 60);
    // As the recipe has it nginx appends, and ours, which was told of no proxy, names whom it sees.
    for (inner, forwarded_for) in [(&nginx, "127.0.0.5, 127.0.0.1"), (&ours, "127.0.0.1")] {
        let (gateway, _files) = our_outer_hop(&authority, &dns, inner.address.port()).await;
        let root = authority.root();
        let client = Connection::tls_from(CLIENT, gateway.https, SECOND_HOST, root).await;
        let seen = talks(client.expect("TLS"), SECOND_HOST, &mut backend).await;
        assert_eq!(seen.all("host"), [INNER_HOST]);
        assert_eq!(seen.all("x-forwarded-for"), [forwarded_for]);

        // Ordinary HTTP goes the same way, and what comes without TLS is told where to go.
        let client = Connection::tls(gateway.https, SECOND_HOST, authority.root()).await;
        let mut client = client.expect("TLS");
        let request = format!("GET /page HTTP/1.1\r\nHost: {SECOND_HOST}\r\n\r\n");
        client.send(&request).await.expect("a request");
        let (mut server, seen) = backend.next().await;
        assert_eq!(
            (&*seen.target, seen.header("host")),
            ("/page", Some(INNER_HOST))
        );
        server
            .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
            .await
            .expect("an answer");
        let answer = client.response("GET").await.expect("an answer");
        assert_eq!((answer.status, &*answer.body), (200, &b"page"[..]));
        let mut client = Connection::plain(gateway.http).await.expect("plain");
        client.send(&request).await.expect("a request");
        let answer = client.response("GET").await.expect("an answer");
        assert_eq!(answer.status, 308);
    }
}
