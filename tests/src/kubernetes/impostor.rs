//! A controller that a test plays, with the certificate of the real one: for what the real one never says. It asks nobody
//! whether it leads and believes every token.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{Stream, unfold};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, version};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status, Streaming};

use super::credentials::Pair;
use super::push::wire::push_server::{Push, PushServer};
use super::push::wire::{
    Ack, Fence, FromController, FromDataplane, Hello, Nack, Update, Welcome, from_controller,
    from_dataplane,
};
use super::release::Release;
use crate::wait::{self, within};

/// Where the controller keeps the keys of the push.
const SECRET: &str = "ws-ingress-push";

/// The name of its authority.
const AUTHORITY: &str = "ws-ingress controller CA";

/// Longest time to the next dial of a dataplane that was turned away before: it waits up to 10 s, and dials for up to 5 s.
const DIAL: Duration = Duration::from_secs(30);

/// Streams, and messages of one, that wait for the test.
const AHEAD: usize = 4;

/// What a dataplane said to an update.
#[derive(Debug)]
pub enum Answer {
    Ack(Ack),
    Nack(Nack),
}

/// A played controller. It ends with its owner, and all streams with it.
pub struct Impostor {
    pub address: SocketAddr,
    streams: mpsc::Receiver<Served>,
    _tasks: JoinSet<()>,
}

/// A stream of a dataplane, from the controller's end.
pub struct Served {
    pub hello: Hello,
    to: mpsc::Sender<Result<FromController, Status>>,
    from: Streaming<FromDataplane>,
}

/// The certificate and key of the real controllers, out of their Secret.
pub async fn material(release: &Release) -> Pair {
    let [certificate, key] = ["tls.crt", "tls.key"];
    Pair {
        certificate: secret(release, certificate).await,
        key: secret(release, key).await,
    }
}

/// A certificate for another name than the controllers', of their own authority.
pub async fn material_for(release: &Release, name: &str) -> Pair {
    let authority = KeyPair::from_pem(&secret(release, "ca.key").await).expect("the authority");
    let mut issuer = CertificateParams::new([]).expect("no names to refuse");
    issuer
        .distinguished_name
        .push(DnType::CommonName, AUTHORITY);
    let issuer = Issuer::new(issuer, authority);
    let mut params = CertificateParams::new([name.to_owned()]).expect("a valid name");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().expect("a key");
    let signed = params.signed_by(&key, &issuer).expect("a certificate");
    Pair {
        certificate: signed.pem(),
        key: key.serialize_pem(),
    }
}

async fn secret(release: &Release, value: &str) -> String {
    let path = release.namespace.path("v1/secrets", SECRET);
    wait::until("the controller keeps its keys", async || {
        let (_, secret) = release.cluster().api().get(&path).await;
        let bytes = STANDARD.decode(secret["data"][value].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    })
    .await
}

impl Impostor {
    pub async fn start(pair: &Pair) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port of 127.0.0.1");
        let address = listener.local_addr().expect("a bound address");
        let (sender, streams) = mpsc::channel(AHEAD);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, tls(pair), Played(sender)));
        Self {
            address,
            streams,
            _tasks: tasks,
        }
    }

    /// The next stream that a dataplane begins.
    pub async fn next(&mut self) -> Served {
        wait::until_limit("a dataplane dials", DIAL, async || {
            self.streams.recv().await
        })
        .await
    }
}

fn tls(pair: &Pair) -> Arc<ServerConfig> {
    let chain = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .expect("a version that there is")
        .with_no_client_auth()
        .with_single_cert(vec![chain.expect("a certificate")], key.expect("a key"))
        .expect("a key that fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, played: Played) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        connections.spawn(speak(
            tcp,
            TlsAcceptor::from(Arc::clone(&tls)),
            played.clone(),
        ));
    }
}

async fn speak(tcp: TcpStream, tls: TlsAcceptor, played: Played) {
    // Who does not like the certificate goes away here.
    let Ok(tls) = tls.accept(tcp).await else {
        return;
    };
    let calls = PushServer::new(played);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        calls.clone().call(request.map(tonic::body::Body::new))
    });
    let http = http2::Builder::new(TokioExecutor::new());
    // It ends with the stream or with the test.
    let _ = http.serve_connection(TokioIo::new(tls), service).await;
}

#[derive(Clone)]
struct Played(mpsc::Sender<Served>);

#[tonic::async_trait]
impl Push for Played {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<FromController, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<FromDataplane>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut from = request.into_inner();
        let first = from.message().await?.and_then(|first| first.message);
        let Some(from_dataplane::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (to, messages) = mpsc::channel(AHEAD);
        let served = Served { hello, to, from };
        let taken = self.0.send(served).await;
        taken.map_err(|_| Status::unavailable("the test is over"))?;
        let messages = unfold(messages, |mut messages| async {
            messages.recv().await.map(|message| (message, messages))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

impl Served {
    /// Says Welcome with this Lease and so many transitions of it.
    pub async fn welcome(&self, lease_uid: &str, transitions: u64) {
        let fence = Fence {
            lease_uid: lease_uid.to_owned(),
            transitions,
        };
        let welcome = Welcome { fence: Some(fence) };
        self.send(from_controller::Message::Welcome(welcome)).await;
    }

    /// Sends an update and waits for the answer.
    pub async fn update(&mut self, update: Update) -> Answer {
        self.send(from_controller::Message::Update(update)).await;
        let answer = within("an answer of the dataplane", self.from.message()).await;
        match answer.map(|answer| answer.and_then(|answer| answer.message)) {
            Ok(Some(from_dataplane::Message::Ack(ack))) => Answer::Ack(ack),
            Ok(Some(from_dataplane::Message::Nack(nack))) => Answer::Nack(nack),
            other => panic!("no answer but {other:?}"),
        }
    }

    /// The keys that a dataplane does not serve as they were sent, and why, after an update that it must take.
    pub async fn taken(&mut self, update: Update) -> Vec<(String, String)> {
        let version = update.version.clone();
        match self.update(update).await {
            Answer::Ack(ack) => {
                assert_eq!(ack.version, version, "it took something else");
                let rejected = ack.rejected.into_iter();
                rejected.map(|one| (one.key, one.reason)).collect()
            }
            Answer::Nack(nack) => panic!("the update was refused: {}", nack.reason),
        }
    }

    /// Waits until the dataplane has left without another word.
    pub async fn left(&mut self) {
        let next = within("the dataplane leaves", self.from.message()).await;
        if let Ok(Some(said)) = next {
            panic!("it stays and says {said:?}");
        }
    }

    async fn send(&self, message: from_controller::Message) {
        let message = FromController {
            message: Some(message),
        };
        let sent = self.to.send(Ok(message)).await;
        sent.expect("the dataplane is there");
    }
}
