//! The rules of the opening handshake (RFC 6455 §4), as pure checks of the two heads.
//!
//! In: a client's request head, later the backend's answer head. Out: what was asked and agreed, or the [`Reject`]. A request is
//! judged whole before any backend is contacted; an answer is judged whole before anything is tunnelled.

mod deflate;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::Authority;
use http::{Method, Version, request};
use route_table::{Hostname, has_dot_segments, is_encoded_well};
use sha1::{Digest as _, Sha1};

use crate::fields;
use crate::reject::Reject;

pub(crate) const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
pub(crate) const EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");
pub(crate) const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
pub(crate) const PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// Appended to the key before hashing (RFC 6455 §1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Checks what every request must have: one Host that parses, a path in origin-form (or absolute-form for the same host), and no
/// dot segments or transfer codings that a backend could read differently than we did. Returns the hostname of Host, if it holds one: an IP
/// literal is a valid Host that no route can claim.
pub(crate) fn check_host_and_path(head: &request::Parts) -> Result<Option<Hostname>, Reject> {
    let host = single(&head.headers, &HOST).ok_or(Reject::Host)?;
    let authority = parse_host(host).ok_or(Reject::Host)?;
    let absolute = head.uri.authority();
    // CONNECT asks for a tunnel to an authority (RFC 9110 §9.3.6). With a path it means nothing, and a backend's 200 to it would end
    // HTTP on both connections.
    if head.method == Method::CONNECT
        || !head.uri.path().starts_with('/')
        || !is_encoded_well(head.uri.path())
        || absolute.is_some_and(|absolute| !same_authority(absolute, &authority))
    {
        return Err(Reject::Target);
    }
    if has_dot_segments(head.uri.path()) {
        return Err(Reject::DotSegments);
    }
    if fields::transfer_coding(&head.headers).is_none() {
        return Err(Reject::TransferCoding);
    }
    Ok(Hostname::parse(authority.host()).ok())
}

/// The value of Host, or of a field like it: a host, and perhaps a port.
pub(crate) fn parse_host(host: &HeaderValue) -> Option<Authority> {
    let authority = host.to_str().ok()?.parse::<Authority>().ok()?;
    // What follows the host, userinfo before it included, may only be a port (RFC 9112 §3.2).
    let port = authority.as_str().strip_prefix(authority.host())?;
    (!authority.host().is_empty() && is_port(port)).then_some(authority)
}

/// `:` and a port, which may be empty (RFC 3986 §3.2.3), or nothing.
fn is_port(text: &str) -> bool {
    let number =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| port.is_empty() || number(port))
}

fn same_authority(a: &Authority, b: &Authority) -> bool {
    a.as_str().eq_ignore_ascii_case(b.as_str())
}

/// Whether a request asks for a WebSocket, well or badly. Other upgrades (h2c) are not ours to answer and may be ignored
/// (RFC 9110 §7.8).
pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let named = |token: &str| {
        token
            .split('/')
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("websocket"))
    };
    tokens(headers, &UPGRADE).any(named)
        || headers.contains_key(KEY)
        || headers.contains_key(VERSION)
}

/// A valid request for a WebSocket: what its answer is checked against.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    /// The one right Sec-WebSocket-Accept.
    accept: String,
    protocols: Vec<String>,
    extensions: Vec<Extension>,
}

/// Checks a request for a WebSocket (RFC 6455 §4.2.1).
pub(crate) fn check_opening(head: &request::Parts) -> Result<Opening, Reject> {
    if head.method != Method::GET {
        return Err(Reject::Method);
    }
    if head.version != Version::HTTP_11 {
        return Err(Reject::HttpVersion);
    }
    let headers = &head.headers;
    let length_is_zero = |length: &HeaderValue| length.as_bytes() == b"0";
    if headers.contains_key(TRANSFER_ENCODING)
        || !headers.get_all(CONTENT_LENGTH).iter().all(length_is_zero)
    {
        return Err(Reject::Body);
    }
    if !single(headers, &UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
    {
        return Err(Reject::Upgrade);
    }
    if !upgrades_whole(headers) {
        return Err(Reject::Connection);
    }
    match single(headers, &VERSION) {
        None => return Err(Reject::NoVersion),
        Some(version) if version.as_bytes() != b"13" => return Err(Reject::Version),
        Some(_) => {}
    }
    let key = single(headers, &KEY)
        .map(HeaderValue::as_bytes)
        .ok_or(Reject::Key)?;
    if STANDARD.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err(Reject::Key);
    }
    Ok(Opening {
        accept: accept_for(key),
        protocols: check_protocols(headers)?,
        extensions: extensions(headers).ok_or(Reject::Extensions)?,
    })
}

/// What a valid 101 agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Whether the frames that follow can be told apart: only with permessage-deflate (RFC 7692) or no extension at all.
    pub(crate) frames_are_known: bool,
}

/// Checks a 101 answer (RFC 6455 §4.1): the right protocol, the right key, nothing that was not offered.
pub(crate) fn check_answer(headers: &HeaderMap, opening: &Opening) -> Result<Agreed, Reject> {
    let upgraded = single(headers, &UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let accepted = single(headers, &ACCEPT)
        .is_some_and(|accept| accept.as_bytes() == opening.accept.as_bytes());
    if !upgraded || !accepted || !upgrades_whole(headers) {
        return Err(Reject::BadAnswer);
    }
    let offered = |value: &HeaderValue| {
        opening
            .protocols
            .iter()
            .any(|offer| offer.as_bytes() == value.as_bytes())
    };
    if headers.contains_key(PROTOCOL) && !single(headers, &PROTOCOL).is_some_and(offered) {
        return Err(Reject::BadAnswer);
    }
    let extensions = extensions(headers).ok_or(Reject::BadAnswer)?;
    for (index, extension) in extensions.iter().enumerate() {
        let same_name = |other: &&Extension| other.name == extension.name;
        let mut offers = opening.extensions.iter().filter(same_name);
        let offered = if extension.name == deflate::NAME {
            // Twice it would deflate what is deflated, with one bit to say so (RFC 7692 §6).
            let again = extensions[..index].iter().any(|other| same_name(&other));
            !again && deflate::answers(extension, offers)
        } else {
            offers.next().is_some()
        };
        if !offered {
            return Err(Reject::BadAnswer);
        }
    }
    let is_deflate = |extension: &Extension| extension.name == deflate::NAME;
    Ok(Agreed {
        frames_are_known: extensions.iter().all(is_deflate),
    })
}

/// Whether Connection has `upgrade`, and nominates no field of the handshake, which asks to have it removed on the way (RFC 9110 §7.6.1).
fn upgrades_whole(headers: &HeaderMap) -> bool {
    let stripped = |token: &str| {
        let token = token.to_ascii_lowercase();
        token.starts_with("sec-websocket-") || token == "origin" || token == "host"
    };
    has_token(headers, &CONNECTION, "upgrade") && !tokens(headers, &CONNECTION).any(stripped)
}

/// The value of Sec-WebSocket-Accept that answers `key` (RFC 6455 §4.2.2).
fn accept_for(key: &[u8]) -> String {
    STANDARD.encode(
        Sha1::new()
            .chain_update(key)
            .chain_update(ACCEPT_GUID)
            .finalize(),
    )
}

fn check_protocols(headers: &HeaderMap) -> Result<Vec<String>, Reject> {
    let mut protocols = Vec::new();
    for value in headers.get_all(PROTOCOL) {
        let value = value.to_str().map_err(|_| Reject::Protocols)?;
        for protocol in value.split(',').map(trim) {
            if !is_token(protocol) || protocols.iter().any(|seen| seen == protocol) {
                return Err(Reject::Protocols);
            }
            protocols.push(protocol.to_owned());
        }
    }
    Ok(protocols)
}

/// One extension of a list, in lower case.
#[derive(Debug, Clone)]
struct Extension {
    name: String,
    parameters: Vec<(String, Option<String>)>,
}

/// All listed extensions, or nothing if the list does not parse (RFC 6455 §9.1).
fn extensions(headers: &HeaderMap) -> Option<Vec<Extension>> {
    let mut listed = Vec::new();
    for value in headers.get_all(EXTENSIONS) {
        // A quoted value must still be a token, so that no quoted ',' or ';' can occur.
        for extension in value.to_str().ok()?.split(',').map(trim) {
            let mut parts = extension.split(';').map(trim);
            let name = parts.next().filter(|name| is_token(name))?;
            let parameters: Option<_> = parts.map(parse_parameter).collect();
            listed.push(Extension {
                name: name.to_ascii_lowercase(),
                parameters: parameters?,
            });
        }
    }
    Some(listed)
}

fn parse_parameter(parameter: &str) -> Option<(String, Option<String>)> {
    let (name, value) = match parameter.split_once('=') {
        None => (parameter, None),
        Some((name, value)) => (trim(name), Some(trim(value).trim_matches('"'))),
    };
    if !is_token(name) || !value.is_none_or(is_token) {
        return None;
    }
    Some((name.to_ascii_lowercase(), value.map(str::to_owned)))
}

/// The value of a field that stands exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// All members of a field's comma-separated list, over all its lines (RFC 9110 §5.6.1).
pub(crate) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(',').map(trim))
        .filter(|token| !token.is_empty())
}

pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|present| present.eq_ignore_ascii_case(token))
}

/// Removes optional white space (RFC 9110 §5.6.3).
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// A token of RFC 9110 §5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}

#[cfg(test)]
mod tests;
