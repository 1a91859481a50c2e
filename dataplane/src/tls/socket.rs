//! TLS over TCP with buffers that belong to the thread and not to the connection.
//!
//! In: an accepted stream, the `ServerConfig` for it and the bytes that were read already. Out: a stream of plain bytes. rustls works on
//! buffers of ours (its unbuffered API): what is read and written passes through two buffers that all connections of a thread share,
//! borrowed only inside one poll, and a connection keeps bytes of its own only while they wait: a record that has not come whole, plain bytes
//! that the reader had no room for, records that the socket has not taken. A read decrypts all records that it brings, a write encrypts all
//! that it is given and goes out at once. What the handshake and key updates have to say always goes before application data.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Transport;

/// Bytes of records that are read at once: four of full size.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of records that are looked at together: one read, and before it what waits for its end. That is less than one record (RFC 8446 §5.2),
/// or all records of one handshake message, of which rustls takes none above 64 KiB.
const RECEIVED_BYTES: usize = 2 * READ_BYTES;

/// Plain bytes that are encrypted at once: as many as a relay reads at once.
const WRITE_BYTES: usize = 64 * 1024;

/// What encryption adds to [`WRITE_BYTES`]: head, nonce, padding and tag of five records, and a key update before them.
const OVERHEAD_BYTES: usize = 512;

/// Longest ticket that goes out together with what is written first; one without a client's certificate has a fourth of this.
const TICKET_BYTES: usize = 1024;

/// Room for what is said together in a handshake with a short chain.
const FLIGHT_BYTES: usize = 2048;

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

/// All but the stream.
struct Session {
    connection: UnbufferedServerConnection,
    /// Records that came and are not whole.
    received: Vec<u8>,
    /// Plain bytes that nobody has read.
    plain: Waiting,
    /// Records that the stream has not taken.
    sealed: Waiting,
    /// `sealed` is a session ticket that goes out with what is written next, and not before.
    ticket: bool,
    /// Whether the client has sent `close_notify`.
    ended: bool,
    /// Whether we have.
    closed: bool,
    /// Why nothing more can be read, once something was read that is not TLS.
    failed: Option<rustls::Error>,
}

/// Bytes that wait, and take no memory when there are none.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    taken: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.bytes.len() {
            *self = Self::default();
        }
    }
}

impl<S: Transport> TlsSocket<S> {
    /// Answers what the client has sent so far, which is `received`; [`Self::finish`] sends the answer. This is the costly part of a handshake.
    pub(crate) fn begin(
        stream: S,
        config: Arc<ServerConfig>,
        received: Vec<u8>,
    ) -> io::Result<Self> {
        let session = Session {
            connection: UnbufferedServerConnection::new(config).map_err(invalid)?,
            received,
            plain: Waiting::default(),
            sealed: Waiting::default(),
            ticket: false,
            ended: false,
            closed: false,
            failed: None,
        };
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
            if session.received.len() >= READ_BYTES {
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
            let end = records.len().min(kept + READ_BYTES);
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

impl Session {
    /// Looks at all that came; returns how much of it is done with. Plain bytes go to `target` as far as it has room.
    fn process(&mut self, records: &mut [u8], mut target: Option<&mut ReadBuf<'_>>) -> usize {
        let Self {
            connection,
            plain,
            sealed,
            ticket,
            ended,
            failed,
            ..
        } = self;
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                connection.process_tls_records(&mut records[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                used += record.discard;
                                deliver(record.payload, target.as_deref_mut(), plain);
                            }
                            Err(error) => {
                                *failed = Some(error);
                                return used;
                            }
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(record)) => {
                    encode(record, sealed);
                    // Whatever stands behind it must not be held.
                    *ticket = false;
                }
                // Ours to send now: nothing is sent before what stands in `sealed`.
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => *ended = true,
                Ok(
                    ConnectionState::BlockedHandshake
                    | ConnectionState::WriteTraffic(_)
                    | ConnectionState::Closed,
                ) => return used,
                // Early data is never accepted, and rustls knows no other state yet.
                Ok(_) => {
                    *failed = Some(rustls::Error::General(
                        "a state of TLS that is not known".into(),
                    ));
                    return used;
                }
                Err(error) => {
                    *failed = Some(error);
                    // The alert that tells the client, and not once more: what came before the error may still be in parts that
                    // rustls would look for in these bytes.
                    while connection.wants_write()
                        && let Ok(ConnectionState::EncodeTlsData(record)) =
                            connection.process_tls_records(&mut []).state
                    {
                        encode(record, sealed);
                    }
                    *ticket = false;
                    return used;
                }
            }
        }
    }

    /// Looks at what was received before; the first bytes of a connection come from who read its `ClientHello`.
    fn look_again(&mut self) {
        let mut records = std::mem::take(&mut self.received);
        let used = self.process(&mut records, None);
        records.drain(..used);
        if !records.is_empty() {
            self.received = records;
        }
    }

    /// Seals `plain` into `records`; returns how long they are.
    fn seal(&mut self, plain: &[u8], records: &mut [u8]) -> io::Result<usize> {
        self.in_traffic(|traffic| traffic.encrypt(plain, records).map_err(io::Error::other))
    }

    /// TLS 1.3 ends with the client's word, and a ticket is all that we have to say then: nobody waits for it, and with the first answer it
    /// costs no packet of its own.
    fn hold_ticket(&mut self) {
        let length = self.sealed.rest().len();
        self.ticket = !self.connection.is_handshaking()
            && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && self.failed.is_none()
            && (1..=TICKET_BYTES).contains(&length);
    }

    /// Moves a ticket that is held into `records`; returns how long it is.
    fn take_ticket(&mut self, records: &mut [u8]) -> usize {
        if !std::mem::take(&mut self.ticket) {
            return 0;
        }
        let ticket = self.sealed.rest();
        let length = ticket.len();
        records[..length].copy_from_slice(ticket);
        self.sealed.take(length);
        length
    }

    /// Says that nothing more will come, once.
    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let mut alert = [0; OVERHEAD_BYTES];
        // A connection that never got so far, or that failed, has nothing to end.
        if let Ok(length) = self.in_traffic(|traffic| {
            traffic
                .queue_close_notify(&mut alert)
                .map_err(io::Error::other)
        }) {
            self.sealed.put(&alert[..length]);
        }
        self.ticket = false;
    }

    fn in_traffic<T>(
        &mut self,
        act: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> io::Result<T>,
    ) -> io::Result<T> {
        // What was refused is not looked at twice: it would be refused for another reason, and the client told so too.
        if let Some(error) = &self.failed {
            return Err(invalid(error.clone()));
        }
        self.look_again();
        match self
            .connection
            .process_tls_records(&mut self.received)
            .state
        {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => act(&mut traffic),
            Ok(_) => Err(io::ErrorKind::NotConnected.into()),
            Err(error) => Err(invalid(error)),
        }
    }
}

fn deliver(payload: &[u8], target: Option<&mut ReadBuf<'_>>, plain: &mut Waiting) {
    let room = target.filter(|_| plain.is_empty());
    let taken = room.map_or(0, |buffer| {
        let taken = payload.len().min(buffer.remaining());
        buffer.put_slice(&payload[..taken]);
        taken
    });
    plain.put(&payload[taken..]);
}

/// Puts a record of the handshake behind those that wait.
fn encode(mut record: EncodeTlsData<'_, ServerConnectionData>, sealed: &mut Waiting) {
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        record.encode(&mut [])
    else {
        return;
    };
    let start = sealed.bytes.len();
    if start == 0 {
        sealed.bytes.reserve(FLIGHT_BYTES);
    }
    sealed.bytes.resize(start + required_size, 0);
    // It has just said how long it is.
    let length = record.encode(&mut sealed.bytes[start..]).unwrap_or(0);
    sealed.bytes.truncate(start + length);
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
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
