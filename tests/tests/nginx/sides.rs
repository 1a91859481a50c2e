//! nginx and ws-ingress side by side: the example's files for each, with the same certificates and the same backend.

use std::fs;
use std::net::SocketAddr;

use tests::backend::refusing;
use tests::certificate::Authority;
use tests::gateway::{Gateway, Settings};
use tests::manifests::{Manifests, secret};
use tests::nginx::{Nginx, Prepared, examples};
use tests::raw::Connection;
use tests::scene::HOST;

/// The other server of the recipe's outer hop.
pub(crate) const SECOND_HOST: &str = "rt.example.com";

/// One of the two, as a client sees it.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) https: SocketAddr,
    root: rustls::pki_types::CertificateDer<'static>,
}

impl Side {
    /// A TLS connection with the SNI of [`HOST`].
    pub(crate) async fn connect(&self) -> Connection {
        let connecting = Connection::tls(self.https, HOST, self.root.clone());
        connecting.await.expect("a TLS handshake")
    }
}

pub(crate) struct Pair {
    pub(crate) nginx: Side,
    pub(crate) ours: Side,
    _nginx: Nginx,
    pub(crate) gateway: Gateway,
    _manifests: Manifests,
}

impl Pair {
    /// Both in front of this backend; `None` when nginx is not installed. `read` stands for
    /// the recipe's 60 s.
    pub(crate) async fn start(backend: SocketAddr, read: &str) -> Option<Self> {
        let authority = Authority::new();
        let issued = authority.issue(&[HOST]);
        let address = refusing();
        let nginx = Prepared::new("outer.conf")?
            .with("listen 443 ssl", &format!("listen {address} ssl"))
            .with_certificate(HOST, &issued)
            .with_certificate(SECOND_HOST, &authority.issue(&[SECOND_HOST]))
            .with("server 127.0.0.1:8282", &format!("server {backend}"))
            .with("server inner.example.net:80", &format!("server {backend}"))
            .with(
                "proxy_read_timeout 60s",
                &format!("proxy_read_timeout {read}"),
            )
            .start(address)
            .await;
        let manifests = Manifests::new();
        copy("outer", backend, read, &manifests);
        manifests.write("certificate.yaml", &secret("chat-tls", &issued));
        let gateway = Gateway::start(&[manifests.path()], &Settings::default()).await;
        let side = |name, https| Side {
            name,
            https,
            root: authority.root(),
        };
        Some(Self {
            nginx: side("nginx", address),
            ours: side("ws-ingress", gateway.https),
            _nginx: nginx,
            gateway,
            _manifests: manifests,
        })
    }
}

/// The manifests of one folder of the example, with this backend instead of port 8282 of this machine, and `read` for its 60 s.
pub(crate) fn copy(folder: &str, backend: SocketAddr, read: &str, manifests: &Manifests) {
    for name in ["websocketroute.yaml", "backend.yaml"] {
        let path = examples().join(folder).join(name);
        let text = fs::read_to_string(path).expect("a manifest of the example");
        assert!(text.contains("port: 8282") || text.contains("read: 60s"));
        let text = text.replace("port: 8282", &format!("port: {}", backend.port()));
        let text = text.replace("read: 60s", &format!("read: {read}"));
        manifests.write(&format!("{folder}-{name}"), &text);
    }
}
