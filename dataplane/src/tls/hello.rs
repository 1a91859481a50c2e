//! The `ClientHello`, read whole before anything is computed for it.
//!
//! Only its framing is looked at here (RFC 8446 §4 and §5.1). What it says, and whether it is one at all, rustls judges once it is whole.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Most bytes until the message is whole. A hybrid key share makes it 2 KiB, a ticket and a long list of names some more; rustls takes
/// at most 64 KiB of one message.
const MAX_BYTES: usize = 32 * 1024;

/// What rustls says of a message that is too long, as a record without a key.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// Room for a usual message in one read.
const READ_BYTES: usize = 4 * 1024;

/// Most bytes in one record (RFC 8446 §5.1).
const MAX_FRAGMENT_BYTES: usize = 1 << 14;

/// `ContentType.handshake` of a record.
const HANDSHAKE: u8 = 22;

/// `HandshakeType.client_hello` of a message.
const CLIENT_HELLO: u8 = 1;

/// Reads until the message is whole, or is seen to be none; returns all that was read.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<Vec<u8>> {
    let mut received = Vec::with_capacity(READ_BYTES);
    loop {
        received.reserve(READ_BYTES);
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if is_to_be_judged(&received) {
            return Ok(received);
        }
        if received.len() >= MAX_BYTES {
            // The client may be gone already; there is nobody else to tell.
            let _ = stream.write_all(&DECODE_ERROR).await;
            let _ = stream.shutdown().await;
            let error = "the ClientHello is too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
}

/// Whether these bytes hold a whole `ClientHello`, in as many whole records as it takes, or can be none.
fn is_to_be_judged(received: &[u8]) -> bool {
    let mut rest = received;
    // The message's type and length, and how much of it has come.
    let mut head = [0; 4];
    let mut came = 0;
    while let Some(&[kind, _, _, high, low]) = rest.first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || !(1..=MAX_FRAGMENT_BYTES).contains(&length) {
            return true;
        }
        let Some(fragment) = rest.get(5..5 + length) else {
            return false;
        };
        for (place, byte) in head.iter_mut().skip(came).zip(fragment) {
            *place = *byte;
        }
        came += length;
        if came >= head.len() {
            let [kind, high, middle, low] = head;
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if kind != CLIENT_HELLO || came >= head.len() + length {
                return true;
            }
        }
        rest = &rest[5 + length..];
    }
    // HTTP on the port of TLS may be shorter than the head of a record.
    received.first().is_some_and(|kind| *kind != HANDSHAKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
        let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&[kind, 3, 1], &length[..], fragment].concat()
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
            for end in 0..bytes.len() {
                assert!(!is_to_be_judged(&bytes[..end]), "cut {cut}, end {end}");
            }
            assert!(is_to_be_judged(&bytes), "cut {cut}");
            // What follows is the session's.
            bytes.push(23);
            assert!(is_to_be_judged(&bytes), "cut {cut}");
        }
    }

    #[test]
    fn what_is_no_client_hello_is_judged_at_once() {
        for bytes in [
            &b"GET"[..],
            b"GET / HTTP/1.1",
            &record(21, &[2, 0]),
            &record(HANDSHAKE, &[]),
            &[HANDSHAKE, 3, 1, 0x40, 1],
            // A ServerHello.
            &record(HANDSHAKE, &[2, 0, 1, 0, 0]),
        ] {
            assert!(is_to_be_judged(bytes), "{bytes:?}");
        }
    }
}
