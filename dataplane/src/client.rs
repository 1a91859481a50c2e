//! Who a request comes from, and what a backend is told of that.
//!
//! In: the peer of the connection, the ranges of proxies that the operator trusts, and the request's fields. A trusted peer is
//! believed: of X-Forwarded-For, read from the right, the first address outside those ranges is the client, and its
//! X-Forwarded-Proto, -Host and -Port stand. From anybody else these fields are a stranger's claim, and are replaced. `Forwarded`
//! (RFC 7239) is written from the same facts and never read: a proxy that only knows X-Forwarded-* passes its client's one on.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use ipnet::IpNet;
use route_table::Hostname;

use crate::fields::Scheme;
use crate::handshake::parse_host;

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Most trusted proxies one behind the other: a CDN, a load balancer and two hops are four; more than these are a loop.
const MAX_PROXIES: usize = 16;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: IpAddr,
    /// The client's, if it is the peer; what lies behind a proxy is not known by port.
    port: u16,
    /// The trusted proxies on the way, the client's side first. The last is the peer; without any, the client is.
    proxies: Vec<IpAddr>,
    peer_is_trusted: bool,
    /// Of the client's own request, as far as that is known; so are the next two.
    scheme: Scheme,
    host: Option<Authority>,
    /// The port that the client connected to, by its own or a trusted peer's word.
    host_port: u16,
}

impl Client {
    /// Judges a request with these fields that came from `peer` by `scheme`.
    pub(crate) fn judge(
        peer: SocketAddr,
        scheme: Scheme,
        headers: &HeaderMap,
        trusted: &[IpNet],
    ) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(&address));
        let mut address = peer.ip();
        let mut proxies = Vec::new();
        let mut claimed = claimed_from_the_right(headers);
        while proxies.len() < MAX_PROXIES && is_trusted(address) {
            let Some(before) = claimed.next() else {
                break;
            };
            proxies.push(address);
            address = before;
        }
        proxies.reverse();
        let peer_is_trusted = is_trusted(peer.ip());
        let told = |name: HeaderName| only(headers, &name).filter(|_| peer_is_trusted);
        let scheme = told(X_FORWARDED_PROTO)
            .and_then(parse_scheme)
            .unwrap_or(scheme);
        let host = told(X_FORWARDED_HOST)
            .and_then(parse_host)
            .or_else(|| headers.get(HOST).and_then(parse_host));
        let host_port = told(X_FORWARDED_PORT)
            .and_then(parse_port)
            .or_else(|| host.as_ref().and_then(Authority::port_u16))
            .unwrap_or(scheme.default_port());
        Self {
            address,
            port: if proxies.is_empty() { peer.port() } else { 0 },
            proxies,
            peer_is_trusted,
            scheme,
            host,
            host_port,
        }
    }

    /// The client's address, and its port or 0.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// How the client asked: as a trusted peer says, else as the peer itself did.
    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host that the client asked for, as a trusted peer says, else by Host: a name as we write names, or an address.
    pub(crate) fn host(&self) -> Option<String> {
        let host = self.host.as_ref()?.host();
        let name = Hostname::parse(host).map(|name| name.to_string());
        Some(name.unwrap_or_else(|_| host.to_owned()))
    }

    /// The port that the client asked at: of X-Forwarded-Port, of the host, or the scheme's.
    pub(crate) fn host_port(&self) -> u16 {
        self.host_port
    }

    /// Whether the peer is a proxy that the operator trusts.
    pub(crate) fn peer_is_trusted(&self) -> bool {
        self.peer_is_trusted
    }

    /// Writes what a backend is told into `passed`, which holds none of it; `sent` is what the peer sent.
    pub(crate) fn tell(&self, sent: &HeaderMap, passed: &mut HeaderMap) {
        let address = self.address.to_string();
        let host = self.host.as_ref().map(Authority::as_str);
        let texts = [
            (FORWARDED, Some(self.forwarded(&address))),
            (X_FORWARDED_FOR, Some(self.forwarded_for(sent, &address))),
            (X_FORWARDED_HOST, host.map(str::to_owned)),
            (X_REAL_IP, Some(address)),
        ];
        for (name, text) in texts {
            // Addresses, and what was a field's value before, are always valid values.
            if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
                passed.insert(name, value);
            }
        }
        let scheme = HeaderValue::from_static(self.scheme.as_str());
        passed.insert(X_FORWARDED_PROTO, scheme);
        passed.insert(X_FORWARDED_PORT, self.host_port.into());
    }

    /// X-Forwarded-For: what a trusted peer sent and the peer, or what was judged: the client, as text `address`, and the proxies after it.
    fn forwarded_for(&self, sent: &HeaderMap, address: &str) -> String {
        let lines = sent.get_all(X_FORWARDED_FOR).iter();
        let lines = lines.map(|line| line.to_str().map(|line| line.trim_matches(SPACE)));
        let lines: Result<Vec<_>, _> = lines.collect();
        match lines {
            Ok(lines) if self.peer_is_trusted => {
                let peer = self.proxies.last().unwrap_or(&self.address).to_string();
                let lines = lines.into_iter().filter(|line| !line.is_empty());
                let all: Vec<_> = lines.chain([peer.as_str()]).collect();
                all.join(", ")
            }
            // A stranger's lines, or bytes that are no text.
            Ok(_) | Err(_) => {
                let mut list = address.to_owned();
                for proxy in &self.proxies {
                    list.push_str(", ");
                    list.push_str(&proxy.to_string());
                }
                list
            }
        }
    }

    /// `Forwarded` (RFC 7239 §4): an element for each address. What is known of the client's own request stands in the first, whose address
    /// is the text `address`.
    fn forwarded(&self, address: &str) -> String {
        let mut list = String::with_capacity(USUAL_FORWARDED_BYTES);
        push_node(&mut list, self.address, address);
        if let Some(host) = &self.host {
            list.push_str(";host=");
            list.push_str(&token_or_quoted(host.as_str()));
        }
        list.push_str(";proto=");
        list.push_str(self.scheme.as_str());
        for proxy in &self.proxies {
            list.push_str(", ");
            push_node(&mut list, *proxy, &proxy.to_string());
        }
        list
    }
}

/// Room for the usual `Forwarded`: one IPv4 address, a hostname, a scheme.
const USUAL_FORWARDED_BYTES: usize = 96;

/// Adds an address, of which `text` is the text, to `Forwarded`.
fn push_node(list: &mut String, address: IpAddr, text: &str) {
    // Brackets and colons make IPv6 a quoted-string (RFC 7239 §6).
    let [before, after] = match address {
        IpAddr::V4(_) => ["for=", ""],
        IpAddr::V6(_) => ["for=\"[", "]\""],
    };
    for part in [before, text, after] {
        list.push_str(part);
    }
}

/// Optional white space (RFC 9110 §5.6.3).
const SPACE: [char; 2] = [' ', '\t'];

/// The addresses of X-Forwarded-For from the last one on, up to the first entry that is none: what stands left of it was written by
/// somebody whom nobody vouches for.
fn claimed_from_the_right(headers: &HeaderMap) -> impl Iterator<Item = IpAddr> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let entries = lines.flat_map(|line| {
        // A line that is no text is an entry that is no address.
        let line = line.to_str().unwrap_or("?");
        line.rsplit(',').map(|entry| entry.trim_matches(SPACE))
    });
    entries
        .filter(|entry| !entry.is_empty())
        .map_while(parse_address)
}

/// An address, as proxies write it: alone, with a port, or IPv6 in brackets.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bracketed = || {
        let (address, rest) = entry.strip_prefix('[')?.split_once(']')?;
        let rest_is_port = rest.is_empty() || rest.strip_prefix(':')?.parse::<u16>().is_ok();
        rest_is_port.then(|| address.parse().ok()).flatten()
    };
    let address = entry
        .parse()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|both| both.ip()))
        .or_else(bracketed)?;
    Some(IpAddr::to_canonical(&address))
}

/// The value of a field that stands there once: of two, nobody knows which was meant.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Also in the words of WebSocket URLs (RFC 6455 §3), which Traefik writes for handshakes.
fn parse_scheme(value: &HeaderValue) -> Option<Scheme> {
    let is = |name: &str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    if is("https") || is("wss") {
        Some(Scheme::Https)
    } else if is("http") || is("ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

fn parse_port(value: &HeaderValue) -> Option<u16> {
    let digits = value.to_str().ok()?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|port| *port > 0)
}

/// A value of RFC 7239 §4: a port's colon, for one, makes it a quoted-string.
fn token_or_quoted(value: &str) -> Cow<'_, str> {
    if crate::handshake::is_token(value) {
        return value.into();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")).into()
}

#[cfg(test)]
mod tests;
