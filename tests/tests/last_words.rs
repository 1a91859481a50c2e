//! What a backend said before it ended belongs to the client, however long the client takes to fetch it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use tests::backend::Backend;
use tests::frame;
use tests::manifests::Rule;
use tests::raw::{Connection, End};
use tests::scene::{SERVICE, Scene};
use tokio::time::{Instant, sleep};

/// Longer than the 10 s for which the second side of a socket may go on after the first ended.
const PAUSE: Duration = Duration::from_secs(12);

/// TLS keeps up to twice as much by itself; then the proxy holds bytes and still reads on, to the backend's end.
const PIECE: usize = 32 * 1024;
/// Far more than the kernel takes for a client that does not read.
const ENOUGH: usize = 64 * 1024 * 1024;
/// How long a busy machine may take to pass one piece on.
const PASSED_ON: Duration = Duration::from_secs(1);

/// The kernel's IPv4 sockets at one moment.
struct Sockets(String);

impl Sockets {
    fn now() -> Self {
        Self(fs::read_to_string("/proc/net/tcp").expect("the kernel's table of sockets"))
    }

    /// Bytes that this end of a connection has sent without an acknowledgement, and has received without reading them.
    fn queues(&self, own: SocketAddr, other: SocketAddr) -> (usize, usize) {
        let ports = [own, other].map(|address| format!(":{:04X}", address.port()));
        let mut lines = self.0.lines().map(|line| line.split_whitespace());
        let queues = lines.find_map(|mut words| {
            let addresses = [words.nth(1)?, words.next()?];
            let same = addresses.iter().zip(&ports).all(|(a, b)| a.ends_with(b));
            words.nth(1).filter(|_| same)
        });
        let (sent, received) = queues
            .and_then(|queues| queues.split_once(':'))
            .expect("a socket of this machine");
        let bytes = |hex| usize::from_str_radix(hex, 16).expect("a number");
        (bytes(sent), bytes(received))
    }
}

/// Sends until the proxy has read bytes that the client's side of the kernel does not take; returns all that was sent.
async fn fill(client: &Connection, server: &mut Connection) -> Vec<u8> {
    let (client_end, https) = client.addresses();
    let (server_end, upstream) = server.addresses();
    let piece = frame::unmasked(frame::BINARY, &vec![7; PIECE]);
    let mut sent = Vec::new();
    loop {
        server.send(&piece).await.expect("an open tunnel");
        sent.extend(&piece);
        if !is_passed_on(client_end, https, sent.len()).await {
            let (_, unread) = Sockets::now().queues(upstream, server_end);
            assert_eq!(unread, 0, "the proxy has read all that it holds");
            return sent;
        }
        assert!(sent.len() < ENOUGH, "who does not read was sent all this");
    }
}

/// Whether the kernel takes all of `sent` for the client, as fast as a busy machine can.
async fn is_passed_on(client: SocketAddr, https: SocketAddr, sent: usize) -> bool {
    let since = Instant::now();
    while since.elapsed() < PASSED_ON {
        let sockets = Sockets::now();
        let ((under_way, _), (_, arrived)) =
            (sockets.queues(https, client), sockets.queues(client, https));
        if under_way + arrived >= sent {
            return true;
        }
        // Between two looks at the kernel's table.
        sleep(Duration::from_millis(1)).await;
    }
    false
}

#[tokio::test]
async fn a_client_that_pauses_after_the_backend_ended_still_gets_all_of_it() {
    let mut backend = Backend::played();
    let scene = Scene::in_front_of(backend.address).await;
    let (mut client, mut server) = scene.narrow_tunnel(&mut backend).await;
    let mut sent = fill(&client, &mut server).await;
    let close = frame::unmasked(frame::CLOSE, &1000_u16.to_be_bytes());
    server.send(&close).await.expect("an open tunnel");
    server.finish().await.expect("an end");
    sent.extend(&close);

    // The pause is the behaviour under test.
    sleep(PAUSE).await;
    let (received, end) = client.end().await;
    assert_eq!(received.len(), sent.len(), "bytes; it ended with {end:?}");
    assert!(received == sent, "bytes changed on the way");
    assert_eq!(end, End::CloseNotify);
    client
        .send(frame::masked(frame::CLOSE, &1000_u16.to_be_bytes()))
        .await
        .expect("a tunnel that is open in one direction");
    client.finish().await.expect("an end");
    let answer = server.frame().await.expect("the client's Close");
    assert_eq!(answer.close_code(), Some(1000));
    assert_eq!(scene.relays_ended(Some("closed")).await, 1);
}

#[tokio::test]
async fn a_client_that_never_fetches_it_is_ended_by_the_send_limit() {
    let mut backend = Backend::played();
    let rules = [Rule::to(SERVICE).timeout("send", "4s")];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let (client, mut server) = scene.narrow_tunnel(&mut backend).await;
    fill(&client, &mut server).await;
    server.finish().await.expect("an end");
    assert_eq!(scene.relays_ended(Some("send_timeout")).await, 1);
}
