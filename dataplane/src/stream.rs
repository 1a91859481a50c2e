//! A connection that is plain or TLS, on either side: the only stream type that hyper, the relay and `upstream` see.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::send_limit::SendLimit;
use crate::tls::TlsSocket;

/// A stream whose last bytes can go with its end.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// As `poll_write`, of bytes that the end of this direction follows at once: both may go as one packet.
    fn poll_write_last(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(context, bytes)
    }
}

/// Plain or TLS, as server or as client.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(SendLimit),
    /// TLS with a client of ours.
    Accepted(Box<TlsSocket<SendLimit>>),
    /// TLS with a backend.
    Connected(Box<TlsStream<SendLimit>>),
}

impl Stream {
    /// The TCP stream and its send limit below.
    pub(crate) fn socket(&mut self) -> &mut SendLimit {
        match self {
            Self::Plain(stream) => stream,
            Self::Accepted(stream) => stream.stream(),
            Self::Connected(stream) => stream.get_mut().0,
        }
    }
}

impl Transport for Stream {
    fn poll_write_last(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_write_last(context, bytes),
            Self::Accepted(stream) => stream.poll_write_last(context, bytes),
            Self::Connected(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Accepted(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Connected(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Accepted(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Connected(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Accepted(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Connected(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Accepted(stream) => stream.is_write_vectored(),
            Self::Connected(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Accepted(stream) => Pin::new(stream).poll_flush(context),
            Self::Connected(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Accepted(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Connected(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
