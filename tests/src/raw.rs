//! A connection as bytes, plain or over TLS: what a WebSocket client would never send, and how exactly a stream ended.
//! The scripted backends use it for their side too.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client;
use crate::frame::{self, Frame};
use crate::wait::within;

/// The key of RFC 6455 §1.3, and the accept that belongs to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The receive buffer of [`Connection::narrow_tls`] and of every scripted backend: few bytes fill the way to a side that
/// does not read, and the kernel does not widen it.
pub(crate) const NARROW_BYTES: u32 = 128 * 1024;

/// How the other side ended a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// TLS `close_notify`.
    CloseNotify,
    /// FIN; on a TLS stream that means: without `close_notify`.
    Fin,
    Reset,
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One connection and what was read of it beyond what a test asked for.
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

/// A request as a backend read it, up to the empty line.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// A good opening handshake with [`KEY`]; `more` is further header lines, each with its CRLF.
pub fn upgrade(host: &str, path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

impl Connection {
    pub async fn plain(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::from_tcp(
            within("a TCP connection", TcpStream::connect(address)).await?,
        ))
    }

    pub async fn tls(
        address: SocketAddr,
        sni: &str,
        root: CertificateDer<'static>,
    ) -> io::Result<Self> {
        let stream = within("a TLS handshake", client::tls(address, sni, root)).await?;
        Ok(Self {
            stream: Stream::Tls(Box::new(stream)),
            buffer: Vec::new(),
        })
    }

    /// The same after these bytes, which stand before the TLS handshake.
    pub async fn tls_after(
        first: &[u8],
        address: SocketAddr,
        sni: &str,
        root: CertificateDer<'static>,
    ) -> io::Result<Self> {
        let connecting = async {
            let mut tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            tcp.write_all(first).await?;
            client::tls_over(tcp, sni, root).await
        };
        Ok(Self {
            stream: Stream::Tls(Box::new(within("a TLS handshake", connecting).await?)),
            buffer: Vec::new(),
        })
    }

    /// From this address of our own, so that client and proxy can be told apart.
    pub async fn plain_from(source: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let connecting = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(address).await
        };
        Ok(Self::from_tcp(
            within("a TCP connection", connecting).await?,
        ))
    }

    /// The same over TLS.
    pub async fn tls_from(
        source: IpAddr,
        address: SocketAddr,
        sni: &str,
        root: CertificateDer<'static>,
    ) -> io::Result<Self> {
        let Self { stream, buffer } = Self::plain_from(source, address).await?;
        let Stream::Tcp(tcp) = stream else {
            return Err(ErrorKind::Unsupported.into());
        };
        let stream = within("a TLS handshake", client::tls_over(tcp, sni, root)).await?;
        Ok(Self {
            stream: Stream::Tls(Box::new(stream)),
            buffer,
        })
    }

    /// The same with a receive buffer of `NARROW_BYTES`.
    pub async fn narrow_tls(
        address: SocketAddr,
        sni: &str,
        root: CertificateDer<'static>,
    ) -> io::Result<Self> {
        let connecting = async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(NARROW_BYTES)?;
            let tcp = socket.connect(address).await?;
            tcp.set_nodelay(true)?;
            client::tls_over(tcp, sni, root).await
        };
        Ok(Self {
            stream: Stream::Tls(Box::new(within("a TLS handshake", connecting).await?)),
            buffer: Vec::new(),
        })
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    /// This side's address and the other's.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let tcp = self.tcp();
        let addresses = tcp.local_addr().and_then(|own| Ok((own, tcp.peer_addr()?)));
        addresses.expect("a connected socket")
    }

    pub(crate) fn from_tcp(stream: TcpStream) -> Self {
        // A held frame is written in parts that must leave at once.
        let _ = stream.set_nodelay(true);
        Self {
            stream: Stream::Tcp(stream),
            buffer: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes.as_ref()).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes.as_ref()).await?;
                stream.flush().await
            }
        }
    }

    /// The connection below TLS, for what no TLS would send.
    pub fn below_tls(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Ends this side's writing: `close_notify` on TLS, then FIN. Reading goes on.
    pub async fn finish(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
        }
    }

    /// Ends the connection with a TCP reset.
    pub fn reset(self) {
        self.tcp()
            .set_zero_linger()
            .expect("a socket takes SO_LINGER");
    }

    /// Reads more; 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        let read = async {
            match &mut self.stream {
                Stream::Tcp(stream) => stream.read_buf(&mut self.buffer).await,
                Stream::Tls(stream) => stream.read_buf(&mut self.buffer).await,
            }
        };
        within("bytes or the end of a stream", read).await
    }

    async fn must_fill(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Waits until `count` bytes are here, and leaves them to be read.
    pub async fn holds(&mut self, count: usize) -> io::Result<()> {
        while self.buffer.len() < count {
            self.must_fill().await?;
        }
        Ok(())
    }

    /// The next `count` bytes.
    pub async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.holds(count).await?;
        Ok(self.buffer.drain(..count).collect())
    }

    /// The next bytes, up to and with `end`.
    pub async fn through(&mut self, end: &str) -> io::Result<String> {
        loop {
            let mut windows = self.buffer.windows(end.len());
            if let Some(at) = windows.position(|part| part == end.as_bytes()) {
                let bytes = self.exactly(at + end.len()).await?;
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            self.must_fill().await?;
        }
    }

    /// Whether nothing arrives and nothing ends for `time`. That nothing comes can only be watched for a while.
    pub async fn quiet_for(&mut self, time: Duration) -> bool {
        self.buffer.is_empty() && timeout(time, self.fill()).await.is_err()
    }

    /// The next whole frame.
    pub async fn frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some((frame, used)) = frame::parse(&self.buffer) {
                self.buffer.drain(..used);
                return Ok(frame);
            }
            self.must_fill().await?;
        }
    }

    /// Reads to the end: the bytes that still came, and how it ended. A stream that ended in TLS must then end in TCP.
    pub async fn end(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            match (self.fill().await, &self.stream) {
                (Ok(0), Stream::Tcp(_)) => break End::Fin,
                (Ok(0), Stream::Tls(_)) => break End::CloseNotify,
                (Ok(_), _) => {}
                (Err(error), _) if error.kind() == ErrorKind::UnexpectedEof => break End::Fin,
                (Err(error), _) if error.kind() == ErrorKind::ConnectionReset => break End::Reset,
                (Err(error), _) => panic!("a stream ended in an odd way: {error}"),
            }
        };
        (std::mem::take(&mut self.buffer), end)
    }

    /// After [`End::CloseNotify`]: whether FIN follows.
    pub async fn fin_follows(&mut self) -> bool {
        let Stream::Tls(stream) = &mut self.stream else {
            return false;
        };
        let mut rest = [0; 1];
        let read = stream.get_mut().0.read(&mut rest);
        matches!(within("FIN after close_notify", read).await, Ok(0))
    }

    /// A request head, as a backend reads it.
    pub async fn request(&mut self) -> io::Result<Request> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(used) =
                head.parse(&self.buffer).map_err(io::Error::other)?
            {
                let request = Request {
                    method: head.method.unwrap_or_default().to_owned(),
                    target: head.path.unwrap_or_default().to_owned(),
                    headers: owned(head.headers),
                };
                self.buffer.drain(..used);
                return Ok(request);
            }
            self.must_fill().await?;
        }
    }

    /// A response to a request with `method`, its body framed by length, by chunks, or by the end of the stream.
    pub async fn response(&mut self, method: &str) -> io::Result<Response> {
        let (status, headers) = self.response_head().await?;
        let chunked = find(&headers, "transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = find(&headers, "content-length").and_then(|value| value.parse().ok());
        let body = match (method, status, chunked, length) {
            ("HEAD", ..) | (_, 100..=199 | 204 | 304, ..) => Vec::new(),
            (_, _, true, _) => self.chunks().await?,
            (_, _, false, Some(length)) => self.exactly(length).await?,
            (_, _, false, None) => self.end().await.0,
        };
        Ok(Response {
            status,
            headers,
            body,
        })
    }

    async fn response_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(used) =
                head.parse(&self.buffer).map_err(io::Error::other)?
            {
                let answer = (head.code.unwrap_or_default(), owned(head.headers));
                self.buffer.drain(..used);
                return Ok(answer);
            }
            self.must_fill().await?;
        }
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line().await?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            body.extend(self.exactly(size).await?);
            // The CRLF after the data; after the last chunk, the end of the (empty) trailer.
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// The next line, without its CRLF.
    pub async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.exactly(at + 2).await?;
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.must_fill().await?;
        }
    }
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    let text = |header: &httparse::Header<'_>| String::from_utf8_lossy(header.value).into_owned();
    headers
        .iter()
        .map(|header| (header.name.to_owned(), text(header)))
        .collect()
}
