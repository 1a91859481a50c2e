//! Resources and updates for the tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use route_table::{
    Authorities, Backend, BackendKey, CertificateKey, CertificateResource, Conditions, Destination,
    Endpoint, EndpointState, External, ExternalKey, ExternalTls, HeaderMatch, HostPattern, HostTls,
    Hostname, NonUpgrade, OnPlain, OriginPattern, OriginPolicy, PathMatch, PrivateKey,
    ProxyProtocol, QueryParamMatch, Resources, Route, RouteHostname, RouteKey, RouteMatch, Rule,
    Subprotocol, Timeouts, WeightedBackend,
};
use rustls::pki_types::CertificateDer;

use crate::{Digest, Version, filters, wire};

/// A resource as it travels.
pub(crate) fn resource(key: &str, requires: &[&str], body: &[u8]) -> wire::Resource {
    wire::Resource {
        key: key.into(),
        requires: requires.iter().map(ToString::to_string).collect(),
        body: body.to_vec().into(),
    }
}

/// The full set of these, in one part.
pub(crate) fn update_to(resources: &[wire::Resource]) -> wire::Update {
    let digests = resources.iter();
    let digests = digests.map(|resource| (&*resource.key, Digest::of(resource)));
    let digests = digests.collect::<BTreeMap<_, _>>();
    let version = Version::of(digests.iter().map(|(key, digest)| (*key, digest)));
    wire::Update {
        base: None,
        version: version.to_bytes(),
        upserts: resources.to_vec(),
        removals: Vec::new(),
        more: false,
    }
}

/// A route that uses every field.
pub(crate) fn route() -> Route {
    let certificate = CertificateKey {
        namespace: "default".into(),
        secret: "chat-tls".into(),
    };
    let backend = BackendKey {
        namespace: "default".into(),
        service: "chat".into(),
        port: NonZeroU16::MIN,
    };
    let external = ExternalKey {
        namespace: "default".into(),
        name: "inner".into(),
    };
    Route {
        created: Some(1_700_000_000),
        hostnames: vec![
            RouteHostname {
                pattern: HostPattern::parse("chat.example.com").unwrap(),
                tls: HostTls::Terminate {
                    certificates: vec![certificate],
                    plain: OnPlain::Serve,
                },
            },
            RouteHostname {
                pattern: HostPattern::parse("*.rt.example.com").unwrap(),
                tls: HostTls::None,
            },
        ],
        rules: vec![Rule {
            name: "0".into(),
            matches: vec![
                PathMatch::prefix("/").unwrap().into(),
                RouteMatch {
                    path: PathMatch::exact("/ws").unwrap(),
                    conditions: conditions(),
                },
            ],
            non_upgrade: NonUpgrade::Reject,
            origins: OriginPolicy {
                allowed: vec![OriginPattern::parse("https://app.example.com").unwrap()],
                refuse_missing: true,
            },
            filters: filters::samples::every().into(),
            backends: vec![
                WeightedBackend {
                    backend: backend.into(),
                    weight: 1,
                    proxy_protocol: Some(ProxyProtocol::V2),
                },
                WeightedBackend {
                    backend: external.into(),
                    weight: 2,
                    proxy_protocol: None,
                },
            ],
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                handshake: Duration::from_millis(10_500),
                read: Duration::from_hours(1),
                send: Duration::ZERO,
            },
        }],
        closed: false,
    }
}

/// One of each kind.
fn conditions() -> Conditions {
    Conditions {
        headers: vec![HeaderMatch::new("X-Env", "beta").unwrap()],
        query_params: vec![QueryParamMatch::new("v", "a b").unwrap()],
        subprotocols: vec![Subprotocol::new("chat.v1").unwrap()],
    }
}

fn any_match() -> impl Strategy<Value = RouteMatch> {
    (path(), any::<[bool; 3]>()).prop_map(|(path, [headers, query_params, subprotocols])| {
        let mut conditions = conditions();
        conditions.headers.truncate(headers.into());
        conditions.query_params.truncate(query_params.into());
        conditions.subprotocols.truncate(subprotocols.into());
        RouteMatch { path, conditions }
    })
}

fn name() -> impl Strategy<Value = Arc<str>> {
    select(&["a", "b", "chat", "chat-canary", "x.y"][..]).prop_map(Arc::from)
}

fn hostname() -> impl Strategy<Value = HostPattern> {
    let names = ["a.example.com", "*.example.com", "b.example.com", "*.a.org"];
    select(names.to_vec()).prop_map(|text| HostPattern::parse(text).unwrap())
}

fn certificate_key() -> impl Strategy<Value = CertificateKey> {
    (name(), name()).prop_map(|(namespace, secret)| CertificateKey { namespace, secret })
}

fn backend_key() -> impl Strategy<Value = BackendKey> {
    (name(), name(), 1..4_u16).prop_map(|(namespace, service, port)| BackendKey {
        namespace,
        service,
        port: NonZeroU16::new(port).unwrap(),
    })
}

fn external_key() -> impl Strategy<Value = ExternalKey> {
    (name(), name()).prop_map(|(namespace, name)| ExternalKey { namespace, name })
}

fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![
        backend_key().prop_map(Destination::Service),
        external_key().prop_map(Destination::External)
    ]
}

fn tls() -> impl Strategy<Value = HostTls> {
    let plain = select(&[OnPlain::Redirect, OnPlain::Refuse, OnPlain::Serve][..]);
    let terminate = (vec(certificate_key(), 0..3), plain).prop_map(|(certificates, plain)| {
        HostTls::Terminate {
            certificates,
            plain,
        }
    });
    prop_oneof![terminate, Just(HostTls::None)]
}

fn path() -> impl Strategy<Value = PathMatch> {
    ("(/[a-z~%]{1,4}){0,3}/?", any::<bool>()).prop_filter_map("not a path", |(text, exact)| {
        if exact {
            PathMatch::exact(&text).ok()
        } else {
            PathMatch::prefix(&text).ok()
        }
    })
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..=399_999_u64 * 3600, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    [duration(), duration(), duration(), duration()].prop_map(|[connect, handshake, read, send]| {
        Timeouts {
            connect,
            handshake,
            read,
            send,
        }
    })
}

fn origins() -> impl Strategy<Value = OriginPolicy> {
    let allowed = [
        "https://a.example.com",
        "https://*.example.com:8443",
        "app://[::1]:1",
    ];
    let allowed = select(allowed.to_vec()).prop_map(|text| OriginPattern::parse(text).unwrap());
    (vec(allowed, 0..3), any::<bool>()).prop_map(|(allowed, refuse_missing)| OriginPolicy {
        allowed,
        refuse_missing,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let proxy_protocol = option::of(select(&[ProxyProtocol::V1, ProxyProtocol::V2][..]));
    let weighted = (destination(), 0..=1_000_000_u32, proxy_protocol);
    let weighted = weighted.prop_map(|(backend, weight, proxy_protocol)| WeightedBackend {
        backend,
        weight,
        proxy_protocol,
    });
    let non_upgrade = select(&[NonUpgrade::Reject, NonUpgrade::Forward][..]);
    let parts = (
        name(),
        vec(any_match(), 0..3),
        non_upgrade,
        origins(),
        filters::samples::any_filters(),
        vec(weighted, 0..3),
        timeouts(),
    );
    parts.prop_map(
        |(name, matches, non_upgrade, origins, filters, backends, timeouts)| Rule {
            name,
            matches,
            non_upgrade,
            origins,
            filters: filters.into(),
            backends,
            timeouts,
        },
    )
}

pub(crate) fn any_route() -> impl Strategy<Value = Route> {
    let hostname = (hostname(), tls()).prop_map(|(pattern, tls)| RouteHostname { pattern, tls });
    let parts = (
        option::of(any::<i64>()),
        vec(hostname, 0..3),
        vec(rule(), 0..3),
    );
    parts.prop_map(|(created, hostnames, rules)| Route {
        created,
        hostnames,
        rules,
        closed: false,
    })
}

pub(crate) fn any_backend() -> impl Strategy<Value = Backend> {
    let state = select(&[EndpointState::Ready, EndpointState::Terminating][..]);
    let address =
        (any::<IpAddr>(), 1..=u16::MAX).prop_map(|(address, port)| SocketAddr::new(address, port));
    btree_map(address, state, 0..5).prop_map(|endpoints| Backend {
        endpoints: endpoints
            .into_iter()
            .map(|(address, state)| Endpoint { address, state })
            .collect(),
    })
}

pub(crate) fn any_external() -> impl Strategy<Value = External> {
    let authorities = prop_oneof![
        Just(Authorities::System),
        vec(vec(any::<u8>(), 0..40), 1..3)
            .prop_map(|der| Authorities::These(der.into_iter().map(Into::into).collect()))
    ];
    let tls = authorities.prop_map(|authorities| ExternalTls { authorities });
    let denied = (any::<IpAddr>(), 0..=32_u8)
        .prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc());
    let parts = (
        select(&["a.example.com", "b.example.org"][..]),
        1..=u16::MAX,
        option::of(tls),
        vec(denied, 0..3),
    );
    parts.prop_map(|(host, port, tls, denied)| External {
        host: Hostname::parse(host).unwrap(),
        port: NonZeroU16::new(port).unwrap(),
        tls,
        denied,
    })
}

/// Two certificates that the table takes.
fn usable_certificates() -> Vec<CertificateResource> {
    static MADE: OnceLock<Vec<CertificateResource>> = OnceLock::new();
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        CertificateResource::Serve {
            chain: vec![made.cert.into()],
            key: PrivateKey::from_der(made.signing_key.serialize_der()),
        }
    };
    let usable = MADE.get_or_init(|| vec![make("a.example.com"), make("b.example.com")]);
    usable.clone()
}

pub(crate) fn any_certificate() -> impl Strategy<Value = CertificateResource> {
    let der = || vec(any::<u8>(), 0..40);
    let serve = (vec(der(), 0..3), der()).prop_map(|(chain, key)| CertificateResource::Serve {
        chain: chain.into_iter().map(CertificateDer::from).collect(),
        key: PrivateKey::from_der(key),
    });
    prop_oneof![
        serve,
        select(usable_certificates()),
        Just(CertificateResource::Hold)
    ]
}

/// A few of each kind, under keys from a small set, so that two of them have many in common.
pub(crate) fn any_resources() -> impl Strategy<Value = Resources> {
    let route_key = (name(), name()).prop_map(|(namespace, name)| RouteKey { namespace, name });
    let parts = (
        btree_map(route_key, any_route().prop_map(Arc::new), 0..5),
        btree_map(backend_key(), any_backend().prop_map(Arc::new), 0..5),
        btree_map(external_key(), any_external().prop_map(Arc::new), 0..3),
        btree_map(
            certificate_key(),
            any_certificate().prop_map(Arc::new),
            0..4,
        ),
    );
    parts.prop_map(|(routes, backends, externals, certificates)| Resources {
        routes,
        backends,
        externals,
        certificates,
    })
}
