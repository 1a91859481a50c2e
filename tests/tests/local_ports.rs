//! No local port is left for an endpoint: another endpoint takes the socket, or another source address has ports, and where there is
//! neither the client is told. In a network of its own with a few ports, so that it is soon so.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tempfile::TempDir;
use tests::backend::Backend;
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::namespace;
use tests::process::{program, run_to_end};
use tests::raw::upgrade;
use tests::scene::{HOST, SERVICE, Scene};
use tests::wait;
use tokio::net::TcpStream;
use tokio::process::Command;

/// Ports that are given out for connections, to each endpoint and from each source address.
const FIRST: u16 = 20_000;
const LAST: u16 = 20_019;
const PORTS: usize = 20;

async fn start(backends: &[SocketAddr], flags: &[&str]) -> Scene {
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::start(&rules, &[(SERVICE, backends)], &Settings::with(flags)).await;
    // What listens has its ports elsewhere by now.
    namespace::set_local_ports(FIRST, LAST);
    scene
}

/// Takes all ports for connections to `backend` from 127.0.0.1.
async fn use_up(backend: SocketAddr) -> Vec<TcpStream> {
    let mut taken = Vec::new();
    loop {
        match TcpStream::connect(backend).await {
            Ok(stream) => taken.push(stream),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
                assert_eq!(taken.len(), PORTS);
                return taken;
            }
        }
    }
}

async fn failures(scene: &Scene) -> u64 {
    let metrics = scene.gateway.metrics().await;
    let name = "ws_ingress_upstream_connect_failures_total";
    let named = metrics.sum(name, &[("cause", "no_local_port")]);
    assert_eq!(metrics.sum(name, &[]), named);
    named
}

fn requests() -> [String; 2] {
    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    [upgrade(HOST, "/", ""), get]
}

#[tokio::test]
async fn without_a_local_port_the_client_is_told_to_come_again() {
    if !namespace::enter() {
        return;
    }
    let backend = Backend::accepting();
    let scene = start(&[backend.address], &[]).await;
    let _taken = use_up(backend.address).await;
    for request in requests() {
        let refused = scene.ask(&request).await;
        assert_eq!(refused.status, 503);
        assert!(refused.text().contains("no local port left"));
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(failures(&scene).await, 2);
    let metrics = scene.gateway.metrics().await;
    for family in ["handshakes", "requests"] {
        let name = format!("ws_ingress_{family}_total");
        assert_eq!(metrics.sum(&name, &[("outcome", "no_local_port")]), 1);
    }
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn another_endpoint_takes_what_has_no_port_left() {
    if !namespace::enter() {
        return;
    }
    let well = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";
    let (full, free) = (Backend::accepting(), Backend::answering(well));
    let scene = start(&[full.address, free.address], &[]).await;
    let _taken = use_up(full.address).await;
    // One of two endpoints at random: each kind has to meet the full one, sooner or later. The refusal of an upgrade is the backend's own.
    let [upgrade, get] = requests();
    for request in [get, upgrade] {
        let before = failures(&scene).await;
        wait::until("the full endpoint was chosen first", async || {
            let answer = scene.ask(&request).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "well"));
            (failures(&scene).await > before).then_some(())
        })
        .await;
    }
    assert_eq!(full.connections(), PORTS);
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_second_source_address_has_ports_of_its_own() {
    if !namespace::enter() {
        return;
    }
    let backend = Backend::accepting();
    let sources = ["127.0.0.1", "127.0.0.2"];
    let flags = sources.map(|source| ["--backend-source-address", source]);
    let scene = start(&[backend.address], flags.as_flattened()).await;
    let _taken = use_up(backend.address).await;
    let mut open = Vec::new();
    for _ in 0..PORTS / 2 {
        open.push(scene.client().connect().await);
    }
    assert_eq!(failures(&scene).await, 0);
    scene.gateway.open_sockets(open.len() as u64).await;
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_port_of_a_source_address_serves_every_endpoint_at_once() {
    if !namespace::enter() {
        return;
    }
    let mut backends = [Backend::played(), Backend::played()];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let flags = ["--backend-source-address", "127.0.0.2"];
    let scene = start(&addresses, &flags).await;
    // More than there are ports. What the clients themselves need was given to them before.
    namespace::set_local_ports(30_000, 40_000);
    let mut clients = Vec::new();
    for _ in 0..PORTS * 3 / 2 {
        clients.push(scene.raw().await);
    }
    namespace::set_local_ports(FIRST, LAST);
    let mut open = Vec::new();
    for client in &mut clients {
        client
            .send(upgrade(HOST, "/", ""))
            .await
            .expect("a request");
        let [one, other] = &mut backends;
        let server = tokio::select! {
            server = one.next_open() => server,
            server = other.next_open() => server,
        };
        let (_, peer) = server.addresses();
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 2]));
        assert!((FIRST..=LAST).contains(&peer.port()), "{peer}");
        assert_eq!(client.response("GET").await.expect("an answer").status, 101);
        open.push(server);
    }
    assert_eq!(failures(&scene).await, 0);
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn an_endpoint_of_a_family_that_is_not_here_is_unreachable_and_no_matter_of_ports() {
    if !namespace::enter() {
        return;
    }
    namespace::disable_ipv6();
    // Of a range for documentation (RFC 3849).
    let elsewhere = "[2001:db8::1]:8080".parse().expect("an address");
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::start(&rules, &[(SERVICE, &[elsewhere])], &Settings::default()).await;
    for request in requests() {
        assert_eq!(scene.ask(&request).await.status, 502);
    }
    let metrics = scene.gateway.metrics().await;
    let name = "ws_ingress_upstream_connect_failures_total";
    assert_eq!(metrics.sum(name, &[]), 2);
    assert_eq!(metrics.sum(name, &[("cause", "unreachable")]), 2);
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_source_address_of_another_machine_is_refused_before_anything_listens() {
    let manifests = TempDir::new().expect("a folder");
    let mut command = Command::new(program("ws-ingress", "WS_INGRESS_BIN"));
    command
        .args(["standalone", "--manifests"])
        .arg(manifests.path());
    for listener in ["--https-address", "--http-address", "--status-address"] {
        command.args([listener, "127.0.0.1:0"]);
    }
    // For documentation (RFC 5737).
    command.args(["--backend-source-address", "192.0.2.1"]);
    let ended = run_to_end("standalone", command, "", wait::LIMIT).await;
    assert!(!ended.success);
    assert_eq!(ended.stdout, "");
    let named = ended.stderr.contains("--backend-source-address 192.0.2.1");
    assert!(named, "{}", ended.stderr);
}
