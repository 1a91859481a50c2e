//! What a TLS handshake for a host is decided by, as one value that can be compared.
//!
//! Whoever resumes a session skips what the first handshake checked, so a ticket is worth something only while this stays as it was
//! (RFC 8446 §8.1 and appendix E.6 leave that to the server).

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{CertificateKey, Host, HostTls, RouteTable};

/// A digest of everything that decides about a handshake: the pattern that covers the hostname, and the certificates that prove it, by whose
/// Secret and which leaf. What of a host does not bear on its handshakes, such as its rules, is not in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TlsPolicy([u8; 32]);

impl TlsPolicy {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", &self.0[..4])
    }
}

impl RouteTable {
    /// The policy of one of this table's hosts.
    pub fn tls_policy(&self, host: &Host) -> TlsPolicy {
        let mut digest = Sha256::new();
        put(&mut digest, host.pattern().to_string().as_bytes());
        // A setting that is added here has to be taken or left out by name.
        match host.tls() {
            HostTls::Terminate {
                certificates,
                plain: _,
            } => {
                for key in certificates {
                    self.put_certificate(&mut digest, key);
                }
            }
            HostTls::None => {}
        }
        TlsPolicy(digest.finalize().into())
    }

    fn put_certificate(&self, digest: &mut Sha256, key: &CertificateKey) {
        let CertificateKey { namespace, secret } = key;
        put(digest, namespace.as_bytes());
        put(digest, secret.as_bytes());
        let leaf = self.certificate(key).map(|held| held.leaf_digest());
        put(digest, leaf.unwrap_or_default());
    }
}

/// With its length, so that two values never read as two others.
fn put(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}
