//! TLS over TCP with buffers that belong to the thread and not to the connection.
//!
//! In: an accepted stream, the `ServerConfig` for it and the bytes that were read already. Out: a stream of plain bytes. rustls works on
//! buffers of ours (its unbuffered API): what is read and written passes through two buffers that all connections of a thread share,
//! borrowed only inside one poll, and a connection keeps bytes of its own only while they wait: a record that has not come whole, plain bytes
//! that the reader had no room for, records that the socket has not taken. A read decrypts all records that it brings, a write encrypts all
//! that it is given and goes out at once. What the handshake and key updates have to say always goes before application data.

mod session;

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::session::{OVERHEAD_BYTES, Session, TICKET_BYTES, invalid};
use crate::stream::Transport;

/// A record of full size as TLS 1.3 seals it (RFC 8446 §5.2): head, 16 KiB, type and tag.
const RECORD_BYTES: usize = 16 * 1024 + 22;

/// Bytes of records that are looked at together in a busy stream: what is in three goes on as one segment. A read fills up what was kept
/// to this, so that the next one begins with a record again.
const READ_BYTES: usize = 3 * RECORD_BYTES;

/// Nothing more is collected on top of this: less than one record (RFC 8446 §5.2), or the records of one handshake message, of which rustls
/// takes none above 64 KiB.
const PARTIAL_BYTES: usize = 64 * 1024;

/// The most that is looked at together: what was collected, and one read.
const RECEIVED_BYTES: usize = PARTIAL_BYTES + READ_BYTES;

/// Plain bytes that are encrypted at once: all that a relay reads at once, and what hyper writes.
const WRITE_BYTES: usize = 64 * 1024;

thread_local! {
    /// Records as they came.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; RECEIVED_BYTES]);
    /// Records as they go out.
    static SENDING: RefCell<Vec<u8>> = RefCell::new(vec![0; TICKET_BYTES + WRITE_BYTES + OVERHEAD_BYTES]);
}

/// The server's end of a TLS connection over `S`.
pub(crate) struct TlsSocket<S> {
    stream: S,
    session: Session,
}

impl<S: Transport> TlsSocket<S> {
    /// Answers what the client has sent so far, which is `received`; [`Self::finish`] sends the answer. This is the costly part of a handshake.
    pub(crate) fn begin(
        stream: S,
        config: Arc<ServerConfig>,
        received: Vec<u8>,
    ) -> io::Result<Self> {
        let session = Session::new(config, received)?;
        let mut socket = Self { stream, session };
        socket.session.look_again();
        Ok(socket)
    }

    /// Whether a key is still to be computed from what the client says next: another `ClientHello` that it was asked for (RFC 8446 §4.1.4),
    /// or its `ClientKeyExchange` (RFC 5246 §7.4.7).
    pub(crate) fn awaits_a_key_share(&self) -> bool {
        let Session {
            connection,
            ended,
            failed,
            ..
        } = &self.session;
        let resumes = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let agreed = connection.negotiated_key_exchange_group().is_some();
        !(resumes || agreed || failed.is_some() || *ended)
    }

    /// Reads once, for [`Self::look_again`]; what is to be sent goes out meanwhile.
    pub(crate) async fn collect(&mut self) -> io::Result<()> {
        poll_fn(|context| {
            let _sent = self.poll_send(context)?;
            let Self { stream, session } = self;
            if session.received.len() >= PARTIAL_BYTES {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            RECEIVED.with_borrow_mut(|records| {
                let mut buffer = ReadBuf::new(&mut records[..READ_BYTES]);
                ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                session.received.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(()))
            })
        })
        .await
    }

    /// Answers what was collected; as costly as [`Self::begin`].
    pub(crate) fn look_again(&mut self) {
        self.session.look_again();
    }

    /// Performs the rest of the handshake. The caller sets the deadline. On an error the client was told, as far as it took it.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_handshake(context)).await
    }

    /// The stream below, for who has nothing to say in TLS.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// The stream below.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.session.hold_ticket();
            let sent = self.poll_send(context)?;
            // What is left of our last flight goes before anything else.
            if !self.session.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = &self.session.failed {
                let error = invalid(error.clone());
                ready!(sent);
                return Poll::Ready(Err(error));
            }
            if self.session.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            // Also while our flight is on its way: a client may have to send before it reads on.
            ready!(self.poll_receive(context, None))?;
        }
    }

    /// Reads once, and decrypts into `target` what is whole.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        target: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, session } = self;
        RECEIVED.with_borrow_mut(|records| {
            let kept = session.received.len();
            let end = records.len().min(READ_BYTES.max(kept + RECORD_BYTES));
            let Some(room) = records.get_mut(kept..end).filter(|room| !room.is_empty()) else {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            };
            let mut buffer = ReadBuf::new(room);
            ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
            let read = buffer.filled().len();
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let records = &mut records[..kept + read];
            records[..kept].copy_from_slice(&session.received);
            let used = session.process(records, target);
            let rest = &records[used..];
            if rest.is_empty() {
                session.received = Vec::new();
            } else {
                session.received.clear();
                session.received.extend_from_slice(rest);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Writes what waits and is not held; ready when nothing waits any more.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, session } = self;
        if session.ticket {
            return Poll::Ready(Ok(()));
        }
        while !session.sealed.is_empty() {
            let rest = session.sealed.rest();
            let sending = if session.closed {
                stream.poll_write_last(context, rest)
            } else {
                Pin::new(&mut *stream).poll_write(context, rest)
            };
            let sent = ready!(sending)?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            session.sealed.take(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Transport> AsyncRead for TlsSocket<S> {
    /// A stream that ends without `close_notify` is `UnexpectedEof`.
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        loop {
            let plain = &mut this.session.plain;
            if !plain.is_empty() {
                let count = plain.rest().len().min(buffer.remaining());
                buffer.put_slice(&plain.rest()[..count]);
                plain.take(count);
            }
            // What is left to say goes out although nobody writes; an error of that shows again where somebody does.
            let _ = this.poll_send(context);
            if buffer.filled().len() > before || buffer.remaining() == 0 || this.session.ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = &this.session.failed {
                return Poll::Ready(Err(invalid(error.clone())));
            }
            ready!(this.poll_receive(context, Some(buffer)))?;
        }
    }
}

impl<S: Transport> AsyncWrite for TlsSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let taken = &bytes[..bytes.len().min(WRITE_BYTES)];
        SENDING.with_borrow_mut(|records| {
            let held = this.session.take_ticket(records);
            let length = held + this.session.seal(taken, &mut records[held..])?;
            let mut rest = &records[..length];
            // A record of the handshake may have come before these.
            if this.session.sealed.is_empty()
                && let Poll::Ready(sent) = Pin::new(&mut this.stream).poll_write(context, rest)
            {
                rest = &rest[sent?..];
            }
            this.session.sealed.put(rest);
            Poll::Ready(Ok(taken.len()))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    /// Ends our direction with `close_notify` and, below it, the end of the stream.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.close();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

impl<S: Transport> Transport for TlsSocket<S> {
    fn poll_write_last(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(context))?;
        let session = &mut self.session;
        let taken = &bytes[..bytes.len().min(WRITE_BYTES)];
        SENDING.with_borrow_mut(|records| {
            let length = session.seal(taken, records)?;
            session.sealed.put(&records[..length]);
            // With a ticket before it, if one was held.
            session.ticket = false;
            io::Result::Ok(())
        })?;
        if taken.len() == bytes.len() {
            session.close();
        }
        // What is not taken now waits.
        let _sent = self.poll_send(context)?;
        Poll::Ready(Ok(taken.len()))
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in the session is the client's alone.
        f.debug_tuple("TlsSocket").field(&self.stream).finish()
    }
}

#[cfg(test)]
mod tests;
