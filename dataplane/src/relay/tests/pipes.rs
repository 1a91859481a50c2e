//! Relays whose four edges take and give bytes in pieces of any size, plain and over TLS.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::peers::{Course, First, bytes, converse, course, first, spawn_with_budget};
use super::*;
use crate::pieces::{Pieces, Steps, cases};
use crate::tls::TlsSocket;
use crate::tls::pair;

type Edge = Pieces<DuplexStream>;

impl RelayStream for Edge {
    fn reset_on_drop(&mut self) {}
    fn limit_sending(&mut self, _: Duration) {}
}

impl RelayStream for TlsSocket<Edge> {
    fn reset_on_drop(&mut self) {}
    fn limit_sending(&mut self, _: Duration) {}
}

/// What a relay reads at once.
const READ_BYTES: usize = 48 * 1024;
/// Most plain bytes of a TLS record.
const RECORD_BYTES: usize = 16 * 1024;

/// No time of these ends a test.
const PATIENT: Limits = Limits {
    read: Duration::ZERO,
    send: Duration::ZERO,
    half_close: Duration::from_hours(1000),
    close_linger: Duration::from_secs(1),
};

/// A relay's stream to one of its peers.
#[derive(Debug, Clone)]
struct Shape {
    pipe: usize,
    reads: Vec<usize>,
    writes: Vec<usize>,
}

fn shape(size: usize) -> impl Strategy<Value = Shape> {
    let steps = || {
        let step = prop_oneof![1 => Just(0), 3 => 1..=size, 1 => Just(usize::MAX)];
        prop::collection::vec(step, 0..6)
    };
    let pipe = prop_oneof![1..=size, Just(256 * 1024)];
    (pipe, steps(), steps(), 1..=size).prop_map(|(pipe, mut reads, mut writes, last)| {
        reads.push(last);
        writes.push(last);
        Shape {
            pipe,
            reads,
            writes,
        }
    })
}

/// The relay's end and the peer's.
fn edge(shape: &Shape, steps: &Arc<AtomicUsize>) -> (Edge, DuplexStream) {
    let (near, far) = duplex(shape.pipe);
    let (reads, writes) = (shape.reads.clone(), shape.writes.clone());
    let near = Pieces::new(near, Steps::new(reads), Steps::new(writes)).counting(steps);
    (near, far)
}

fn relay<D: RelayStream, U: RelayStream>(downstream: D, upstream: U) -> Relay<D, U> {
    Relay {
        downstream,
        upstream,
        to_upstream: Bytes::new(),
        to_downstream: Bytes::new(),
        limits: PATIENT,
        frames_are_known: true,
        // Nobody gives an order.
        signal: oneshot::channel().1,
    }
}

#[derive(Debug, Clone)]
struct Case {
    downstream: Shape,
    upstream: Shape,
    up: Course,
    down: Course,
    first: First,
    frames_are_known: bool,
    /// What came before the relay began, of each direction.
    early: (usize, usize),
}

/// Everything small, so that many borders are met, or large, so that buffers fill.
fn case() -> impl Strategy<Value = Case> {
    let size = prop_oneof![Just(30_usize), Just(2_000), Just(100_000)];
    size.prop_flat_map(|size| {
        let shapes = (shape(size), shape(size));
        let courses = (course(size, true), course(size, true));
        let early = prop_oneof![Just((0, 0)), (0..=size, 0..=size)];
        (shapes, courses, first(), any::<bool>(), early)
    })
    .prop_map(|(shapes, courses, first, frames_are_known, early)| Case {
        downstream: shapes.0,
        upstream: shapes.1,
        up: courses.0,
        down: courses.1,
        first,
        frames_are_known,
        early,
    })
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(test)
}

async fn pass<D: RelayStream + Send + 'static>(
    downstream: D,
    client: impl AsyncRead + AsyncWrite + Unpin,
    case: &Case,
    steps: &Arc<AtomicUsize>,
) {
    let (upstream, backend) = edge(&case.upstream, steps);
    let mut relay = relay(downstream, upstream);
    relay.frames_are_known = case.frames_are_known;
    relay.to_upstream = bytes(0, case.early.0).into();
    relay.to_downstream = bytes(0, case.early.1).into();
    let courses = (&case.up, &case.down);
    let ended = converse(relay, (client, backend), courses, case.first, steps).await;
    // Any bytes may look like a Close.
    match case.first {
        First::Client => assert!(matches!(ended, Ended::ClientEof | Ended::Closed)),
        First::Backend => assert!(matches!(ended, Ended::BackendEof | Ended::Closed)),
        First::Neither => {}
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn every_byte_arrives_once_and_in_order(case in case()) {
        block_on(async {
            let steps = Arc::default();
            let (downstream, client) = edge(&case.downstream, &steps);
            pass(downstream, client, &case, &steps).await;
        });
    }

    #[test]
    fn every_byte_arrives_once_and_in_order_over_tls(case in case(), version in 0..2_usize) {
        block_on(async {
            let steps = Arc::default();
            let (near, far) = edge(&case.downstream, &steps);
            let (downstream, client) = pair::connect(&pair::CONFIGS[version], near, far).await;
            pass(downstream, client, &case, &steps).await;
        });
    }
}

/// Writes until nothing is taken any more, and returns how much was.
async fn fill(sink: &mut (impl AsyncWrite + Unpin)) -> usize {
    let mut taken = 0;
    let mut rest = bytes(0, 16_000);
    loop {
        let writing = async {
            sink.write_all(&rest).await.unwrap();
            sink.flush().await.unwrap();
        };
        // On a paused clock: only when nobody can go on.
        if timeout(Duration::from_secs(1), writing).await.is_err() {
            return taken;
        }
        taken += rest.len();
        rest = bytes(taken, 16_000);
    }
}

/// How much a relay holds of a direction whose reader does not read: all that was taken, without what lies in the pipes.
async fn held<D: RelayStream + Send + 'static>(
    downstream: D,
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    is_up: bool,
    (source, sink): (&Shape, &Shape),
    steps: &Arc<AtomicUsize>,
) -> usize {
    let (upstream, mut backend) = edge(if is_up { sink } else { source }, steps);
    let relaying = spawn_with_budget(relay(downstream, upstream), steps.clone());
    let taken = if is_up {
        fill(&mut client).await
    } else {
        fill(&mut backend).await
    };
    // Nothing of it is lost.
    let mut arrived = vec![0; taken];
    let reading = async {
        if is_up {
            backend.read_exact(&mut arrived).await.unwrap()
        } else {
            client.read_exact(&mut arrived).await.unwrap()
        }
    };
    timeout(Duration::from_secs(1), reading).await.unwrap();
    assert!(arrived == bytes(0, taken));
    drop((client, backend));
    relaying.await.unwrap();
    taken.saturating_sub(source.pipe + sink.pipe)
}

#[test]
fn a_relay_holds_one_read_of_a_direction_at_most() {
    let shape = |pipe| Shape {
        pipe,
        reads: vec![usize::MAX],
        writes: vec![usize::MAX],
    };
    for (source, sink) in [(200_000, 1000), (200_000, 200_000), (2000, 200_000)] {
        let pipes = (&shape(source), &shape(sink));
        for is_up in [true, false] {
            block_on(async {
                let steps = Arc::default();
                let own = if is_up { pipes.0 } else { pipes.1 };
                let (downstream, client) = edge(own, &steps);
                let plain = held(downstream, client, is_up, pipes, &steps).await;
                let (near, far) = edge(own, &steps);
                let (downstream, client) = pair::connect(&pair::CONFIGS[0], near, far).await;
                let tls = held(downstream, client, is_up, pipes, &steps).await;
                assert!(plain <= READ_BYTES, "{plain} bytes, {pipes:?}");
                // A record may have come in part, and another may have found no room in the reader's buffer.
                assert!(
                    tls <= READ_BYTES + 2 * RECORD_BYTES,
                    "{tls} bytes, {pipes:?}"
                );
            });
        }
    }
}
