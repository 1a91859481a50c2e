//! A session's state, apart from its stream: what rustls is given, what it gives, and what waits.

use std::io;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::ReadBuf;

/// What encryption adds to what is sealed at once: head, nonce, padding and tag of five records, and a key update before them.
pub(super) const OVERHEAD_BYTES: usize = 512;

/// Longest ticket that goes out together with what is written first; one without a client's certificate has a fourth of this.
pub(super) const TICKET_BYTES: usize = 1024;

/// Room for what is said together in a handshake with a short chain.
const FLIGHT_BYTES: usize = 2048;

/// All of a socket but its stream.
pub(super) struct Session {
    pub(super) connection: UnbufferedServerConnection,
    /// Records that came and are not whole.
    pub(super) received: Vec<u8>,
    /// Plain bytes that nobody has read.
    pub(super) plain: Waiting,
    /// Records that the stream has not taken.
    pub(super) sealed: Waiting,
    /// `sealed` is a session ticket that goes out with what is written next, and not before.
    pub(super) ticket: bool,
    /// Whether the client has sent `close_notify`.
    pub(super) ended: bool,
    /// Whether we have.
    pub(super) closed: bool,
    /// Why nothing more can be read, once something was read that is not TLS.
    pub(super) failed: Option<rustls::Error>,
}

/// Bytes that wait, and take no memory when there are none.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) bytes: Vec<u8>,
    taken: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.bytes.len() {
            *self = Self::default();
        }
    }
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>, received: Vec<u8>) -> io::Result<Self> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config).map_err(invalid)?,
            received,
            plain: Waiting::default(),
            sealed: Waiting::default(),
            ticket: false,
            ended: false,
            closed: false,
            failed: None,
        })
    }

    /// Looks at all that came; returns how much of it is done with. Plain bytes go to `target` as far as it has room.
    pub(super) fn process(
        &mut self,
        records: &mut [u8],
        mut target: Option<&mut ReadBuf<'_>>,
    ) -> usize {
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
    pub(super) fn look_again(&mut self) {
        let mut records = std::mem::take(&mut self.received);
        let used = self.process(&mut records, None);
        records.drain(..used);
        if !records.is_empty() {
            self.received = records;
        }
    }

    /// Seals `plain` into `records`; returns how long they are.
    pub(super) fn seal(&mut self, plain: &[u8], records: &mut [u8]) -> io::Result<usize> {
        self.in_traffic(|traffic| traffic.encrypt(plain, records).map_err(io::Error::other))
    }

    /// TLS 1.3 ends with the client's word, and a ticket is all that we have to say then: nobody waits for it, and with the first answer it
    /// costs no packet of its own.
    pub(super) fn hold_ticket(&mut self) {
        let length = self.sealed.rest().len();
        self.ticket = !self.connection.is_handshaking()
            && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && self.failed.is_none()
            && (1..=TICKET_BYTES).contains(&length);
    }

    /// Moves a ticket that is held into `records`; returns how long it is.
    pub(super) fn take_ticket(&mut self, records: &mut [u8]) -> usize {
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
    pub(super) fn close(&mut self) {
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
        // Mostly there is nothing to look at, and rustls would look for it twice.
        if !self.received.is_empty() || self.connection.wants_write() {
            self.look_again();
        }
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

pub(super) fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
