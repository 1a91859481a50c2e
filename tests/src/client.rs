//! A WebSocket client that always dials 127.0.0.1, with whatever server name, Host and headers a test asks for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::{
    ClientRequestBuilder, Error, Message, handshake::client::Response,
};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::wait::within;

/// Either a TCP or a TLS stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub type WebSocket = WebSocketStream<Box<dyn Io>>;

/// What to dial and what to say.
#[derive(Clone)]
pub struct Dial {
    address: SocketAddr,
    /// The server name and the authority to trust; none on a plain connection.
    tls: Option<(String, CertificateDer<'static>)>,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
}

impl Dial {
    /// Over TLS, with `host` both as SNI and as Host.
    pub fn wss(address: SocketAddr, host: &str, root: CertificateDer<'static>) -> Self {
        Self {
            tls: Some((host.to_owned(), root)),
            ..Self::ws(address, host)
        }
    }

    /// Without TLS.
    pub fn ws(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            tls: None,
            host: host.to_owned(),
            path: "/?quiet".to_owned(),
            headers: Vec::new(),
            subprotocols: Vec::new(),
        }
    }

    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn subprotocol(mut self, name: &str) -> Self {
        self.subprotocols.push(name.to_owned());
        self
    }

    pub async fn try_connect(&self) -> Result<(WebSocket, Response), Error> {
        within("an opening handshake", self.dial()).await
    }

    /// An open socket; panics when refused.
    pub async fn connect(&self) -> WebSocket {
        match self.try_connect().await {
            Ok((socket, _)) => socket,
            Err(error) => panic!("{}{} was refused: {error}", self.host, self.path),
        }
    }

    /// The status of the answer: 101, or that of a refusal; `None` when there was no HTTP answer at all.
    pub async fn status(&self) -> Option<u16> {
        match self.try_connect().await {
            Ok(_) => Some(101),
            Err(Error::Http(response)) => Some(response.status().as_u16()),
            Err(_) => None,
        }
    }

    async fn dial(&self) -> Result<(WebSocket, Response), Error> {
        let stream: Box<dyn Io> = match &self.tls {
            Some((sni, root)) => Box::new(tls(self.address, sni, root.clone()).await?),
            None => Box::new(tcp(self.address).await?),
        };
        let uri = format!("ws://{}{}", self.host, self.path)
            .parse()
            .map_err(io::Error::other)?;
        let mut request = ClientRequestBuilder::new(uri);
        for (name, value) in &self.headers {
            request = request.with_header(name, value);
        }
        for name in &self.subprotocols {
            request = request.with_sub_protocol(name);
        }
        client_async(request, stream).await
    }
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TLS connection; an alert of the server is an error that wraps [`rustls::Error::AlertReceived`].
pub async fn tls(
    address: SocketAddr,
    sni: &str,
    root: CertificateDer<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    tls_over(tcp(address).await?, sni, root).await
}

/// The same over a connection that was made already.
pub async fn tls_over(
    tcp: TcpStream,
    sni: &str,
    root: CertificateDer<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(io::Error::other)?;
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(sni.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// The certificate that a new handshake shows; an error when the handshake fails.
pub async fn certificate_shown(
    address: SocketAddr,
    sni: &str,
    root: CertificateDer<'static>,
) -> io::Result<CertificateDer<'static>> {
    let stream = within("a TLS handshake", tls(address, sni, root)).await?;
    shown_on(&stream)
}

/// The certificate that was shown on this connection.
pub fn shown_on(stream: &TlsStream<TcpStream>) -> io::Result<CertificateDer<'static>> {
    let chain = stream.get_ref().1.peer_certificates();
    let shown = chain.and_then(|chain| chain.first()).cloned();
    shown.ok_or_else(|| io::Error::other("no certificate was shown"))
}

/// The alert with which a handshake was refused.
pub fn alert(error: &io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// The next message that is not a ping or a pong.
pub async fn next(socket: &mut WebSocket) -> Message {
    loop {
        match within("a message", socket.next()).await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return message,
            Some(Err(error)) => panic!("the socket failed: {error}"),
            None => panic!("the socket ended without a Close"),
        }
    }
}

/// Sends `text` and sees it come back: the socket lives, in both directions.
pub async fn talk(socket: &mut WebSocket, text: &str) {
    socket
        .send(Message::text(text))
        .await
        .expect("an open socket takes a message");
    assert_eq!(next(socket).await, Message::text(text), "the echo differs");
}

/// Reads to the Close and returns its code.
pub async fn close_code(socket: &mut WebSocket) -> u16 {
    loop {
        match next(socket).await {
            Message::Close(Some(frame)) => return frame.code.into(),
            Message::Close(None) => panic!("a Close without a code"),
            _ => {}
        }
    }
}
