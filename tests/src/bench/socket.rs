//! The client of the bench: TLS 1.3 with one cipher and one group, an upgrade, frames.
//!
//! The client alone decides the cipher (`TLS_AES_128_GCM_SHA256`) and the group (X25519) by offering nothing else; each handshake is
//! checked for both, so no proxy can be measured with others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::scanner::{Scanner, Seen, is_message};
use crate::frame::{BINARY, CLOSE, masked, unmasked};
use crate::raw::{ACCEPT, upgrade};
use crate::scene::HOST;

/// Longest wait for one step of one connection. Proxies answer in milliseconds; one under 9,000 sockets may need longer.
pub const STEP_LIMIT: Duration = Duration::from_secs(20);

/// Longest answer to an upgrade.
const HEAD_BYTES: usize = 8 * 1024;

/// Below TLS: rustls itself reads 4 KiB at a time, which would cost the client a call for each.
pub type Stream = TlsStream<BufReader<TcpStream>>;

/// How to come to a proxy.
#[derive(Clone)]
pub struct Dialer {
    address: SocketAddr,
    connector: TlsConnector,
    /// What is read from the kernel at once.
    read_bytes: usize,
}

/// What is done with tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tickets {
    /// Every handshake is a full one.
    Ignore,
    /// Each handshake after the first uses the ticket of the connection before.
    Use,
}

impl Dialer {
    pub fn new(
        address: SocketAddr,
        root: &CertificateDer<'static>,
        tickets: Tickets,
        read_bytes: usize,
    ) -> anyhow::Result<Self> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let mut roots = RootCertStore::empty();
        roots.add(root.clone())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = match tickets {
            Tickets::Ignore => Resumption::disabled(),
            Tickets::Use => Resumption::in_memory_sessions(8),
        };
        Ok(Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            read_bytes,
        })
    }

    /// Takes any certificate from now on, unverified: two signatures less to verify, most of what the client computes for a handshake. Whoever
    /// measures the proxy has verified it once.
    #[must_use]
    pub fn without_verifying(mut self) -> Self {
        let mut config = ClientConfig::clone(self.connector.config());
        let verifier = Arc::new(Unverified);
        config.dangerous().set_certificate_verifier(verifier);
        self.connector = TlsConnector::from(Arc::new(config));
        self
    }

    /// An open WebSocket at this path.
    pub async fn open(&self, path: &str) -> anyhow::Result<Socket> {
        let open = async {
            let tcp = TcpStream::connect(self.address).await.context("connect")?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(HOST)?;
            let tcp = BufReader::with_capacity(self.read_bytes, tcp);
            let stream = self.connector.connect(name, tcp).await.context("TLS")?;
            let mut socket = Socket {
                stream,
                scanner: Scanner::default(),
            };
            socket.check_agreed()?;
            socket.upgrade(path).await.context("upgrade")?;
            anyhow::Ok(socket)
        };
        timeout(STEP_LIMIT, open)
            .await
            .context("no open socket in time")?
    }
}

#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// An open WebSocket.
pub struct Socket {
    pub stream: Stream,
    pub scanner: Scanner,
}

impl Socket {
    fn check_agreed(&self) -> anyhow::Result<()> {
        let tls = self.stream.get_ref().1;
        ensure!(tls.protocol_version() == Some(ProtocolVersion::TLSv1_3));
        let cipher = tls.negotiated_cipher_suite().context("no cipher")?;
        ensure!(cipher.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
        let group = tls.negotiated_key_exchange_group();
        ensure!(group.context("no group")?.name() == NamedGroup::X25519);
        Ok(())
    }

    /// Whether TLS began with a ticket.
    pub fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    async fn upgrade(&mut self, path: &str) -> anyhow::Result<()> {
        let request = upgrade(HOST, path, "");
        self.send(request.as_bytes()).await?;
        let mut head = vec![0; HEAD_BYTES];
        let mut length = 0;
        let end = loop {
            let read = self.stream.read(&mut head[length..]).await?;
            ensure!(read > 0, "the connection ended, or its answer is too long");
            length += read;
            let at = head[..length]
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(at) = at {
                break at + 4;
            }
        };
        let text = String::from_utf8_lossy(&head[..end]);
        let is_open = text.starts_with("HTTP/1.1 101 ") && text.contains(ACCEPT);
        ensure!(is_open, "answered {:?}", text.lines().next().unwrap_or(""));
        // A source begins at once.
        self.scanner.feed(&head[end..length], |_| {});
        Ok(())
    }

    /// Sends all of these bytes; a write alone may leave encrypted ones in rustls.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits for bytes; says how many messages became whole and how many bytes of payload came.
    pub async fn read(&mut self, buffer: &mut [u8]) -> anyhow::Result<Arrived> {
        let read = self.stream.read(buffer).await?;
        arrived(&mut self.scanner, &buffer[..read])
    }

    /// Sends a message and compares its echo byte for byte.
    pub async fn check_echo(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        let check = async {
            self.send(&masked(BINARY, payload)).await?;
            let expected = unmasked(BINARY, payload);
            let mut echo = vec![0; expected.len()];
            self.stream.read_exact(&mut echo).await?;
            ensure!(
                echo == expected,
                "the echo of {} bytes differs",
                payload.len()
            );
            Ok(())
        };
        timeout(STEP_LIMIT, check)
            .await
            .context("no echo in time")?
    }

    /// Close both ways, then the end of TLS and TCP, which the client begins: some proxies wait a second for that. Returns when the
    /// proxy has ended its side too.
    pub async fn close(mut self) -> anyhow::Result<()> {
        let close = async {
            let frame = masked(CLOSE, &1000_u16.to_be_bytes());
            self.send(&frame).await?;
            let (mut buffer, mut answered) = ([0; 256], false);
            while !answered {
                let read = self.stream.read(&mut buffer).await?;
                ensure!(read > 0, "the connection ended without a Close");
                self.scanner.feed(&buffer[..read], |seen| {
                    answered |= matches!(seen, Seen::End(CLOSE));
                });
            }
            // A proxy may have ended first, and not every one ends TLS before TCP.
            self.stream.shutdown().await.ok();
            while self
                .stream
                .read(&mut buffer)
                .await
                .is_ok_and(|read| read > 0)
            {}
            Ok(())
        };
        timeout(STEP_LIMIT, close)
            .await
            .context("no end after a Close")?
    }
}

/// What one read brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    pub messages: usize,
    pub payload_bytes: u64,
}

/// Goes through what was read; an end of the stream and a Close are errors.
pub fn arrived(scanner: &mut Scanner, bytes: &[u8]) -> anyhow::Result<Arrived> {
    ensure!(!bytes.is_empty(), "the connection ended");
    let (mut arrived, mut closed) = (Arrived::default(), false);
    scanner.feed(bytes, |seen| match seen {
        Seen::End(CLOSE) => closed = true,
        Seen::End(opcode) if is_message(opcode) => arrived.messages += 1,
        Seen::Payload(_, part) => arrived.payload_bytes += part.len() as u64,
        Seen::Head(_) | Seen::End(_) => {}
    });
    if closed {
        bail!("the proxy closed the socket");
    }
    Ok(arrived)
}
