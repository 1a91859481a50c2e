//! Why a request is refused, and what the client, the metrics and the log get for it: one table.
//!
//! What a client causes is a counter and at most a debug line. The body says in one sentence what was wrong and how to mend it;
//! it names no backend and repeats nothing that the client sent.

use std::ops::RangeInclusive;

use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, UPGRADE,
};
use http::{Response, StatusCode};

use crate::forward::{Body, full};

const SEC_WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// Seconds until a client should try again: a pod that starts, or is made ready because another is full, takes about five. Who was turned
/// away together comes back spread over ten more, so that the crowd that was too much is not one again.
const RETRY_AFTER_SECONDS: RangeInclusive<u16> = 5..=15;

/// One refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reject {
    /// The connection came when there was room for few more (`capacity`).
    Crowded,
    /// Not exactly one Host, or not one that names a host (RFC 9112 §3.2).
    Host,
    /// The request target is not origin-form, or absolute-form for the same host, or holds a '%' that encodes nothing, or a zero byte; or the method is CONNECT.
    Target,
    /// The path holds dot segments, plain or percent-encoded.
    DotSegments,
    /// Another transfer coding than `chunked` alone (RFC 9112 §6.1).
    TransferCoding,
    /// A longer target than the limit (RFC 9110 §15.5.15).
    TargetTooLong,
    /// More than the limit of the request head (RFC 6585 §5).
    HeadTooLarge,
    /// The request came through here too often: a route leads back (RFC 8586; RFC 5842 §7.2).
    Loop,
    /// The client paused for too long within its body (RFC 9110 §15.5.9).
    BodyTimeout,
    /// The client's body broke off, or its chunks cannot be read (RFC 9112 §7.1, §8).
    BrokenBody,
    /// TLS was made for another hostname (RFC 9110 §15.5.20).
    Misdirected,
    NoHost,
    /// Without TLS on a host that is served only with it (`tls.plain: Refuse`).
    TlsRequired,
    /// No rule of the host takes the path, or none that does fits the headers, the query and the subprotocols.
    NoRule,
    /// Not exactly one Origin, or not one that the rule allows (RFC 6455 §10.2).
    Origin,
    /// A handshake without Origin where there must be one.
    NoOrigin,
    /// An upgrade with another method than GET.
    Method,
    /// An upgrade over HTTP/1.0.
    HttpVersion,
    /// Not a lone `websocket` in Upgrade.
    Upgrade,
    /// No `upgrade` among the tokens of Connection.
    Connection,
    /// No Sec-WebSocket-Version, or several.
    NoVersion,
    /// Another version than 13.
    Version,
    /// Not exactly one key of 16 bytes.
    Key,
    /// An upgrade that carries a body.
    Body,
    /// Sec-WebSocket-Protocol is not a list of distinct tokens.
    Protocols,
    /// Sec-WebSocket-Extensions does not parse.
    Extensions,
    /// An ordinary request where only upgrades are served.
    UpgradeRequired,
    /// A route that this dataplane may not serve: it lacks a feature that the route requires, or cannot read it.
    Unsupported,
    NoEndpoint,
    /// The endpoint refused the connection or it broke before an answer.
    Unreachable,
    /// The system has no local port left for a connection to an endpoint.
    NoLocalPort,
    /// The endpoint's TLS failed, or its certificate is not for the name.
    BackendTls,
    /// The endpoint did not accept the connection in time.
    ConnectTimeout,
    /// The endpoint did not answer in time.
    AnswerTimeout,
    /// The endpoint's answer is not HTTP, or a 101 that proves nothing.
    BadAnswer,
}

impl Reject {
    fn status(self) -> StatusCode {
        match self {
            Self::Host
            | Self::Target
            | Self::DotSegments
            | Self::TransferCoding
            | Self::BrokenBody
            | Self::HttpVersion
            | Self::Upgrade
            | Self::Connection
            | Self::NoVersion
            | Self::Key
            | Self::Body
            | Self::Protocols
            | Self::Extensions => StatusCode::BAD_REQUEST,
            Self::NoHost | Self::NoRule => StatusCode::NOT_FOUND,
            Self::TlsRequired | Self::Origin | Self::NoOrigin => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Version | Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::Crowded | Self::Unsupported | Self::NoEndpoint | Self::NoLocalPort => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unreachable | Self::BackendTls | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::AnswerTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The `outcome` label of the metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::Host => "bad_host",
            Self::Target => "bad_target",
            Self::DotSegments => "dot_segments",
            Self::TransferCoding => "bad_transfer_coding",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::Loop => "loop",
            Self::BodyTimeout => "body_timeout",
            Self::BrokenBody => "broken_body",
            Self::Misdirected => "misdirected",
            Self::NoHost => "no_host",
            Self::TlsRequired => "tls_required",
            Self::NoRule => "no_rule",
            Self::Origin => "foreign_origin",
            Self::NoOrigin => "no_origin",
            Self::Method => "bad_method",
            Self::HttpVersion => "bad_http_version",
            Self::Upgrade => "bad_upgrade",
            Self::Connection => "bad_connection",
            Self::NoVersion => "no_version",
            Self::Version => "wrong_version",
            Self::Key => "bad_key",
            Self::Body => "body",
            Self::Protocols => "bad_protocols",
            Self::Extensions => "bad_extensions",
            Self::UpgradeRequired => "upgrade_required",
            Self::Unsupported => "unsupported",
            Self::NoEndpoint => "no_endpoint",
            Self::Unreachable => "unreachable",
            Self::NoLocalPort => "no_local_port",
            Self::BackendTls => "backend_tls",
            Self::ConnectTimeout => "connect_timeout",
            Self::AnswerTimeout => "answer_timeout",
            Self::BadAnswer => "bad_answer",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Crowded => "This proxy has about as many connections as it can hold; try again.",
            Self::Host => "The request needs exactly one Host field that names a host.",
            Self::Target => {
                "The request target must be a path that begins with '/', or an absolute URL whose host is that of the Host field; '%' stands before two hexadecimal digits, not before 00."
            }
            Self::DotSegments => {
                "The path holds '.' or '..' segments; send the path that they lead to."
            }
            Self::TransferCoding => {
                "A body comes with Content-Length or with 'Transfer-Encoding: chunked', and with no other coding."
            }
            Self::TargetTooLong => "The request target is too long.",
            Self::HeadTooLarge => "The request line and the header fields together are too long.",
            Self::Loop => {
                "The request came through this proxy too often: the backend of a route leads back to it."
            }
            Self::BodyTimeout => "The body paused for too long; send it again.",
            Self::BrokenBody => "The body broke off, or its chunks cannot be read.",
            Self::Misdirected => {
                "The Host field names another host than the TLS handshake did; open a connection for that host."
            }
            Self::NoHost => "No route serves this host.",
            Self::TlsRequired => "This host is served only over TLS; use https:// or wss://.",
            Self::NoRule => {
                "No route serves this path, or none serves it with these headers, query parameters and subprotocols."
            }
            Self::Origin => {
                "Pages of this origin may not use this route; its allowedOrigins say which may."
            }
            Self::NoOrigin => "A WebSocket handshake needs an Origin field here.",
            Self::Method => "A WebSocket handshake is a GET request.",
            Self::HttpVersion => "A WebSocket handshake needs HTTP/1.1.",
            Self::Upgrade => {
                "A WebSocket handshake needs 'Upgrade: websocket' and no other protocol in it; a proxy in front may have removed it."
            }
            Self::Connection => {
                "A WebSocket handshake needs 'Connection: Upgrade'; a proxy in front may have removed it."
            }
            Self::NoVersion => "A WebSocket handshake needs one 'Sec-WebSocket-Version: 13'.",
            Self::Version => "Only version 13 of the WebSocket protocol is spoken here.",
            Self::Key => "A WebSocket handshake needs one Sec-WebSocket-Key of 16 bytes in base64.",
            Self::Body => {
                "A WebSocket handshake carries no body; leave out Content-Length and Transfer-Encoding."
            }
            Self::Protocols => "Sec-WebSocket-Protocol must be a list of distinct tokens.",
            Self::Extensions => {
                "Sec-WebSocket-Extensions must be a list of extensions as RFC 6455 section 9.1 writes it."
            }
            Self::UpgradeRequired => "Only WebSocket handshakes are served here.",
            // Another pod may have the version that can: a rollout is when this happens.
            Self::Unsupported => "This route asks for what this proxy cannot do; try again.",
            Self::NoEndpoint => "No endpoint is ready to serve this; try again.",
            Self::NoLocalPort => {
                "This proxy has no local port left for a connection to the endpoints behind this route; try again."
            }
            Self::Unreachable => "The endpoint behind this route could not be reached.",
            Self::BackendTls => {
                "The endpoint behind this route could not be trusted: its TLS handshake failed."
            }
            Self::ConnectTimeout => {
                "The endpoint behind this route did not accept a connection in time."
            }
            Self::AnswerTimeout => "The endpoint behind this route did not answer in time.",
            Self::BadAnswer => "The endpoint behind this route did not give a valid answer.",
        }
    }

    /// The answer to the client. The connection closes after it: what follows a refused handshake is not to be trusted.
    pub(crate) fn response(self) -> Response<Body> {
        let mut response = Response::new(full(format!("{}\n", self.sentence())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        match self {
            Self::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            Self::Version | Self::UpgradeRequired => {
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                // RFC 9110 §15.5.22: a 426 names the protocol to change to, and Upgrade is nominated in Connection (§7.8).
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
            }
            Self::Crowded | Self::Unsupported | Self::NoEndpoint | Self::NoLocalPort => {
                let seconds = fastrand::u16(RETRY_AFTER_SECONDS);
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::Host
            | Self::Target
            | Self::DotSegments
            | Self::TransferCoding
            | Self::TargetTooLong
            | Self::HeadTooLarge
            | Self::Loop
            | Self::BodyTimeout
            | Self::BrokenBody
            | Self::Misdirected
            | Self::NoHost
            | Self::TlsRequired
            | Self::NoRule
            | Self::Origin
            | Self::NoOrigin
            | Self::HttpVersion
            | Self::Upgrade
            | Self::Connection
            | Self::NoVersion
            | Self::Key
            | Self::Body
            | Self::Protocols
            | Self::Extensions
            | Self::Unreachable
            | Self::BackendTls
            | Self::ConnectTimeout
            | Self::AnswerTimeout
            | Self::BadAnswer => {}
        }
        response
    }
}
