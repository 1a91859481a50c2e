//! Peers of a relay that write, read, pause and end as a test tells them, and check every byte that they get.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::*;

/// Longer than all pauses of a test together.
const PATIENCE: Duration = Duration::from_hours(1);

/// Longer than any test lives.
const LIFE: Duration = Duration::from_hours(100);

/// What a writer does next.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Write(usize),
    Yield,
    Pause(Duration),
    /// Waits until all that was written has arrived, and so fails if some of it waits for more.
    Settle,
}

/// One direction: what its writer does, and how its reader reads.
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub(super) acts: Vec<Act>,
    /// What is written when the other direction has ended already.
    pub(super) late: Vec<Act>,
    /// Room of each read, over and over; none is a pause.
    pub(super) reads: Vec<Option<usize>>,
}

/// Courses whose writes take up to `size` bytes, and whose pauses are of real time only if time is not real.
pub(super) fn course(size: usize, clock_is_paused: bool) -> impl Strategy<Value = Course> {
    let acts = || prop::collection::vec(act(size, clock_is_paused), 0..12);
    let pauses = if clock_is_paused { 0..2_u32 } else { 0..1 };
    let read = (1..=size, pauses).prop_map(|(room, pause)| (pause == 0).then_some(room));
    let reads = prop::collection::vec(read, 1..6);
    (acts(), acts(), reads, 1..=size).prop_map(|(acts, late, mut reads, room)| {
        reads.push(Some(room));
        Course { acts, late, reads }
    })
}

fn act(size: usize, clock_is_paused: bool) -> impl Strategy<Value = Act> {
    let pause = (1..500_u64).prop_map(move |pause| {
        if clock_is_paused {
            Act::Pause(Duration::from_millis(pause))
        } else {
            Act::Yield
        }
    });
    prop_oneof![
        6 => (1..=size).prop_map(Act::Write),
        1 => pause,
        1 => Just(Act::Yield),
        1 => Just(Act::Settle),
    ]
}

/// What stands at one place of a direction; no two places nearby look alike.
pub(super) fn byte_at(place: usize) -> u8 {
    let mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (place >> 7);
    mixed.to_be_bytes()[0]
}

pub(super) fn bytes(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(byte_at).collect()
}

/// How far one direction has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) received: usize,
    pub(super) ended: bool,
}

/// Performs `acts` from the byte that is due; returns which is due next.
pub(super) async fn write(
    sink: &mut (impl AsyncWrite + Unpin),
    acts: &[Act],
    start: usize,
    progress: &mut watch::Receiver<Progress>,
    steps: &AtomicUsize,
) -> usize {
    let mut written = start;
    for act in acts {
        match act {
            Act::Write(length) => {
                let sent = bytes(written, *length);
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    let taken = sink.write(rest).await.unwrap();
                    steps.fetch_add(1, Ordering::Relaxed);
                    rest = &rest[taken..];
                }
                sink.flush().await.unwrap();
                steps.fetch_add(1, Ordering::Relaxed);
                written += length;
            }
            Act::Yield => yield_now().await,
            // A peer that is silent for a while is what is tested; nothing is waited for.
            Act::Pause(pause) => sleep(*pause).await,
            Act::Settle => {
                let all = progress.wait_for(|progress| progress.received == written);
                let arrived = timeout(PATIENCE, all).await;
                arrived
                    .expect("nobody writes, and something is missing")
                    .unwrap();
            }
        }
    }
    written
}

/// Reads to the end or to an error, and checks that each byte is the next one.
pub(super) async fn read(
    source: &mut (impl AsyncRead + Unpin),
    rooms: &[Option<usize>],
    progress: &watch::Sender<Progress>,
    steps: &AtomicUsize,
) -> io::Result<usize> {
    let mut received = 0;
    for room in rooms.iter().cycle() {
        let Some(room) = room else {
            // A peer that does not read for a while; nothing is waited for.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut buffer = vec![0; *room];
        let read = source.read(&mut buffer).await?;
        steps.fetch_add(1, Ordering::Relaxed);
        assert!(buffer[..read] == bytes(received, read), "after {received}");
        received += read;
        progress.send_modify(|progress| {
            progress.received = received;
            progress.ended = read == 0;
        });
        if read == 0 {
            break;
        }
    }
    Ok(received)
}

/// Who ends a direction before the other has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Client,
    Backend,
    Neither,
}

pub(super) fn first() -> impl Strategy<Value = First> {
    prop_oneof![
        Just(First::Client),
        Just(First::Backend),
        Just(First::Neither)
    ]
}

/// One peer for its whole life, of which `early` bytes are written already: writes its course while it reads the other's; returns what it has written and read.
pub(super) async fn live(
    end: impl AsyncRead + AsyncWrite + Unpin,
    (course, rooms): (&Course, &[Option<usize>]),
    (early, is_second): (usize, bool),
    (mine, theirs): (&watch::Sender<Progress>, &watch::Sender<Progress>),
    steps: &AtomicUsize,
) -> (usize, usize) {
    let (mut source, mut sink) = tokio::io::split(end);
    let writing = async {
        let mut progress = mine.subscribe();
        let mut written = write(&mut sink, &course.acts, early, &mut progress, steps).await;
        if is_second {
            let mut other = theirs.subscribe();
            let ended = other.wait_for(|other| other.ended);
            let ended = timeout(PATIENCE, ended).await;
            ended.expect("the end is not passed on").unwrap();
            written = write(&mut sink, &course.late, written, &mut progress, steps).await;
        }
        sink.shutdown().await.unwrap();
        steps.fetch_add(1, Ordering::Relaxed);
        written
    };
    let reading = async { read(&mut source, rooms, theirs, steps).await.unwrap() };
    tokio::join!(writing, reading)
}

/// Both peers of a relay to their ends; every byte arrives, and the relay is polled only when there is something to do.
pub(super) async fn converse<D: RelayStream + Send + 'static, U: RelayStream + Send + 'static>(
    relay: Relay<D, U>,
    (client, backend): (
        impl AsyncRead + AsyncWrite + Unpin,
        impl AsyncRead + AsyncWrite + Unpin,
    ),
    (up, down): (&Course, &Course),
    first: First,
    steps: &Arc<AtomicUsize>,
) -> Ended {
    let early = (relay.to_upstream.len(), relay.to_downstream.len());
    let relaying = spawn_with_budget(relay, steps.clone());
    let (upward, downward) = (watch::Sender::default(), watch::Sender::default());
    let living = async {
        tokio::join!(
            live(
                client,
                (up, &down.reads),
                (early.0, first == First::Backend),
                (&upward, &downward),
                steps
            ),
            live(
                backend,
                (down, &up.reads),
                (early.1, first == First::Client),
                (&downward, &upward),
                steps
            ),
        )
    };
    // Less than a relay's farthest timer, which would wake one that forgot to be woken.
    let lived = timeout(LIFE, living).await;
    let (client, backend) = lived.expect("a direction hangs");
    assert_eq!((client.0, client.1), (backend.1, backend.0));
    relaying.await.unwrap()
}

/// Runs a relay that may be polled a few times for each step of a stream or peer, and no more.
#[expect(clippy::disallowed_methods, reason = "the test awaits the task itself")]
pub(super) fn spawn_with_budget<D, U>(
    relay: Relay<D, U>,
    steps: Arc<AtomicUsize>,
) -> JoinHandle<Ended>
where
    D: RelayStream + Send + 'static,
    U: RelayStream + Send + 'static,
{
    tokio::spawn(async move {
        let mut relaying = Box::pin(run(relay));
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            let steps = steps.load(Ordering::Relaxed);
            assert!(polls <= 100 + 2 * steps, "{polls} polls for {steps} steps");
            relaying.as_mut().poll(context)
        })
        .await
    })
}
