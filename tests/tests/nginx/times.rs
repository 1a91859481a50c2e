//! When things arrive: what nginx collects first, ws-ingress streams; and what silence comes to.

use std::time::Duration;

use tests::backend::Backend;
use tests::frame::{CLOSE, masked};
use tests::raw::upgrade;
use tests::scene::HOST;
use tokio::time::timeout;

use crate::compare::Outcome;
use crate::sides::Side;

/// That nothing comes can only be watched for a while.
const WATCHED: Duration = Duration::from_secs(2);

/// What came when.
pub(crate) async fn all(side: &Side, backend: &mut Backend) -> Vec<(&'static str, Outcome)> {
    vec![
        ("an event stream", event_stream(side, backend).await),
        ("an upload", upload(side, backend).await),
        (
            "a client that leaves before the answer",
            leaving(side, backend).await,
        ),
    ]
}

fn outcome(aspect: &str, value: &str) -> Outcome {
    Outcome::from([(aspect.to_owned(), value.to_owned())])
}

async fn event_stream(side: &Side, backend: &mut Backend) -> Outcome {
    let mut client = side.connect().await;
    let request =
        format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n\r\n");
    client.send(request).await.expect("a request");
    let (mut server, _) = backend.next().await;
    let begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    server.send(begin).await.expect("the proxy reads");
    let first = async {
        let mut read = Vec::new();
        while !read.ends_with(b"data: 1\n\n") {
            read.extend(client.exactly(1).await.expect("the stream is open"));
        }
    };
    match timeout(WATCHED, first).await {
        Ok(()) => outcome("the first event comes", "at once"),
        Err(_) => outcome("the first event comes", "later"),
    }
}

async fn upload(side: &Side, backend: &mut Backend) -> Outcome {
    let mut client = side.connect().await;
    let begin = format!("POST /chat HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhello");
    client.send(begin).await.expect("half a request");
    let early = timeout(WATCHED, backend.next()).await.is_ok();
    let when = if early {
        "with its first bytes"
    } else {
        "when it is whole"
    };
    if !early {
        client.send("world").await.expect("the other half");
        backend.next().await;
    }
    outcome("the backend hears of it", when)
}

async fn leaving(side: &Side, backend: &mut Backend) -> Outcome {
    let mut client = side.connect().await;
    let request = format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    client.send(request).await.expect("a request");
    let (mut server, _) = backend.next().await;
    client.reset();
    let (_, end) = server.end().await;
    outcome("the backend's request", &format!("ends: {end:?}"))
}

/// On a pair whose read timeout is short.
pub(crate) async fn silence(side: &Side, backend: &mut Backend) -> Outcome {
    let mut client = side.connect().await;
    let request = upgrade(HOST, "/feed/x", "");
    client.send(request).await.expect("a request");
    let mut server = backend.next_open().await;
    let answer = client.response("GET").await.expect("an answer");
    assert_eq!(answer.status, 101);
    let close = client.frame().await.ok();
    if close.is_some() {
        let echo = masked(CLOSE, &1001_u16.to_be_bytes());
        client.send(echo).await.expect("the echo of a Close");
    }
    let (_, end) = client.end().await;
    let _ = server.finish().await;
    let code = close.and_then(|close| close.close_code());
    Outcome::from([
        ("client gets".to_owned(), format!("Close {code:?}")),
        ("client sees".to_owned(), format!("{end:?}")),
    ])
}
