//! A client's stream that does not end with a reset while the client still sends (RFC 9112 §9.6).
//!
//! An answer may come before the end of the body that it answers: a backend's 413, a refusal of ours. A socket that is closed with unread
//! bytes is reset by the kernel, and the reset can take from the client what it has not read yet: the answer. So after such a request only
//! the writing side ends at once, and what still comes is read and dropped until the client ends too, or for `Limits::unread_body`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::tls::ServerStream;

/// Bytes that are dropped at once.
const PIECE_BYTES: usize = 4096;

/// A stream as hyper's server has it.
#[derive(Debug)]
pub(crate) struct Lingering {
    stream: ServerStream,
    /// Whether the last request had a body, of which more may come.
    body: Arc<AtomicBool>,
    limit: Duration,
    /// Runs once the writing side has ended.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    pub(crate) fn new(stream: ServerStream, body: Arc<AtomicBool>, limit: Duration) -> Self {
        Self {
            stream,
            body,
            limit,
            waiting: None,
        }
    }

    pub(crate) fn into_inner(self) -> ServerStream {
        self.stream
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.waiting.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.body.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let limit = this.limit;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        loop {
            if waiting.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; PIECE_BYTES];
            let mut piece = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut piece));
            // A client that breaks off has nothing more to read either.
            if read.is_err() || piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
