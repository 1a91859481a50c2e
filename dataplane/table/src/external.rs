//! External backends: a DNS name and a port, plain or over TLS, as one `ExternalBackend` has them.
//!
//! The name, not its addresses: the dataplane resolves it, since only it knows what the name means where it stands. What the operator
//! denies to endpoints therefore travels with the name, and is asked again after each look-up.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

use crate::{BackendKey, Hostname, ResourceKey, meant_by};

/// Most ranges of addresses that are denied to one name: our own pods are listed one by one.
pub const MAX_DENIED_RANGES: usize = 10_000;

/// Most certificates of private authorities of one name; a bundle has the old one, the new one and their root.
pub const MAX_AUTHORITIES: usize = 32;

/// Names one `ExternalBackend`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for ExternalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ExternalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a rule's share of new connections leads to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    Service(BackendKey),
    External(ExternalKey),
}

impl Destination {
    /// The resource that holds its endpoints, or the name that leads to them.
    pub fn resource(&self) -> ResourceKey {
        match self {
            Self::Service(key) => ResourceKey::Backend(key.clone()),
            Self::External(key) => ResourceKey::External(key.clone()),
        }
    }
}

impl From<BackendKey> for Destination {
    fn from(key: BackendKey) -> Self {
        Self::Service(key)
    }
}

impl From<ExternalKey> for Destination {
    fn from(key: ExternalKey) -> Self {
        Self::External(key)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(f, "{key}"),
            Self::External(key) => write!(f, "ExternalBackend {key}"),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One `ExternalBackend`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    pub host: Hostname,
    pub port: NonZeroU16,
    /// Absent: plain text.
    pub tls: Option<ExternalTls>,
    /// Ranges that it may not lead to whatever DNS says: the operator's, and the addresses of our own pods. Those that nothing may ever
    /// lead to (`is_off_limits`) come on top.
    pub denied: Vec<IpNet>,
}

/// TLS to an external backend; its host is the name that is asked for (SNI, RFC 6066 §3) and verified (RFC 9525).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTls {
    pub authorities: Authorities,
}

/// Who may have signed the certificate of an external backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Authorities {
    /// Those that the dataplane's system trusts.
    System,
    /// These alone, DER.
    These(Vec<CertificateDer<'static>>),
}

impl External {
    /// What goes into Host and stands for the name in logs: the port is left out where it is the scheme's own (RFC 9110 §4.2.3).
    pub fn authority(&self) -> String {
        let default = if self.tls.is_some() { 443 } else { 80 };
        match self.port.get() {
            port if port == default => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// Whether the operator denies an address: as it is written, or as what it leads to.
    pub fn denies(&self, address: IpAddr) -> bool {
        let forms = [address, meant_by(address)];
        let mut denied = self.denied.iter();
        denied.any(|range| forms.iter().any(|form| range.contains(form)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_port_is_left_out_of_the_authority() {
        let tls = Some(ExternalTls {
            authorities: Authorities::System,
        });
        for (port, tls, expected) in [
            (80, None, "a.example.com"),
            (443, None, "a.example.com:443"),
            (443, tls.clone(), "a.example.com"),
            (80, tls, "a.example.com:80"),
        ] {
            let external = External {
                host: Hostname::parse("a.example.com").unwrap(),
                port: NonZeroU16::new(port).unwrap(),
                tls,
                denied: Vec::new(),
            };
            assert_eq!(external.authority(), expected);
        }
    }

    #[test]
    fn what_is_denied_is_denied_in_every_spelling() {
        let external = External {
            host: Hostname::parse("a.example.com").unwrap(),
            port: NonZeroU16::MIN,
            tls: None,
            denied: ["10.96.0.0/12", "2001:db8:64::/96"]
                .map(|range| range.parse().unwrap())
                .into(),
        };
        let denies = |address: &str| external.denies(address.parse().unwrap());
        for address in [
            "10.96.0.1",
            "::ffff:10.96.0.1",
            "::10.96.0.1",
            "64:ff9b::10.96.0.1",
            "2002:a60:1::1",
            "2001:db8:64::10.0.0.1",
        ] {
            assert!(denies(address), "{address}");
        }
        for address in ["10.112.0.1", "64:ff9b::10.112.0.1", "2001:db8:65::1"] {
            assert!(!denies(address), "{address}");
        }
    }
}
