//! A backend that leads back to the proxy (RFC 8586).

use tests::backend::Backend;
use tests::manifests::{Rule, endpoints};
use tests::raw::{Connection, upgrade};
use tests::scene::{ENDPOINTS_FILE, PLAIN_HOST, SERVICE, Scene};
use tests::wait;

const PASSES: usize = 8;

/// An ordinary request and an upgrade with these fields.
fn both(more: &str) -> [String; 2] {
    [
        format!("GET / HTTP/1.1\r\nHost: {PLAIN_HOST}\r\n{more}\r\n"),
        upgrade(PLAIN_HOST, "/", more),
    ]
}

async fn scene(backend: &Backend) -> Scene {
    let rules = [Rule::to(SERVICE).forward()];
    Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await
}

#[tokio::test]
async fn a_request_that_goes_round_is_refused_after_eight_passes() {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let scene = scene(&backend).await;
    let own = endpoints(SERVICE, &[scene.gateway.http]);
    scene.manifests.write(ENDPOINTS_FILE, &own);
    for request in both("") {
        wait::until("a loop that ends", async || {
            (scene.ask_plain(&request).await.status == 508).then_some(())
        })
        .await;
    }
    let outcome = [("outcome", "loop")];
    let metrics = scene.gateway.metrics().await;
    for family in ["ws_ingress_requests_total", "ws_ingress_handshakes_total"] {
        assert_eq!(metrics.sum(family, &outcome), 1, "{family}");
    }
}

#[tokio::test]
async fn passes_of_others_are_none_of_ours_and_every_one_is_told_to_the_backend() {
    let mut backend = Backend::played();
    let scene = scene(&backend).await;
    let others =
        "CDN-Loop: foo123.foocdn.example, barcdn.example; trace=\"abcdef\"\r\n".repeat(PASSES);
    for request in both(&others) {
        let mut client = Connection::plain(scene.gateway.http).await.unwrap();
        client.send(&request).await.unwrap();
        let (_server, seen) = backend.next().await;
        let told = seen.all("cdn-loop");
        assert_eq!(told.len(), PASSES + 1);
        assert_eq!(told.last(), Some(&"ws-ingress"));
    }
    for request in both(&"CDN-Loop: ws-ingress\r\n".repeat(PASSES)) {
        assert_eq!(scene.ask_plain(&request).await.status, 508);
    }
}
