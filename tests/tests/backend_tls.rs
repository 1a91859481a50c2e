//! TLS to external backends: which certificates are taken, what a backend is asked for, and that authorities can be changed.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig};
use tests::certificate::{Authority, Issued};
use tests::client::Dial;
use tests::dns::Dns;
use tests::gateway::{Gateway, Settings};
use tests::manifests::{Manifests, Rule, Security, Tls, external, route};
use tests::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const HOST: &str = "outer.example.com";
const NAME: &str = "inner.example.com";
const BACKEND: &str = "inner";
const EXTERNAL_FILE: &str = "external.yaml";

/// What a backend here answers to every request, once TLS stands.
const REACHED: u16 = 403;
/// Without TLS that can be trusted.
const NOT_REACHED: u16 = 502;

/// What a client of the backend asked for.
#[derive(Debug, PartialEq)]
struct Asked {
    name: Option<String>,
    protocol: Option<Vec<u8>>,
    resumed: bool,
}

/// A backend that speaks TLS and refuses every request.
struct Backend {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Backend {
    async fn start(issued: &Issued, protocols: &[&str]) -> Self {
        let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a chain");
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a key that fits");
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                // Who does not like the certificate goes away here.
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    continue;
                };
                let facts = tls.get_ref().1;
                let asked = Asked {
                    name: facts.server_name().map(ToOwned::to_owned),
                    protocol: facts.alpn_protocol().map(ToOwned::to_owned),
                    resumed: facts.handshake_kind() == Some(HandshakeKind::Resumed),
                };
                let mut head = [0; 4096];
                if !matches!(tls.read(&mut head).await, Ok(1..)) {
                    continue;
                }
                lock(&seen).push(asked);
                let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
                // A client that is gone has what it wanted.
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        Self {
            port,
            asked,
            _tasks: tasks,
        }
    }

    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.asked))
    }
}

fn lock(asked: &Mutex<Vec<Asked>>) -> std::sync::MutexGuard<'_, Vec<Asked>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A gateway whose one rule leads to the backend.
struct Scene {
    manifests: Manifests,
    gateway: Gateway,
    port: u16,
    _dns: Dns,
}

impl Scene {
    async fn start(backend: &Backend, trusted: &str) -> Self {
        let dns = Dns::start().await;
        dns.leads(NAME, &["127.0.0.1"], 60);
        let manifests = Manifests::new();
        let port = backend.port;
        let text = external(BACKEND, NAME, port, &Security::TlsBy(trusted));
        manifests.write(EXTERNAL_FILE, &text);
        let rules = [Rule::to_external(BACKEND)];
        manifests.write("route.yaml", &route("outer", &[HOST], &Tls::Plain, &rules));
        let settings = Settings::with(&["--resolver", &dns.address.to_string()]);
        let gateway = Gateway::start(&[manifests.path()], &settings).await;
        Self {
            manifests,
            gateway,
            port,
            _dns: dns,
        }
    }

    fn trust(&self, pem: &str) {
        let text = external(BACKEND, NAME, self.port, &Security::TlsBy(pem));
        self.manifests.write(EXTERNAL_FILE, &text);
    }

    async fn status(&self) -> Option<u16> {
        Dial::ws(self.gateway.http, HOST).status().await
    }

    async fn becomes(&self, status: u16) {
        wait::until(&format!("an answer of {status}"), async || {
            (self.status().await? == status).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_certificate_counts_for_its_names_its_time_and_its_authority() {
    let authority = Authority::new();
    let issue = |names: &[&str]| authority.issue(names);
    let between = |years| authority.issue_between(&[NAME], Some(years));
    for (what, issued, protocols, expected) in [
        ("the name", issue(&[NAME]), &["http/1.1"][..], REACHED),
        ("no ALPN", issue(&[NAME]), &[], REACHED),
        (
            "several names",
            issue(&["a.example.com", NAME]),
            &[],
            REACHED,
        ),
        ("its wildcard", issue(&["*.example.com"]), &[], REACHED),
        (
            "both protocols",
            issue(&[NAME]),
            &["h2", "http/1.1"],
            REACHED,
        ),
        ("another name", issue(&[HOST]), &[], NOT_REACHED),
        (
            "a wildcard below",
            issue(&["*.inner.example.com"]),
            &[],
            NOT_REACHED,
        ),
        ("a wildcard above", issue(&["*.com"]), &[], NOT_REACHED),
        ("expired", between([2020, 2021]), &[], NOT_REACHED),
        ("not valid yet", between([2200, 2201]), &[], NOT_REACHED),
        ("h2 alone", issue(&[NAME]), &["h2"], NOT_REACHED),
        (
            "a stranger's",
            Authority::new().issue(&[NAME]),
            &[],
            NOT_REACHED,
        ),
    ] {
        let backend = Backend::start(&issued, protocols).await;
        let scene = Scene::start(&backend, &authority.root_pem()).await;
        assert_eq!(scene.status().await, Some(expected), "{what}");
        let protocol = (!protocols.is_empty()).then(|| b"http/1.1".to_vec());
        let asked = Asked {
            name: Some(NAME.to_owned()),
            protocol,
            resumed: false,
        };
        let expected = if expected == REACHED {
            vec![asked]
        } else {
            Vec::new()
        };
        assert_eq!(backend.take(), expected, "{what}");
    }
}

#[tokio::test]
async fn authorities_are_changed_while_it_serves_and_no_old_session_passes_by_the_new_ones() {
    let (old, new) = (Authority::new(), Authority::new());
    let (old_pem, new_pem) = (old.root_pem(), new.root_pem());
    let backend = Backend::start(&old.issue(&[NAME]), &[]).await;
    let scene = Scene::start(&backend, &old_pem).await;
    for _ in 0..2 {
        assert_eq!(scene.status().await, Some(REACHED));
    }
    let resumed = backend
        .take()
        .iter()
        .map(|asked| asked.resumed)
        .collect::<Vec<_>>();
    assert_eq!(resumed, [false, true], "there is a session to misuse");
    scene.trust(&new_pem);
    scene.becomes(NOT_REACHED).await;
    backend.take();
    assert_eq!(scene.status().await, Some(NOT_REACHED));
    assert_eq!(backend.take(), []);
    // As in a rotation: both, then the new one alone.
    scene.trust(&format!("{old_pem}{new_pem}"));
    scene.becomes(REACHED).await;
    assert!(!backend.take().first().expect("a request").resumed);
}
