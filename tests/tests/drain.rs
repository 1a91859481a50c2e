//! SIGTERM and SIGINT: every socket ends with Close 1001, at a frame boundary, or is cut and counted.

use std::time::Duration;

use rustix::process::Signal;
use tests::backend::Backend;
use tests::client::{close_code, talk};
use tests::echo_process::EchoProcess;
use tests::frame::{self, Frame};
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::raw::{Connection, End};
use tests::scene::{HOST, SERVICE, Scene};
use tests::wait::{self, LIMIT};

const GOING_AWAY: u16 = 1001;

/// How long "nothing is inserted" is watched.
const QUIET: Duration = Duration::from_millis(300);

/// What "at once" may take on a busy machine; every limit of the product is longer.
const AT_ONCE: Duration = Duration::from_secs(4);

/// A drain timeout that no test waits for.
const LONG: &str = "60s";

async fn scene(backend: &Backend, drain_timeout: &'static str) -> Scene {
    let settings = Settings {
        drain_timeout,
        ..Settings::default()
    };
    Scene::start(
        &[Rule::to(SERVICE)],
        &[(SERVICE, &[backend.address])],
        &settings,
    )
    .await
}

async fn next_frame(connection: &mut Connection) -> Frame {
    connection.frame().await.expect("a frame")
}

async fn answer_the_close(client: &mut Connection) {
    client
        .send(frame::masked(frame::CLOSE, &GOING_AWAY.to_be_bytes()))
        .await
        .expect("an answer");
}

/// The backend answers the Close too, both ends hang up, and the drain counts a socket that closed in time.
async fn ends_closed(mut scene: Scene, mut client: Connection, mut server: Connection) {
    server
        .send(frame::unmasked(frame::CLOSE, &GOING_AWAY.to_be_bytes()))
        .await
        .expect("an answer");
    drop(server);
    client.finish().await.expect("an end");
    assert_eq!(
        scene.gateway.drained(LIMIT).await,
        "drained sockets=1 closed=1 cut=0"
    );
}

#[tokio::test]
async fn without_sockets_a_drain_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let backend = Backend::accepting();
        let mut scene = scene(&backend, LONG).await;
        scene.gateway.signal(signal);
        assert_eq!(
            scene.gateway.drained(LIMIT).await,
            "drained sockets=0 closed=0 cut=0"
        );
    }
}

#[tokio::test]
async fn connections_that_never_asked_for_anything_do_not_hold_a_drain() {
    let backend = Backend::accepting();
    let mut scene = scene(&backend, LONG).await;
    let mut held = Vec::new();
    for address in [scene.gateway.https, scene.gateway.http] {
        held.push(Connection::plain(address).await.expect("a connection"));
    }
    // The first bytes of a ClientHello, whose rest never comes.
    let mut hello = Connection::plain(scene.gateway.https)
        .await
        .expect("a connection");
    hello.send(b"\x16\x03\x01\x02").await.expect("bytes");
    held.push(hello);
    held.push(scene.raw().await);
    // Connections are accepted in order: an answer to a later one shows that these are in.
    for address in [scene.gateway.https, scene.gateway.http] {
        let mut later = Connection::plain(address).await.expect("a connection");
        later
            .send("no TLS, and no HTTP\r\n\r\n")
            .await
            .expect("bytes");
        later.end().await;
    }
    scene.gateway.signal(Signal::TERM);
    assert_eq!(
        scene.gateway.drained(AT_ONCE).await,
        "drained sockets=0 closed=0 cut=0"
    );
}

#[tokio::test]
async fn ordinary_requests_are_answered_whole_and_then_their_connections_end() {
    let mut backend = Backend::played();
    let rules = [Rule::to(SERVICE).forward()];
    let settings = Settings {
        drain_timeout: LONG,
        ..Settings::default()
    };
    let mut scene = Scene::start(&rules, &[(SERVICE, &[backend.address])], &settings).await;
    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let post = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhello");
    let (waits, mut to_answer, _) = scene.asked(&mut backend, &get).await;
    let (mut reads, mut to_end, _) = scene.asked(&mut backend, &get).await;
    let (mut sends, mut to_read, _) = scene.asked(&mut backend, post).await;
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
    to_end.send(begun).await.expect("the proxy listens");
    reads.through("half").await.expect("the first half");
    // Its end shows that the drain has begun to close.
    let mut idle = scene.raw().await;
    scene.gateway.signal(Signal::TERM);
    idle.end().await;

    let well = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";
    to_answer.send(well).await.expect("the proxy listens");
    to_end.send("half").await.expect("the proxy listens");
    sends.send("again").await.expect("the proxy reads");
    let body = to_read.exactly(10).await.expect("the body");
    assert_eq!(body, b"helloagain");
    to_read.send(well).await.expect("the proxy listens");
    assert_eq!(reads.exactly(4).await.expect("the rest"), b"half");
    assert_eq!(reads.end().await, (Vec::new(), End::CloseNotify));
    for (mut client, method) in [(waits, "GET"), (sends, "POST")] {
        let answer = client.response(method).await.expect("an answer");
        assert_eq!(answer.text(), "well");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(client.end().await, (Vec::new(), End::CloseNotify));
    }
    assert_eq!(
        scene.gateway.drained(AT_ONCE).await,
        "drained sockets=0 closed=0 cut=0"
    );
}

#[tokio::test]
async fn real_peers_receive_1001_and_are_counted_as_closed() {
    let echo = EchoProcess::start_with("echo", &["--ignore-sigterm"]).await;
    // The Closes are spread over the drain window, so that is left at its default.
    let mut scene = Scene::in_front_of(echo.address).await;
    let mut sockets = Vec::new();
    for number in 0..3 {
        let mut socket = scene.client().connect().await;
        talk(&mut socket, &format!("socket {number}")).await;
        sockets.push(socket);
    }
    scene.gateway.signal(Signal::TERM);
    for socket in &mut sockets {
        assert_eq!(close_code(socket).await, GOING_AWAY);
        // Reading on sends the answering Close and sees the end.
        let end = wait::within(
            "the end after the Close",
            futures_util::StreamExt::next(socket),
        )
        .await;
        assert!(end.is_none(), "{end:?}");
    }
    assert_eq!(
        scene.gateway.drained(LIMIT).await,
        "drained sockets=3 closed=3 cut=0"
    );
    wait::until("three Closes at the backend", async || {
        let closes = echo
            .log()
            .all()
            .iter()
            .filter(|line| line.contains("received close: 1001"))
            .count();
        (closes == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn both_sides_receive_1001_when_the_backend_never_says_close() {
    let mut backend = Backend::played();
    let mut scene = scene(&backend, "1s").await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    scene.gateway.signal(Signal::TERM);

    let down = next_frame(&mut client).await;
    assert_eq!((down.close_code(), down.masked), (Some(GOING_AWAY), false));
    let up = next_frame(&mut server).await;
    assert_eq!(
        (up.close_code(), up.masked),
        (Some(GOING_AWAY), true),
        "a client's frame is masked"
    );

    // The client answers and ends; the backend never does, and must not hold the process beyond the deadline.
    answer_the_close(&mut client).await;
    let line = scene.gateway.drained(LIMIT).await;
    assert!(line.starts_with("drained sockets=1 "), "{line}");
    assert_eq!(
        client.end().await,
        (Vec::new(), End::CloseNotify),
        "one Close is enough"
    );
    assert!(server.end().await.0.is_empty(), "one Close is enough");
}

#[tokio::test]
async fn a_frame_from_the_backend_is_finished_before_the_close() {
    let mut backend = Backend::played();
    let scene = scene(&backend, LONG).await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    let whole = frame::unmasked(frame::BINARY, &[7; 1000]);
    server.send(&whole[..400]).await.expect("an open tunnel");
    assert_eq!(
        client.exactly(400).await.expect("the first part"),
        whole[..400]
    );

    scene.gateway.signal(Signal::TERM);
    // The other direction stands at a boundary: its Close shows that the drain has begun.
    assert_eq!(next_frame(&mut server).await.close_code(), Some(GOING_AWAY));
    assert!(
        client.quiet_for(QUIET).await,
        "something was inserted into a frame"
    );

    server.send(&whole[400..]).await.expect("an open tunnel");
    assert_eq!(
        client.exactly(whole.len() - 400).await.expect("the rest"),
        whole[400..]
    );
    assert_eq!(next_frame(&mut client).await.close_code(), Some(GOING_AWAY));
    answer_the_close(&mut client).await;
    ends_closed(scene, client, server).await;
}

#[tokio::test]
async fn a_frame_from_the_client_is_finished_before_the_close() {
    let mut backend = Backend::played();
    let scene = scene(&backend, LONG).await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    let whole = frame::masked(frame::BINARY, &[7; 1000]);
    // The cut lies inside the header: after two bytes even the length is not known.
    client.send(&whole[..3]).await.expect("an open tunnel");
    assert_eq!(server.exactly(3).await.expect("the first part"), whole[..3]);

    scene.gateway.signal(Signal::TERM);
    assert_eq!(next_frame(&mut client).await.close_code(), Some(GOING_AWAY));
    assert!(
        server.quiet_for(QUIET).await,
        "something was inserted into a frame"
    );

    client.send(&whole[3..]).await.expect("an open tunnel");
    answer_the_close(&mut client).await;
    let rest = server.exactly(whole.len() - 3).await;
    assert_eq!(rest.expect("the rest"), whole[3..]);
    assert_eq!(next_frame(&mut server).await.close_code(), Some(GOING_AWAY));
    ends_closed(scene, client, server).await;
}

#[tokio::test]
async fn a_message_in_fragments_that_does_not_end_gets_its_close_between_two_of_them() {
    let mut backend = Backend::played();
    let scene = scene(&backend, "2s").await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    let mut fragment = frame::unmasked(frame::TEXT, b"first of two");
    // Without FIN: more of this message is to come.
    fragment[0] &= 0x7f;
    server.send(&fragment).await.expect("an open tunnel");
    assert_eq!(next_frame(&mut client).await.payload, b"first of two");
    scene.gateway.signal(Signal::TERM);
    // The end of the message is waited for as long as there is time; but RFC 6455 §5.4 lets a control frame stand
    // between fragments, and a cut would be worse.
    assert_eq!(next_frame(&mut client).await.close_code(), Some(GOING_AWAY));
    answer_the_close(&mut client).await;
    assert_eq!(next_frame(&mut server).await.close_code(), Some(GOING_AWAY));
    ends_closed(scene, client, server).await;
}

#[tokio::test]
async fn a_socket_held_in_mid_frame_until_the_deadline_is_cut_and_counted() {
    let mut backend = Backend::played();
    let mut scene = scene(&backend, "2s").await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    let whole = frame::unmasked(frame::BINARY, &[7; 1000]);
    server.send(&whole[..400]).await.expect("an open tunnel");
    assert_eq!(
        client.exactly(400).await.expect("the first part"),
        whole[..400]
    );

    scene.gateway.signal(Signal::TERM);
    assert_eq!(next_frame(&mut server).await.close_code(), Some(GOING_AWAY));
    // Still alive, and not ready any more, until the deadline.
    let (status, _) =
        wait::until("/readyz answers", async || scene.gateway.readiness().await).await;
    assert_eq!(status, 503);
    let metrics = scene.gateway.metrics().await;
    assert!(
        metrics.sum("ws_ingress_open_sockets", &[]) > 0,
        "{metrics:?}"
    );
    assert_eq!(
        scene.gateway.drained(LIMIT).await,
        "drained sockets=1 closed=0 cut=1"
    );
    let (bytes, _) = client.end().await;
    assert!(
        bytes.is_empty(),
        "something was inserted into a frame: {bytes:?}"
    );
}

#[tokio::test]
async fn a_second_signal_cuts() {
    let mut backend = Backend::played();
    let mut scene = scene(&backend, LONG).await;
    let (mut client, mut server) = scene.tunnel(&mut backend).await;
    server
        .send(&frame::unmasked(frame::BINARY, &[7; 1000])[..400])
        .await
        .expect("an open tunnel");
    client.exactly(400).await.expect("the first part");
    scene.gateway.signal(Signal::INT);
    assert_eq!(next_frame(&mut server).await.close_code(), Some(GOING_AWAY));
    assert!(scene.gateway.runs(), "a held socket is waited for");
    scene.gateway.signal(Signal::INT);
    assert_eq!(
        scene.gateway.drained(LIMIT).await,
        "drained sockets=1 closed=0 cut=1"
    );
}

#[tokio::test]
async fn while_draining_nobody_new_is_let_in() {
    let mut backend = Backend::played();
    let mut scene = scene(&backend, LONG).await;
    let (_client, mut server) = scene.tunnel(&mut backend).await;
    scene.gateway.signal(Signal::TERM);
    assert_eq!(next_frame(&mut server).await.close_code(), Some(GOING_AWAY));
    wait::until("new connections are refused", async || {
        scene.raw_as(HOST).await.is_err().then_some(())
    })
    .await;
    assert!(scene.gateway.runs());
    scene.gateway.signal(Signal::TERM);
    scene.gateway.drained(LIMIT).await;
}

#[tokio::test]
async fn during_the_drain_delay_new_sockets_are_still_served() {
    let echo = EchoProcess::start("echo").await;
    let settings = Settings {
        drain_delay: "3s",
        ..Settings::default()
    };
    let mut scene = Scene::start(
        &[Rule::to(SERVICE)],
        &[(SERVICE, &[echo.address])],
        &settings,
    )
    .await;
    scene.gateway.signal(Signal::TERM);
    wait::until("/readyz answers 503", async || {
        (scene.gateway.readiness().await?.0 == 503).then_some(())
    })
    .await;
    // Whoever balances in front needs this time to notice; until then it still sends sockets here.
    let mut socket = scene.client().connect().await;
    talk(&mut socket, "late but welcome").await;
    assert_eq!(close_code(&mut socket).await, GOING_AWAY);
    let end = wait::within(
        "the end after the Close",
        futures_util::StreamExt::next(&mut socket),
    )
    .await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(
        scene.gateway.drained(LIMIT).await,
        "drained sockets=1 closed=1 cut=0"
    );
}
