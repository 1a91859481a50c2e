//! The bytes of one resource -> the resource, every field checked.
//!
//! What comes out has the types of the table; what these types do not promise (a path match in each rule, timeouts above zero,
//! a key that belongs to its chain, the number of endpoints) is left to `RouteTable::build`, the one validator. An error names
//! the field and never repeats a value. Unknown fields are skipped; an unknown value of an enum or a oneof is an error.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use route_table::{
    Backend, BackendKey, CertificateKey, CertificateResource, ConditionError, Destination,
    Endpoint, EndpointState, ExternalKey, FieldError, HostPattern, HostTls, HostnameError,
    NonUpgrade, OnPlain, OriginError, OriginPattern, OriginPolicy, PathError, PrivateKey,
    ProxyProtocol, Route, RouteHostname, Rule, Timeouts, WeightedBackend,
};
use rustls::pki_types::CertificateDer;

use crate::{filters, key, matches, wire};

mod external;
pub(crate) use external::external;

/// Most entries of any list in a route or of a chain: many times what the schema allows, so that a later schema may allow more.
pub(crate) const MAX_ENTRIES: usize = 1024;

/// Largest weight (Gateway API `BackendRef.weight`).
const MAX_WEIGHT: u32 = 1_000_000;

/// Longest duration that the schema can write (GEP-2257: four parts of five digits, in hours). Far from where clocks overflow.
const MAX_DURATION: Duration = Duration::from_hours(400_000);

/// Why a resource cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub(crate) struct Undecodable {
    /// As the protocol names it, such as `rules[0].timeouts.connect`.
    pub(crate) field: String,
    pub(crate) problem: FieldProblem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldProblem {
    #[error("does not name a resource of a kind that this dataplane knows")]
    Key,
    #[error("is not an encoded resource of its kind")]
    Encoding,
    #[error("is missing, or has a value that this dataplane does not know")]
    Unknown,
    #[error("is not a name of a Kubernetes object")]
    Name,
    #[error(transparent)]
    Hostname(HostnameError),
    #[error(transparent)]
    Path(PathError),
    #[error(transparent)]
    Condition(ConditionError),
    #[error(transparent)]
    Origin(OriginError),
    #[error(transparent)]
    Field(FieldError),
    #[error("is of a kind that an earlier filter has")]
    Repeated,
    #[error("is not a port from 1 to 65535")]
    Port,
    #[error("is neither 4 nor 16 bytes")]
    Address,
    #[error("is not the length of a prefix of its address")]
    Prefix,
    #[error("is not above the address before it")]
    Order,
    #[error("is more than {MAX_WEIGHT}")]
    Weight,
    #[error("is not a duration of at most 400000h")]
    Duration,
    #[error("has more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// Where in a body a field is; written out only for an error.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    parent: Option<&'a Self>,
    name: &'a str,
    index: Option<usize>,
}

impl<'a> Place<'a> {
    pub(crate) const fn root(name: &'a str) -> Self {
        Self {
            parent: None,
            name,
            index: None,
        }
    }

    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Self {
            parent: Some(self),
            name,
            index: None,
        }
    }

    pub(crate) fn at(self, index: usize) -> Self {
        Self {
            index: Some(index),
            ..self
        }
    }

    pub(crate) fn error(&self, problem: FieldProblem) -> Undecodable {
        let field = self.to_string();
        Undecodable { field, problem }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

pub(crate) type Result<T> = std::result::Result<T, Undecodable>;

/// Reads the message in a body, sharing its bytes.
pub(crate) fn message<M: Message + Default>(body: &Bytes) -> Result<M> {
    M::decode(body.clone()).map_err(|_| Place::root("body").error(FieldProblem::Encoding))
}

pub(crate) fn route(message: &wire::Route) -> Result<Route> {
    let wire::Route {
        created,
        hostnames,
        rules,
    } = message;
    Ok(Route {
        created: *created,
        hostnames: list(Place::root("hostnames"), hostnames, hostname)?,
        rules: list(Place::root("rules"), rules, rule)?,
        closed: false,
    })
}

pub(crate) fn backend(message: &wire::Backend) -> Result<Backend> {
    let wire::Backend { endpoints } = message;
    let place = Place::root("endpoints");
    let mut decoded: Vec<Endpoint> = Vec::with_capacity(endpoints.len());
    for (index, listed) in endpoints.iter().enumerate() {
        let place = place.at(index);
        let endpoint = endpoint(&place, listed)?;
        if decoded
            .last()
            .is_some_and(|last| last.address >= endpoint.address)
        {
            return Err(place.field("address").error(FieldProblem::Order));
        }
        decoded.push(endpoint);
    }
    Ok(Backend { endpoints: decoded })
}

pub(crate) fn certificate(message: wire::Certificate) -> Result<CertificateResource> {
    let place = Place::root("certificate");
    match message.certificate {
        Some(wire::certificate::Certificate::Serve(wire::Serve { chain, key })) => {
            bounded(&place.field("chain"), &chain)?;
            Ok(CertificateResource::Serve {
                chain: chain
                    .iter()
                    .map(|link| CertificateDer::from(link.to_vec()))
                    .collect(),
                key: PrivateKey::from_der(key.to_vec()),
            })
        }
        Some(wire::certificate::Certificate::Hold(wire::Hold {})) => Ok(CertificateResource::Hold),
        None => Err(place.error(FieldProblem::Unknown)),
    }
}

fn hostname(place: &Place<'_>, message: &wire::RouteHostname) -> Result<RouteHostname> {
    Ok(RouteHostname {
        pattern: pattern(place, message)?,
        tls: tls(place, message)?,
    })
}

pub(crate) fn pattern(place: &Place<'_>, message: &wire::RouteHostname) -> Result<HostPattern> {
    HostPattern::parse(&message.pattern)
        .map_err(|error| place.field("pattern").error(FieldProblem::Hostname(error)))
}

pub(crate) fn tls(place: &Place<'_>, message: &wire::RouteHostname) -> Result<HostTls> {
    match &message.tls {
        Some(wire::route_hostname::Tls::Terminate(wire::Terminate {
            certificates,
            on_plain,
        })) => Ok(HostTls::Terminate {
            certificates: list(place.field("certificates"), certificates, certificate_key)?,
            plain: decode_on_plain(&place.field("on_plain"), *on_plain)?,
        }),
        Some(wire::route_hostname::Tls::Plain(wire::Plain {})) => Ok(HostTls::None),
        None => Err(place.field("tls").error(FieldProblem::Unknown)),
    }
}

fn decode_on_plain(place: &Place<'_>, value: i32) -> Result<OnPlain> {
    match wire::OnPlain::try_from(value) {
        Ok(wire::OnPlain::Redirect) => Ok(OnPlain::Redirect),
        Ok(wire::OnPlain::Unspecified | wire::OnPlain::Refuse) => Ok(OnPlain::Refuse),
        Ok(wire::OnPlain::Serve) => Ok(OnPlain::Serve),
        Err(_) => Err(place.error(FieldProblem::Unknown)),
    }
}

fn certificate_key(place: &Place<'_>, message: &wire::CertificateRef) -> Result<CertificateKey> {
    let wire::CertificateRef { namespace, secret } = message;
    Ok(CertificateKey {
        namespace: name(&place.field("namespace"), namespace)?,
        secret: name(&place.field("secret"), secret)?,
    })
}

fn rule(place: &Place<'_>, message: &wire::Rule) -> Result<Rule> {
    let wire::Rule {
        name: rule_name,
        matches,
        non_upgrade,
        backends,
        timeouts,
        filters,
        allowed_origins,
        refuse_missing_origin,
    } = message;
    let timeouts_place = place.field("timeouts");
    let timeouts = required(&timeouts_place, timeouts.as_ref())?;
    Ok(Rule {
        name: name(&place.field("name"), rule_name)?,
        matches: list(place.field("matches"), matches, matches::decode)?,
        non_upgrade: decode_non_upgrade(&place.field("non_upgrade"), *non_upgrade)?,
        origins: OriginPolicy {
            allowed: list(place.field("allowed_origins"), allowed_origins, origin)?,
            refuse_missing: *refuse_missing_origin,
        },
        filters: Arc::new(filters::decode(&place.field("filters"), filters)?),
        backends: list(place.field("backends"), backends, weighted)?,
        timeouts: decode_timeouts(&timeouts_place, timeouts)?,
    })
}

fn decode_non_upgrade(place: &Place<'_>, value: i32) -> Result<NonUpgrade> {
    match wire::NonUpgrade::try_from(value) {
        Ok(wire::NonUpgrade::Reject) => Ok(NonUpgrade::Reject),
        Ok(wire::NonUpgrade::Forward) => Ok(NonUpgrade::Forward),
        Ok(wire::NonUpgrade::Unspecified) | Err(_) => Err(place.error(FieldProblem::Unknown)),
    }
}

fn weighted(place: &Place<'_>, message: &wire::WeightedBackend) -> Result<WeightedBackend> {
    let wire::WeightedBackend {
        namespace,
        service,
        port: port_number,
        weight,
        external,
        proxy_protocol,
    } = message;
    let proxy_protocol = match wire::ProxyProtocol::try_from(*proxy_protocol) {
        Ok(wire::ProxyProtocol::Unspecified) => None,
        Ok(wire::ProxyProtocol::V1) => Some(ProxyProtocol::V1),
        Ok(wire::ProxyProtocol::V2) => Some(ProxyProtocol::V2),
        Err(_) => return Err(place.field("proxy_protocol").error(FieldProblem::Unknown)),
    };
    if *weight > MAX_WEIGHT {
        return Err(place.field("weight").error(FieldProblem::Weight));
    }
    let backend = match external {
        Some(wire::ExternalRef {
            namespace,
            name: external,
        }) => {
            let place = place.field("external");
            Destination::External(ExternalKey {
                namespace: name(&place.field("namespace"), namespace)?,
                name: name(&place.field("name"), external)?,
            })
        }
        None => Destination::Service(BackendKey {
            namespace: name(&place.field("namespace"), namespace)?,
            service: name(&place.field("service"), service)?,
            port: port(&place.field("port"), *port_number)?,
        }),
    };
    Ok(WeightedBackend {
        backend,
        weight: *weight,
        proxy_protocol,
    })
}

#[expect(clippy::ptr_arg, reason = "it stands where a list of texts is read")]
fn origin(place: &Place<'_>, text: &String) -> Result<OriginPattern> {
    OriginPattern::parse(text).map_err(|error| place.error(FieldProblem::Origin(error)))
}

fn decode_timeouts(place: &Place<'_>, message: &wire::Timeouts) -> Result<Timeouts> {
    let wire::Timeouts {
        connect,
        handshake,
        read,
        send,
    } = message;
    Ok(Timeouts {
        connect: duration(&place.field("connect"), connect.as_ref())?,
        handshake: duration(&place.field("handshake"), handshake.as_ref())?,
        read: duration(&place.field("read"), read.as_ref())?,
        send: duration(&place.field("send"), send.as_ref())?,
    })
}

fn duration(place: &Place<'_>, message: Option<&wire::Duration>) -> Result<Duration> {
    let wire::Duration { seconds, nanos } = *required(place, message)?;
    // More nanoseconds than a second has would be a second spelling, and can overflow.
    let decoded = (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos));
    decoded
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| place.error(FieldProblem::Duration))
}

fn endpoint(place: &Place<'_>, message: &wire::Endpoint) -> Result<Endpoint> {
    let wire::Endpoint {
        address: bytes,
        port: port_number,
        state,
    } = message;
    let address = address(&place.field("address"), bytes)?;
    let state = match wire::EndpointState::try_from(*state) {
        Ok(wire::EndpointState::Ready) => EndpointState::Ready,
        Ok(wire::EndpointState::Terminating) => EndpointState::Terminating,
        Ok(wire::EndpointState::Unspecified) | Err(_) => {
            return Err(place.field("state").error(FieldProblem::Unknown));
        }
    };
    let port = port(&place.field("port"), *port_number)?;
    Ok(Endpoint {
        address: SocketAddr::new(address, port.get()),
        state,
    })
}

fn address(place: &Place<'_>, bytes: &[u8]) -> Result<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| place.error(FieldProblem::Address))
}

fn name(place: &Place<'_>, text: &str) -> Result<Arc<str>> {
    key::name(text).ok_or_else(|| place.error(FieldProblem::Name))
}

pub(crate) fn port(place: &Place<'_>, port: u32) -> Result<NonZeroU16> {
    let port = u16::try_from(port).ok().and_then(NonZeroU16::new);
    port.ok_or_else(|| place.error(FieldProblem::Port))
}

fn required<'a, T>(place: &Place<'_>, field: Option<&'a T>) -> Result<&'a T> {
    field.ok_or_else(|| place.error(FieldProblem::Unknown))
}

pub(crate) fn bounded<T>(place: &Place<'_>, listed: &[T]) -> Result<()> {
    if listed.len() > MAX_ENTRIES {
        return Err(place.error(FieldProblem::TooMany));
    }
    Ok(())
}

pub(crate) fn list<M, T>(
    place: Place<'_>,
    listed: &[M],
    decode: impl Fn(&Place<'_>, &M) -> Result<T>,
) -> Result<Vec<T>> {
    bounded(&place, listed)?;
    let entries = listed.iter().enumerate();
    entries
        .map(|(index, entry)| decode(&place.at(index), entry))
        .collect()
}

#[cfg(test)]
mod tests;
