//! The TLS handshake: ClientHello first, then the certificate of the hostname that it names.
//!
//! In: an accepted TCP connection and the table. Out: a [`ServerStream`], the only stream type that hyper and the
//! relay see, and the hostname that the client was served as. No or an unknown name gets the alert `unrecognized_name`
//! (RFC 6066 §3); a hostname without a usable certificate gets it too, so that nothing tells the two apart. A new certificate
//! is used from the next handshake on.

mod hello;
mod slots;
mod socket;
mod tickets;

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use route_table::{Certificate, HostTls, Hostname, RouteTable, TlsPolicy};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use self::hello::Hello;
pub(crate) use self::slots::Slots;
use self::slots::{Shed, handshake};
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
    #[error("the ClientHello names no hostname that is served")]
    UnrecognizedName,
    #[error("no usable certificate for this hostname")]
    NoCertificate,
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
            Self::UnrecognizedName => "unrecognized_name",
            Self::NoCertificate => "no_certificate",
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
            .with_cert_resolver(Arc::new(NoCertificate));
        base.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Sessions by id (TLS 1.2) would be kept here, in the memory of all hosts together, and know no policy.
        base.session_storage = Arc::new(NoServerSessionStorage {});
        // A browser uses one ticket for its next connection; four only fill the first flight.
        base.send_tls13_tickets = 1;
        let tickets = Tickets::new()?;
        Ok(Self { base, tickets })
    }

    /// Performs the handshake under the `table` of the moment when the `ClientHello` is whole. The caller sets the deadline; a client that
    /// has said nothing when `stopping` comes is let go.
    pub(crate) async fn accept<T: Deref<Target = RouteTable>>(
        &self,
        mut stream: SendLimit,
        table: impl FnOnce() -> T,
        slots: &Slots,
        stopping: &CancellationToken,
    ) -> Result<(ServerStream, Hostname), TlsError> {
        let Hello { message, received } = tokio::select! {
            hello = hello::read(&mut stream) => hello.map_err(TlsError::Handshake)?,
            () = stopping.cancelled() => return Err(TlsError::Stopping),
        };
        let choice = choose(&message.client_hello(), &table());
        match choice {
            Ok(Choice {
                name,
                certificate,
                policy,
            }) => {
                drop(message);
                let mut config = self.base.clone();
                config.ticketer = self.tickets.under(policy);
                config.cert_resolver = Arc::new(Chosen(certificate.certified().clone()));
                let stream = handshake(stream, Arc::new(config), received, slots).await?;
                Ok((Stream::Accepted(Box::new(stream)), name))
            }
            Err(refusal) => {
                // The client may be gone already; there is nobody else to tell.
                let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
                let _ = stream.shutdown().await;
                Err(refusal)
            }
        }
    }
}

/// What a ClientHello is answered with.
struct Choice {
    name: Hostname,
    certificate: Arc<Certificate>,
    policy: TlsPolicy,
}

/// The hostname of a ClientHello and the best certificate for it: the first that names it and that the client can verify the
/// signature of, else the first that the client can verify, else the first.
fn choose(hello: &ClientHello<'_>, table: &RouteTable) -> Result<Choice, TlsError> {
    let name = hello
        .server_name()
        .and_then(|name| Hostname::parse(name).ok())
        .ok_or(TlsError::UnrecognizedName)?;
    let host = table.host(&name).ok_or(TlsError::UnrecognizedName)?;
    let HostTls::Terminate { certificates, .. } = host.tls() else {
        return Err(TlsError::UnrecognizedName);
    };
    let usable = certificates.iter().filter_map(|key| table.certificate(key));
    let can_sign = |certificate: &Certificate| {
        certificate
            .certified()
            .key
            .choose_scheme(hello.signature_schemes())
            .is_some()
    };
    // Of equals, min_by_key keeps the first.
    let best =
        usable.min_by_key(|certificate| (!can_sign(certificate), !certificate.is_for(&name)));
    let certificate = best.ok_or(TlsError::NoCertificate)?.clone();
    let policy = table.tls_policy(host);
    Ok(Choice {
        name,
        certificate,
        policy,
    })
}

/// The certificate that was chosen for this handshake.
#[derive(Debug)]
struct Chosen(Arc<CertifiedKey>);

impl ResolvesServerCert for Chosen {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Stands in the shared part, which never performs a handshake itself.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[cfg(test)]
pub(crate) mod pair;
#[cfg(test)]
mod tests;
