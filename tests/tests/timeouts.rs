//! `timeouts.send` and `timeouts.read` of an open socket: what they end, and what they must leave alone.

use std::io;
use std::time::Duration;

use tests::backend::Backend;
use tests::frame;
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::raw::{Connection, End};
use tests::scene::{SERVICE, Scene};
use tests::wait::{LIMIT, within};
use tokio::time::{Instant, sleep};

/// The limit under test, and what it may take on a busy machine.
const SECOND: Duration = Duration::from_secs(1);
const ABOUT_A_SECOND: Duration = Duration::from_secs(6);

/// More than the kernel's buffers on the way hold, so that some of it waits in the proxy for who does not read.
const MORE_THAN_FITS: usize = 24 * 1024 * 1024;
const PIECE: usize = 16 * 1024;

async fn scene(backend: &Backend, field: &'static str, value: &str) -> Scene {
    let rules = [Rule::to(SERVICE).timeout(field, value)];
    Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await
}

/// Sends the same frame until that fails.
async fn send_without_end(connection: &mut Connection, frame: &[u8]) -> io::Error {
    loop {
        if let Err(error) = connection.send(frame).await {
            return error;
        }
    }
}

/// Sends the same frame to one side, whose other side does not read, until the proxy ends it.
async fn assert_stall_is_ended(scene: &Scene, talker: &mut Connection, frame: &[u8]) {
    let started = Instant::now();
    within("the end of a relay", send_without_end(talker, frame)).await;
    let took = started.elapsed();
    assert!((SECOND..ABOUT_A_SECOND).contains(&took), "{took:?}");
    assert_eq!(scene.relays_ended(Some("send_timeout")).await, 1);
    assert_eq!(scene.relays_ended(None).await, 1);
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_client_that_stops_reading_is_ended_after_the_send_limit() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "send", "1s").await;
    let (mut client, mut server) = scene.narrow_tunnel(&mut backend).await;
    let frame = frame::unmasked(frame::BINARY, &[7; PIECE]);
    assert_stall_is_ended(&scene, &mut server, &frame).await;
    assert_eq!(client.end().await.1, End::Reset, "the client's side");
}

#[tokio::test]
async fn a_backend_that_stops_reading_is_ended_after_the_send_limit() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "send", "1s").await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    let frame = frame::masked(frame::BINARY, &[7; PIECE]);
    assert_stall_is_ended(&scene, &mut client, &frame).await;
    assert_eq!(server.end().await.1, End::Reset, "the backend's side");
}

/// The backend sends many frames and a Close, while the client does what `read` says and must have got all of it.
async fn assert_all_arrives(scene: &Scene, backend: &mut Backend, pauses: &[(usize, Duration)]) {
    let (mut client, mut server) = scene.narrow_tunnel(backend).await;
    let frame = frame::unmasked(frame::BINARY, &[7; PIECE]);
    let count = MORE_THAN_FITS / PIECE;
    let close = frame::unmasked(frame::CLOSE, &1000_u16.to_be_bytes());
    let talking = async {
        for _ in 0..count {
            server.send(&frame).await.expect("an open tunnel");
        }
        server.send(&close).await.expect("an open tunnel");
    };
    let reading = async {
        let mut left = count * frame.len() + close.len();
        for (bytes, pause) in pauses {
            sleep(*pause).await;
            client.exactly(*bytes).await.expect("bytes of the backend");
            left -= bytes;
        }
        let rest = client.exactly(left).await.expect("the rest");
        assert!(rest.ends_with(&close), "the Close is the backend's");
    };
    tokio::join!(talking, reading);
    client
        .send(frame::masked(frame::CLOSE, &1000_u16.to_be_bytes()))
        .await
        .expect("an open tunnel");
    drop(server);
    client.finish().await.expect("an end");
    // A limit in the midst would have put its 1001 in the place of the rest. At the end the backend is silent in earnest, for as long as
    // a client on a busy machine takes to read what the kernel holds.
    assert_eq!(scene.relays_ended(None).await, 1);
}

#[tokio::test]
async fn a_send_limit_of_zero_is_none() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "send", "0s").await;
    // The pause is the behaviour under test: nobody may end the stall.
    assert_all_arrives(&scene, &mut backend, &[(1, 3 * SECOND)]).await;
}

#[tokio::test]
async fn a_slow_client_is_not_a_silent_backend() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "read", "1s").await;
    // The pauses are the behaviour under test. At this pace the proxy can write, and so read, only every few seconds.
    let slowly = [(20_000, Duration::from_millis(100)); 60];
    assert_all_arrives(&scene, &mut backend, &slowly).await;
}

/// Reads the proxy's 1001 on both sides, at about the read limit, and ends both.
async fn assert_ended_by_read(
    scene: &Scene,
    started: Instant,
    mut client: Connection,
    mut server: Connection,
) {
    let down = client.frame().await.expect("a frame for the client");
    let took = started.elapsed();
    assert_eq!((down.close_code(), down.masked), (Some(1001), false));
    assert!((SECOND..ABOUT_A_SECOND).contains(&took), "{took:?}");
    let up = loop {
        let up = server.frame().await.expect("a frame for the backend");
        if up.opcode == frame::CLOSE {
            break up;
        }
    };
    assert_eq!((up.close_code(), up.masked), (Some(1001), true));
    let answer = 1001_u16.to_be_bytes();
    client
        .send(frame::masked(frame::CLOSE, &answer))
        .await
        .expect("an open tunnel");
    server
        .send(frame::unmasked(frame::CLOSE, &answer))
        .await
        .expect("an open tunnel");
    assert_eq!(client.end().await, (Vec::new(), End::CloseNotify));
    assert_eq!(server.end().await, (Vec::new(), End::Fin));
    drop((client, server));
    assert_eq!(scene.relays_ended(Some("read_timeout")).await, 1);
}

#[tokio::test]
async fn a_silent_backend_ends_in_1001_for_both_sides() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "read", "1s").await;
    let started = Instant::now();
    let (client, server) = scene.tunnel(&mut backend).await;
    assert_ended_by_read(&scene, started, client, server).await;
}

#[tokio::test]
async fn what_the_client_says_does_not_count_as_read() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "read", "1s").await;
    let started = Instant::now();
    let (mut client, server) = scene.tunnel(&mut backend).await;
    // Each pause is a part of the traffic; it ends with the first bytes that come.
    while client.quiet_for(SECOND / 5).await {
        client
            .send(frame::masked(frame::TEXT, b"still here"))
            .await
            .expect("an open tunnel");
        assert!(started.elapsed() < LIMIT, "client traffic counts as read");
    }
    assert_ended_by_read(&scene, started, client, server).await;
}

#[tokio::test]
async fn a_backend_that_speaks_now_and_then_is_not_silent() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "read", "1s").await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    let ping = frame::unmasked(frame::PING, b"");
    for _ in 0..8 {
        // The pause is the behaviour under test: shorter than the limit, in sum far longer.
        sleep(SECOND * 2 / 5).await;
        server.send(&ping).await.expect("an open tunnel");
        assert_eq!(client.frame().await.expect("a frame").opcode, frame::PING);
    }
    let started = Instant::now() - SECOND / 5;
    assert_ended_by_read(&scene, started, client, server).await;
}

#[tokio::test]
async fn the_other_side_ends_after_the_half_close_timeout() {
    let mut backend = Backend::played();
    let settings = Settings::with(&["--half-close-timeout", "1s"]);
    let rules = [Rule::to(SERVICE)];
    let scene = Scene::start(&rules, &[(SERVICE, &[backend.address])], &settings).await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    let started = Instant::now();
    client.finish().await.expect("an end");
    assert_eq!(server.end().await, (Vec::new(), End::Fin));
    // The other direction goes on.
    let words = frame::unmasked(frame::TEXT, b"still here");
    server
        .send(&words)
        .await
        .expect("a tunnel that is half open");
    let (heard, _) = client.end().await;
    assert_eq!(heard, words);
    let took = started.elapsed();
    assert!((SECOND..ABOUT_A_SECOND).contains(&took), "{took:?}");
    assert_eq!(scene.relays_ended(Some("client_eof")).await, 1);
    scene.gateway.assert_quiet_log();
}
