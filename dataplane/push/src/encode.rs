//! A resource -> the bytes that travel.
//!
//! Deterministic: equal resources give equal bytes in one build, so that only what changed is sent. No time, epoch or counter
//! goes in. This is the one place that reads the bytes of a private key; they are written once, into a buffer that is wiped when
//! its last holder drops it. Every struct is taken apart without `..`, so that a new field cannot be forgotten here.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use route_table::{
    Authorities, Backend, BackendKey, CertificateKey, CertificateResource, Destination, Endpoint,
    EndpointState, External, ExternalKey, ExternalTls, Filters, HostTls, NonUpgrade, OnPlain,
    OriginPolicy, ProxyProtocol, Route, RouteHostname, Rule, Timeouts, WeightedBackend,
};
use zeroize::Zeroizing;

use crate::{filters, matches, wire};

/// The body of a resource, and the features without which it must not be served.
#[derive(Clone)]
pub(crate) struct Encoded {
    /// In order.
    pub(crate) requires: Vec<&'static str>,
    pub(crate) body: Bytes,
}

pub(crate) fn route(route: &Route) -> Encoded {
    let Route {
        created,
        hostnames,
        rules,
        // Whoever receives a route decides this.
        closed: _,
    } = route;
    let message = wire::Route {
        created: *created,
        hostnames: hostnames.iter().map(hostname).collect(),
        rules: rules.iter().map(rule).collect(),
    };
    Encoded {
        requires: requires(route),
        body: message.encode_to_vec().into(),
    }
}

/// The features that a route cannot do without, in order: for every field that narrows what is admitted, when it is set. The fields
/// of the first version of the protocol have none.
fn requires(route: &Route) -> Vec<&'static str> {
    let mut requires = matches::required(route);
    for Rule {
        origins,
        filters,
        backends,
        ..
    } in &route.rules
    {
        if *origins != OriginPolicy::default() {
            requires.insert(crate::ALLOWED_ORIGINS);
        }
        if **filters != Filters::default() {
            requires.insert(crate::FILTERS);
        }
        if backends.iter().any(|to| to.proxy_protocol.is_some()) {
            requires.insert(crate::PROXY_PROTOCOL);
        }
    }
    requires.into_iter().collect()
}

pub(crate) fn backend(backend: &Backend) -> Encoded {
    let Backend { endpoints } = backend;
    let message = wire::Backend {
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    Encoded {
        requires: Vec::new(),
        body: message.encode_to_vec().into(),
    }
}

pub(crate) fn external(external: &External) -> Encoded {
    let External {
        host,
        port,
        tls,
        denied,
    } = external;
    let range = |range: &ipnet::IpNet| wire::AddressRange {
        address: address_bytes(range.network()),
        prefix_length: range.prefix_len().into(),
    };
    let message = wire::External {
        host: host.to_string(),
        port: port.get().into(),
        tls: tls.as_ref().map(external_tls),
        denied: denied.iter().map(range).collect(),
    };
    Encoded {
        requires: Vec::new(),
        body: message.encode_to_vec().into(),
    }
}

fn external_tls(tls: &ExternalTls) -> wire::ExternalTls {
    use wire::external_tls::Authorities as To;
    let ExternalTls { authorities } = tls;
    let authorities = match authorities {
        Authorities::System => To::System(wire::SystemAuthorities {}),
        Authorities::These(listed) => To::Private(wire::PrivateAuthorities {
            certificates: listed
                .iter()
                .map(|certificate| Bytes::copy_from_slice(certificate))
                .collect(),
        }),
    };
    wire::ExternalTls {
        authorities: Some(authorities),
    }
}

pub(crate) fn certificate(certificate: &CertificateResource) -> Encoded {
    let certificate = match certificate {
        CertificateResource::Serve { chain, key } => {
            wire::certificate::Certificate::Serve(wire::Serve {
                chain: chain
                    .iter()
                    .map(|link| Bytes::copy_from_slice(link))
                    .collect(),
                key: wiped(key.expose_der().to_vec()),
            })
        }
        CertificateResource::Hold => wire::certificate::Certificate::Hold(wire::Hold {}),
    };
    let message = wire::Certificate {
        certificate: Some(certificate),
    };
    Encoded {
        requires: Vec::new(),
        // One allocation of the right length: a buffer that grew would leave parts of the key behind.
        body: wiped(message.encode_to_vec()),
    }
}

/// Bytes that are wiped when their last holder drops them.
fn wiped(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
}

fn hostname(hostname: &RouteHostname) -> wire::RouteHostname {
    let RouteHostname { pattern, tls } = hostname;
    let tls = match tls {
        HostTls::Terminate {
            certificates,
            plain,
        } => {
            let on_plain = match plain {
                OnPlain::Redirect => wire::OnPlain::Redirect,
                OnPlain::Refuse => wire::OnPlain::Refuse,
                OnPlain::Serve => wire::OnPlain::Serve,
            };
            wire::route_hostname::Tls::Terminate(wire::Terminate {
                certificates: certificates.iter().map(certificate_ref).collect(),
                on_plain: on_plain.into(),
            })
        }
        HostTls::None => wire::route_hostname::Tls::Plain(wire::Plain {}),
    };
    wire::RouteHostname {
        pattern: pattern.to_string(),
        tls: Some(tls),
    }
}

fn certificate_ref(key: &CertificateKey) -> wire::CertificateRef {
    let CertificateKey { namespace, secret } = key;
    wire::CertificateRef {
        namespace: namespace.to_string(),
        secret: secret.to_string(),
    }
}

fn rule(rule: &Rule) -> wire::Rule {
    let Rule {
        name,
        matches,
        non_upgrade,
        origins: OriginPolicy {
            allowed,
            refuse_missing,
        },
        filters,
        backends,
        timeouts,
    } = rule;
    let non_upgrade = match non_upgrade {
        NonUpgrade::Reject => wire::NonUpgrade::Reject,
        NonUpgrade::Forward => wire::NonUpgrade::Forward,
    };
    let Timeouts {
        connect,
        handshake,
        read,
        send,
    } = *timeouts;
    wire::Rule {
        name: name.to_string(),
        matches: matches.iter().map(matches::encode).collect(),
        non_upgrade: non_upgrade.into(),
        backends: backends.iter().map(weighted).collect(),
        timeouts: Some(wire::Timeouts {
            connect: Some(duration(connect)),
            handshake: Some(duration(handshake)),
            read: Some(duration(read)),
            send: Some(duration(send)),
        }),
        filters: filters::encode(filters),
        allowed_origins: allowed.iter().map(ToString::to_string).collect(),
        refuse_missing_origin: *refuse_missing,
    }
}

fn weighted(weighted: &WeightedBackend) -> wire::WeightedBackend {
    let WeightedBackend {
        backend,
        weight,
        proxy_protocol,
    } = weighted;
    let proxy_protocol = match proxy_protocol {
        None => wire::ProxyProtocol::Unspecified,
        Some(ProxyProtocol::V1) => wire::ProxyProtocol::V1,
        Some(ProxyProtocol::V2) => wire::ProxyProtocol::V2,
    };
    let proxy_protocol = proxy_protocol.into();
    let weight = *weight;
    match backend {
        Destination::Service(BackendKey {
            namespace,
            service,
            port,
        }) => wire::WeightedBackend {
            namespace: namespace.to_string(),
            service: service.to_string(),
            port: port.get().into(),
            weight,
            proxy_protocol,
            external: None,
        },
        Destination::External(ExternalKey { namespace, name }) => wire::WeightedBackend {
            weight,
            proxy_protocol,
            external: Some(wire::ExternalRef {
                namespace: namespace.to_string(),
                name: name.to_string(),
            }),
            ..wire::WeightedBackend::default()
        },
    }
}

fn duration(duration: Duration) -> wire::Duration {
    wire::Duration {
        seconds: duration.as_secs(),
        nanos: duration.subsec_nanos(),
    }
}

fn endpoint(endpoint: &Endpoint) -> wire::Endpoint {
    let Endpoint { address, state } = endpoint;
    let state = match state {
        EndpointState::Ready => wire::EndpointState::Ready,
        EndpointState::Terminating => wire::EndpointState::Terminating,
    };
    wire::Endpoint {
        address: address_bytes(address.ip()),
        port: address.port().into(),
        state: state.into(),
    }
}

/// Without the scope of an IPv6 address: it means something on one node only, and EndpointSlices have none.
fn address_bytes(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

#[cfg(test)]
mod tests;
