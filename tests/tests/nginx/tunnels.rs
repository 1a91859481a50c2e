//! Open sockets through both, byte by byte: what one side sends, the other has to get, and how each end is passed on.

use std::time::Duration;

use tests::backend::Backend;
use tests::frame::{BINARY, CLOSE, PING, TEXT, masked, unmasked};
use tests::raw::{Connection, upgrade};
use tests::scene::HOST;
use tokio::time::timeout;

use crate::compare::{Outcome, bytes_as_text};
use crate::sides::Side;

/// How long bytes may take through a proxy; what has not come then is lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// One step of a script.
pub(crate) enum Step {
    /// The client sends these bytes, and the server reads as many.
    Client(Vec<u8>),
    /// The server sends these bytes, and the client reads as many.
    Server(Vec<u8>),
    /// One side ends its writing.
    ClientFin,
    ServerFin,
    ClientReset,
    ServerReset,
    /// One side reads to the end.
    ClientReads,
    ServerReads,
}

use Step::{
    Client, ClientFin, ClientReads, ClientReset, Server, ServerFin, ServerReads, ServerReset,
};

/// The scripts by their names.
pub(crate) fn all() -> Vec<(&'static str, Vec<Step>)> {
    [talk(), ends()].into_iter().flatten().collect()
}

fn text(words: &str) -> Step {
    Client(masked(TEXT, words.as_bytes()))
}

fn answer(words: &str) -> Step {
    Server(unmasked(TEXT, words.as_bytes()))
}

fn talk() -> Vec<(&'static str, Vec<Step>)> {
    let mut parts = [
        masked(TEXT, b"one"),
        masked(PING, b"still?"),
        masked(TEXT, b"two"),
    ]
    .concat();
    // "one" is not final, and "two" continues it.
    parts[0] &= 0x7f;
    let second = parts.len() - 9;
    parts[second] &= 0xf0;
    let mut deflated = unmasked(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    deflated[0] |= 0x40;
    let reserved = [0x83, 0x80, 1, 2, 3, 4].to_vec();
    vec![
        (
            "text both ways",
            vec![text("hello"), answer("hello"), text(""), answer("")],
        ),
        (
            "binary messages of 70 kB",
            vec![
                Client(masked(BINARY, &[7; 70_000])),
                Server(unmasked(BINARY, &[9; 70_000])),
            ],
        ),
        (
            "8 MB down",
            vec![Server(unmasked(BINARY, &vec![5; 8_000_000]))],
        ),
        (
            "a message in parts with a ping between",
            vec![Client(parts)],
        ),
        (
            "a frame byte by byte",
            masked(TEXT, b"slow")
                .into_iter()
                .map(|byte| Client(vec![byte]))
                .collect(),
        ),
        ("a deflated message", vec![Server(deflated)]),
        (
            "ping and pong",
            vec![
                Client(masked(PING, b"p")),
                Server(unmasked(10, b"p")),
                Server(unmasked(PING, b"q")),
                Client(masked(10, b"q")),
            ],
        ),
        (
            "a frame that RFC 6455 reserves",
            vec![Client(reserved.clone()), Server(reserved)],
        ),
    ]
}

fn ends() -> Vec<(&'static str, Vec<Step>)> {
    let close = |code: u16, why: &str| [&code.to_be_bytes(), why.as_bytes()].concat();
    vec![
        (
            "the client closes with 1000",
            vec![
                Client(masked(CLOSE, &close(1000, "done"))),
                Server(unmasked(CLOSE, &close(1000, "done"))),
                ServerFin,
                ClientReads,
                ClientFin,
                ServerReads,
            ],
        ),
        (
            "the backend closes with 4001",
            vec![
                Server(unmasked(CLOSE, &close(4001, "why"))),
                Client(masked(CLOSE, &close(4001, ""))),
                ServerFin,
                ClientReads,
                ClientFin,
                ServerReads,
            ],
        ),
        (
            "a Close without a code",
            vec![
                Client(masked(CLOSE, b"")),
                Server(unmasked(CLOSE, b"")),
                ServerFin,
                ClientReads,
                ClientFin,
                ServerReads,
            ],
        ),
        (
            "the backend ends without a Close",
            vec![
                answer("last"),
                ServerFin,
                ClientReads,
                ClientFin,
                ServerReads,
            ],
        ),
        (
            "the client ends without a Close",
            vec![text("last"), ClientFin, ServerReads, ServerFin, ClientReads],
        ),
        (
            "the backend resets",
            vec![answer("last"), ServerReset, ClientReads],
        ),
        (
            "the client resets",
            vec![text("last"), ClientReset, ServerReads],
        ),
        (
            "the client ends its half and the backend goes on",
            vec![
                ClientFin,
                ServerReads,
                answer("late"),
                ServerFin,
                ClientReads,
            ],
        ),
        (
            "the backend ends its half and the client goes on",
            vec![ServerFin, ClientReads, text("late"), ClientFin, ServerReads],
        ),
    ]
}

/// Plays a script through one side.
pub(crate) async fn play(side: &Side, backend: &mut Backend, script: &[Step]) -> Outcome {
    let mut client = side.connect().await;
    let request = upgrade(HOST, "/chat", "");
    client.send(request).await.expect("a request");
    let server = backend.next_open().await;
    let answer = client.response("GET").await.expect("an answer");
    assert_eq!(answer.status, 101, "{}", side.name);
    let (mut client, mut server) = (Some(client), Some(server));
    let mut outcome = Outcome::new();
    let mut got = (Vec::new(), Vec::new());
    for step in script {
        match step {
            Client(bytes) => pass(&mut client, &mut server, bytes, &mut got.1).await,
            Server(bytes) => pass(&mut server, &mut client, bytes, &mut got.0).await,
            ClientFin => finish(&mut client).await,
            ServerFin => finish(&mut server).await,
            ClientReset => client.take().expect("a client").reset(),
            ServerReset => server.take().expect("a server").reset(),
            ClientReads => note_end(&mut client, "client", &mut got.0, &mut outcome).await,
            ServerReads => note_end(&mut server, "backend", &mut got.1, &mut outcome).await,
        }
    }
    outcome.insert("client got".into(), bytes_as_text(&got.0));
    outcome.insert("backend got".into(), bytes_as_text(&got.1));
    outcome
}

/// What a script must deliver: everything.
pub(crate) fn delivered(script: &[Step]) -> (String, String) {
    let (mut client, mut backend) = (Vec::new(), Vec::new());
    for step in script {
        match step {
            Client(bytes) => backend.extend(bytes),
            Server(bytes) => client.extend(bytes),
            ClientFin | ServerFin | ClientReset | ServerReset | ClientReads | ServerReads => {}
        }
    }
    (bytes_as_text(&client), bytes_as_text(&backend))
}

async fn pass(
    from: &mut Option<Connection>,
    to: &mut Option<Connection>,
    bytes: &[u8],
    got: &mut Vec<u8>,
) {
    let (from, to) = (from.as_mut().expect("open"), to.as_mut().expect("open"));
    let passing = async {
        // A way that is cut already takes nothing, and nothing arrives.
        let (_, read) = tokio::join!(from.send(bytes), to.exactly(bytes.len()));
        read
    };
    if let Ok(Ok(read)) = timeout(LOST_AFTER, passing).await {
        got.extend(read);
    }
}

async fn finish(side: &mut Option<Connection>) {
    // The other one may have ended the whole connection.
    let _ = side.as_mut().expect("open").finish().await;
}

async fn note_end(
    side: &mut Option<Connection>,
    name: &str,
    got: &mut Vec<u8>,
    outcome: &mut Outcome,
) {
    let (bytes, end) = side.as_mut().expect("open").end().await;
    got.extend(bytes);
    outcome.insert(format!("{name} sees"), format!("{end:?}"));
}
