//! Certificates: a chain with its private key, checked before anything serves it.
//!
//! In: PEM as a `kubernetes.io/tls` Secret holds it, or DER as the push carries it. Out: [`Certificate`], ready for rustls, with
//! the facts that others ask for (names, validity, fingerprint). The key's bytes live in [`PrivateKey`], which is wiped when
//! dropped, prints as `<key>` and has no serialisation; no error here repeats any input.

use std::fmt;
use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::digest::Output;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::{HostPattern, Hostname};

/// Names one `kubernetes.io/tls` Secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateKey {
    pub namespace: Arc<str>,
    pub secret: Arc<str>,
}

impl fmt::Display for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.secret)
    }
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A private key in DER: PKCS#8, PKCS#1 or SEC1.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    pub fn from_der(der: Vec<u8>) -> Self {
        Self(Zeroizing::new(der))
    }

    /// The bytes of the key, for the push encoder alone: nothing else may write them anywhere.
    pub fn expose_der(&self) -> &[u8] {
        &self.0
    }

    fn der(&self) -> Result<PrivateKeyDer<'_>, CertificateError> {
        PrivateKeyDer::try_from(self.0.as_slice()).map_err(|_| CertificateError::Key)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

/// What the controller says of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateResource {
    /// Serve this chain, leaf first.
    Serve {
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKey,
    },
    /// The Secret is there but cannot be used: who has its last good form serves on, who has none fails the handshake and says so
    /// ([`Invalid::NothingToHold`](crate::Invalid)).
    Hold,
}

/// Why a chain and key cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("tls.crt holds no PEM certificate")]
    NoCertificate,
    #[error("tls.crt holds a certificate that cannot be parsed")]
    Chain,
    #[error(
        "the first certificate of tls.crt cannot be served: it must be X.509 version 3, with its names as subjectAltName"
    )]
    Leaf,
    #[error("tls.key holds no usable PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted)")]
    Key,
    #[error(
        "tls.key does not belong to the first certificate of tls.crt; the leaf must come first, followed by its issuers"
    )]
    KeyMismatch,
}

/// A chain and key that belong together, ready to serve.
pub struct Certificate {
    resource: Arc<CertificateResource>,
    certified: Arc<CertifiedKey>,
    /// SHA-256 of the leaf.
    leaf_digest: Output<Sha256>,
    /// DNS names of the leaf; those that are not valid hostnames are left out.
    names: Vec<HostPattern>,
    not_before: i64,
    not_after: i64,
}

impl Certificate {
    /// Parses the two values of a `kubernetes.io/tls` Secret.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| CertificateError::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::Key)?;
        Self::new(chain, PrivateKey::from_der(key.secret_der().to_vec()))
    }

    /// Checks that the leaf parses and that the key belongs to it.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKey,
    ) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        for link in &chain {
            X509Certificate::from_der(link).map_err(|_| CertificateError::Chain)?;
        }
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::Chain)?;
        let names = dns_names(&parsed);
        let not_before = parsed.validity().not_before.timestamp();
        let not_after = parsed.validity().not_after.timestamp();
        let signing =
            aws_lc_rs::sign::any_supported_type(&key.der()?).map_err(|_| CertificateError::Key)?;
        let certified = CertifiedKey::new(chain.clone(), signing);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                CertificateError::KeyMismatch
            }
            _ => CertificateError::Leaf,
        })?;
        let leaf_digest = Sha256::digest(leaf);
        let resource = Arc::new(CertificateResource::Serve { chain, key });
        Ok(Self {
            resource,
            certified: Arc::new(certified),
            leaf_digest,
            names,
            not_before,
            not_after,
        })
    }

    /// The form that travels to the dataplane; shared, so that a table that has it already sees that at once.
    pub fn resource(&self) -> &Arc<CertificateResource> {
        &self.resource
    }

    /// The form that rustls signs with.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// Whether the leaf names `name` (RFC 6125 §6.4.3: a certificate's wildcard stands for exactly one label).
    pub fn is_for(&self, name: &Hostname) -> bool {
        self.names.iter().any(|pattern| match pattern {
            HostPattern::Exact(exact) => exact == name,
            HostPattern::Wildcard(suffix) => name
                .as_str()
                .split_once('.')
                .is_some_and(|(_, rest)| rest == suffix.as_str()),
        })
    }

    /// Whether the leaf can be right for a client of `pattern`: for a wildcard, it holds that wildcard or some name below it.
    pub fn serves(&self, pattern: &HostPattern) -> bool {
        match pattern {
            HostPattern::Exact(name) => self.is_for(name),
            HostPattern::Wildcard(_) => self.names.iter().any(|name| match name {
                HostPattern::Exact(exact) => pattern.covers(exact),
                HostPattern::Wildcard(suffix) => name == pattern || pattern.covers(suffix),
            }),
        }
    }

    /// SHA-256 of the leaf in hexadecimal, as people compare certificates.
    pub fn fingerprint(&self) -> String {
        format!("{:x}", self.leaf_digest)
    }

    /// SHA-256 of the leaf.
    pub(crate) fn leaf_digest(&self) -> &[u8] {
        &self.leaf_digest
    }

    /// First second of validity, since the Unix epoch.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Last second of validity, since the Unix epoch.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.resource == other.resource
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn dns_names(leaf: &X509Certificate<'_>) -> Vec<HostPattern> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => HostPattern::parse(name).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(names: &[&str]) -> (String, String) {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn matching_chain_and_key_are_accepted() {
        let (chain, key) = pem(&["chat.example.com", "*.rt.example.com"]);
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert!(certificate.is_for(&Hostname::parse("chat.example.com").unwrap()));
        assert!(certificate.is_for(&Hostname::parse("a.rt.example.com").unwrap()));
        assert!(!certificate.is_for(&Hostname::parse("a.b.rt.example.com").unwrap()));
        assert!(certificate.serves(&HostPattern::parse("*.rt.example.com").unwrap()));
        assert!(!certificate.serves(&HostPattern::parse("*.other.example.com").unwrap()));
    }

    #[test]
    fn foreign_key_is_refused() {
        let (chain, _) = pem(&["a.example.com"]);
        let (_, key) = pem(&["a.example.com"]);
        let refused = Certificate::from_pem(chain.as_bytes(), key.as_bytes());
        assert_eq!(refused.err(), Some(CertificateError::KeyMismatch));
    }

    #[test]
    fn garbage_is_refused_by_part() {
        let (chain, key) = pem(&["a.example.com"]);
        let refuse =
            |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes()).err();
        assert_eq!(refuse("", &key), Some(CertificateError::NoCertificate));
        assert_eq!(refuse(&chain, ""), Some(CertificateError::Key));
        assert_eq!(
            refuse(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &key
            ),
            Some(CertificateError::Chain)
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let (chain, key) = pem(&["a.example.com"]);
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert!(format!("{:?}", certificate.resource()).contains("<key>"));
        assert!(!format!("{certificate:?}").contains("key"));
    }
}
