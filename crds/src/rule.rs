//! A rule of a `WebSocketRoute`: which requests it takes, where they go, and for how long.
//!
//! As in `websocketroute.rs`, doc comments are what `kubectl explain` prints, and texts and numbers are as wide as JSON has them.
#![expect(
    clippy::doc_markdown,
    reason = "kubectl explain prints these comments as they are; backticks would stay in the text"
)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::{self, DurationString};
use crate::filter_schema::{each_filter_once, rule_filters};
use crate::filters::{MAX_FILTERS, RouteFilter};
use crate::matching::{
    MAX_CONDITIONS, RouteHeaderMatch, RouteQueryParamMatch, subprotocols_schema,
};
use crate::schema::{
    backend_ref_rules, name_schema, namespace_schema, origins_schema, path_value_schema,
    service_schema,
};

/// Most matches of one rule.
pub const MAX_MATCHES: usize = 64;
/// Most backends of one rule.
pub const MAX_BACKEND_REFS: usize = 16;
/// Most origins that one rule allows.
pub const MAX_ALLOWED_ORIGINS: usize = 64;
/// Longest group or kind of a reference (Gateway API `Group`, `Kind`).
const MAX_KIND: usize = 253;
/// Highest weight of one backend.
pub const MAX_WEIGHT: i32 = 1_000_000;

/// Requests that match, and the backends that take them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule_filters()))]
pub struct RouteRule {
    /// Name of the rule in logs and metrics, unique in the route: lower case letters, digits, '-' and '.'. Default: its index,
    /// from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_schema")]
    pub name: Option<String>,

    /// A request that fits any one of these is taken. Default: every path.
    #[serde(default = "default_matches")]
    #[schemars(length(min = 1, max = MAX_MATCHES), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<RouteMatch>,

    /// What happens to a request that does not ask for a WebSocket. Reject: 426. Forward: proxied as ordinary HTTP to the same
    /// backends (Socket.IO polling, SockJS, a page), streamed both ways. Nothing ties the requests of one client to one endpoint: a
    /// library that polls needs a backend with a single one. Default: Reject.
    #[serde(default)]
    pub non_upgrade: NonUpgrade,

    /// Origins (RFC 6454) of the pages whose requests are taken, as browsers send them: scheme://host or scheme://host:port, without a
    /// path. A wildcard as the whole first label stands for one or more labels (https://*.example.com). Scheme, host and port are
    /// compared, in any case; the port of http and https themselves may be left out. A request with another Origin, with null or with several
    /// gets 403, and no backend is contacted: browsers let any page open a WebSocket with the user's cookies. Ordinary HTTP
    /// (nonUpgrade Forward) is held to the list too, since a foreign page can post with these cookies. The origin of the site itself
    /// must be listed like every other. Give every rule that leads to the same backend the same list: a backend that merges slashes or
    /// ignores case may read the path of another rule as this one's. Default: any origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "origins_schema")]
    pub allowed_origins: Option<Vec<String>>,

    /// Whether a WebSocket handshake without Origin is taken. Browsers always send one with a handshake, other programs need not; these
    /// can also send any that they like. Ordinary HTTP without Origin is always taken: browsers leave it out where a page reads from its
    /// own host. Holds without allowedOrigins too: then any origin will do, but there must be one. Default: true.
    #[serde(default = "default_allow_missing_origin")]
    pub allow_missing_origin: bool,

    /// What is changed of requests and answers: each type of filter once at most, and no URLRewrite beside a RequestRedirect. Matching
    /// and allowedOrigins judge the request as the client sent it. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_FILTERS),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = each_filter_once())
    )]
    pub filters: Vec<RouteFilter>,

    /// Services and ExternalBackends that take new connections, by weight. One that cannot be resolved takes none; the others share. At least one, or
    /// none beside a filter RequestRedirect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_BACKEND_REFS), extend("x-kubernetes-list-type" = "atomic"))]
    pub backend_refs: Vec<BackendRef>,

    /// Deadlines of every connection that this rule takes.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
}

/// One way for a request to fit a rule: all that is given here must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// The request's path, without its query. Letters have case. Percent-encoding that changes nothing (RFC 3986 section 6.2.2: %61 is
    /// a, %c3 is %C3) makes no difference; every other does: %2F is no /, and an empty element (//) is one. Default: PathPrefix /.
    #[serde(default)]
    pub path: RoutePath,

    /// Headers that the request must have, all of them, each name once. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_CONDITIONS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<RouteHeaderMatch>,

    /// Query parameters that the request must have, all of them, each name once. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_CONDITIONS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub query_params: Vec<RouteQueryParamMatch>,

    /// Subprotocols (Sec-WebSocket-Protocol), letter for letter: the client must offer any one of these. The backend still chooses among
    /// all that the client offers. An ordinary request (nonUpgrade Forward) offers none. Default: none is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "subprotocols_schema")]
    pub subprotocols: Vec<String>,
}

/// A path and how it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RoutePath {
    /// Exact: the whole path. PathPrefix: whole elements from the start, so that /chat takes /chat and /chat/a, never /chatter.
    /// Default: PathPrefix.
    #[serde(rename = "type")]
    pub path_type: PathType,

    /// An absolute path, percent-encoded where needed ('%' and two hexadecimal digits), without empty or dot elements. Default: /.
    #[schemars(schema_with = "path_value_schema")]
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PathType {
    Exact,
    #[default]
    PathPrefix,
}

/// What happens to a request that does not ask for an upgrade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum NonUpgrade {
    #[default]
    Reject,
    Forward,
}

/// Kind of a backend of the core group, and the default.
pub const SERVICE: &str = "Service";
/// Kind of a backend of our own group.
pub const EXTERNAL_BACKEND: &str = "ExternalBackend";

/// A Service port or an ExternalBackend, and its share of new connections.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = backend_ref_rules()))]
pub struct BackendRef {
    /// API group of the backend: empty for a Service, ws-ingress.dev for an ExternalBackend. Default: empty.
    #[serde(default)]
    #[schemars(length(max = MAX_KIND))]
    pub group: String,

    /// Kind of the backend: Service, or ExternalBackend (with group ws-ingress.dev). Default: Service.
    #[serde(default = "default_kind")]
    #[schemars(length(min = 1, max = MAX_KIND))]
    pub kind: String,

    /// Name of the Service or ExternalBackend.
    #[schemars(schema_with = "service_schema")]
    pub name: String,

    /// Namespace of the backend. Another one needs a ReferenceGrant there, from WebSocketRoutes of this namespace to Services
    /// (or to ExternalBackends of group ws-ingress.dev). Default: the route's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "namespace_schema")]
    pub namespace: Option<String>,

    /// Port number of the Service (not of its pods), TCP, from 1 to 65535. An ExternalBackend has its own port: leave it out there,
    /// or say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,

    /// Share of new connections, in proportion to the sum of all weights in the rule, from 0 to 1000000; 0 takes none.
    /// Default: 1.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = MAX_WEIGHT))]
    pub weight: i32,

    /// Version of the PROXY header with the client's address that each connection to the backend begins with, V1 or V2. The backend must
    /// expect it: most servers refuse a connection with a header that they do not expect, or without one that they do. Connections are
    /// then shared by no two clients. Default: no header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Of an Option the enum in the schema would list null.
    #[schemars(with = "ProxyProtocol")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// Deadlines of a connection, as durations such as 30s, 1h30m or 250ms.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteTimeouts {
    /// TCP connect to one endpoint. Cannot be switched off. Default: 5s.
    #[schemars(schema_with = "duration::nonzero")]
    pub connect: DurationString,

    /// From the request's head to the backend's answer (101), the connect included. Cannot be switched off. Default: 10s.
    #[schemars(schema_with = "duration::nonzero")]
    pub handshake: DurationString,

    /// Ends a connection when nothing was read from the backend for this long (proxy_read_timeout in nginx): a WebSocket with Close
    /// 1001; ordinary HTTP, counted from the end of the request, with 504 or, within an answer, by cutting it. 0s is off. Default: 1h.
    pub read: DurationString,

    /// Ends a connection when one write to either side made no progress for this long (proxy_send_timeout and send_timeout in
    /// nginx). 0s is off. Default: 60s.
    pub send: DurationString,
}
impl Default for RoutePath {
    fn default() -> Self {
        Self {
            path_type: PathType::default(),
            value: "/".to_owned(),
        }
    }
}

impl Default for RouteTimeouts {
    fn default() -> Self {
        Self {
            connect: DurationString::from_secs(5),
            handshake: DurationString::from_secs(10),
            read: "1h".parse().expect("a constant in the right form"),
            send: DurationString::from_secs(60),
        }
    }
}

fn default_matches() -> Vec<RouteMatch> {
    vec![RouteMatch::default()]
}

fn default_allow_missing_origin() -> bool {
    true
}

fn default_kind() -> String {
    SERVICE.to_owned()
}

fn default_weight() -> i32 {
    1
}
