//! The route table: what the controller compiles and the dataplane serves from.
//!
//! The dataplane owns this contract. [`Resources`] is the form that travels: routes, backends (endpoints, and names of external
//! ones) and certificates by stable key.
//! [`RouteTable::build`] is the one validator between the two, the same for standalone and for the push: it refuses what cannot
//! be served, keeps the last accepted form of it, and reuses every part that did not change. Nothing here knows Kubernetes,
//! sockets or time.

mod addresses;
mod backend;
mod certificate;
mod external;
mod filters;
mod host;
mod lookup;
mod matching;
mod origin;
mod path;
mod route;
mod table;
mod tls_policy;

pub use addresses::{Loopback, is_off_limits, meant_by};
pub use backend::{Backend, Endpoint, EndpointState, MAX_ENDPOINTS};
pub use certificate::{
    Certificate, CertificateError, CertificateKey, CertificateResource, PrivateKey,
};
pub use external::{
    Authorities, Destination, External, ExternalKey, ExternalTls, MAX_AUTHORITIES,
    MAX_DENIED_RANGES,
};
pub use filters::{
    FieldError, FieldName, FieldValue, Filters, HeaderField, HeaderModifier, PathModifier,
    Redirect, RedirectScheme, RedirectStatus, Rewrite,
};
pub use host::{HostPattern, Hostname, HostnameError, MAX_HOSTNAME_BYTES};
pub use lookup::{Host, MAX_CONDITIONS_OF_HOST, Matched};
pub use matching::{
    ConditionError, Conditions, HeaderMatch, MAX_CONDITION_NAME_BYTES, MAX_CONDITION_VALUE_CHARS,
    QueryParamMatch, RequestParts, RouteMatch, Subprotocol,
};
pub use origin::{OriginError, OriginPattern, OriginPolicy};
pub use path::{MAX_PATH_BYTES, PathError, PathMatch, has_dot_segments, is_encoded_well};
pub use route::{
    BackendKey, HostTls, NonUpgrade, OnPlain, ProxyProtocol, Route, RouteHostname, RouteKey, Rule,
    Timeouts, WeightedBackend,
};
pub use table::{Invalid, Rejected, ResourceKey, Resources, RouteTable};
pub use tls_policy::TlsPolicy;
