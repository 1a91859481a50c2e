//! The `ClientHello`, read before anything is decided.
//!
//! In: the first bytes of a connection, as they come. Out: the message, and the bytes themselves, which go to the session that is then made for
//! the hostname in it. Who sends something else gets the alert that says so.

use std::io;

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Most bytes until the message is whole. A hybrid key share makes it 2 KiB, a ticket and a long list of names some more; rustls takes
/// at most 64 KiB of one message.
const MAX_BYTES: usize = 32 * 1024;

/// What rustls says of a message that is too long, as a record without a key.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// Room for a usual message in one read.
const READ_BYTES: usize = 4 * 1024;

/// A whole `ClientHello`.
pub(super) struct Hello {
    pub(super) message: Accepted,
    /// All that was read.
    pub(super) received: Vec<u8>,
}

/// Reads until the message is whole.
pub(super) async fn read(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Hello> {
    let mut acceptor = Acceptor::default();
    let mut received = Vec::with_capacity(READ_BYTES);
    loop {
        let before = received.len();
        received.reserve(READ_BYTES);
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = &received[before..];
        while !rest.is_empty() {
            // Of what it has not looked at, rustls takes one record at most.
            acceptor.read_tls(&mut rest)?;
            match acceptor.accept() {
                Ok(Some(message)) => return Ok(Hello { message, received }),
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut record = Vec::new();
                    alert.write_all(&mut record)?;
                    tell(stream, &record).await;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        if received.len() >= MAX_BYTES {
            tell(stream, &DECODE_ERROR).await;
            let error = "the ClientHello is too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
}

async fn tell(stream: &mut (impl AsyncWrite + Unpin), alert: &[u8]) {
    // The client may be gone already; there is nobody else to tell.
    let _ = stream.write_all(alert).await;
    let _ = stream.shutdown().await;
}
