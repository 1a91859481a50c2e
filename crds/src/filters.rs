//! What a rule changes of requests and answers: Gateway API's `HTTPRouteFilter`, in its words and shapes.
//!
//! As in `websocketroute.rs`, doc comments are what `kubectl explain` prints. The forms of texts and the CEL rules are in
//! `filter_schema.rs`.
#![expect(
    clippy::doc_markdown,
    reason = "kubectl explain prints these comments as they are; backticks would stay in the text"
)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::filter_schema::{
    field_name_schema, field_value_schema, hostname_schema, needed_fields, path_fields,
    redirect_changes, replace_prefix_schema, rewrite_changes, status_code_schema,
};
use crate::schema::path_value_schema;

/// Most filters of one rule: one of each type.
pub const MAX_FILTERS: usize = 4;
/// Most fields in each list of a header modifier, as in Gateway API.
pub const MAX_HEADER_FIELDS: usize = 16;

/// One change of requests or answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = needed_fields()))]
pub struct RouteFilter {
    /// Which filter this is; the field of the same name says what it does. RequestHeaderModifier, ResponseHeaderModifier,
    /// URLRewrite or RequestRedirect.
    #[serde(rename = "type")]
    pub filter_type: FilterType,

    /// Changes header fields of requests on their way to a backend, after matching and after everything that the proxy itself does with
    /// them. A client's field whose name differs from one that is set or removed only by _ for - is removed too. For type
    /// RequestHeaderModifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,

    /// Changes header fields of a backend's answers on their way to the client: of the 101, of its own refusals, of ordinary HTTP. Answers of the
    /// proxy itself are not changed. For type ResponseHeaderModifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,

    /// Changes Host and the path on their way to a backend. For type URLRewrite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,

    /// Answers every request of the rule with a redirect, WebSocket handshakes too, whatever nonUpgrade says; no backend is
    /// contacted, and the rule has no backendRefs. For type RequestRedirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,
}

/// The kinds of filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    RequestRedirect,
}

/// Changes of header fields. A name stands in one of the lists at most, in whatever case. Fields of one hop (Connection, Upgrade, TE, ...),
/// Content-Length, Host, Sec-WebSocket-* and those that the proxy writes (X-Forwarded-*, Forwarded, X-Real-IP, X-Request-ID,
/// X-Ws-Ingress-*, CDN-Loop) cannot be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderModifier {
    /// Fields that are written in place of all of their name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_HEADER_FIELDS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub set: Vec<HeaderField>,

    /// Fields that are written beside those of their name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_HEADER_FIELDS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub add: Vec<HeaderField>,

    /// Names of fields that are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::filter_schema::field_names_schema")]
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderField {
    /// Name of the field, in any case.
    #[schemars(schema_with = "field_name_schema")]
    pub name: String,

    /// Value of the field: one line of visible ASCII characters, with spaces or tabs between them.
    #[schemars(schema_with = "field_value_schema")]
    pub value: String,
}

/// What a backend gets in place of what the client sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rewrite_changes()))]
pub struct UrlRewrite {
    /// Host that the backend gets, without a port; X-Forwarded-Host keeps what the client sent. Default: the client's Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "hostname_schema")]
    pub hostname: Option<String>,

    /// Path that the backend gets; the query stays. Default: the client's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// Where a redirect leads. What is left out stays as the client asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = redirect_changes()))]
pub struct RequestRedirect {
    /// Scheme of the new address: http or https, also for handshakes. Default: that of the client's request, https for what came over TLS to
    /// the proxy or, by its X-Forwarded-Proto, to a proxy that the operator trusts; behind anything else that ends TLS it must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<RedirectScheme>,

    /// Host of the new address. Default: the client's Host, by X-Forwarded-Host of a trusted proxy if it says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "hostname_schema")]
    pub hostname: Option<String>,

    /// Port of the new address, from 1 to 65535. Default: the scheme's own if scheme is given, else that of the client's Host, by
    /// X-Forwarded-Port of a trusted proxy if it says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,

    /// Path of the new address; the query stays. Default: the client's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,

    /// Status of the answer: 301, 302, 303, 307 or 308. Default: 302.
    #[serde(default = "default_status_code")]
    #[schemars(schema_with = "status_code_schema")]
    pub status_code: i32,
}

/// Scheme of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedirectScheme {
    Http,
    Https,
}

/// A change of a path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = path_fields()))]
pub struct PathModifier {
    /// ReplaceFullPath: all of the path. ReplacePrefixMatch: the prefix that was matched; the rule then has exactly one match,
    /// of type PathPrefix.
    #[serde(rename = "type")]
    pub modifier_type: PathModifierType,

    /// The new path, absolute. For type ReplaceFullPath.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "path_value_schema")]
    pub replace_full_path: Option<String>,

    /// What stands in place of the prefix: an absolute path, or empty for none; a slash at its end makes no difference. /chat
    /// replaced by /v2 makes /v2/a of /chat/a, and /v2 of /chat. For type ReplacePrefixMatch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "replace_prefix_schema")]
    pub replace_prefix_match: Option<String>,
}

/// The kinds of path changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

fn default_status_code() -> i32 {
    302
}
