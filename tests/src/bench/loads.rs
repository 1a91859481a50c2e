//! Loads that run until they are stopped, watched through a window: round trips, bulk, handshakes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use futures_util::StreamExt as _;
use futures_util::stream;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};

use super::backend::SOURCE_BYTES;
use super::socket::{Dialer, Socket, Tickets, arrived};
use super::window::{Counter, Tasks, Watched, Window, run_for};
use crate::frame::{BINARY, masked};

/// Sockets of the round trips.
const TALKERS: usize = 64;

/// Sockets of the bulk loads: enough that a proxy always has something to do.
const BULK_SOCKETS: usize = 4;

/// Handshakes at a time: as above.
const HANDSHAKERS: usize = 8;

/// Sockets that are opened at a time.
pub const OPENERS: usize = 64;

/// What the client reads at once of small messages, and of large ones.
pub const READ_BYTES: usize = 16 * 1024;
const BULK_READ_BYTES: usize = 64 * 1024;

/// Length of the messages that most figures are about.
pub const SHORT: usize = 128;

/// One peer and how long it is measured.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub root: CertificateDer<'static>,
    pub watched: Watched,
    pub warm_up: Duration,
    pub window: Duration,
}

impl Target {
    pub fn dialer(&self, tickets: Tickets, read_bytes: usize) -> anyhow::Result<Dialer> {
        Dialer::new(self.address, &self.root, tickets, read_bytes)
    }

    async fn measure(&self, mut tasks: Tasks, counter: &Counter) -> anyhow::Result<Window> {
        run_for(&mut tasks, self.warm_up).await?;
        self.watched.watch(&mut tasks, counter, self.window).await
    }

    /// Round trips of messages of so many bytes, each over its own frame.
    pub async fn round_trips(&self, bytes: usize, in_flight: usize) -> anyhow::Result<Window> {
        let dialer = self.dialer(Tickets::Ignore, READ_BYTES)?;
        let (mut tasks, counter) = (Tasks::new(), Counter::default());
        for mut socket in open_all(&dialer, "/chat/echo", TALKERS).await? {
            socket.check_echo(&vec![b'c'; bytes]).await?;
            tasks.spawn(talk(socket, bytes, in_flight, counter.clone()));
        }
        self.measure(tasks, &counter).await
    }

    /// Messages of 1 MiB in one direction or both; counts bytes of payload, an echo twice.
    pub async fn bulk(&self, bulk: Bulk) -> anyhow::Result<Window> {
        let dialer = self.dialer(Tickets::Ignore, BULK_READ_BYTES)?;
        let (mut tasks, counter) = (Tasks::new(), Counter::default());
        let path = match bulk {
            Bulk::Up => "/chat/sink",
            Bulk::Down => "/chat/source",
            Bulk::Echo => "/chat/echo",
        };
        for socket in open_all(&dialer, path, BULK_SOCKETS).await? {
            let counter = counter.clone();
            match bulk {
                Bulk::Up => tasks.spawn(push(socket, counter)),
                Bulk::Down => tasks.spawn(pull(socket, counter)),
                Bulk::Echo => tasks.spawn(echo(socket, counter)),
            };
        }
        self.measure(tasks, &counter).await
    }

    /// Whole short connections, eight at a time, each followed by the next.
    pub async fn handshakes(&self, tickets: Tickets) -> anyhow::Result<Window> {
        let (mut tasks, counter) = (Tasks::new(), Counter::default());
        for _ in 0..HANDSHAKERS {
            // Each has tickets of its own.
            let dialer = self.dialer(tickets, READ_BYTES)?.without_verifying();
            let counter = counter.clone();
            tasks.spawn(async move {
                let mut is_first = true;
                loop {
                    let resumed = visit(&dialer).await?;
                    let expected = tickets == Tickets::Use && !is_first;
                    ensure!(resumed == expected, "resumed: {resumed}, not {expected}");
                    is_first = false;
                    counter.add(1);
                }
            });
        }
        self.measure(tasks, &counter).await
    }
}

/// Directions of bulk.
#[derive(Clone, Copy, Debug)]
pub enum Bulk {
    Up,
    Down,
    Echo,
}

/// So many sockets, [`OPENERS`] at a time.
pub async fn open_all(dialer: &Dialer, path: &str, count: usize) -> anyhow::Result<Vec<Socket>> {
    let mut opening = stream::iter(0..count)
        .map(|_| dialer.open(path))
        .buffer_unordered(OPENERS);
    let mut sockets = Vec::with_capacity(count);
    while let Some(socket) = opening.next().await {
        sockets.push(socket?);
    }
    Ok(sockets)
}

/// Opens a socket, has one message echoed, closes it; whether TLS began with a ticket.
pub async fn visit(dialer: &Dialer) -> anyhow::Result<bool> {
    let mut socket = dialer.open("/chat/echo").await?;
    let resumed = socket.is_resumed();
    socket.check_echo(&[b'v'; SHORT]).await?;
    socket.close().await?;
    Ok(resumed)
}

/// Keeps so many messages on their way; those that may go together go in one write.
async fn talk(
    mut socket: Socket,
    bytes: usize,
    in_flight: usize,
    counter: Counter,
) -> anyhow::Result<()> {
    let frame = masked(BINARY, &vec![b'c'; bytes]);
    let frames = frame.repeat(in_flight);
    let mut buffer = vec![0; READ_BYTES];
    let mut due = in_flight;
    loop {
        socket.send(&frames[..due * frame.len()]).await?;
        due = 0;
        while due == 0 {
            let arrived = socket.read(&mut buffer).await?;
            ensure!(arrived.messages <= in_flight, "more answers than messages");
            due = arrived.messages;
        }
        counter.add(due as u64);
    }
}

/// Sends messages, of which two at most are without an answer.
async fn push(mut socket: Socket, counter: Counter) -> anyhow::Result<()> {
    let frame = masked(BINARY, &vec![b'u'; SOURCE_BYTES]);
    let mut buffer = vec![0; READ_BYTES];
    let mut unanswered = 0;
    loop {
        socket.send(&frame).await?;
        unanswered += 1;
        while unanswered > 1 {
            let arrived = socket.read(&mut buffer).await?;
            ensure!(arrived.messages <= unanswered, "more answers than messages");
            unanswered -= arrived.messages;
            counter.add((arrived.messages * SOURCE_BYTES) as u64);
        }
    }
}

async fn pull(mut socket: Socket, counter: Counter) -> anyhow::Result<()> {
    let mut buffer = vec![0; BULK_READ_BYTES];
    loop {
        let arrived = socket.read(&mut buffer).await?;
        counter.add(arrived.payload_bytes);
    }
}

/// Sends a message while its echo comes back, then the next.
async fn echo(socket: Socket, counter: Counter) -> anyhow::Result<()> {
    let frame = masked(BINARY, &vec![b'e'; SOURCE_BYTES]);
    let mut buffer = vec![0; BULK_READ_BYTES];
    let mut scanner = socket.scanner;
    let (mut reading, mut writing) = split(socket.stream);
    loop {
        let receive = async {
            let mut messages = 0;
            while messages == 0 {
                let read = reading.read(&mut buffer).await?;
                let arrived = arrived(&mut scanner, &buffer[..read])?;
                messages = arrived.messages;
                counter.add(2 * arrived.payload_bytes);
            }
            anyhow::Ok(())
        };
        let send = async {
            writing.write_all(&frame).await?;
            anyhow::Ok(writing.flush().await?)
        };
        tokio::try_join!(send, receive)?;
    }
}
