//! The open loop: messages leave when they are due, whether earlier ones came back or not. What a message took is counted from
//! when it was due, so that a client that was held up cannot hide it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::loads::{READ_BYTES, SHORT, Target, open_all, visit};
use super::pace::Pace;
use super::scanner::Scanner;
use super::socket::{Dialer, STEP_LIMIT, Stream, Tickets, arrived};
use super::statistics::percentile;
use super::window::{Counter, Tasks, Window, run_for};
use crate::frame::{BINARY, masked};

/// Sockets, and messages a second over all of them.
const SOCKETS: usize = 200;
const MESSAGES_PER_SECOND: u32 = 8_000;

/// What arrives beside them in a storm.
pub const HANDSHAKES_PER_SECOND: u32 = 1_000;

/// Short connections at a time in a storm; a proxy that does not keep up gets no more of them, and that is said.
const MOST_VISITS: usize = 256;

/// Messages without an answer on one socket, which has 40 a second: a proxy that is so far behind does not keep up.
const MOST_UNANSWERED: usize = 400;

/// What an open loop showed beside its window: nanoseconds from due to echo.
pub struct Shown {
    pub window: Window,
    pub p50: u64,
    pub p99: u64,
}

/// A quiet open loop, and the same in a storm.
pub struct Storm {
    pub quiet: Shown,
    pub storm: Shown,
    /// Short connections that ended well in the second window, and those that had no place.
    pub visits: u64,
    pub shed: u64,
}

/// Times in nanoseconds, of the current window.
type Times = Arc<Mutex<Vec<u64>>>;

/// When the messages of one socket that have no echo yet were due.
type Unanswered = Arc<Mutex<VecDeque<Instant>>>;

struct OpenLoop {
    tasks: Tasks,
    counter: Counter,
    times: Times,
}

impl Target {
    pub async fn open_loop(&self) -> anyhow::Result<Shown> {
        let mut open_loop = OpenLoop::start(self).await?;
        run_for(&mut open_loop.tasks, self.warm_up).await?;
        open_loop.watch(self).await
    }

    pub async fn storm(&self) -> anyhow::Result<Storm> {
        let mut open_loop = OpenLoop::start(self).await?;
        run_for(&mut open_loop.tasks, self.warm_up).await?;
        let quiet = open_loop.watch(self).await?;
        let dialer = self.dialer(Tickets::Ignore, READ_BYTES)?;
        let dialer = dialer.without_verifying();
        let (visits, shed) = (Counter::default(), Counter::default());
        let arriving = arrive(dialer, visits.clone(), shed.clone());
        open_loop.tasks.spawn(beside(arriving));
        run_for(&mut open_loop.tasks, self.warm_up).await?;
        let (visits_before, shed_before) = (visits.now(), shed.now());
        let storm = open_loop.watch(self).await?;
        Ok(Storm {
            quiet,
            storm,
            visits: visits.now() - visits_before,
            shed: shed.now() - shed_before,
        })
    }
}

impl OpenLoop {
    async fn start(target: &Target) -> anyhow::Result<Self> {
        let dialer = target.dialer(Tickets::Ignore, READ_BYTES)?;
        let (mut tasks, counter) = (Tasks::new(), Counter::default());
        let (times, mut senders) = (Times::default(), Vec::new());
        for mut socket in open_all(&dialer, "/chat/echo", SOCKETS).await? {
            socket.check_echo(&[b'o'; SHORT]).await?;
            let (reading, writing) = split(socket.stream);
            let unanswered = Unanswered::default();
            senders.push((writing, unanswered.clone()));
            tasks.spawn(receive(
                reading,
                socket.scanner,
                unanswered,
                times.clone(),
                counter.clone(),
            ));
        }
        tasks.spawn(send(senders));
        Ok(Self {
            tasks,
            counter,
            times,
        })
    }

    async fn watch(&mut self, target: &Target) -> anyhow::Result<Shown> {
        lock(&self.times).clear();
        let watched = &target.watched;
        let window = watched.watch(&mut self.tasks, &self.counter, target.window);
        let window = window.await?;
        let mut times = std::mem::take(&mut *lock(&self.times));
        Ok(Shown {
            window,
            p50: percentile(&mut times, 0.5).context("no message came back")?,
            p99: percentile(&mut times, 0.99).context("no message came back")?,
        })
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One message on each socket in turn.
async fn send(mut senders: Vec<(WriteHalf<Stream>, Unanswered)>) -> anyhow::Result<()> {
    let frame = masked(BINARY, &[b'o'; SHORT]);
    let mut pace = Pace::new(MESSAGES_PER_SECOND)?;
    let mut at = 0;
    loop {
        for due in pace.due().await? {
            let (writing, unanswered) = &mut senders[at];
            at = (at + 1) % SOCKETS;
            {
                let mut times = lock(unanswered);
                ensure!(times.len() < MOST_UNANSWERED, "the proxy does not keep up");
                times.push_back(due);
            }
            let write = async {
                writing.write_all(&frame).await?;
                writing.flush().await
            };
            timeout(STEP_LIMIT, write)
                .await
                .context("a socket takes no message")??;
        }
    }
}

async fn receive(
    mut reading: ReadHalf<Stream>,
    mut scanner: Scanner,
    unanswered: Unanswered,
    times: Times,
    counter: Counter,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = reading.read(&mut buffer).await?;
        let arrived = arrived(&mut scanner, &buffer[..read])?;
        let now = Instant::now();
        for _ in 0..arrived.messages {
            let due = lock(&unanswered).pop_front();
            let took = now - due.context("an echo of nothing")?;
            lock(&times).push(nanoseconds(took));
        }
        counter.add(arrived.messages as u64);
    }
}

/// Runs a load in a thread of its own: the messages then wait for the client's part of a handshake as the kernel sees fit, and not each time
/// until it is computed. What they took would else tell of the client.
async fn beside(
    load: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<()> {
    let (tell, ended) = oneshot::channel();
    // Dropped with this future, which ends the thread.
    let (_wanted, unwanted) = oneshot::channel::<()>();
    let run = move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            tokio::select! {
                ended = load => ended,
                _ = unwanted => Ok(()),
            }
        })
    };
    thread::Builder::new().spawn(move || tell.send(run()))?;
    ended.await.context("the thread of a load panicked")?
}

/// Short connections at their own pace.
async fn arrive(dialer: Dialer, visits: Counter, shed: Counter) -> anyhow::Result<()> {
    let mut pace = Pace::new(HANDSHAKES_PER_SECOND)?;
    let permits = Arc::new(Semaphore::new(MOST_VISITS));
    let mut running = JoinSet::new();
    loop {
        for _ in pace.due().await? {
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                shed.add(1);
                continue;
            };
            let (dialer, visits) = (dialer.clone(), visits.clone());
            running.spawn(async move {
                visit(&dialer).await?;
                visits.add(1);
                drop(permit);
                anyhow::Ok(())
            });
        }
        while let Some(ended) = running.try_join_next() {
            ended.context("a visit panicked")?.context("in the storm")?;
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
