//! The CA and the server certificate: made, renewed, written down and read back. No I/O.
//!
//! The bundle holds the newest CA first and every older one until its end; only the newest has its key. A new CA signs nothing
//! at first: the CA before it signs one last server certificate, so that every dataplane has the new bundle long before it needs it.
//! Keys are wiped when dropped and shown nowhere; what rcgen and the TLS library keep inside while they use one cannot be.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, version};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

/// How long a CA is valid. Nobody outside installs it, so it may change often enough to be a practised event.
const CA_VALIDITY: Duration = days(730);
/// How long before its end a CA gets a successor: longer than [`SERVER_VALIDITY`], so that no certificate outlives its CA.
const CA_RENEW_BEFORE: Duration = days(180);
/// How long a server certificate is valid: what a stolen key is good for.
const SERVER_VALIDITY: Duration = days(90);
/// How long before its end the server certificate is renewed: a month in which the API server may be down.
const SERVER_RENEW_BEFORE: Duration = days(30);
/// How long a CA is in the bundle before it signs, unless nothing else is left. A kubelet writes a changed `ConfigMap` into its pods
/// within two minutes; this is many times that.
const BUNDLE_LEAD: Duration = Duration::from_hours(1);
/// How long ago a certificate begins when it is made: clocks of nodes differ.
const BACKDATED: Duration = Duration::from_hours(1);
/// Most authorities that a bundle may have; the rules above make at most two, and each Secret that is deleted one more.
const MAX_AUTHORITIES: usize = 8;

const CA_NAME: &str = "ws-ingress controller CA";

/// Names of the Secret's values.
pub(super) const CA_CERTIFICATES: &str = "ca.crt";
pub(super) const CA_KEY: &str = "ca.key";
pub(super) const SERVER_CERTIFICATE: &str = "tls.crt";
pub(super) const SERVER_KEY: &str = "tls.key";

/// All that the Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Material {
    /// Newest first.
    authorities: Vec<CertificateDer<'static>>,
    /// Of the newest.
    ca_key: Key,
    server: CertificateDer<'static>,
    server_key: Key,
}

/// A private key in PKCS#8.
#[derive(Clone, PartialEq, Eq)]
struct Key(Zeroizing<Vec<u8>>);

/// A Secret that holds no usable CA; which value is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing or cannot be used")]
pub(super) struct Damaged(pub(super) &'static str);

/// Why a certificate could not be made or shown. Neither can happen with our own parameters.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterialError {
    #[error("a certificate could not be made")]
    Made(#[from] rcgen::Error),
    #[error("the server certificate cannot be used")]
    Shown(#[from] rustls::Error),
    #[error("a certificate that was made cannot be read")]
    Unreadable,
}

type Result<T> = std::result::Result<T, MaterialError>;

impl Material {
    /// What to write instead of `current`; nothing if it can stay as it is.
    pub(crate) fn renew(current: Option<&Self>, now: Timestamp) -> Result<Option<Self>> {
        let Some(current) = current else {
            return Self::new(now).map(Some);
        };
        let ca_ends = validity(current.newest())?.1;
        if ca_ends <= now {
            // Nobody may rely on it any more; older ones ended before.
            return Self::new(now).map(Some);
        }
        let mut next = current.without_ended(now)?;
        if ends_within(ca_ends, now, CA_RENEW_BEFORE) {
            next.sign_server(now)?;
            next.add_authority(now)?;
        } else if next.server_is_due(now)? {
            next.sign_server(now)?;
        }
        Ok((next != *current).then_some(next))
    }

    pub(super) fn new(now: Timestamp) -> Result<Self> {
        let (authority, ca_key) = make_authority(now)?;
        let (server, server_key) = make_server(&authority, &ca_key, now)?;
        Ok(Self {
            authorities: vec![authority],
            ca_key,
            server,
            server_key,
        })
    }

    /// What follows this when the Secret was deleted or damaged: a new CA, beside those that dataplanes trust by now. The server
    /// certificate stays, so that nobody has to know the new one at once. Its last signature is made with the key that is given up.
    pub(super) fn succeed(&self, now: Timestamp) -> Result<Self> {
        if validity(self.newest())?.1 <= now {
            return Self::new(now);
        }
        let mut next = self.without_ended(now)?;
        let crowded = next.authorities.len() == MAX_AUTHORITIES;
        if crowded || ends_within(validity(&self.server)?.1, now, SERVER_RENEW_BEFORE) {
            next.sign_server(now)?;
        }
        next.add_authority(now)?;
        next.authorities.truncate(MAX_AUTHORITIES);
        Ok(next)
    }

    /// This, and the authorities of a bundle whose keys nobody has any more: replicas that run may still show what they signed. What
    /// has ended, or cannot be one of ours, is left out.
    pub(super) fn beside(mut self, bundle: &str, now: Timestamp) -> Self {
        // What is no certificate was written by somebody else.
        let others =
            CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(std::result::Result::ok);
        let ours = |one: &CertificateDer<'_>| {
            let lasts = |(begins, ends): (Timestamp, Timestamp)| {
                ends > now && ends.duration_since(begins) <= signed(CA_VALIDITY + BACKDATED)
            };
            validity(one).is_ok_and(lasts)
        };
        self.authorities.extend(others.filter(ours));
        self.authorities.truncate(MAX_AUTHORITIES);
        self
    }

    fn newest(&self) -> &CertificateDer<'static> {
        // `read` and `new` leave none empty.
        &self.authorities[0]
    }

    fn without_ended(&self, now: Timestamp) -> Result<Self> {
        let mut next = self.clone();
        next.authorities.clear();
        for authority in &self.authorities {
            if validity(authority)?.1 > now {
                next.authorities.push(authority.clone());
            }
        }
        Ok(next)
    }

    fn server_is_due(&self, now: Timestamp) -> Result<bool> {
        let server_ends = validity(&self.server)?.1;
        let in_bundle_since = validity(self.newest())?.0 + signed(BACKDATED);
        let known = in_bundle_since + signed(BUNDLE_LEAD) <= now;
        Ok(ends_within(server_ends, now, SERVER_RENEW_BEFORE)
            && (known || ends_within(server_ends, now, BUNDLE_LEAD)))
    }

    fn sign_server(&mut self, now: Timestamp) -> Result<()> {
        (self.server, self.server_key) = make_server(self.newest(), &self.ca_key, now)?;
        Ok(())
    }

    /// The key of the CA before it is gone with this: it signs nothing any more.
    fn add_authority(&mut self, now: Timestamp) -> Result<()> {
        let (authority, ca_key) = make_authority(now)?;
        self.authorities.insert(0, authority);
        self.ca_key = ca_key;
        Ok(())
    }

    /// What dataplanes trust.
    pub(crate) fn bundle_pem(&self) -> String {
        let pems = self.authorities.iter();
        pems.map(|authority| pem("CERTIFICATE", authority).to_string())
            .collect()
    }

    pub(super) fn authorities(&self) -> usize {
        self.authorities.len()
    }

    pub(super) fn same_server(&self, other: &Self) -> bool {
        self.server == other.server
    }

    /// TLS 1.3 and nothing else, HTTP/2 and nothing else. No tickets: streams last, and a ticket would outlive the certificate.
    pub(crate) fn server_config(&self) -> Result<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = aws_lc_rs::sign::any_ecdsa_type(&self.server_key.der())?;
        let certified = CertifiedKey::new(vec![self.server.clone()], key);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    /// The values of the Secret.
    pub(super) fn values(&self) -> [(&'static str, Zeroizing<String>); 4] {
        [
            (CA_CERTIFICATES, Zeroizing::new(self.bundle_pem())),
            (CA_KEY, pem("PRIVATE KEY", &self.ca_key.0)),
            (SERVER_CERTIFICATE, pem("CERTIFICATE", &self.server)),
            (SERVER_KEY, pem("PRIVATE KEY", &self.server_key.0)),
        ]
    }

    /// Reads the values of the Secret.
    pub(super) fn read<'a>(
        value: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> std::result::Result<Self, Damaged> {
        let certificates = |name| {
            let pem = value(name).ok_or(Damaged(name))?;
            CertificateDer::pem_slice_iter(pem)
                .collect::<std::result::Result<Vec<_>, _>>()
                .map_err(|_| Damaged(name))
        };
        let authorities = certificates(CA_CERTIFICATES)?;
        let newest = authorities.first().ok_or(Damaged(CA_CERTIFICATES))?;
        let readable = authorities.iter().all(|one| validity(one).is_ok());
        if !readable || authorities.len() > MAX_AUTHORITIES {
            return Err(Damaged(CA_CERTIFICATES));
        }
        let server = certificates(SERVER_CERTIFICATE)?.into_iter().next();
        let server = server.ok_or(Damaged(SERVER_CERTIFICATE))?;
        let key = |name, of: &CertificateDer<'static>| {
            value(name)
                .and_then(Key::from_pem)
                .filter(|key| key.belongs_to(of))
                .ok_or(Damaged(name))
        };
        Ok(Self {
            ca_key: key(CA_KEY, newest)?,
            server_key: key(SERVER_KEY, &server)?,
            authorities,
            server,
        })
    }
}

impl Key {
    fn generate() -> Result<Self> {
        let mut pair = KeyPair::generate()?;
        let key = Self(Zeroizing::new(pair.serialized_der().to_vec()));
        pair.zeroize();
        Ok(key)
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let mut key = PrivateKeyDer::from_pem_slice(pem).ok()?;
        let copy = Self(Zeroizing::new(key.secret_der().to_vec()));
        key.zeroize();
        Some(copy)
    }

    fn der(&self) -> PrivateKeyDer<'_> {
        PrivateKeyDer::Pkcs8(self.0.as_slice().into())
    }

    fn belongs_to(&self, certificate: &CertificateDer<'static>) -> bool {
        aws_lc_rs::sign::any_ecdsa_type(&self.der()).is_ok_and(|key| {
            CertifiedKey::new(vec![certificate.clone()], key)
                .keys_match()
                .is_ok()
        })
    }

    /// What rcgen signs with, for as long as `f` runs.
    fn with_pair<T>(&self, f: impl FnOnce(&KeyPair) -> Result<T>) -> Result<T> {
        let mut pair = KeyPair::try_from(self.0.as_slice())?;
        let result = f(&pair);
        pair.zeroize();
        result
    }
}

fn make_authority(now: Timestamp) -> Result<(CertificateDer<'static>, Key)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Who steals this key can be the controller, and nobody else.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(push::SERVER_NAME.into())],
        excluded_subtrees: Vec::new(),
    });
    set_validity(&mut params, now, now + signed(CA_VALIDITY));
    let key = Key::generate()?;
    let certificate = key.with_pair(|pair| Ok(params.self_signed(pair)?))?;
    Ok((certificate.der().clone(), key))
}

fn make_server(
    authority: &CertificateDer<'static>,
    ca_key: &Key,
    now: Timestamp,
) -> Result<(CertificateDer<'static>, Key)> {
    let mut params = CertificateParams::new(vec![push::SERVER_NAME.to_owned()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, push::SERVER_NAME);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let ends = (now + signed(SERVER_VALIDITY)).min(validity(authority)?.1);
    set_validity(&mut params, now, ends);
    let key = Key::generate()?;
    let certificate = ca_key.with_pair(|ca| {
        let issuer = Issuer::from_ca_cert_der(authority, ca)?;
        key.with_pair(|pair| Ok(params.signed_by(pair, &issuer)?))
    })?;
    Ok((certificate.der().clone(), key))
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, ends: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| epoch + Duration::from_secs(time.as_second().unsigned_abs());
    params.not_before = at(now - signed(BACKDATED));
    params.not_after = at(ends);
}

/// When a certificate begins and ends.
fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp)> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| MaterialError::Unreadable)?;
    let at = |seconds| Timestamp::from_second(seconds).map_err(|_| MaterialError::Unreadable);
    let validity = parsed.validity();
    Ok((
        at(validity.not_before.timestamp())?,
        at(validity.not_after.timestamp())?,
    ))
}

fn ends_within(ends: Timestamp, now: Timestamp, within: Duration) -> bool {
    ends <= now + signed(within)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::from_secs(duration.as_secs().cast_signed())
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

/// PEM (RFC 7468), in a buffer that never grows: it may hold a key.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let edges = 2 * (label.len() + "-----BEGIN -----\n".len());
    let lines = der.chunks(PEM_LINE_BYTES);
    let mut text = Zeroizing::new(String::with_capacity(edges + lines.len() * 65));
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(part);
    }
    for line in lines {
        BASE64_STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        text.push_str(part);
    }
    text
}

/// How many bytes make a line of 64 characters.
const PEM_LINE_BYTES: usize = 48;

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("authorities", &self.authorities.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
