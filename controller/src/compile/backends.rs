//! Service and EndpointSlices -> the endpoints of each backend that a route names.
//!
//! In: drafts, for the Service ports that they refer to. Out: a backend for each that is found and served, and findings. Slices
//! are joined by their Service label and the *name* of the port, never by its number: a named target port may differ from pod to
//! pod. Ready endpoints take new connections; terminating ones that still serve keep theirs; the rest are left out, and so are
//! addresses that no route may reach (`addresses`). Of more endpoints than a backend may have, the first by address serve.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{self, EndpointSlice};
use route_table::{Backend, BackendKey, Endpoint, EndpointState, MAX_ENDPOINTS};

use super::addresses::{OffLimits, Refused};
use super::draft::Draft;
use super::{CompileConfig, Finding, Reason};
use crate::store::{ObjectKey, Snapshot, service_name};

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

/// What one backend key comes to.
#[derive(Debug, Default)]
struct Resolved {
    backend: Option<Arc<Backend>>,
    problems: Vec<(Reason, String)>,
}

/// What the backends come to.
#[derive(Debug, Default)]
pub(super) struct Backends {
    pub(super) resources: BTreeMap<BackendKey, Arc<Backend>>,
    /// Every Service whose slices matter: those that a route names, whether they are there or not, and our own.
    pub(super) named: BTreeSet<ObjectKey>,
}

/// The endpoints of one backend while they are collected: never more than it may have, the first by address. Which these are does
/// not depend on the order in which they come.
#[derive(Debug, Default)]
struct Endpoints {
    states: BTreeMap<SocketAddr, EndpointState>,
    /// Whether some were left out.
    is_over: bool,
}

impl Endpoints {
    /// An address may be in two slices while one is filled from the other; then it is Ready if it is so in one of them.
    fn add(&mut self, address: SocketAddr, state: EndpointState) {
        let known = self.states.entry(address).or_insert(state);
        *known = state.min(*known);
        if self.states.len() > MAX_ENDPOINTS {
            self.states.pop_last();
            self.is_over = true;
        }
    }

    fn into_backend(self) -> Backend {
        let states = self.states.into_iter();
        let endpoints = states.map(|(address, state)| Endpoint { address, state });
        Backend {
            endpoints: endpoints.collect(),
        }
    }
}

/// Slices by namespace and Service.
type Slices<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

/// Looks up every Service that a route names; what no route may reach goes to whoever judges other addresses.
pub(super) fn resolve<'a>(
    snapshot: &Snapshot,
    drafts: &mut [Draft],
    config: &'a CompileConfig,
) -> (Backends, OffLimits<'a>) {
    let slices = by_service(snapshot);
    let off_limits = OffLimits::new(config, own_addresses(snapshot, &slices, config));
    let mut resolved = BTreeMap::new();
    let mut resources = BTreeMap::new();
    for draft in drafts {
        let served = draft.is_served();
        for (field, key) in &draft.backend_refs {
            let resolved = match resolved.entry(key.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    entry.insert(resolve_backend(snapshot, &slices, key, &off_limits))
                }
            };
            for (reason, text) in &resolved.problems {
                draft.findings.push(Finding::new(*reason, field, text));
            }
            if let Some(backend) = resolved.backend.as_ref().filter(|_| served) {
                resources.insert(key.clone(), backend.clone());
            }
        }
    }
    // Not a route's, but what they are decides which of a route's addresses are refused.
    let own = config.own_services.iter().cloned();
    let backends = Backends {
        resources,
        named: resolved.keys().map(object).chain(own).collect(),
    };
    (backends, off_limits)
}

fn object(key: &BackendKey) -> ObjectKey {
    ObjectKey {
        namespace: key.namespace.clone(),
        name: key.service.clone(),
    }
}

fn by_service(snapshot: &Snapshot) -> Slices<'_> {
    let mut slices = Slices::new();
    for (key, slice) in snapshot.slices() {
        if let Some(service) = service_name(slice) {
            slices
                .entry((&key.namespace, service))
                .or_default()
                .push(slice);
        }
    }
    slices
}

/// The addresses of our own pods, ready or not: one that is not ready yet, or terminates, is ours as well. And those of our own Services,
/// behind which they are: a name in the cluster leads to such a one.
fn own_addresses(
    snapshot: &Snapshot,
    slices: &Slices<'_>,
    config: &CompileConfig,
) -> BTreeSet<IpAddr> {
    let mut own = BTreeSet::new();
    for key in &config.own_services {
        let slices = slices.get(&(&*key.namespace, &*key.name));
        let endpoints = slices
            .into_iter()
            .flatten()
            .flat_map(|slice| &slice.endpoints);
        let pods = endpoints.flat_map(|endpoint| &endpoint.addresses);
        let service = snapshot
            .service(key)
            .and_then(|service| service.spec.as_ref());
        // A headless one has `None` for an address. External IPs are those of machines, where there may be others.
        let service = service
            .and_then(|spec| spec.cluster_ips.as_ref())
            .into_iter()
            .flatten();
        let addresses = pods
            .chain(service)
            .filter_map(|text| text.parse::<IpAddr>().ok());
        own.extend(addresses.map(|ip| ip.to_canonical()));
    }
    own
}

fn resolve_backend(
    snapshot: &Snapshot,
    slices: &Slices<'_>,
    key: &BackendKey,
    off_limits: &OffLimits<'_>,
) -> Resolved {
    let object = object(key);
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
    let mut endpoints = Endpoints::default();
    let mut refused = Refused::default();
    for slice in slices.iter().filter(|slice| slice.address_type == family) {
        collect(slice, port, off_limits, &mut endpoints, &mut refused);
    }
    let is_over = endpoints.is_over;
    let backend = endpoints.into_backend();
    let refused = refused.describe(key).into_iter();
    let mut problems = refused
        .map(|text| (Reason::EndpointRefused, text))
        .collect::<Vec<_>>();
    if is_over {
        let text = format!(
            "Service {key} has more than {MAX_ENDPOINTS} endpoints, and only the first {MAX_ENDPOINTS} by address serve; spread its pods over several Services, and name each in backendRefs"
        );
        problems.push((Reason::TooManyEndpoints, text));
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
    off_limits: &OffLimits<'_>,
    endpoints: &mut Endpoints,
    refused: &mut Refused,
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
        // "No semantics are defined for additional addresses beyond the first, and kube-proxy does not look at them" (the API
        // reference of EndpointSlice, endpoints[].addresses).
        let Some(text) = endpoint.addresses.first() else {
            continue;
        };
        match off_limits.judge(text) {
            Ok(ip) => {
                for number in &numbers {
                    endpoints.add(SocketAddr::new(ip, *number), state);
                }
            }
            Err(refusal) => refused.add(refusal, text),
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

#[cfg(test)]
mod tests;
