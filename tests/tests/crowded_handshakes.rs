//! One TLS handshake at a time: strangers that begin one and fall silent, at any place of it, keep nobody out.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tests::backend::Backend;
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::raw::Connection;
use tests::scene::{HOST, SERVICE, Scene};
use tests::wait;

/// Strangers of each kind; one that held the only slot would be enough.
const STRANGERS: usize = 20;

/// The type of a record of the handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

fn client_hello(scene: &Scene) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    roots.add(scene.authority.root()).expect("a root");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(HOST).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory takes it");
    hello
}

#[tokio::test]
async fn strangers_that_fall_silent_in_a_handshake_keep_nobody_out() {
    let backend = Backend::accepting();
    let settings = Settings::with(&["--max-concurrent-tls-handshakes", "1"]);
    let rules = [Rule::to(SERVICE)];
    let scene = Scene::start(&rules, &[(SERVICE, &[backend.address])], &settings).await;
    let hello = client_hello(&scene);
    let mut strangers = Vec::new();
    for sent in [0, hello.len() / 2, hello.len()] {
        for _ in 0..STRANGERS {
            let connection = Connection::plain(scene.gateway.https).await;
            let mut stranger = connection.expect("a TCP connection");
            stranger
                .send(&hello[..sent])
                .await
                .expect("an open connection");
            if sent == hello.len() {
                // It was answered, and its Finished is waited for.
                let first = stranger.exactly(1).await.expect("an answer");
                assert_eq!(first, [HANDSHAKE]);
            }
            strangers.push(stranger);
        }
    }
    wait::until("all of them are connected", async || {
        let metrics = scene.gateway.metrics().await;
        let open = metrics.sum("ws_ingress_open_connections", &[]);
        (open == strangers.len() as u64).then_some(())
    })
    .await;
    for _ in 0..STRANGERS {
        assert_eq!(scene.client().status().await, Some(101));
    }
    let metrics = scene.gateway.metrics().await;
    let name = "ws_ingress_tls_handshakes_total";
    assert_eq!(metrics.sum(name, &[]), STRANGERS as u64);
    assert_eq!(
        metrics.sum(name, &[("outcome", "accepted")]),
        STRANGERS as u64
    );
    scene.gateway.assert_quiet_log();
}
