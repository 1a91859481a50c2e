//! One upstream connection of ordinary HTTP: asked once at a time, ended with its owner.
//!
//! hyper's task for it is aborted when a [`Connection`] is dropped: whatever did not end cleanly (an answer or an upload that is not
//! whole, bytes that nobody asked for, a 101) closes the connection at once and can meet no second request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::body::Body;
use crate::config::Limits;
use crate::pool::Reusable;
use crate::send_limit::SendTime;

/// An upstream connection that carries requests one after the other.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    /// The longest time that one write may wait, which is each request's own.
    send: SendTime,
    read_bytes: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    /// The request, if nothing of it was sent.
    pub(super) unsent: Option<Box<Request<Body>>>,
    /// Whether the connection ended without a byte of an answer.
    pub(super) ended_silently: bool,
}

impl Connection {
    /// Speaks HTTP/1.1 over a stream that is connected, whose writes wait as long as `send` says.
    pub(super) async fn new(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        send: SendTime,
        limits: &Limits,
        tasks: &TaskTracker,
    ) -> hyper::Result<Self> {
        let read_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            stream,
            read_bytes: read_bytes.clone(),
            reset: false,
        };
        let mut client = http1::Builder::new();
        client
            .max_buf_size(limits.head_bytes)
            .max_headers(limits.head_fields)
            .title_case_headers(true);
        let (sender, connection) = client.handshake(TokioIo::new(counted)).await?;
        let task = tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "backend's connection ended badly");
            }
        });
        Ok(Self {
            sender,
            send,
            read_bytes,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Sends a request whose writes may wait for `send`, and returns the head of its answer.
    pub(super) async fn ask(
        &mut self,
        request: Request<Body>,
        send: Duration,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.send.set(send);
        let before = self.read_bytes.load(Ordering::Relaxed);
        let answer = self.sender.try_send_request(request).await;
        answer.map_err(|mut failed: TrySendError<_>| Unanswered {
            unsent: failed.take_message().map(Box::new),
            ended_silently: self.read_bytes.load(Ordering::Relaxed) == before,
            error: failed.into_error(),
        })
    }

    /// Waits until the last exchange is over, both ways; whether the connection is clean after it.
    pub(super) async fn settled(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

impl Reusable for Connection {
    fn is_usable(&self) -> bool {
        self.sender.is_ready()
    }
}

/// A stream that counts what is read from it, and whose broken writing side hides no answer.
///
/// hyper gives up the whole connection when a write fails. A backend that answers early (413) and ends without reading on resets the
/// connection, and its answer is still there to be read. So a write that fails for that waits; reading, which hyper does beside it, finds
/// the answer or the end, and always one of them, as there is no connection any more. The kernel has told of the reset by then, and would
/// give an orderly end: that must not pass for the end of a body.
struct Counted<S> {
    stream: S,
    read_bytes: Arc<AtomicU64>,
    /// Whether a write found that the backend had reset the connection.
    reset: bool,
}

impl<S> Counted<S> {
    fn answer_first<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let is_reset = |error: &io::Error| {
            let kind = error.kind();
            matches!(
                kind,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            )
        };
        match written {
            Poll::Ready(Err(error)) if is_reset(&error) => {
                self.reset = true;
                Poll::Pending
            }
            written => written,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.reset && bytes == 0 && matches!(read, Poll::Ready(Ok(()))) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.answer_first(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.answer_first(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.answer_first(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
