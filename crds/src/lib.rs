//! The API of ws-ingress: Kubernetes types of the group `ws-ingress.dev`, version `v1alpha1`.
//!
//! Types only, no client. In: YAML or JSON as a person or the API server writes it. Out: the Rust types that the controller
//! compiles, and [`custom_resource_definitions`], one for each kind, from which `crdgen` makes `crds/*.yaml`. Nothing here refuses an
//! unknown field: after a rollback a newer field would withdraw the whole route. Strictness belongs to who reads files.

pub mod conditions;
mod definition;
mod duration;
mod externalbackend;
mod filter_schema;
mod filters;
mod matching;
pub mod name;
mod rule;
mod schema;
mod websocketroute;

pub use definition::{custom_resource_definition_yaml, custom_resource_definitions};
pub use duration::{DurationError, DurationString};
pub use externalbackend::{
    ExternalBackend, ExternalBackendSpec, ExternalBackendTls, MAX_CA_CERTIFICATES,
};
pub use filters::{
    FilterType, HeaderField, HeaderModifier, MAX_FILTERS, MAX_HEADER_FIELDS, PathModifier,
    PathModifierType, RedirectScheme, RequestRedirect, RouteFilter, UrlRewrite,
};
pub use matching::{MAX_CONDITIONS, MatchType, RouteHeaderMatch, RouteQueryParamMatch};
pub use rule::{
    BackendRef, EXTERNAL_BACKEND, MAX_ALLOWED_ORIGINS, MAX_BACKEND_REFS, MAX_MATCHES, MAX_WEIGHT,
    NonUpgrade, PathType, ProxyProtocol, RouteMatch, RoutePath, RouteRule, RouteTimeouts, SERVICE,
};
pub use websocketroute::{
    AddressType, CertificateRef, HostnameClaim, MAX_ADDRESSES, MAX_CERTIFICATE_REFS, MAX_HOSTNAMES,
    MAX_RULES, OnPlain, RouteTls, StatusAddress, TlsMode, WebSocketRoute, WebSocketRouteSpec,
    WebSocketRouteStatus,
};

/// The API group of every kind here.
pub const GROUP: &str = "ws-ingress.dev";
/// The only version so far.
pub const VERSION: &str = "v1alpha1";
/// The class that a route belongs to when it names none.
pub const DEFAULT_CLASS: &str = "ws-ingress";
