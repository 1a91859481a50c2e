//! Service and EndpointSlices -> the endpoints of each backend that a route names.
//!
//! In: drafts, for the Service ports that they refer to. Out: a backend for each that is found and served, and findings. Slices
//! are joined by their Service label and the *name* of the port, never by its number: a named target port may differ from pod to
//! pod. Ready endpoints take new connections; terminating ones that still serve keep theirs; the rest are left out. Addresses that
//! would lead into the dataplane's own pod, node or cloud are refused.

use std::collections::{BTreeMap, btree_map::Entry};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{self, EndpointSlice};
use route_table::{Backend, BackendKey, Endpoint, EndpointState};

use super::draft::Draft;
use super::{CompileConfig, Finding, LoopbackEndpoints, Reason};
use crate::store::{ObjectKey, Snapshot};

/// The label by which a slice belongs to a Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Values of `appProtocol` that are something else than HTTP/1.1 without TLS. Others are names without meaning here.
const UNSUPPORTED_PROTOCOLS: [&str; 8] = [
    "kubernetes.io/h2c",
    "kubernetes.io/wss",
    "grpc",
    "h2c",
    "http2",
    "https",
    "tls",
    "wss",
];

/// Addresses at which clouds hand out credentials, where they are not link-local: Alibaba Cloud, AWS over IPv6.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Most refused addresses that a finding names.
const MAX_SHOWN: usize = 3;

/// What one backend key comes to.
#[derive(Debug, Default)]
struct Resolved {
    backend: Option<Arc<Backend>>,
    problems: Vec<(Reason, String)>,
}

/// Slices by namespace and Service.
type Slices<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

/// Looks up every backend that a route names.
pub(super) fn resolve(
    snapshot: &Snapshot,
    drafts: &mut [Draft],
    config: &CompileConfig,
) -> BTreeMap<BackendKey, Arc<Backend>> {
    let slices = by_service(snapshot);
    let mut resolved = BTreeMap::new();
    let mut backends = BTreeMap::new();
    for draft in drafts {
        let served = draft.is_served();
        for (field, key) in &draft.backend_refs {
            let resolved = match resolved.entry(key.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    entry.insert(resolve_backend(snapshot, &slices, key, config))
                }
            };
            for (reason, text) in &resolved.problems {
                draft.findings.push(Finding::new(*reason, field, text));
            }
            if let Some(backend) = resolved.backend.as_ref().filter(|_| served) {
                backends.insert(key.clone(), backend.clone());
            }
        }
    }
    backends
}

fn by_service(snapshot: &Snapshot) -> Slices<'_> {
    let mut slices = Slices::new();
    for (key, slice) in snapshot.slices() {
        let labels = slice.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_LABEL)) {
            slices
                .entry((&key.namespace, service))
                .or_default()
                .push(slice);
        }
    }
    slices
}

fn resolve_backend(
    snapshot: &Snapshot,
    slices: &Slices<'_>,
    key: &BackendKey,
    config: &CompileConfig,
) -> Resolved {
    let object = ObjectKey {
        namespace: key.namespace.clone(),
        name: key.service.clone(),
    };
    let Some(service) = snapshot.service(&object) else {
        let text = format!("Service {object} does not exist; create it, or correct the name");
        return problem(Reason::ServiceNotFound, text);
    };
    let port = match find_port(service, &object, key.port) {
        Ok(port) => port,
        Err(refused) => return refused,
    };
    let none = Vec::new();
    let slices = slices.get(&(&*key.namespace, &*key.service));
    let slices = slices.unwrap_or(&none);
    let family = family(service, slices);
    let mut endpoints = Vec::new();
    let mut refused = Vec::new();
    for slice in slices.iter().filter(|slice| slice.address_type == family) {
        collect(slice, port, config, &mut endpoints, &mut refused);
    }
    // An address may be in two slices while one is filled from the other; Ready sorts first and stays.
    endpoints.sort();
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    let backend = Backend { endpoints };
    let mut problems = Vec::new();
    if !refused.is_empty() {
        problems.push((Reason::EndpointRefused, describe_refused(key, refused)));
    }
    if backend.ready().next().is_none() {
        let text = format!(
            "Service {key} has no ready endpoint; clients get 503 until a pod behind it is ready"
        );
        problems.push((Reason::NoReadyEndpoints, text));
    }
    Resolved {
        backend: Some(Arc::new(backend)),
        problems,
    }
}

fn problem(reason: Reason, text: String) -> Resolved {
    Resolved {
        backend: None,
        problems: vec![(reason, text)],
    }
}

/// The Service's TCP port of that number, if it can be spoken to.
fn find_port<'a>(
    service: &'a Service,
    object: &ObjectKey,
    number: NonZeroU16,
) -> Result<&'a ServicePort, Resolved> {
    let refuse = |text: String| Err(problem(Reason::UnsupportedProtocol, text));
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        return refuse(format!(
            "Service {object} is of type ExternalName, which is not served; use a Service with endpoints"
        ));
    }
    let ports = spec.and_then(|spec| spec.ports.as_deref());
    let mut same = ports.unwrap_or_default().iter().collect::<Vec<_>>();
    same.retain(|port| port.port == i32::from(number.get()));
    if same.is_empty() {
        let text =
            format!("Service {object} has no port {number}; add it there, or correct the port");
        return Err(problem(Reason::PortNotFound, text));
    }
    same.retain(|port| is_tcp(port.protocol.as_deref()));
    let Some(port) = same.first() else {
        return refuse(format!(
            "port {number} of Service {object} is not TCP; refer to a TCP port"
        ));
    };
    match port.app_protocol.as_deref() {
        Some(protocol) if UNSUPPORTED_PROTOCOLS.contains(&protocol) => refuse(format!(
            "port {number} of Service {object} has the appProtocol {protocol:?}, which is not served; refer to a port that speaks ws over HTTP/1.1 without TLS"
        )),
        Some(_) | None => Ok(port),
    }
}

/// Absent means TCP, for Services and slices alike.
fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// One family only, or each dual-stack pod would count twice.
fn family(service: &Service, slices: &[&EndpointSlice]) -> &'static str {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_deref());
    match families.and_then(<[String]>::first).map(String::as_str) {
        Some("IPv6") => "IPv6",
        Some(_) => "IPv4",
        None if slices.iter().any(|slice| slice.address_type == "IPv4") => "IPv4",
        None => "IPv6",
    }
}

/// Adds what a slice holds for a port of its Service.
fn collect(
    slice: &EndpointSlice,
    port: &ServicePort,
    config: &CompileConfig,
    endpoints: &mut Vec<Endpoint>,
    refused: &mut Vec<String>,
) {
    let name = port.name.as_deref().unwrap_or_default();
    let numbers = slice
        .ports
        .iter()
        .flatten()
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .filter(|port| port.name.as_deref().unwrap_or_default() == name)
        .filter_map(|port| u16::try_from(port.port?).ok())
        .filter(|number| *number != 0)
        .collect::<Vec<_>>();
    if numbers.is_empty() {
        return;
    }
    for endpoint in &slice.endpoints {
        let Some(state) = state(endpoint) else {
            continue;
        };
        for text in &endpoint.addresses {
            match text.parse::<IpAddr>() {
                Ok(ip) if is_permitted(ip, config) => {
                    endpoints.extend(numbers.iter().map(|number| Endpoint {
                        address: SocketAddr::new(ip, *number),
                        state,
                    }));
                }
                Ok(ip) => refused.push(ip.to_string()),
                Err(_) => refused.push(format!("{text:?}")),
            }
        }
    }
}

/// KEP-1672: what is absent counts as ready, as serving when ready, and as not terminating.
fn state(endpoint: &v1::Endpoint) -> Option<EndpointState> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true);
    let serving = conditions
        .and_then(|conditions| conditions.serving)
        .unwrap_or(ready);
    let terminating = conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false);
    match (terminating, ready, serving) {
        (true, _, true) => Some(EndpointState::Terminating),
        (false, true, _) => Some(EndpointState::Ready),
        (true, _, false) | (false, false, _) => None,
    }
}

/// Whether a route may lead to this address. An IPv4 address in IPv6 clothes is judged as what it is.
fn is_permitted(ip: IpAddr, config: &CompileConfig) -> bool {
    let ip = ip.to_canonical();
    if config
        .denied_backends
        .iter()
        .any(|range| range.contains(&ip))
    {
        return false;
    }
    if ip.is_loopback() {
        return match config.loopback_endpoints {
            LoopbackEndpoints::Allow => true,
            LoopbackEndpoints::Refuse => false,
        };
    }
    let special = match ip {
        // All of 0.0.0.0/8 is "this host" (RFC 1122 §3.2.1.3), not only its first address.
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(special || ip.is_unspecified() || ip.is_multicast() || METADATA.contains(&ip))
}

fn describe_refused(key: &BackendKey, mut refused: Vec<String>) -> String {
    refused.sort();
    refused.dedup();
    let count = refused.len();
    refused.truncate(MAX_SHOWN);
    let more = match count - refused.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "Service {key} has the endpoint addresses {}{more}, which no route may reach (loopback, link-local, unspecified, multicast, metadata, denied by the operator, or no IP address); remove them from its EndpointSlices",
        refused.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: [bool; 2]) {
        let both = [LoopbackEndpoints::Refuse, LoopbackEndpoints::Allow];
        let permitted = |loopback| is_permitted(address.parse().unwrap(), &config(loopback));
        assert_eq!(both.map(permitted), expected, "{address}");
    }

    fn config(loopback_endpoints: LoopbackEndpoints) -> CompileConfig {
        let denied = ["10.96.0.0/12", "fd00:96::/112"];
        CompileConfig {
            class: String::new(),
            loopback_endpoints,
            denied_backends: denied.map(|range| range.parse().unwrap()).into(),
        }
    }

    #[test]
    fn what_the_operator_denies_is_never_permitted() {
        for address in [
            "10.96.0.1",
            "10.111.255.255",
            "fd00:96::1",
            "::ffff:10.96.0.1",
        ] {
            check(address, [false, false]);
        }
        check("10.112.0.1", [true, true]);
    }

    #[test]
    fn addresses_of_pods_and_machines_are_permitted() {
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "203.0.113.7",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
        ] {
            check(address, [true, true]);
        }
    }

    #[test]
    fn loopback_is_permitted_only_where_allowed() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check(address, [false, true]);
        }
    }

    #[test]
    fn special_addresses_are_never_permitted() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
        ] {
            check(address, [false, false]);
        }
    }
}
