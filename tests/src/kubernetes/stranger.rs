//! Whoever dials the push: a dataplane that a test plays, or somebody who is none. TLS, HTTP/2 and gRPC are real; what is
//! shown and said is the test's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::{Code, Status, Streaming};

use super::push::SERVER_NAME;
use super::push::wire::push_client::PushClient;
use super::push::wire::{
    Ack, FromController, FromDataplane, Hello, Nack, Rejected, Update, Welcome, from_controller,
    from_dataplane,
};
use crate::wait::within;

/// Messages that wait to be sent; a test sends one and waits for the answer.
const AHEAD: usize = 4;

/// How to dial.
#[derive(Clone)]
pub struct Stranger {
    pub address: SocketAddr,
    /// The address of its own: all of 127.0.0.0/8 is this machine.
    pub from: Ipv4Addr,
    /// The server that it wants to meet.
    pub name: &'static str,
    tls: Arc<ClientConfig>,
}

/// Why a call was turned away before it began.
#[derive(Debug)]
pub enum Refused {
    /// No connection.
    Connection(io::Error),
    Call(Status),
}

/// HTTP/2 to a controller.
struct Connection {
    sender: SendRequest<Body>,
    driver: JoinSet<()>,
}

/// A call that was taken, from the dataplane's end.
pub struct Stream {
    to: mpsc::Sender<FromDataplane>,
    from: Streaming<FromController>,
    /// Ends with this.
    _driver: JoinSet<()>,
}

impl Stranger {
    /// As a dataplane dials: with TLS 1.3, and with trust in this bundle alone.
    pub fn new(address: SocketAddr, bundle: &str) -> Self {
        Self::with_tls(address, bundle, &version::TLS13)
    }

    pub fn with_tls(
        address: SocketAddr,
        bundle: &str,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            let root = root.expect("the bundle holds certificates");
            roots.add(root).expect("and each is an authority");
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version that there is")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            address,
            from: Ipv4Addr::LOCALHOST,
            name: SERVER_NAME,
            tls: Arc::new(tls),
        }
    }

    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(self.from), 0))?;
        let tcp = socket.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    pub async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.name).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(name, self.tcp().await?).await
    }

    async fn http(&self) -> io::Result<Connection> {
        let io = TokioIo::new(self.tls().await?);
        let (sender, connection) = handshake(TokioExecutor::new(), io)
            .await
            .map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it ended, the call says.
            let _ = connection.await;
        });
        Ok(Connection { sender, driver })
    }

    /// Begins a stream with this token, if any, and an empty Hello.
    pub async fn call(&self, token: Option<&str>) -> Result<Stream, Refused> {
        let hello = from_dataplane::Message::Hello(Hello::default());
        self.call_with(token, hello).await
    }

    /// The same with another first message.
    pub async fn call_with(
        &self,
        token: Option<&str>,
        first: from_dataplane::Message,
    ) -> Result<Stream, Refused> {
        let Connection { sender, driver } = self.http().await.map_err(Refused::Connection)?;
        let (to, messages) = mpsc::channel(AHEAD);
        // The channel is new and holds several.
        let _ = to.try_send(message(first));
        let messages = unfold(messages, |mut messages| async {
            messages.recv().await.map(|message| (message, messages))
        });
        let mut request = tonic::Request::new(messages);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse();
            let value = value.expect("a token fits into a header");
            request.metadata_mut().insert("authorization", value);
        }
        let service = tower::service_fn(move |request| sender.clone().send_request(request));
        let origin = Uri::builder()
            .scheme("https")
            .authority(SERVER_NAME)
            .path_and_query("/")
            .build()
            .expect("a name is an authority");
        let mut client = PushClient::with_origin(service, origin);
        let from = client.connect(request).await.map_err(Refused::Call)?;
        Ok(Stream {
            to,
            from: from.into_inner(),
            _driver: driver,
        })
    }

    /// A call whose body are these bytes and no more: how the stream that it began ended.
    pub async fn call_with_bytes(&self, token: &str, bytes: Vec<u8>) -> io::Result<Status> {
        let mut connection = self.http().await?;
        let uri = format!("https://{SERVER_NAME}/ws_ingress.push.v1.Push/Connect");
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::new(Full::new(Bytes::from(bytes))));
        let request = request.map_err(io::Error::other)?;
        let answer = connection.sender.send_request(request).await;
        let answer = answer.map_err(io::Error::other)?;
        let said = Status::from_header_map(answer.headers());
        let rest = answer.into_body().collect().await;
        let rest = rest.map_err(io::Error::other)?;
        let last = rest.trailers().and_then(Status::from_header_map);
        last.or(said)
            .ok_or_else(|| io::Error::other("no status at the end of the call"))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "{error}"),
            Self::Call(status) => f.write_str(status.message()),
        }
    }
}

impl Stream {
    /// The next message; the last word of the stream if there is none.
    pub async fn next(&mut self) -> Result<from_controller::Message, Status> {
        let next = within("a message of the controller", self.from.message()).await?;
        let ended = || Status::new(Code::Ok, "the controller ended it");
        next.and_then(|next| next.message).ok_or_else(ended)
    }

    pub async fn welcome(&mut self) -> Welcome {
        match self.next().await {
            Ok(from_controller::Message::Welcome(welcome)) => welcome,
            other => panic!("no Welcome but {other:?}"),
        }
    }

    /// The parts of the next update.
    pub async fn update(&mut self) -> Vec<Update> {
        let mut parts = Vec::new();
        loop {
            let part = match self.next().await {
                Ok(from_controller::Message::Update(part)) => part,
                other => panic!("no update but {other:?}"),
            };
            let more = part.more;
            parts.push(part);
            if !more {
                return parts;
            }
        }
    }

    /// Takes an update, all but these resources, each with its reason.
    pub async fn ack(&self, parts: &[Update], rejected: &[(&str, &str)]) {
        let listed = rejected.iter().map(|(key, reason)| Rejected {
            key: (*key).to_owned(),
            reason: (*reason).to_owned(),
        });
        self.send(from_dataplane::Message::Ack(Ack {
            version: version_of(parts),
            rejected: listed.collect(),
            rejected_total: rejected.len() as u64,
        }))
        .await;
    }

    /// Takes whatever comes as a dataplane that enforces these features: all but what requires another.
    pub async fn take_as_one_with(&mut self, features: &[&str]) -> Infallible {
        let mut rejected = BTreeMap::new();
        loop {
            let next = self.from.message().await;
            let part = match next.map(|next| next.and_then(|next| next.message)) {
                Ok(Some(from_controller::Message::Update(part))) => part,
                other => panic!("no update but {other:?}"),
            };
            for key in &part.removals {
                rejected.remove(key);
            }
            for resource in &part.upserts {
                rejected.remove(&resource.key);
                let mut requires = resource.requires.iter();
                if let Some(feature) = requires.find(|name| !features.contains(&name.as_str())) {
                    rejected.insert(resource.key.clone(), format!("requires {feature}"));
                }
            }
            if !part.more {
                let rejected = rejected.iter();
                let rejected = rejected.map(|(key, reason)| (key.as_str(), reason.as_str()));
                self.ack(&[part], &rejected.collect::<Vec<_>>()).await;
            }
        }
    }

    /// Refuses an update whole.
    pub async fn nack(&self, parts: &[Update], reason: &str) {
        self.send(from_dataplane::Message::Nack(Nack {
            version: version_of(parts),
            reason: reason.to_owned(),
        }))
        .await;
    }

    pub async fn send(&self, said: from_dataplane::Message) {
        let sent = self.to.send(message(said)).await;
        sent.expect("the stream is open");
    }

    /// Reads to the end: the last word.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

fn message(message: from_dataplane::Message) -> FromDataplane {
    FromDataplane {
        message: Some(message),
    }
}

fn version_of(parts: &[Update]) -> Bytes {
    parts.last().expect("an update has parts").version.clone()
}
