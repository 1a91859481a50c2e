//! Origins of pages, and which of them a rule takes requests from.
//!
//! In: text of a route or of an Origin field. Out: [`OriginPattern`] and whether it covers the text. Scheme, host and port are
//! compared as RFC 6454 §5 says: scheme and host in any case, a port that is the scheme's own like none. The origin `null`
//! (RFC 6454 §7.3) is covered by nothing: every sandboxed page has it.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use crate::host::MAX_HOSTNAME_BYTES;
use crate::{HostPattern, Hostname};

/// Longest label of a DNS name, in bytes (RFC 1035 §2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// Why a text is not an origin that a rule can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error(
        "must be an origin as browsers send it, scheme://host or scheme://host:port, such as https://app.example.com; leave out a path and a '/' at the end"
    )]
    Form,
    #[error(
        "must be the origin of the page that opens the WebSocket: write https:// for wss://, and http:// for ws://"
    )]
    WebSocketScheme,
    #[error(
        "has a wildcard that is not the whole first label of a DNS name; write https://*.example.com"
    )]
    Wildcard,
}

/// Where requests of a rule may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// Any one of these; none is any origin.
    pub allowed: Vec<OriginPattern>,
    /// Whether a handshake without an Origin is refused.
    pub refuse_missing: bool,
}

/// An origin, or all origins whose host is below a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginPattern {
    /// In lower case.
    scheme: Arc<str>,
    host: OriginHost,
    /// Absent for a scheme without a port of its own.
    port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum OriginHost {
    /// A name, or an IPv4 address, in lower case.
    Name(Arc<str>),
    V6(Ipv6Addr),
    /// One or more labels before this name.
    Below(Hostname),
}

impl OriginPattern {
    /// Parses `https://app.example.com`, `https://*.example.com:8443`, `http://[::1]:3000` or `app://localhost`, in any case.
    ///
    /// # Errors
    /// If the text is no such origin, or one of a scheme that no page has.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let parts = Parts::of(text).ok_or(OriginError::Form)?;
        if parts.scheme == "ws" || parts.scheme == "wss" {
            return Err(OriginError::WebSocketScheme);
        }
        let host = match HostPattern::parse(&parts.host) {
            Ok(HostPattern::Wildcard(suffix)) if !parts.host.ends_with('.') => {
                OriginHost::Below(suffix)
            }
            _ if parts.host.contains('*') => return Err(OriginError::Wildcard),
            Ok(_) | Err(_) => plain_host(&parts.host).ok_or(OriginError::Form)?,
        };
        Ok(Self {
            scheme: parts.scheme.into(),
            host,
            port: parts.port,
        })
    }

    /// Whether the value of an Origin field is this origin, or one of these.
    pub fn covers(&self, origin: &str) -> bool {
        let Some(Parts { scheme, host, port }) = Parts::of(origin) else {
            return false;
        };
        if *scheme != *self.scheme || port != self.port {
            return false;
        }
        match &self.host {
            OriginHost::Below(suffix) => Hostname::parse(&host).is_ok_and(|name| {
                !host.ends_with('.') && HostPattern::Wildcard(suffix.clone()).covers(&name)
            }),
            own @ (OriginHost::Name(_) | OriginHost::V6(_)) => {
                plain_host(&host).is_some_and(|host| host == *own)
            }
        }
    }
}

/// A text taken apart, in lower case, with the scheme's own port if it names none.
struct Parts {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Parts {
    fn of(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (scheme, authority) = lower.split_once("://")?;
        // RFC 3986 §3.1.
        let first = scheme.bytes().next().filter(u8::is_ascii_lowercase);
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if first.is_none() || !scheme.bytes().all(inner) {
            return None;
        }
        // The last ':' outside of brackets.
        let colon = authority.rfind(':').filter(|colon| {
            !authority
                .get(*colon..)
                .is_some_and(|rest| rest.contains(']'))
        });
        let (host, port) = match colon {
            Some(colon) => {
                let digits = authority.get(colon + 1..)?;
                let number = digits.parse::<u16>().ok().filter(|number| *number > 0)?;
                // `parse` would take a sign.
                if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                (authority.get(..colon)?, Some(number))
            }
            None => (authority, None),
        };
        let own = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Some(Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port: port.or(own),
        })
    }
}

/// A host without a wildcard: an address in brackets, or labels. An extension's identifier is one label, and some names have a `_`.
fn plain_host(host: &str) -> Option<OriginHost> {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']')?.parse().ok()?;
        return Some(OriginHost::V6(address));
    }
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= MAX_LABEL_BYTES && label.bytes().all(allowed)
    };
    let is_name = host.len() <= MAX_HOSTNAME_BYTES && host.split('.').all(is_label);
    is_name.then(|| OriginHost::Name(host.into()))
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match &self.host {
            OriginHost::Name(name) => f.write_str(name)?,
            OriginHost::V6(address) => write!(f, "[{address}]")?,
            OriginHost::Below(suffix) => write!(f, "*.{suffix}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, origin: &str, expected: bool) {
        let parsed = OriginPattern::parse(pattern).unwrap();
        assert_eq!(parsed.covers(origin), expected, "{pattern} covers {origin}");
        // What is written out is the same origin.
        assert_eq!(OriginPattern::parse(&parsed.to_string()), Ok(parsed));
    }

    #[track_caller]
    fn refuse(pattern: &str, expected: OriginError) {
        assert_eq!(OriginPattern::parse(pattern), Err(expected), "{pattern}");
    }

    #[test]
    fn scheme_host_and_port_are_compared() {
        check("https://app.example.com", "https://app.example.com", true);
        check("https://app.example.com", "HTTPS://App.Example.COM", true);
        check("HTTPS://App.example.com", "https://app.example.com", true);
        check("https://app.example.com", "http://app.example.com", false);
        check(
            "https://app.example.com",
            "https://app.example.com:8443",
            false,
        );
        check(
            "https://app.example.com",
            "https://app.example.com.evil.org",
            false,
        );
        check(
            "https://app.example.com",
            "https://evil-app.example.com",
            false,
        );
        check("https://app.example.com", "https://app.example.com.", false);
        check("http://localhost:3000", "http://localhost:3000", true);
        check("http://127.0.0.1:3000", "http://127.0.0.1:3000", true);
        check("http://[::1]:3000", "http://[0:0::1]:3000", true);
        check("http://[::1]", "http://[::2]", false);
        check(
            "moz-extension://6ba7b810-9dad",
            "moz-extension://6ba7b810-9dad",
            true,
        );
        check("app://my_app", "app://my_app", true);
    }

    #[test]
    fn a_schemes_own_port_is_like_none() {
        check(
            "https://app.example.com:443",
            "https://app.example.com",
            true,
        );
        check(
            "https://app.example.com",
            "https://app.example.com:443",
            true,
        );
        check("http://app.example.com", "http://app.example.com:80", true);
        check(
            "http://app.example.com",
            "http://app.example.com:443",
            false,
        );
        check("app://localhost", "app://localhost:80", false);
    }

    #[test]
    fn wildcard_stands_for_one_or_more_labels_and_no_other_part() {
        check("https://*.example.com", "https://a.example.com", true);
        check("https://*.example.com", "https://a.b.example.com", true);
        check(
            "https://*.example.com:8443",
            "https://a.example.com:8443",
            true,
        );
        check("https://*.example.com", "https://example.com", false);
        check("https://*.example.com", "https://aexample.com", false);
        check("https://*.example.com", "http://a.example.com", false);
        check("https://*.example.com", "https://a.example.com:8443", false);
        check("https://*.example.com", "https://a.example.com.", false);
    }

    #[test]
    fn what_is_no_origin_is_covered_by_nothing() {
        for origin in [
            "null",
            "",
            "*",
            "https://a.example.com/",
            "https://a.example.com/path",
            "https://a.example.com https://a.example.com",
            "https://a.example.com, https://a.example.com",
            "https://user@a.example.com",
            "https://evil.org#@a.example.com",
            "https://evil.org?.a.example.com",
            "https://a.example.com:",
            "https://a.example.com:+443",
            "https://a.example.com:0443443",
            "https://",
            "://a.example.com",
            "a.example.com",
            " https://a.example.com",
        ] {
            check("https://a.example.com", origin, false);
            check("https://*.example.com", origin, false);
        }
    }

    #[test]
    fn refuses_what_no_browser_sends() {
        for pattern in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/chat",
            "https://app.example.com:0",
            "https://app.example.com:65536",
            "https://user@app.example.com",
            "https://a..b",
            "https://[::1",
            "https://ü.example.com",
            "1https://a",
        ] {
            refuse(pattern, OriginError::Form);
        }
        for pattern in [
            "https://*",
            "https://a.*.com",
            "https://*a.example.com",
            "https://*.1.2.3.4",
        ] {
            refuse(pattern, OriginError::Wildcard);
        }
        refuse("wss://app.example.com", OriginError::WebSocketScheme);
        refuse("WS://app.example.com", OriginError::WebSocketScheme);
    }
}
