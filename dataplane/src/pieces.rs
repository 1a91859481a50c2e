//! A stream that passes bytes in pieces, for tests: how much one read brings and one write takes, and when either is not ready, is chosen by the
//! test. It counts its steps, so that a test can tell who waits from who spins.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use proptest::prelude::ProptestConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much passes at a time, over and over; at a zero the stream is not ready, once, and says so when it is.
#[derive(Debug, Clone)]
pub(crate) struct Steps {
    sizes: Vec<usize>,
    at: usize,
}

impl Steps {
    /// Some size has to be above zero.
    pub(crate) fn new(sizes: Vec<usize>) -> Self {
        assert!(sizes.iter().any(|size| *size > 0));
        Self { sizes, at: 0 }
    }

    /// Everything at once.
    pub(crate) fn whole() -> Self {
        Self::new(vec![usize::MAX])
    }

    fn next(&mut self) -> usize {
        let size = self.sizes[self.at % self.sizes.len()];
        self.at += 1;
        size
    }

    /// The last step came to nothing.
    fn repeat(&mut self) {
        self.at -= 1;
    }
}

/// A stream in pieces.
#[derive(Debug)]
pub(crate) struct Pieces<S> {
    pub(crate) stream: S,
    reads: Steps,
    writes: Steps,
    steps: Arc<AtomicUsize>,
}

impl<S> Pieces<S> {
    pub(crate) fn new(stream: S, reads: Steps, writes: Steps) -> Self {
        Self {
            stream,
            reads,
            writes,
            steps: Arc::default(),
        }
    }

    /// Counts the steps here as well as those of other streams.
    pub(crate) fn counting(mut self, steps: &Arc<AtomicUsize>) -> Self {
        self.steps = steps.clone();
        self
    }

    /// How many writes took something.
    pub(crate) fn writes(&self) -> usize {
        self.writes.at
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pieces<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let size = this.reads.next();
        if size == 0 {
            this.steps.fetch_add(1, Ordering::Relaxed);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut piece = vec![0; buffer.remaining().min(size)];
        let mut piece = ReadBuf::new(&mut piece);
        let polled = Pin::new(&mut this.stream).poll_read(context, &mut piece);
        if polled.is_pending() {
            this.reads.repeat();
        } else {
            this.steps.fetch_add(1, Ordering::Relaxed);
        }
        buffer.put_slice(piece.filled());
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pieces<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let size = this.writes.next();
        if size == 0 && !bytes.is_empty() {
            this.steps.fetch_add(1, Ordering::Relaxed);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = &bytes[..bytes.len().min(size)];
        let polled = Pin::new(&mut this.stream).poll_write(context, piece);
        if polled.is_pending() {
            this.writes.repeat();
        } else {
            this.steps.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// As many cases as a property usually gets, or as many as `PROPTEST_CASES` asks for.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => asked,
        None => ProptestConfig {
            cases: usual,
            ..asked
        },
    }
}
