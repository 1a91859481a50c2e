//! [`Resources`] -> [`RouteTable`]: validation on receipt and reuse of what did not change.
//!
//! A resource that cannot be served is rejected alone. Its last accepted form stays, or, if there is none, it is absent: its
//! paths answer 404, its backend 503, its certificate fails the handshake. Removals always apply. Equal resources keep their
//! `Arc`, so that a pod restart rebuilds one backend and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use rustls::RootCertStore;

use crate::lookup::Serving;
use crate::{
    Authorities, Backend, BackendKey, Certificate, CertificateError, CertificateKey,
    CertificateResource, External, ExternalKey, Host, HostPattern, HostTls, Hostname,
    MAX_AUTHORITIES, MAX_CONDITIONS_OF_HOST, MAX_DENIED_RANGES, MAX_ENDPOINTS, PathModifier, Route,
    RouteKey,
};

/// Everything that a table is built from, by stable key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub routes: BTreeMap<RouteKey, Arc<Route>>,
    pub backends: BTreeMap<BackendKey, Arc<Backend>>,
    pub externals: BTreeMap<ExternalKey, Arc<External>>,
    pub certificates: BTreeMap<CertificateKey, Arc<CertificateResource>>,
}

/// Names one resource of any kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    Route(RouteKey),
    Backend(BackendKey),
    External(ExternalKey),
    Certificate(CertificateKey),
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(key) => write!(f, "route {key}"),
            Self::Backend(key) => write!(f, "backend {key}"),
            Self::External(key) => write!(f, "external backend {key}"),
            Self::Certificate(key) => write!(f, "certificate {key}"),
        }
    }
}

/// A resource that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub key: ResourceKey,
    pub reason: Invalid,
}

/// Why a resource cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("rule {rule} has no path match")]
    NoMatch { rule: Arc<str> },
    #[error("rule {rule} has a connect or handshake timeout of zero, which would never end")]
    ZeroTimeout { rule: Arc<str> },
    #[error("rule {rule} replaces a prefix, and has not exactly one match, of type PathPrefix")]
    NoPrefix { rule: Arc<str> },
    #[error("hostname {hostname} has other TLS settings here than in an older route")]
    TlsConflict { hostname: HostPattern },
    #[error(
        "the routes of hostname {hostname} have more than {MAX_CONDITIONS_OF_HOST} header, query and subprotocol conditions, and this one is among the youngest: its paths are refused until there are fewer; use other hostnames or paths"
    )]
    TooManyConditions { hostname: HostPattern },
    #[error("{count} endpoints are more than the {MAX_ENDPOINTS} that a backend may have")]
    TooManyEndpoints { count: usize },
    #[error(
        "{count} denied address ranges are more than the {MAX_DENIED_RANGES} that are compared"
    )]
    TooManyRanges { count: usize },
    #[error("its TLS trusts no authority, or one whose certificate cannot be used")]
    Authorities,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(
        "no usable form of it was received yet; handshakes that need it fail until its Secret holds one"
    )]
    NothingToHold,
}

/// A certificate as it was accepted, beside the resource that it was made from.
#[derive(Debug, Clone)]
struct Held {
    resource: Arc<CertificateResource>,
    certificate: Arc<Certificate>,
}

/// What the dataplane serves from: immutable, swapped whole.
#[derive(Debug, Default)]
pub struct RouteTable {
    generation: u64,
    routes: BTreeMap<RouteKey, Arc<Route>>,
    backends: HashMap<BackendKey, Arc<Backend>>,
    externals: HashMap<ExternalKey, Arc<External>>,
    certificates: HashMap<CertificateKey, Held>,
    exact: HashMap<Hostname, Arc<Host>>,
    /// By suffix.
    wildcard: HashMap<Hostname, Arc<Host>>,
}

impl RouteTable {
    /// The table before any: nothing is served from it, and its generation is 0.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Builds the table that follows `previous`. Its generation is one higher, or the same if nothing at all changed.
    pub fn build(resources: &Resources, previous: &Self) -> (Self, Vec<Rejected>) {
        let mut rejected = Vec::new();
        let routes = accept(
            &resources.routes,
            |key| previous.routes.get(key).cloned(),
            check_route,
            ResourceKey::Route,
            &mut rejected,
        );
        let backends = accept(
            &resources.backends,
            |key| previous.backends.get(key).cloned(),
            check_backend,
            ResourceKey::Backend,
            &mut rejected,
        );
        let externals = accept(
            &resources.externals,
            |key| previous.externals.get(key).cloned(),
            check_external,
            ResourceKey::External,
            &mut rejected,
        );
        let certificates = accept_certificates(&resources.certificates, previous, &mut rejected);
        let mut table = Self {
            generation: previous.generation + 1,
            routes: routes.into_iter().collect(),
            backends: backends.into_iter().collect(),
            externals: externals.into_iter().collect(),
            certificates,
            ..Self::default()
        };
        table.index_hosts(previous, &mut rejected);
        if previous.generation > 0 && table.serves_the_same_as(previous) {
            table.generation = previous.generation;
        }
        (table, rejected)
    }

    /// Groups the routes by hostname pattern, in order of precedence, and keeps the hosts that stayed as they were.
    ///
    /// The oldest route that is open decides a host's TLS. A closed one is never left out, since its requests would fall to other
    /// rules, and if it refuses handshakes the host refuses them.
    fn index_hosts(&mut self, previous: &Self, rejected: &mut Vec<Rejected>) {
        let mut ordered = self.routes.iter().collect::<Vec<_>>();
        // Oldest first, unknown age last, then by namespace/name.
        ordered
            .sort_by_key(|(key, route)| (route.created.is_none(), route.created, (*key).clone()));
        let mut hosts: BTreeMap<&HostPattern, (&HostTls, Vec<Serving>)> = BTreeMap::new();
        let mut decided = BTreeSet::new();
        let mut refusing = BTreeMap::new();
        for (key, route) in ordered {
            for hostname in &route.hostnames {
                let (tls, routes) = hosts
                    .entry(&hostname.pattern)
                    .or_insert_with(|| (&hostname.tls, Vec::new()));
                if route.closed && hostname.tls.fails_every_handshake() {
                    refusing.insert(&hostname.pattern, &hostname.tls);
                }
                if !route.closed && decided.insert(&hostname.pattern) {
                    *tls = &hostname.tls;
                }
                if !route.closed && **tls != hostname.tls {
                    let reason = Invalid::TlsConflict {
                        hostname: hostname.pattern.clone(),
                    };
                    rejected.push(Rejected {
                        key: ResourceKey::Route(key.clone()),
                        reason,
                    });
                } else if routes.last().is_none_or(|(last, _)| last != key) {
                    routes.push((key.clone(), route.clone()));
                }
            }
        }
        for (pattern, (tls, routes)) in hosts {
            let tls = refusing.get(pattern).copied().unwrap_or(tls);
            let (index, old, name) = match pattern {
                HostPattern::Exact(name) => (&mut self.exact, &previous.exact, name),
                HostPattern::Wildcard(suffix) => (&mut self.wildcard, &previous.wildcard, suffix),
            };
            let kept = old
                .get(name)
                .filter(|host| host.is_made_of(tls, &routes))
                .cloned();
            let host =
                kept.unwrap_or_else(|| Arc::new(Host::new(pattern.clone(), tls.clone(), routes)));
            rejected.extend(host.shut().map(|key| Rejected {
                key: ResourceKey::Route(key.clone()),
                reason: Invalid::TooManyConditions {
                    hostname: pattern.clone(),
                },
            }));
            index.insert(name.clone(), host);
        }
    }

    fn serves_the_same_as(&self, other: &Self) -> bool {
        let certificates = |a: &Held, b: &Held| Arc::ptr_eq(&a.certificate, &b.certificate);
        self.routes.len() == other.routes.len()
            && self.routes.iter().all(|(key, route)| {
                other
                    .routes
                    .get(key)
                    .is_some_and(|held| Arc::ptr_eq(held, route))
            })
            && same_entries(&self.backends, &other.backends, Arc::ptr_eq)
            && same_entries(&self.externals, &other.externals, Arc::ptr_eq)
            && same_entries(&self.certificates, &other.certificates, certificates)
            && same_entries(&self.exact, &other.exact, Arc::ptr_eq)
            && same_entries(&self.wildcard, &other.wildcard, Arc::ptr_eq)
    }

    /// Counts the tables that differed, from 1; 0 is the empty table before any.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All routes, by key.
    pub fn routes(&self) -> impl Iterator<Item = (&RouteKey, &Arc<Route>)> {
        self.routes.iter()
    }

    /// All backends, by key.
    pub fn backends(&self) -> impl Iterator<Item = (&BackendKey, &Arc<Backend>)> {
        self.backends.iter().collect::<BTreeMap<_, _>>().into_iter()
    }

    /// All external backends, by key.
    pub fn externals(&self) -> impl Iterator<Item = (&ExternalKey, &Arc<External>)> {
        let held = self.externals.iter();
        held.collect::<BTreeMap<_, _>>().into_iter()
    }

    /// All certificates that can be served, by key.
    pub fn certificates(&self) -> impl Iterator<Item = (&CertificateKey, &Arc<Certificate>)> {
        let held = self
            .certificates
            .iter()
            .map(|(key, held)| (key, &held.certificate));
        held.collect::<BTreeMap<_, _>>().into_iter()
    }

    /// The most specific host that covers `name`: the exact one, else the longest wildcard.
    pub fn host(&self, name: &Hostname) -> Option<&Arc<Host>> {
        if let Some(host) = self.exact.get(name) {
            return Some(host);
        }
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(host) = self.wildcard.get(parent) {
                return Some(host);
            }
            rest = parent;
        }
        None
    }

    /// The endpoints of a backend; a backend that is absent has none.
    pub fn backend(&self, key: &BackendKey) -> Option<&Arc<Backend>> {
        self.backends.get(key)
    }

    /// The name that an external backend stands for.
    pub fn external(&self, key: &ExternalKey) -> Option<&Arc<External>> {
        self.externals.get(key)
    }

    /// The certificate to serve for `key`, if it was ever usable.
    pub fn certificate(&self, key: &CertificateKey) -> Option<&Arc<Certificate>> {
        self.certificates.get(key).map(|held| &held.certificate)
    }
}

fn same_entries<K: Eq + Hash, V>(
    a: &HashMap<K, V>,
    b: &HashMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
}

/// Takes every valid entry, the held `Arc` where it is equal, and the last accepted form where it is not valid.
fn accept<K: Ord + Clone, V: PartialEq>(
    resources: &BTreeMap<K, Arc<V>>,
    held: impl Fn(&K) -> Option<Arc<V>>,
    check: impl Fn(&V) -> Result<(), Invalid>,
    name: impl Fn(K) -> ResourceKey,
    rejected: &mut Vec<Rejected>,
) -> BTreeMap<K, Arc<V>> {
    let mut accepted = BTreeMap::new();
    for (key, resource) in resources {
        let held = held(key);
        let taken = match held {
            Some(held) if Arc::ptr_eq(&held, resource) || held == *resource => Some(held),
            held => match check(resource) {
                Ok(()) => Some(resource.clone()),
                Err(reason) => {
                    rejected.push(Rejected {
                        key: name(key.clone()),
                        reason,
                    });
                    held
                }
            },
        };
        accepted.extend(taken.map(|taken| (key.clone(), taken)));
    }
    accepted
}

fn accept_certificates(
    resources: &BTreeMap<CertificateKey, Arc<CertificateResource>>,
    previous: &RouteTable,
    rejected: &mut Vec<Rejected>,
) -> HashMap<CertificateKey, Held> {
    let mut accepted = HashMap::new();
    for (key, resource) in resources {
        let held = previous.certificates.get(key).cloned();
        let taken = match (&**resource, held) {
            (CertificateResource::Hold, Some(held)) => Some(held),
            (CertificateResource::Hold, None) => {
                rejected.push(Rejected {
                    key: ResourceKey::Certificate(key.clone()),
                    reason: Invalid::NothingToHold,
                });
                None
            }
            (_, Some(held))
                if Arc::ptr_eq(&held.resource, resource) || held.resource == *resource =>
            {
                Some(held)
            }
            (
                CertificateResource::Serve {
                    chain,
                    key: private,
                },
                held,
            ) => match Certificate::new(chain.clone(), private.clone()) {
                Ok(certificate) => Some(Held {
                    resource: resource.clone(),
                    certificate: Arc::new(certificate),
                }),
                Err(error) => {
                    rejected.push(Rejected {
                        key: ResourceKey::Certificate(key.clone()),
                        reason: error.into(),
                    });
                    held
                }
            },
        };
        accepted.extend(taken.map(|taken| (key.clone(), taken)));
    }
    accepted
}

fn check_route(route: &Route) -> Result<(), Invalid> {
    for rule in &route.rules {
        let name = || rule.name.clone();
        if rule.matches.is_empty() {
            return Err(Invalid::NoMatch { rule: name() });
        }
        if rule.timeouts.connect.is_zero() || rule.timeouts.handshake.is_zero() {
            return Err(Invalid::ZeroTimeout { rule: name() });
        }
        let redirect = rule.filters.redirect.as_ref();
        let paths = [
            rule.filters.rewrite.path.as_ref(),
            redirect.and_then(|redirect| redirect.path.as_ref()),
        ];
        let replaces = |path: &PathModifier| matches!(path, PathModifier::Prefix(_));
        if paths.into_iter().flatten().any(replaces) && rule.prefix().is_none() {
            return Err(Invalid::NoPrefix { rule: name() });
        }
    }
    Ok(())
}

fn check_backend(backend: &Backend) -> Result<(), Invalid> {
    match backend.endpoints.len() {
        count if count > MAX_ENDPOINTS => Err(Invalid::TooManyEndpoints { count }),
        _ => Ok(()),
    }
}

fn check_external(external: &External) -> Result<(), Invalid> {
    let count = external.denied.len();
    if count > MAX_DENIED_RANGES {
        return Err(Invalid::TooManyRanges { count });
    }
    match external.tls.as_ref().map(|tls| &tls.authorities) {
        Some(Authorities::These(listed)) => {
            let mut roots = RootCertStore::empty();
            let usable = listed.iter().all(|one| roots.add(one.clone()).is_ok());
            if listed.is_empty() || listed.len() > MAX_AUTHORITIES || !usable {
                return Err(Invalid::Authorities);
            }
            Ok(())
        }
        Some(Authorities::System) | None => Ok(()),
    }
}
