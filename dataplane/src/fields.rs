//! Which header fields travel on, in both directions.
//!
//! End-to-end fields pass; hop-by-hop ones and those that Connection nominates stay here (RFC 9110 §7.6.1). What tells a backend
//! who the client is, is written by us alone (`client.rs` says what): the copies that came are dropped, with the spellings that
//! CGI-like backends cannot tell apart (`X_Real_IP`). Of what frames a message and of the handshake such spellings are dropped too: a
//! backend that takes `Transfer_Encoding` for the coding would read another message than we did.

use http::StatusCode;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::client::Client;
use crate::handshake::{has_token, tokens};
use crate::loops;
use crate::request_id::X_REQUEST_ID;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_WS_INGRESS_RULE: HeaderName = HeaderName::from_static("x-ws-ingress-rule");

/// Names that only we write, with `-` for every `_`.
const OURS: [&str; 12] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
    "x-request-id",
    "x-ws-ingress-rule",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a backend is told beside what the request says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) client: &'a Client,
    pub(crate) request_id: &'a HeaderValue,
    /// `namespace/route/rule`.
    pub(crate) rule: &'a str,
}

/// The fields of a request as they go to the backend.
pub(crate) fn to_backend(headers: &HeaderMap, facts: Facts<'_>) -> HeaderMap {
    let mut passed = end_to_end(headers);
    let foreign = passed
        .keys()
        .filter(|name| is_ours(name) || is_alias(name))
        .cloned()
        .collect::<Vec<_>>();
    for name in foreign {
        passed.remove(name);
    }
    let Facts {
        client,
        request_id,
        rule,
    } = facts;
    client.tell(headers, &mut passed);
    passed.insert(X_REQUEST_ID, request_id.clone());
    loops::count_pass(&mut passed);
    // A rule's name is checked where it enters.
    if let Ok(rule) = HeaderValue::from_str(rule) {
        passed.insert(X_WS_INGRESS_RULE, rule);
    }
    passed
}

/// Replaces Host, and with it what a backend takes for its own name; X-Forwarded-Host keeps what the client asked for.
pub(crate) fn set_host(fields: &mut HeaderMap, authority: &str) {
    // A hostname and a port are always a valid value.
    if let Ok(value) = HeaderValue::from_str(authority) {
        fields.insert(HOST, value);
    }
}

/// The fields of an answer as they go to the client. What a 426 names in Upgrade ends at a hop too, but a 426 must name a protocol (RFC
/// 9110 §15.5.22), and a WebSocket is what can be had through here.
pub(crate) fn to_client(status: StatusCode, headers: &HeaderMap) -> HeaderMap {
    let mut passed = end_to_end(headers);
    if status == StatusCode::UPGRADE_REQUIRED && has_token(headers, &UPGRADE, "websocket") {
        passed.insert(UPGRADE, HeaderValue::from_static("websocket"));
        passed.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    passed
}

/// How a message is framed, as far as Transfer-Encoding says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransferCoding {
    None,
    Chunked,
}

/// The transfer coding of a message; nothing if it is one that cannot be passed on: another coding than `chunked` alone, which was not asked for,
/// or chunks beside a Content-Length, which is how messages are smuggled (RFC 9112 §6.3).
pub(crate) fn transfer_coding(headers: &HeaderMap) -> Option<TransferCoding> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Some(TransferCoding::None);
    }
    let mut codings = tokens(headers, &TRANSFER_ENCODING);
    let chunked = codings
        .next()
        .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        && codings.next().is_none();
    (chunked && !headers.contains_key(CONTENT_LENGTH)).then_some(TransferCoding::Chunked)
}

/// Whether each Content-Length is one number. RFC 9112 §6.3 lets a recipient take `4, 4` for 4, but nobody passes it on as it is.
pub(crate) fn lengths_are_numbers(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    lengths.all(|length| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit))
}

/// Leaves out what belongs to one hop.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    for nominated in tokens(headers, &CONNECTION) {
        // Nominating these would strip what the message cannot do without.
        let kept = [HOST.as_str(), CONTENT_LENGTH.as_str()];
        if !kept.iter().any(|name| name.eq_ignore_ascii_case(nominated)) {
            passed.remove(nominated);
        }
    }
    for name in hop_by_hop() {
        passed.remove(name);
    }
    passed
}

/// What ends at each hop. Trailer is not among these in RFC 9110, but it announces what only some messages can carry on.
fn hop_by_hop() -> [HeaderName; 9] {
    [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
}

pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    hop_by_hop().contains(name)
}

/// Whether only we may write a field of this name.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    if name.contains('_') {
        return OURS.contains(&name.replace('_', "-").as_str());
    }
    OURS.contains(&name)
}

/// Whether a name is another spelling of one that ends at each hop, frames a message or belongs to the handshake.
pub(crate) fn is_alias(name: &HeaderName) -> bool {
    let name = name.as_str();
    let meant = name.contains('_').then(|| name.replace('_', "-"));
    meant.is_some_and(|meant| {
        let hop = hop_by_hop().iter().any(|name| *name == *meant);
        hop || meant == CONTENT_LENGTH.as_str() || meant.starts_with("sec-websocket-")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        fields.iter().map(field).collect()
    }

    #[track_caller]
    fn check(sent: &[(&str, &str)], absent: &[&str]) -> HeaderMap {
        let sent = headers(sent);
        let peer = ([192, 0, 2, 7], 40_000).into();
        let facts = Facts {
            client: &Client::judge(peer, Scheme::Https, &sent, &[]),
            request_id: &HeaderValue::from_static("made"),
            rule: "default/chat/0",
        };
        let passed = to_backend(&sent, facts);
        for name in absent {
            assert!(!passed.contains_key(*name), "{name} in {passed:?}");
        }
        passed
    }

    #[test]
    fn backend_learns_the_client_from_us_alone() {
        let sent = [
            ("host", "chat.example.com"),
            ("x-real-ip", "10.0.0.1"),
            ("x_real_ip", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded_for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-ssl", "on"),
            ("x-request-id", "theirs"),
            ("x_request_id", "theirs"),
            ("x-ws-ingress-rule", "other/other/0"),
            ("cookie", "a=b"),
        ];
        let absent = [
            "x_real_ip",
            "x-forwarded_for",
            "x-forwarded-ssl",
            "x_request_id",
        ];
        let passed = check(&sent, &absent);
        for (name, value) in [
            ("x-real-ip", "192.0.2.7"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "chat.example.com"),
            ("x-forwarded-port", "443"),
            (
                "forwarded",
                "for=192.0.2.7;host=chat.example.com;proto=https",
            ),
            ("x-request-id", "made"),
            ("x-ws-ingress-rule", "default/chat/0"),
            ("cookie", "a=b"),
            ("host", "chat.example.com"),
        ] {
            assert_eq!(passed.get(name).unwrap(), value);
            assert_eq!(passed.get_all(name).iter().count(), 1);
        }
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_stay() {
        let sent = [
            ("connection", "upgrade, X-Secret, Host"),
            ("upgrade", "websocket"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("host", "a"),
            ("transfer_encoding", "chunked"),
            ("content_length", "9"),
            ("keep_alive", "a"),
            ("proxy-authorization", "a"),
            ("proxy_authorization", "a"),
            ("sec_websocket-protocol", "a"),
            ("content_type", "a"),
        ];
        let absent = [
            "connection",
            "upgrade",
            "x-secret",
            "te",
            "transfer_encoding",
            "content_length",
            "keep_alive",
            "proxy-authorization",
            "proxy_authorization",
            "sec_websocket-protocol",
        ];
        let passed = check(&sent, &absent);
        assert!(passed.contains_key("host"));
        assert!(passed.contains_key("content_type"));
    }
}
