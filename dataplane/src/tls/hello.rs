//! The `ClientHello`, read whole before anything is computed for it.
//!
//! Only its framing is looked at here (RFC 8446 §4 and §5.1); what it says, rustls judges once it is whole. What is none never gets so far:
//! it needs no slot and no session.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Most bytes until the message is whole. A hybrid key share makes it 2 KiB, a ticket and a long list of names some more; rustls takes
/// at most 64 KiB of one message.
const MAX_BYTES: usize = 32 * 1024;

/// Told to who sends anything else or too much: a fatal `decode_error`, as a record without a key.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// Room for a usual message in one read.
const READ_BYTES: usize = 4 * 1024;

/// Most bytes in one record (RFC 8446 §5.1).
const MAX_FRAGMENT_BYTES: usize = 1 << 14;

/// `ContentType.handshake` of a record.
const HANDSHAKE: u8 = 22;

/// The first byte of a record's version, which means nothing any more and never changed.
const LEGACY_VERSION: u8 = 3;

/// A record's type, version and length.
const RECORD_HEAD_BYTES: usize = 5;

/// `HandshakeType.client_hello` of a message.
const CLIENT_HELLO: u8 = 1;

/// What is known of the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    NotWhole,
    Whole,
    /// This can become no `ClientHello`, or one that is too long.
    Wrong,
}

/// Reads until the message is whole; returns all that was read. Who sends something else is told so.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<Vec<u8>> {
    let mut received = Vec::with_capacity(READ_BYTES);
    let mut records = Records::default();
    loop {
        received.reserve(READ_BYTES);
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match records.look(&received) {
            Framing::Whole => return Ok(received),
            Framing::NotWhole if received.len() < MAX_BYTES => {}
            Framing::NotWhole | Framing::Wrong => {
                // The client may be gone already; there is nobody else to tell.
                let _ = stream.write_all(&DECODE_ERROR).await;
                let _ = stream.shutdown().await;
                let error = "no ClientHello, or one that is too long";
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

/// Follows the records of one message.
#[derive(Default)]
struct Records {
    /// Bytes of the records that were looked at.
    used: usize,
    /// The message's type and length.
    head: [u8; 4],
    /// How much of the message has come.
    came: usize,
}

impl Records {
    /// Looks at the records that are whole since the last look, and at the begin of the next one. `received` is all that was read.
    fn look(&mut self, received: &[u8]) -> Framing {
        loop {
            let rest = &received[self.used..];
            let kinds = rest.iter().zip([HANDSHAKE, LEGACY_VERSION]);
            if kinds.into_iter().any(|(byte, expected)| *byte != expected) {
                return Framing::Wrong;
            }
            let Some(&[_, _, _, high, low]) = rest.first_chunk() else {
                return Framing::NotWhole;
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if !(1..=MAX_FRAGMENT_BYTES).contains(&length) {
                return Framing::Wrong;
            }
            let Some(fragment) = rest.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + length) else {
                return Framing::NotWhole;
            };
            for (place, byte) in self.head.iter_mut().skip(self.came).zip(fragment) {
                *place = *byte;
            }
            self.used += RECORD_HEAD_BYTES + length;
            self.came += length;
            let [kind, high, middle, low] = self.head;
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if kind != CLIENT_HELLO || length > MAX_BYTES {
                return Framing::Wrong;
            }
            if self.came >= self.head.len() + length {
                return Framing::Whole;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
        let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&[kind, 3, 1], &length[..], fragment].concat()
    }

    fn look(received: &[u8]) -> Framing {
        Records::default().look(received)
    }

    #[test]
    fn a_message_is_whole_with_the_last_byte_of_its_last_record() {
        let message = [&[CLIENT_HELLO, 0, 1, 44][..], &[7; 300]].concat();
        for cut in [304, 303, 150, 4, 3, 2, 1] {
            let (first, second) = message.split_at(cut);
            let mut bytes = record(HANDSHAKE, first);
            if !second.is_empty() {
                bytes.extend(record(HANDSHAKE, second));
            }
            // As one read brings it, and byte by byte.
            let mut records = Records::default();
            for end in 0..bytes.len() {
                assert_eq!(look(&bytes[..end]), Framing::NotWhole, "cut {cut}, {end}");
                assert_eq!(records.look(&bytes[..end]), Framing::NotWhole);
            }
            assert_eq!(records.look(&bytes), Framing::Whole, "cut {cut}");
            // What follows is the session's.
            bytes.push(23);
            assert_eq!(look(&bytes), Framing::Whole, "cut {cut}");
        }
    }

    #[test]
    fn what_is_no_client_hello_is_known_at_once() {
        let begun = record(HANDSHAKE, &[CLIENT_HELLO, 0, 1]);
        for bytes in [
            // HTTP on the port of TLS.
            &b"G"[..],
            // A warning, which rustls would let pass.
            &record(21, &[1, 90])[..1],
            // SSL 2.
            &[0x80, 46, 1],
            &[HANDSHAKE, 2],
            &record(HANDSHAKE, &[]),
            // A record that is too long, and a message.
            &[HANDSHAKE, 3, 1, 0x40, 1],
            &record(HANDSHAKE, &[CLIENT_HELLO, 0, 0x80, 1]),
            // A ServerHello.
            &record(HANDSHAKE, &[2]),
            // Something else within the message.
            &[&begun[..], &[21]].concat(),
        ] {
            assert_eq!(look(bytes), Framing::Wrong, "{bytes:?}");
        }
    }
}
