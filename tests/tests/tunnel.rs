//! The tunnel as bytes: what is sent early, and how each way of ending is passed on.

use std::time::Duration;

use tests::backend::{Backend, SWITCHING, fill};
use tests::frame;
use tests::raw::{Connection, End, upgrade};
use tests::scene::{HOST, Scene};

/// How long "nothing arrives" is watched.
const QUIET: Duration = Duration::from_millis(300);

struct Tunnel {
    _backend: Backend,
    scene: Scene,
    client: Connection,
    server: Connection,
}

async fn tunnel() -> Tunnel {
    let mut backend = Backend::played();
    let scene = Scene::in_front_of(backend.address).await;
    let (client, server) = scene.tunnel(&mut backend).await;
    Tunnel {
        _backend: backend,
        scene,
        client,
        server,
    }
}

/// Which cause it had is the product's word; that there was one end, and one only, is the test's.
async fn assert_one_relay_ended(scene: &Scene) {
    assert_eq!(scene.relays_ended(None).await, 1, "relays ended");
}

#[tokio::test]
async fn early_client_bytes_are_held_until_the_101_and_delivered_once() {
    let mut backend = Backend::played();
    let scene = Scene::in_front_of(backend.address).await;
    let mut client = scene.raw().await;
    let mut bytes = upgrade(HOST, "/", "").into_bytes();
    bytes.extend(frame::masked(frame::TEXT, b"early"));
    client.send(bytes).await.expect("a request and a frame");

    let (mut server, request) = backend.next().await;
    assert!(
        server.quiet_for(QUIET).await,
        "bytes reached the backend before its 101"
    );
    server
        .send(fill(SWITCHING, &request))
        .await
        .expect("an answer");
    assert_eq!(
        server.frame().await.expect("the early frame").payload,
        b"early"
    );
    assert_eq!(client.response("GET").await.expect("an answer").status, 101);
    client
        .send(frame::masked(frame::TEXT, b"later"))
        .await
        .expect("an open tunnel");
    assert_eq!(
        server
            .frame()
            .await
            .expect("the next frame, not the early one again")
            .payload,
        b"later"
    );
}

#[tokio::test]
async fn early_backend_bytes_follow_the_101() {
    let mut backend = Backend::played();
    let scene = Scene::in_front_of(backend.address).await;
    let (mut client, mut server, request) = scene.asked(&mut backend, upgrade(HOST, "/", "")).await;
    let mut bytes = fill(SWITCHING, &request).into_bytes();
    bytes.extend(frame::unmasked(frame::TEXT, b"at once"));
    server.send(bytes).await.expect("an answer and a frame");
    assert_eq!(client.response("GET").await.expect("an answer").status, 101);
    assert_eq!(
        client.frame().await.expect("the early frame").payload,
        b"at once"
    );
}

#[tokio::test]
async fn a_client_that_ends_its_half_still_hears_the_backend() {
    let Tunnel {
        mut client,
        mut server,
        scene,
        ..
    } = tunnel().await;
    client
        .send(frame::masked(frame::TEXT, b"last words"))
        .await
        .expect("an open tunnel");
    client.finish().await.expect("an end");
    assert_eq!(
        server.frame().await.expect("a frame").payload,
        b"last words"
    );
    assert_eq!(server.end().await, (Vec::new(), End::Fin));

    server
        .send(frame::unmasked(frame::TEXT, b"an answer"))
        .await
        .expect("a tunnel that is open in one direction");
    drop(server);
    let (bytes, end) = client.end().await;
    assert_eq!(bytes, frame::unmasked(frame::TEXT, b"an answer"));
    assert_eq!(end, End::CloseNotify);
    assert_one_relay_ended(&scene).await;
}

#[tokio::test]
async fn a_backend_that_ends_without_a_close_is_passed_on_as_close_notify_and_fin() {
    let Tunnel {
        mut client,
        mut server,
        scene,
        ..
    } = tunnel().await;
    server.finish().await.expect("an end");
    assert_eq!(
        client.end().await,
        (Vec::new(), End::CloseNotify),
        "no Close is invented"
    );
    client
        .send(frame::masked(frame::TEXT, b"still heard"))
        .await
        .expect("a tunnel that is open in one direction");
    assert_eq!(
        server.frame().await.expect("a frame").payload,
        b"still heard"
    );
    assert!(client.fin_follows().await);
    client.finish().await.expect("an end");
    assert_eq!(server.end().await, (Vec::new(), End::Fin));
    assert_one_relay_ended(&scene).await;
}

#[tokio::test]
async fn a_reset_of_the_backend_is_a_reset_for_the_client() {
    let Tunnel {
        mut client,
        server,
        scene,
        ..
    } = tunnel().await;
    server.reset();
    assert_eq!(client.end().await.1, End::Reset);
    assert_one_relay_ended(&scene).await;
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_reset_of_the_client_is_a_reset_for_the_backend() {
    let Tunnel {
        client,
        mut server,
        scene,
        ..
    } = tunnel().await;
    client.reset();
    assert_eq!(server.end().await.1, End::Reset);
    assert_one_relay_ended(&scene).await;
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn bytes_that_are_no_frames_pass_as_they_are() {
    // The proxy reads frame headers only to know where a frame ends; what it cannot read is not its business.
    let Tunnel {
        mut client,
        mut server,
        scene: _scene,
        ..
    } = tunnel().await;
    let odd: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    client.send(&odd).await.expect("an open tunnel");
    assert!(
        server.exactly(odd.len()).await.expect("all bytes") == odd,
        "bytes changed on the way up"
    );
    server.send(&odd).await.expect("an open tunnel");
    assert!(
        client.exactly(odd.len()).await.expect("all bytes") == odd,
        "bytes changed on the way down"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_backend_connection_along() {
    let Tunnel {
        mut client,
        mut server,
        scene,
        ..
    } = tunnel().await;
    client.finish().await.expect("an end");
    drop(client);
    assert_eq!(server.end().await.1, End::Fin);
    drop(server);
    assert_one_relay_ended(&scene).await;
}
