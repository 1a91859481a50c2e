//! The protocol of the push, for tests that play one side of it. The messages are generated from `push.proto`, and everything
//! else is what that text says: a mistake of the product's own code cannot hide in here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use crate::certificate::Issued;
use crate::manifests::SERVICE_PORT;

/// Generated from `push.proto`.
pub mod wire {
    #![allow(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        unused_qualifications,
        unreachable_pub,
        reason = "generated code"
    )]
    tonic::include_proto!("ws_ingress.push.v1");
}

/// The one name in the certificate of a controller.
pub const SERVER_NAME: &str = "controller.ws-ingress.internal";

/// The namespace of everything that a played controller sends.
pub const NAMESPACE: &str = "played";

/// What a controller wants a dataplane to hold, by key.
#[derive(Clone, Default)]
pub struct Set(BTreeMap<String, wire::Resource>);

impl Set {
    #[must_use]
    pub fn with(mut self, resource: wire::Resource) -> Self {
        self.0.insert(resource.key.clone(), resource);
        self
    }

    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.0.remove(key).expect("what is taken out is in the set");
        self
    }

    /// All of both; where both have a key, this one's.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (key, resource) in &other.0 {
            let kept = self.0.entry(key.clone());
            kept.or_insert_with(|| resource.clone());
        }
        self
    }

    pub fn get(&self, key: &str) -> wire::Resource {
        self.0.get(key).expect("it is in the set").clone()
    }

    /// SHA-256 over keys and digests in the order of the keys.
    pub fn version(&self) -> Bytes {
        let mut hash = Sha256::new();
        for (key, resource) in &self.0 {
            add(&mut hash, key.as_bytes());
            hash.update(digest(resource));
        }
        Bytes::copy_from_slice(&hash.finalize())
    }

    /// All of it.
    pub fn full(&self) -> wire::Update {
        wire::Update {
            base: None,
            version: self.version(),
            upserts: self.0.values().cloned().collect(),
            removals: Vec::new(),
            more: false,
        }
    }

    /// What leads from `before` to this.
    pub fn since(&self, before: &Self) -> wire::Update {
        let new = self
            .0
            .iter()
            .filter(|(key, resource)| before.0.get(*key) != Some(resource));
        let gone = before.0.keys().filter(|key| !self.0.contains_key(*key));
        wire::Update {
            base: Some(before.version()),
            version: self.version(),
            upserts: new.map(|(_, resource)| resource.clone()).collect(),
            removals: gone.cloned().collect(),
            more: false,
        }
    }
}

/// SHA-256 over the resource as it travels, each part after its length in 8 bytes.
fn digest(resource: &wire::Resource) -> [u8; 32] {
    let mut hash = Sha256::new();
    add(&mut hash, resource.key.as_bytes());
    hash.update((resource.requires.len() as u64).to_be_bytes());
    for feature in &resource.requires {
        add(&mut hash, feature.as_bytes());
    }
    add(&mut hash, &resource.body);
    hash.finalize().into()
}

fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// The key of a route, a certificate or the backend on [`SERVICE_PORT`].
pub fn route_key(name: &str) -> String {
    format!("route/{NAMESPACE}/{name}")
}

pub fn certificate_key(name: &str) -> String {
    format!("certificate/{NAMESPACE}/{name}")
}

pub fn backend_key(name: &str) -> String {
    format!("backend/{NAMESPACE}/{name}/{SERVICE_PORT}")
}

/// A resource of these bytes, whatever they are.
pub fn resource(key: String, requires: &[&str], body: impl Into<Bytes>) -> wire::Resource {
    wire::Resource {
        key,
        requires: requires.iter().map(ToString::to_string).collect(),
        body: body.into(),
    }
}

/// A route of one host and every path, with the certificate of the route's name.
pub fn route(name: &str, host: &str, requires: &[&str], backend: &str) -> wire::Resource {
    let seconds = |seconds| Some(wire::Duration { seconds, nanos: 0 });
    let certificate = wire::CertificateRef {
        namespace: NAMESPACE.to_owned(),
        secret: name.to_owned(),
    };
    let tls = wire::route_hostname::Tls::Terminate(wire::Terminate {
        certificates: vec![certificate],
        on_plain: wire::OnPlain::Redirect.into(),
    });
    let rule = wire::Rule {
        name: "0".to_owned(),
        matches: vec![wire::RouteMatch {
            path: Some(wire::route_match::Path::Prefix("/".to_owned())),
            ..wire::RouteMatch::default()
        }],
        non_upgrade: wire::NonUpgrade::Reject.into(),
        backends: vec![wire::WeightedBackend {
            external: None,
            namespace: NAMESPACE.to_owned(),
            service: backend.to_owned(),
            port: SERVICE_PORT.into(),
            weight: 1,
            proxy_protocol: 0,
        }],
        timeouts: Some(wire::Timeouts {
            connect: seconds(5),
            handshake: seconds(10),
            read: seconds(3600),
            send: seconds(60),
        }),
        ..wire::Rule::default()
    };
    let message = wire::Route {
        created: Some(0),
        hostnames: vec![wire::RouteHostname {
            pattern: host.to_owned(),
            tls: Some(tls),
        }],
        rules: vec![rule],
    };
    resource(route_key(name), requires, message.encode_to_vec())
}

/// A certificate with its key.
pub fn certificate(name: &str, issued: &Issued) -> wire::Resource {
    certificate_of(name, issued, issued)
}

/// The chain of one and the key of another.
pub fn certificate_of(name: &str, chain: &Issued, key: &Issued) -> wire::Resource {
    let chain = CertificateDer::pem_slice_iter(chain.chain_pem.as_bytes())
        .map(|link| Bytes::copy_from_slice(&link.expect("a certificate")));
    let key = PrivateKeyDer::from_pem_slice(key.key_pem.as_bytes()).expect("a key");
    let serve = wire::Serve {
        chain: chain.collect(),
        key: Bytes::copy_from_slice(key.secret_der()),
    };
    let message = wire::Certificate {
        certificate: Some(wire::certificate::Certificate::Serve(serve)),
    };
    resource(certificate_key(name), &[], message.encode_to_vec())
}

/// A backend of one ready address.
pub fn backend(name: &str, address: SocketAddr) -> wire::Resource {
    let ip = match address.ip() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    };
    let endpoint = wire::Endpoint {
        address: ip,
        port: address.port().into(),
        state: wire::EndpointState::Ready.into(),
    };
    let message = wire::Backend {
        endpoints: vec![endpoint],
    };
    resource(backend_key(name), &[], message.encode_to_vec())
}
