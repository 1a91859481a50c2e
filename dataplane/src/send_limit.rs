//! A TCP stream whose writes may not stall for ever (nginx `proxy_send_timeout`, `send_timeout`).
//!
//! The time runs only while a write waits for the peer and starts anew with each byte that it takes, so that a slow peer is
//! served and a dead or unwilling one is not. An idle stream has no timer at all. Reading is not limited here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::stream::Transport;

/// A TCP stream and the longest time that one write may wait.
#[derive(Debug)]
pub(crate) struct SendLimit {
    tcp: TcpStream,
    limit: Limit,
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Limit {
    /// Zero is none.
    Fixed(Duration),
    Shared(SendTime),
}

/// A limit that can be changed while hyper owns the stream: requests of several rules share a connection, and each rule has its own.
#[derive(Debug, Clone)]
pub(crate) struct SendTime(Arc<AtomicU64>);

impl SendTime {
    /// Changes the limit for the next write that has to wait; zero is none.
    pub(crate) fn set(&self, limit: Duration) {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.0.store(milliseconds, Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl SendLimit {
    /// Limits the writes of `tcp`; a zero `limit` is none.
    pub(crate) fn new(tcp: TcpStream, limit: Duration) -> Self {
        Self {
            tcp,
            limit: Limit::Fixed(limit),
            stalled: None,
        }
    }

    /// Lets the limit be changed from elsewhere, until [`Self::set`].
    pub(crate) fn share(&mut self) -> SendTime {
        let time = SendTime(Arc::default());
        time.set(match &self.limit {
            Limit::Fixed(limit) => *limit,
            Limit::Shared(time) => time.now(),
        });
        self.limit = Limit::Shared(time.clone());
        time
    }

    /// Changes the limit for writes from now on; zero is none. It can then no longer be changed from elsewhere.
    pub(crate) fn set(&mut self, limit: Duration) {
        self.limit = Limit::Fixed(limit);
        self.stalled = None;
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What a write comes to: progress ends the stall, waiting goes on until the limit.
    fn limited<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = match &self.limit {
            Limit::Fixed(limit) => *limit,
            Limit::Shared(time) => time.now(),
        };
        if limit.is_zero() {
            return Poll::Pending;
        }
        let timer = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer took no byte for the whole send timeout",
        )))
    }
}

impl Transport for SendLimit {
    fn poll_write_last(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = loop {
            match self.tcp.poll_write_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
            // The kernel holds the last segment for the FIN.
            let sent = self.tcp.try_io(Interest::WRITABLE, || {
                Ok(send(
                    &self.tcp,
                    bytes,
                    SendFlags::MORE | SendFlags::NOSIGNAL,
                )?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => break Poll::Ready(sent),
            }
        };
        self.limited(context, written)
    }
}

impl AsyncRead for SendLimit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for SendLimit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.limited(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, bytes);
        self.limited(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
