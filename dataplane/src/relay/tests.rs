//! The relay between two in-memory peers, on a paused clock.

use std::io;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;

use super::*;
use crate::frames::close_frame;

mod peers;
mod pipes;
mod sockets;

impl RelayStream for DuplexStream {
    fn reset_on_drop(&mut self) {}
    fn limit_sending(&mut self, _: Duration) {}
}

const LIMITS: Limits = Limits {
    read: Duration::from_hours(1),
    send: Duration::from_mins(1),
    half_close: Duration::from_secs(10),
    close_linger: Duration::from_secs(1),
};
const HELLO: &[u8] = b"\x81\x05hello";
const CLOSE_1001: &[u8] = b"\x88\x05\x03\xe9bye";

/// Both peers of a running relay.
struct Peers {
    client: DuplexStream,
    backend: DuplexStream,
    order: Option<oneshot::Sender<CloseOrder>>,
    relay: JoinHandle<Ended>,
}

#[expect(clippy::disallowed_methods, reason = "the test awaits the task itself")]
fn start(limits: Limits, frames_are_known: bool) -> Peers {
    let (client, downstream) = duplex(256);
    let (backend, upstream) = duplex(256);
    let (order, signal) = oneshot::channel();
    let early = (Bytes::new(), Bytes::new());
    let relay = Relay {
        downstream,
        upstream,
        to_upstream: early.0,
        to_downstream: early.1,
        limits,
        frames_are_known,
        signal,
    };
    Peers {
        client,
        backend,
        order: Some(order),
        relay: tokio::spawn(run(relay)),
    }
}

impl Peers {
    fn order(&mut self, window: Duration) {
        let now = Instant::now();
        let order = CloseOrder {
            code: 1001,
            reason: "bye",
            patience: now + window / 2,
            deadline: now + window,
        };
        self.order.take().unwrap().send(order).unwrap();
    }

    /// How the relay ended, once both peers are let go.
    async fn ended(self) -> Ended {
        self.relay.await.unwrap()
    }
}

async fn expect(peer: &mut DuplexStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    peer.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes);
}

/// A Close of the proxy towards the backend: masked, so compared without its key.
async fn expect_masked_close(peer: &mut DuplexStream) {
    let mut frame = vec![0; close_frame(Sender::Client, 1001, "bye").len()];
    peer.read_exact(&mut frame).await.unwrap();
    let payload = frame[6..]
        .iter()
        .zip(frame[2..6].iter().cycle())
        .map(|(byte, key)| byte ^ key)
        .collect::<Vec<_>>();
    assert_eq!((frame[0], payload.as_slice()), (0x88, &b"\x03\xe9bye"[..]));
}

async fn expect_end(peer: &mut DuplexStream) {
    assert_eq!(peer.read(&mut [0; 64]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn end_passes_on_and_the_other_direction_goes_on() {
    let mut peers = start(LIMITS, true);
    peers.client.write_all(b"\x81\x80\0\0\0\0").await.unwrap();
    peers.client.shutdown().await.unwrap();
    expect(&mut peers.backend, b"\x81\x80\0\0\0\0").await;
    expect_end(&mut peers.backend).await;
    peers.backend.write_all(HELLO).await.unwrap();
    expect(&mut peers.client, HELLO).await;
    peers.backend.shutdown().await.unwrap();
    expect_end(&mut peers.client).await;
    assert_eq!(peers.ended().await, Ended::ClientEof);
}

#[tokio::test(start_paused = true)]
async fn no_close_is_invented_for_a_backend_that_just_ends() {
    let mut peers = start(LIMITS, true);
    peers.backend.write_all(HELLO).await.unwrap();
    peers.backend.shutdown().await.unwrap();
    expect(&mut peers.client, HELLO).await;
    expect_end(&mut peers.client).await;
    let started = Instant::now();
    assert_eq!(peers.relay.await.unwrap(), Ended::BackendEof);
    assert_eq!(started.elapsed().as_secs(), LIMITS.half_close.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_order_closes_both_sides_and_ends_when_both_have_answered() {
    let mut peers = start(LIMITS, true);
    peers.order(Duration::from_secs(5));
    expect(&mut peers.client, CLOSE_1001).await;
    expect_masked_close(&mut peers.backend).await;
    peers
        .client
        .write_all(&close_frame(Sender::Client, 1001, ""))
        .await
        .unwrap();
    peers
        .backend
        .write_all(&close_frame(Sender::Server, 1001, ""))
        .await
        .unwrap();
    // The answers are not passed on: each side has had its Close.
    expect_end(&mut peers.client).await;
    expect_end(&mut peers.backend).await;
    assert_eq!(peers.ended().await, Ended::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_never_answers_keeps_nobody_waiting() {
    let mut peers = start(LIMITS, true);
    peers.order(Duration::from_mins(1));
    expect(&mut peers.client, CLOSE_1001).await;
    peers
        .client
        .write_all(&close_frame(Sender::Client, 1001, ""))
        .await
        .unwrap();
    let started = Instant::now();
    expect_end(&mut peers.client).await;
    assert_eq!(peers.relay.await.unwrap(), Ended::Drained);
    assert_eq!(started.elapsed().as_secs(), LIMITS.close_linger.as_secs());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_put_into_a_frame_and_the_close_follows_it() {
    let mut peers = start(LIMITS, true);
    peers.backend.write_all(&HELLO[..4]).await.unwrap();
    expect(&mut peers.client, &HELLO[..4]).await;
    peers.order(Duration::from_secs(5));
    expect_masked_close(&mut peers.backend).await;
    let more = [&HELLO[4..], HELLO].concat();
    peers.backend.write_all(&more).await.unwrap();
    // The rest of the frame, then our Close; the frame after it is dropped.
    expect(&mut peers.client, &HELLO[4..]).await;
    expect(&mut peers.client, CLOSE_1001).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_never_ends_is_cut_at_the_deadline() {
    let mut peers = start(LIMITS, true);
    peers.backend.write_all(&HELLO[..4]).await.unwrap();
    expect(&mut peers.client, &HELLO[..4]).await;
    peers.order(Duration::from_secs(5));
    let started = Instant::now();
    expect_end(&mut peers.client).await;
    assert_eq!(
        (peers.relay.await.unwrap(), started.elapsed().as_secs()),
        (Ended::Cut, 5)
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_in_fragments_is_waited_for_while_there_is_time() {
    let mut peers = start(LIMITS, true);
    peers.backend.write_all(b"\x01\x01a").await.unwrap();
    expect(&mut peers.client, b"\x01\x01a").await;
    let started = Instant::now();
    peers.order(Duration::from_secs(10));
    expect(&mut peers.client, CLOSE_1001).await;
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_a_close_of_the_backend() {
    let mut peers = start(LIMITS, true);
    let close = close_frame(Sender::Server, 4001, "");
    peers.backend.write_all(&close).await.unwrap();
    expect(&mut peers.client, &close).await;
    peers.order(Duration::from_secs(5));
    expect_masked_close(&mut peers.backend).await;
    peers
        .client
        .write_all(&close_frame(Sender::Client, 4001, ""))
        .await
        .unwrap();
    expect_end(&mut peers.client).await;
    assert_eq!(peers.ended().await, Ended::Drained);
}

#[tokio::test(start_paused = true)]
async fn unknown_framing_is_passed_through_until_the_deadline() {
    let mut peers = start(LIMITS, false);
    peers.order(Duration::from_secs(5));
    peers.backend.write_all(b"any bytes").await.unwrap();
    expect(&mut peers.client, b"any bytes").await;
    expect_end(&mut peers.client).await;
    assert_eq!(peers.relay.await.unwrap(), Ended::Cut);
}

#[tokio::test(start_paused = true)]
async fn silence_of_the_backend_ends_in_a_close() {
    let mut peers = start(
        Limits {
            read: Duration::from_mins(1),
            ..LIMITS
        },
        true,
    );
    let started = Instant::now();
    let reason = "nothing came from the backend for the read timeout";
    // What the client sends does not count as read.
    peers.client.write_all(b"\x81\x80\0\0\0\0").await.unwrap();
    expect(
        &mut peers.client,
        &close_frame(Sender::Server, 1001, reason),
    )
    .await;
    assert_eq!(started.elapsed().as_secs(), 60);
    drop(peers.client);
    drop(peers.backend);
    assert_eq!(peers.relay.await.unwrap(), Ended::ReadTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_stops_the_reading_of_its_backend() {
    let mut peers = start(LIMITS, true);
    let frame = [&b"\x82\x7e\xff\xff"[..], &vec![7; 0xffff]].concat();
    let writing = async {
        let mut written = 0;
        loop {
            written += peers
                .backend
                .write(&frame[written % frame.len()..])
                .await
                .unwrap();
            if written > 10 * frame.len() {
                return written;
            }
        }
    };
    let stuck = tokio::time::timeout(Duration::from_secs(30), writing).await;
    assert!(
        stuck.is_err(),
        "the relay took {stuck:?} bytes that nobody reads"
    );
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_held_back_is_not_silent() {
    let mut peers = start(
        Limits {
            read: Duration::from_mins(1),
            ..LIMITS
        },
        true,
    );
    let frame = [&b"\x82\x7e\x10\x00"[..], &vec![7; 0x1000]].concat();
    let sending = async {
        peers.backend.write_all(&frame).await.unwrap();
        peers.backend.write_all(HELLO).await.unwrap();
    };
    let reading = async {
        // Longer than the read timeout: the client is slow, the backend is not.
        tokio::time::sleep(Duration::from_mins(5)).await;
        expect(&mut peers.client, &frame).await;
        expect(&mut peers.client, HELLO).await;
    };
    tokio::join!(sending, reading);
    let silent_since = Instant::now();
    assert!(
        peers.client.read(&mut [0; 1]).await.unwrap() > 0,
        "a Close comes after real silence"
    );
    assert_eq!(silent_since.elapsed().as_secs(), 60);
}

proptest! {
    #![proptest_config(crate::pieces::cases(64))]
    #[test]
    fn bytes_arrive_exact_and_in_order(
        up in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..20),
        down in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..20),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            // Any bytes at all: what is no frame passes through as well.
            let peers = start(LIMITS, true);
            let (mut from_client, mut to_client) = tokio::io::split(peers.client);
            let (mut from_backend, mut to_backend) = tokio::io::split(peers.backend);
            let send = async |sink: &mut tokio::io::WriteHalf<DuplexStream>, chunks: &[Vec<u8>]| {
                for chunk in chunks {
                    sink.write_all(chunk).await.unwrap();
                    tokio::task::yield_now().await;
                }
                sink.shutdown().await.unwrap();
            };
            let (mut at_client, mut at_backend) = (Vec::new(), Vec::new());
            let ((), (), client, backend) = tokio::join!(
                send(&mut to_client, &up),
                send(&mut to_backend, &down),
                from_client.read_to_end(&mut at_client),
                from_backend.read_to_end(&mut at_backend),
            );
            client.unwrap();
            backend.unwrap();
            assert!(at_backend == up.concat() && at_client == down.concat());
        });
    }
}
