//! The authority of one API server, and who a client of it is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;

/// Issues the certificate of the API server and those of its clients.
pub struct ClusterAuthority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Who a client says it is.
#[derive(Clone)]
pub enum Identity {
    /// The certificate's CN is the user, each of its O a group.
    Certificate(Pair),
    /// A `ServiceAccount`'s token.
    Token(String),
}

/// All that a client needs to reach one API server as somebody.
#[derive(Clone)]
pub struct Access {
    pub server: SocketAddr,
    pub root_pem: String,
    pub identity: Identity,
}

impl ClusterAuthority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names to refuse");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "ws-ingress test cluster");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a self-signed authority");
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// The server's own, for 127.0.0.1.
    pub fn server(&self) -> Pair {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a valid name");
        params
            .subject_alt_names
            .push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A user of these groups. `system:masters` may do everything.
    pub fn client(&self, user: &str, groups: &[&str]) -> Pair {
        let mut params = CertificateParams::new([]).expect("no names to refuse");
        params.distinguished_name.push(DnType::CommonName, user);
        // rcgen keeps one value for each type of name; nothing here needs two groups.
        assert!(groups.len() <= 1, "a certificate of several groups");
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    pub fn root_pem(&self) -> String {
        self.certificate.pem()
    }

    fn sign(&self, mut params: CertificateParams) -> Pair {
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a signed certificate");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Default for ClusterAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl Access {
    /// A kubeconfig with everything inside, in JSON, which is YAML too.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        let user = match &self.identity {
            Identity::Certificate(pair) => json!({
                "client-certificate-data": STANDARD.encode(&pair.certificate),
                "client-key-data": STANDARD.encode(&pair.key),
            }),
            Identity::Token(token) => json!({ "token": token }),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{
                "name": "test",
                "context": { "cluster": "test", "user": "test", "namespace": namespace },
            }],
            "clusters": [{
                "name": "test",
                "cluster": {
                    "server": format!("https://{}", self.server),
                    "certificate-authority-data": STANDARD.encode(&self.root_pem),
                },
            }],
            "users": [{ "name": "test", "user": user }],
        })
        .to_string()
    }

    /// The same for a client in this process.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.root_pem.as_bytes());
        roots
            .add(root.expect("the root is a certificate"))
            .expect("the root is an authority");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let config = match &self.identity {
            Identity::Certificate(pair) => {
                let chain = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
                builder
                    .with_client_auth_cert(
                        vec![chain.expect("a certificate")],
                        key.expect("its key"),
                    )
                    .expect("a key that fits")
            }
            Identity::Token(_) => builder.with_no_client_auth(),
        };
        Arc::new(config)
    }
}
