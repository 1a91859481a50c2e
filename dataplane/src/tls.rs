//! The TLS handshake: ClientHello first, then the certificate of the hostname that it names.
//!
//! In: an accepted TCP connection and the table. Out: a [`ServerStream`], the only stream type that hyper and the
//! relay see, and the hostname that the client was served as. No or an unknown name gets the alert `unrecognized_name`
//! (RFC 6066 §3); a hostname without a usable certificate gets it too, so that nothing tells the two apart. A new certificate
//! is used from the next handshake on.

mod choice;
mod hello;
mod slots;
mod socket;
mod tickets;

use std::io;
use std::sync::Arc;

use route_table::{Hostname, RouteTable};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ResolvesServerCertUsingSni};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use self::choice::{Choosing, Refusal};
use self::slots::Shed;
pub(crate) use self::slots::Slots;
pub(crate) use self::socket::TlsSocket;
use self::tickets::Tickets;
use crate::send_limit::SendLimit;
use crate::stream::Stream;

/// A fatal `unrecognized_name` alert as one plaintext record (RFC 8446 §6, RFC 6066 §3): no key has been agreed on yet.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A client's connection, plain or TLS.
pub(crate) type ServerStream = Stream;

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Refused(Refusal),
    #[error("the dataplane is stopping, and no ClientHello has come")]
    Stopping,
    #[error("too many handshakes at once")]
    Shed(Shed),
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
}

impl TlsError {
    /// The `outcome` label of the metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.label(),
            Self::Stopping => "stopping",
            Self::Shed(shed) => shed.label(),
            Self::Handshake(_) => "failed",
        }
    }
}

/// What all handshakes share: versions, key exchange, ALPN and the key of session tickets.
#[derive(Debug)]
pub(crate) struct Tls {
    base: ServerConfig,
    tickets: Tickets,
}

impl Tls {
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut base = versions
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        base.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Sessions by id (TLS 1.2) would be kept here, in the memory of all hosts together, and know no policy.
        base.session_storage = Arc::new(NoServerSessionStorage {});
        // A browser uses one ticket for its next connection; four only fill the first flight.
        base.send_tls13_tickets = 1;
        let tickets = Tickets::new()?;
        Ok(Self { base, tickets })
    }

    /// Performs the handshake under the `table` of the moment when the `ClientHello` is whole. The caller sets the deadline; a client that
    /// has not said all of it when `stopping` comes is let go.
    pub(crate) async fn accept(
        &self,
        mut stream: SendLimit,
        table: impl FnOnce() -> Arc<RouteTable>,
        slots: &Slots,
        stopping: &CancellationToken,
    ) -> Result<(ServerStream, Hostname), TlsError> {
        let received = tokio::select! {
            hello = hello::read(&mut stream) => hello.map_err(TlsError::Handshake)?,
            () = stopping.cancelled() => return Err(TlsError::Stopping),
        };
        let choosing = Arc::new(Choosing::new(table(), self.tickets.clone()));
        let mut config = self.base.clone();
        config.ticketer = choosing.clone();
        config.cert_resolver = choosing.clone();
        let mut socket = slots::begin(stream, Arc::new(config), received, slots).await?;
        if let Some(refusal) = choosing.refusal() {
            // In place of rustls' own word, access_denied.
            let mut stream = socket.into_stream();
            // The client may be gone already; there is nobody else to tell.
            let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
            let _ = stream.shutdown().await;
            return Err(TlsError::Refused(refusal));
        }
        slots::complete(&mut socket, slots).await?;
        let name = choosing.name();
        let name = name.ok_or(TlsError::Refused(Refusal::UnrecognizedName))?;
        Ok((Stream::Accepted(socket), name))
    }
}

#[cfg(test)]
pub(crate) mod pair;
#[cfg(test)]
mod tests;
