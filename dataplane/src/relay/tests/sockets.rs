//! Relays over loopback, with TLS to the client and with small buffers in the kernel, so that writes are taken in part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::peers::{Course, First, bytes, converse, course, first, read, spawn_with_budget};
use super::*;
use crate::pieces::cases;
use crate::tls::pair;

/// What is not done by then hangs.
const HANGS: Duration = Duration::from_secs(30);

const PATIENT: Limits = Limits {
    read: Duration::ZERO,
    send: Duration::ZERO,
    half_close: Duration::from_hours(1),
    close_linger: Duration::from_secs(1),
};

fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { timeout(HANGS, test).await.expect("it hangs") };
    runtime.block_on(test)
}

/// Both ends of a connection whose kernel buffers hold about `buffer` bytes.
async fn connection(buffer: usize) -> (TcpStream, TcpStream) {
    let size = u32::try_from(buffer).unwrap();
    let socket = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(size).unwrap();
        socket.set_recv_buffer_size(size).unwrap();
        socket
    };
    let listening = socket();
    listening
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .unwrap();
    let listener: TcpListener = listening.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(listener.accept(), socket().connect(address));
    let (near, far) = (near.unwrap().0, far.unwrap());
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// What the kernel may hold of one direction of a connection.
fn kernel_buffers(from: &TcpStream, to: &TcpStream) -> usize {
    let sending = SockRef::from(from).send_buffer_size().unwrap();
    sending + SockRef::from(to).recv_buffer_size().unwrap()
}

struct Ends {
    relay: Relay<Stream, Stream>,
    client: TlsStream<TcpStream>,
    backend: TcpStream,
    /// What the kernel may hold of each direction, both connections together.
    kernel: usize,
}

async fn ends(version: usize, buffer: usize, limits: Limits) -> Ends {
    let (downstream, client) = connection(buffer).await;
    let (upstream, backend) = connection(buffer).await;
    let kernel = kernel_buffers(&client, &downstream) + kernel_buffers(&upstream, &backend);
    let downstream = SendLimit::new(downstream, Duration::ZERO);
    let (downstream, client) = pair::connect(&pair::CONFIGS[version], downstream, client).await;
    let relay = Relay {
        downstream: Stream::Accepted(Box::new(downstream)),
        upstream: Stream::Plain(SendLimit::new(upstream, Duration::ZERO)),
        to_upstream: Bytes::new(),
        to_downstream: Bytes::new(),
        limits,
        frames_are_known: true,
        signal: oneshot::channel().1,
    };
    Ends {
        relay,
        client,
        backend,
        kernel,
    }
}

#[derive(Debug, Clone)]
struct Case {
    version: usize,
    buffer: usize,
    up: Course,
    down: Course,
    first: First,
}

fn case() -> impl Strategy<Value = Case> {
    let size = prop_oneof![Just(300_usize), Just(20_000), Just(100_000)];
    let buffer = prop_oneof![Just(2048_usize), 4096..70_000_usize];
    let courses = size.prop_flat_map(|size| (course(size, false), course(size, false)));
    (0..2_usize, buffer, courses, first()).prop_map(|(version, buffer, courses, first)| Case {
        version,
        buffer,
        up: courses.0,
        down: courses.1,
        first,
    })
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn every_byte_arrives_once_and_in_order_over_loopback(case in case()) {
        block_on(async {
            let ends = ends(case.version, case.buffer, PATIENT).await;
            let peers = (ends.client, ends.backend);
            // Each byte may be a step of its own in the kernel.
            let steps = Arc::new(AtomicUsize::new(1000));
            let ended = converse(ends.relay, peers, (&case.up, &case.down), case.first, &steps).await;
            match case.first {
                First::Client => assert!(matches!(ended, Ended::ClientEof | Ended::Closed)),
                First::Backend => assert!(matches!(ended, Ended::BackendEof | Ended::Closed)),
                First::Neither => {}
            }
        });
    }
}

/// Writes until nothing is taken for as long as a relay would need to take something, and returns how much was.
async fn fill(sink: &mut (impl AsyncWrite + Unpin)) -> usize {
    let mut taken = 0;
    loop {
        let sent = bytes(taken, 1000);
        let writing = async {
            sink.write_all(&sent).await?;
            sink.flush().await
        };
        match writing.await {
            Ok(()) => taken += sent.len(),
            // The relay has given up.
            Err(_) => return taken,
        }
    }
}

#[test]
fn a_peer_that_does_not_read_stops_the_other_and_ends_the_relay() {
    for version in 0..2 {
        for is_up in [true, false] {
            block_on(async {
                let limits = Limits {
                    send: Duration::from_millis(300),
                    ..PATIENT
                };
                let Ends {
                    relay,
                    mut client,
                    mut backend,
                    kernel,
                } = ends(version, 4096, limits).await;
                let steps = Arc::new(AtomicUsize::new(10_000));
                let relaying = spawn_with_budget(relay, steps);
                let taken = if is_up {
                    fill(&mut client).await
                } else {
                    fill(&mut backend).await
                };
                assert_eq!(relaying.await.unwrap(), Ended::SendTimeout);
                // One read of the relay, two records that TLS may hold apart, and one that its client wrote in part.
                let held = 48 * 1024 + 3 * 16 * 1024;
                assert!(
                    taken <= kernel + held,
                    "{taken} bytes, {kernel} in the kernel"
                );
                // Not even in part does it look complete.
                let error = if is_up {
                    read_on(&mut backend).await
                } else {
                    read_on(&mut client).await
                };
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            });
        }
    }
}

/// Reads what is left, all of it in order, until the error that ends it.
async fn read_on(source: &mut (impl AsyncRead + Unpin)) -> io::Error {
    let progress = watch::Sender::default();
    let steps = AtomicUsize::new(0);
    read(source, &[Some(1000)], &progress, &steps)
        .await
        .unwrap_err()
}

#[test]
fn a_reset_passes_on_as_a_reset() {
    for version in 0..2 {
        for by_client in [true, false] {
            block_on(async {
                let ends = ends(version, 4096, PATIENT).await;
                let (mut client, mut backend) = (ends.client, ends.backend);
                let steps = Arc::new(AtomicUsize::new(1000));
                let relaying = spawn_with_budget(ends.relay, steps);
                let sent = bytes(0, 100);
                client.write_all(&sent).await.unwrap();
                client.flush().await.unwrap();
                backend.write_all(&sent).await.unwrap();
                let mut heard = [0; 100];
                client.read_exact(&mut heard).await.unwrap();
                backend.read_exact(&mut heard).await.unwrap();
                let (error, expected) = if by_client {
                    reset(client.get_ref().0);
                    drop(client);
                    (backend.read(&mut heard).await, Ended::ClientReset)
                } else {
                    reset(&backend);
                    drop(backend);
                    (client.read(&mut heard).await, Ended::BackendReset)
                };
                assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
                assert_eq!(relaying.await.unwrap(), expected);
            });
        }
    }
}

fn reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

#[test]
fn what_a_sink_took_before_the_relay_stalls_like_what_came_in_it() {
    block_on(async {
        for version in 0..2 {
            let limits = Limits {
                send: Duration::from_millis(100),
                ..PATIENT
            };
            let mut ends = ends(version, 2048, limits).await;
            // As an answer that hyper has written: it is taken, sealed, and more than the kernel holds.
            let answer = vec![7; 64 * 1024];
            assert!(ends.kernel < answer.len());
            let taken = ends.relay.downstream.write(&answer).await.unwrap();
            assert_eq!(taken, answer.len());
            assert_eq!(run(ends.relay).await, Ended::SendTimeout);
        }
    });
}
