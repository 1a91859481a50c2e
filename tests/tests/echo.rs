//! The harness itself, without the product: the echo backend answers as its comment says, and the script clients agree
//! with it. When these fail, no other failure means anything.

use futures_util::SinkExt;
use tests::client::{Dial, close_code, next, talk};
use tests::echo_process::EchoProcess;
use tests::metrics;
use tests::raw::{Connection, End, upgrade};
use tests::{backend, frame};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn the_echo_backend_introduces_itself_and_echoes() {
    let echo = EchoProcess::start("one").await;
    let mut socket = Dial::ws(echo.address, "localhost")
        .path("/")
        .connect()
        .await;
    let hello = next(&mut socket).await.into_text().expect("a text message");
    let hello: serde_json::Value = serde_json::from_str(&hello).expect("JSON");
    assert_eq!(hello["name"], "one");
    assert_eq!(hello["address"], echo.address.to_string());
    assert!(hello["rule"].is_null(), "nobody stands between");

    talk(&mut socket, "a text").await;
    socket
        .send(Message::binary(vec![0; 3]))
        .await
        .expect("an open socket");
    assert_eq!(next(&mut socket).await, Message::binary(vec![0; 3]));
    echo.log().with("one received text: a text").await;
    assert_eq!(echo.handshakes().await, 1);
}

#[tokio::test]
async fn the_echo_backend_closes_when_asked_to() {
    let echo = EchoProcess::start("echo").await;
    let mut socket = Dial::ws(echo.address, "localhost")
        .path("/?quiet&close=4001")
        .connect()
        .await;
    assert_eq!(close_code(&mut socket).await, 4001);
}

#[tokio::test]
async fn the_echo_backend_serves_the_page_and_plain_answers() {
    let echo = EchoProcess::start("echo").await;
    let (status, page) = metrics::get(echo.address, "/").await.expect("an answer");
    assert_eq!(status, 200);
    assert!(page.contains("id=\"messages\""));
    assert!(!page.contains("src="), "the page loads nothing");
    let (_, bytes) = metrics::get(echo.address, "/bytes/70000")
        .await
        .expect("an answer");
    assert_eq!(bytes.len(), 70_000);
    let (_, chunks) = metrics::get(echo.address, "/chunks/9")
        .await
        .expect("an answer");
    assert_eq!(chunks.len(), 9 * 1024);
    let (status, _) = metrics::get(echo.address, "/nothing")
        .await
        .expect("an answer");
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_played_backend_sees_what_a_raw_client_sends() {
    let mut backend = backend::Backend::played();
    let mut client = Connection::plain(backend.address)
        .await
        .expect("a connection");
    client
        .send(upgrade("localhost", "/path", ""))
        .await
        .expect("a request");
    let mut server = backend.next_open().await;
    let response = client.response("GET").await.expect("an answer");
    assert_eq!(response.status, 101);
    assert_eq!(
        response.header("sec-websocket-accept"),
        Some(tests::raw::ACCEPT)
    );

    client
        .send(frame::masked(frame::TEXT, b"up"))
        .await
        .expect("a frame");
    assert_eq!(server.frame().await.expect("a frame").payload, b"up");
    server
        .send(frame::unmasked(frame::TEXT, b"down"))
        .await
        .expect("a frame");
    assert_eq!(client.frame().await.expect("a frame").payload, b"down");
    server.reset();
    assert_eq!(client.end().await.1, End::Reset);
}

#[tokio::test]
async fn a_deaf_address_never_takes_a_connection() {
    // Its constructor proves it: the last connection it tried was neither taken nor refused.
    backend::Deaf::new().await;
}
