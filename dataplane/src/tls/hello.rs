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
            acceptor.read_tls(&mut rest)?;
        }
        match acceptor.accept() {
            Ok(Some(message)) => return Ok(Hello { message, received }),
            Ok(None) if received.len() < MAX_BYTES => {}
            Ok(None) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the ClientHello is too long",
                ));
            }
            Err((error, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told)?;
                // The client may be gone already; there is nobody else to tell.
                let _ = stream.write_all(&told).await;
                let _ = stream.shutdown().await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}
