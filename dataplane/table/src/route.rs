//! A route as the dataplane serves it: the hostnames that one `WebSocketRoute` holds, and its rules.
//!
//! Everything here is already decided: hostnames that the route lost to another are not listed, TLS of a hostname is that of its
//! owner, defaults are filled in. Backends are named, not held, so that a pod restart changes no route.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    CertificateKey, Destination, Filters, HostPattern, OriginPolicy, PathMatch, RouteMatch,
};

/// Names one `WebSocketRoute`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Names one port of one Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    /// The Service's port, not the pods'.
    pub port: NonZeroU16,
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

impl fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One `WebSocketRoute`, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Creation time in seconds since the Unix epoch; an older route wins where two match alike. Absent counts as youngest.
    pub created: Option<i64>,
    pub hostnames: Vec<RouteHostname>,
    pub rules: Vec<Rule>,
    /// Whether its requests are refused: a dataplane that may not serve a route as it was meant keeps its hostnames and paths, so
    /// that no less specific rule takes them. Not part of the push: a dataplane decides it for what it may not serve. The sender sets
    /// it as well, on the stub of a route that does not fit or has a mistake, to know it again; that arrives as an open route without
    /// backends.
    pub closed: bool,
}

/// A hostname that the route serves, with the TLS that belongs to the hostname.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteHostname {
    pub pattern: HostPattern,
    pub tls: HostTls,
}

/// How clients reach a hostname.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostTls {
    /// Over TLS, with these certificates in order of preference. Without any, every handshake fails.
    Terminate {
        certificates: Vec<CertificateKey>,
        plain: OnPlain,
    },
    /// Only on the plain listener.
    None,
}

impl HostTls {
    /// Whether there is no certificate to show.
    pub(crate) fn fails_every_handshake(&self) -> bool {
        match self {
            Self::Terminate { certificates, .. } => certificates.is_empty(),
            Self::None => false,
        }
    }

    /// Whether requests are served without TLS.
    pub fn serves_plain(&self) -> bool {
        match self {
            Self::Terminate { plain, .. } => *plain == OnPlain::Serve,
            Self::None => true,
        }
    }
}

/// What the plain listener does with a hostname that is served over TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnPlain {
    /// 308 to https (RFC 9110 §15.4.9).
    #[default]
    Redirect,
    Refuse,
    /// The same routes, without TLS.
    Serve,
}

/// One rule: which requests it takes and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `rules[].name`, or the rule's index from 0.
    pub name: Arc<str>,
    /// Any one of these.
    pub matches: Vec<RouteMatch>,
    pub non_upgrade: NonUpgrade,
    pub origins: OriginPolicy,
    /// Shared with the requests that are under way, which outlive a table.
    pub filters: Arc<Filters>,
    pub backends: Vec<WeightedBackend>,
    pub timeouts: Timeouts,
}

impl Rule {
    /// The prefix that every request of the rule was matched by, without a trailing slash; nothing if there may be several. Gateway API
    /// asks for exactly one match of type `PathPrefix` where a prefix is replaced.
    pub fn prefix(&self) -> Option<&str> {
        match &self.matches[..] {
            [
                RouteMatch {
                    path: PathMatch::Prefix(prefix),
                    ..
                },
            ] => Some(prefix),
            _ => None,
        }
    }
}

/// What happens to a request that does not ask for an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonUpgrade {
    /// 426 Upgrade Required (RFC 9110 §15.5.22).
    Reject,
    /// Proxied as ordinary HTTP.
    Forward,
}

/// A backend and its share of new connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedBackend {
    pub backend: Destination,
    /// Proportional; 0 takes none (Gateway API `BackendRef.weight`).
    pub weight: u32,
    /// What each connection to its endpoints begins with.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The version of a PROXY header (HAProxy's `proxy-protocol.txt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// Deadlines of one rule. `connect` and `handshake` are never zero; zero switches `read` and `send` off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect to one endpoint.
    pub connect: Duration,
    /// From the request head to the answer's head.
    pub handshake: Duration,
    /// Nothing read from the upstream for this long (nginx `proxy_read_timeout`).
    pub read: Duration,
    /// One write to either side makes no progress for this long (nginx `proxy_send_timeout`).
    pub send: Duration,
}
