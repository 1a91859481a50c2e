//! A server and a client that trusts it, for tests of TLS and of what runs over it.

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::join;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::TlsSocket;
use super::hello;
use crate::pieces::Pieces;
use crate::stream::Transport;

pub(crate) const NAME: &str = "chat.example.com";

/// For TLS 1.3 and for TLS 1.2.
pub(crate) static CONFIGS: LazyLock<[(Arc<ServerConfig>, Arc<ClientConfig>); 2]> =
    LazyLock::new(|| [configs(&version::TLS13), configs(&version::TLS12)]);

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    configs_with(aws_lc_rs::default_provider(), version)
}

/// With what the server is capable of.
pub(crate) fn configs_with(
    capable: CryptoProvider,
    version: &'static SupportedProtocolVersion,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let issued = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let chain = vec![issued.cert.der().clone()];
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(capable));
    let server = server.with_protocol_versions(&[version]).unwrap();
    let server = server.with_no_client_auth().with_single_cert(chain, key);
    let client = ClientConfig::builder_with_provider(provider);
    let client = client.with_protocol_versions(&[version]).unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server.unwrap()), Arc::new(client))
}

impl Transport for DuplexStream {}
impl Transport for TcpStream {}
impl<S: AsyncRead + AsyncWrite + Unpin> Transport for Pieces<S> {}

/// The server's end, from its first byte on.
pub(crate) async fn accept<S: Transport>(
    mut stream: S,
    config: &Arc<ServerConfig>,
) -> io::Result<TlsSocket<S>> {
    let hello = hello::read(&mut stream).await?;
    let mut socket = TlsSocket::begin(stream, config.clone(), hello)?;
    socket.finish().await?;
    Ok(socket)
}

/// Both ends, once they have met.
pub(crate) async fn connect<S, C>(
    (server, client): &(Arc<ServerConfig>, Arc<ClientConfig>),
    near: S,
    far: C,
) -> (TlsSocket<S>, TlsStream<C>)
where
    S: Transport,
    C: AsyncRead + AsyncWrite + Unpin,
{
    let connector = TlsConnector::from(client.clone());
    let name = ServerName::try_from(NAME).unwrap();
    let connected = Notify::new();
    let accepting = async {
        let mut server = accept(near, server).await.unwrap();
        // In TLS 1.2 the last word is the server's, and the client waits for it; in 1.3 it is a ticket, which nobody waits for.
        tokio::select! {
            flushed = server.flush() => flushed.unwrap(),
            () = connected.notified() => {}
        }
        server
    };
    let connecting = async {
        let client = connector.connect(name, far).await.unwrap();
        connected.notify_one();
        client
    };
    join!(accepting, connecting)
}
