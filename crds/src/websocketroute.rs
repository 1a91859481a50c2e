//! `WebSocketRoute`: spec and status; a rule of it is in `rule.rs`. What of their schema is more than types and bounds is in `schema.rs`.
//!
//! The doc comment of a field is what `kubectl explain` prints: what it does, its unit, its default, what it interacts with. A
//! field lands here in the commit that makes it work. Texts and numbers are as wide as JSON has them: a value that is out of
//! bounds must reach the compile, which reports it by field, instead of failing to decode. The bounds are Gateway API's.
#![expect(
    clippy::doc_markdown,
    reason = "kubectl explain prints these comments as they are; backticks would stay in the text"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::RouteRule;
use crate::schema::{
    conditions_schema, hostnames_schema, name_schema, namespace_schema, rule_names, time_schema,
    tls_rules,
};

/// Most hostnames of one route.
pub const MAX_HOSTNAMES: usize = 16;
/// Most certificates of one route.
pub const MAX_CERTIFICATE_REFS: usize = 64;
/// Most rules of one route.
pub const MAX_RULES: usize = 16;
/// Most addresses in a status, as in Gateway API.
pub const MAX_ADDRESSES: usize = 16;
/// Longest name of a Kubernetes object, a hostname or a rule, in bytes.
pub(crate) const MAX_NAME: usize = 253;

/// Routes WebSocket connections by hostname and path to Services.
#[derive(CustomResource, Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "ws-ingress.dev",
    version = "v1alpha1",
    kind = "WebSocketRoute",
    plural = "websocketroutes",
    shortname = "wsr",
    category = "ws",
    namespaced,
    status = "WebSocketRouteStatus",
    derive = "PartialEq",
    doc = "Routes WebSocket connections by hostname and path to Services.",
    printcolumn = r#"{"name":"Hostnames","type":"string","jsonPath":".spec.hostnames"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Programmed","type":"string","jsonPath":".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketRouteSpec {
    /// The class of ws-ingress that serves this route, named as an IngressClass would be. A route of another class is ignored and its status is left alone.
    /// Default: ws-ingress.
    #[serde(default = "default_class")]
    #[schemars(schema_with = "name_schema")]
    pub class_name: String,

    /// The names that clients connect to, in lower case: exact (chat.example.com) or with a wildcard as the whole first label
    /// (*.rt.example.com), which stands for one or more labels and never for none. The most specific name decides alone.
    /// Between namespaces the older claim holds a name (status.claims); a route that loses one still serves the others.
    #[schemars(schema_with = "hostnames_schema")]
    pub hostnames: Vec<String>,

    /// How clients reach the hostnames. TLS belongs to the hostname: the oldest route with a tls block decides for all routes on
    /// it, which leave tls out or say the same. If no route on a hostname has a tls block, its TLS handshakes fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RouteTls>,

    /// Which requests go where. Of all matches on a hostname that fit, an Exact path wins, then the longest prefix, then the most headers,
    /// then the most query parameters, then one that asks for a subprotocol, then the older route, then the route's namespace and name,
    /// then the order here.
    #[schemars(
        length(min = 1, max = MAX_RULES),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = rule_names())
    )]
    pub rules: Vec<RouteRule>,
}

/// How clients reach the hostnames of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = tls_rules()))]
pub struct RouteTls {
    /// Terminate: over TLS, ended here with certificateRefs; for the plain listener see plain. None: only on the plain listener,
    /// for a hop behind something that ended TLS already, such as a load balancer. Default: Terminate.
    #[serde(default)]
    pub mode: TlsMode,

    /// Secrets of type kubernetes.io/tls, with tls.crt (leaf first, then its issuers) and tls.key.
    /// Several: RSA and ECDSA, or several names; the first that fits the client and the name is served. Needed with mode
    /// Terminate, forbidden with mode None. A Secret that is there but broken keeps its last good certificate in service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_CERTIFICATE_REFS), extend("x-kubernetes-list-type" = "atomic"))]
    pub certificate_refs: Vec<CertificateRef>,

    /// What the plain listener (port 80) does with the hostnames when mode is Terminate. Redirect: 308 to the same path and query on
    /// https, for upgrades too. Refuse: 403. Serve: the same rules without TLS, and backends are told X-Forwarded-Proto http. No
    /// backend is contacted by Redirect and Refuse. What came over https to a proxy that the operator trusts is served. Leave it out
    /// with mode None, which is served there anyway. Default: Redirect.
    #[serde(default)]
    pub plain: OnPlain,
}

/// Where TLS ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsMode {
    #[default]
    Terminate,
    None,
}

/// What the plain listener does with a hostname that is served over TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum OnPlain {
    #[default]
    Redirect,
    Refuse,
    Serve,
}

/// Names a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRef {
    /// Name of the Secret.
    #[schemars(schema_with = "name_schema")]
    pub name: String,

    /// Namespace of the Secret. Another one needs a ReferenceGrant there, from WebSocketRoutes of this namespace to Secrets.
    /// Default: the route's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "namespace_schema")]
    pub namespace: Option<String>,
}

/// What the controller says of a route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketRouteStatus {
    /// Accepted: the route is valid and holds its hostnames. ResolvedRefs: all that it refers to was found and can be used.
    /// Programmed: every dataplane that was ready has taken this generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,

    /// Since when the route claims each of its hostnames. Between namespaces the oldest claim holds the name. Written by the
    /// controller; a claim ends when the route no longer lists the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_HOSTNAMES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostname"])
    )]
    pub claims: Vec<HostnameClaim>,

    /// Where clients reach the dataplane: the load balancer addresses of its Service, for external-dns. Absent while it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ADDRESSES), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<StatusAddress>,
}

/// An address of the dataplane.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct StatusAddress {
    /// IPAddress or Hostname.
    #[serde(rename = "type")]
    pub address_type: AddressType,

    /// The address itself.
    #[schemars(length(min = 1, max = MAX_NAME))]
    pub value: String,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AddressType {
    #[serde(rename = "IPAddress")]
    IpAddress,
    Hostname,
}

/// Since when a route claims a hostname.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostnameClaim {
    /// One of spec.hostnames.
    #[schemars(length(min = 1, max = MAX_NAME))]
    pub hostname: String,

    /// Time of the claim, in whole seconds.
    #[schemars(schema_with = "time_schema")]
    pub since: Time,
}

fn default_class() -> String {
    crate::DEFAULT_CLASS.to_owned()
}
