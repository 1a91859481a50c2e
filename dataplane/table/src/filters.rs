//! What a rule changes of requests and answers (Gateway API `HTTPRouteFilter`).
//!
//! In: texts of a route. Out: typed filters, so that nothing that could end a header field, name a hop or pretend to be the proxy
//! ever gets into a table, whoever made it: [`FieldName`] and [`FieldValue`] are checked when they are made. Paths are changed
//! as Gateway API's table of `replacePrefixMatch` has it.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::path::{check_path, normal};
use crate::{Hostname, PathError};

/// Longest name of a field that a filter writes, in bytes (Gateway API `HTTPHeaderName`).
pub(crate) const MAX_FIELD_NAME_BYTES: usize = 256;
/// Longest value of a field that a filter writes, in bytes (Gateway API `HTTPHeader`).
pub(crate) const MAX_FIELD_VALUE_BYTES: usize = 4096;

/// Fields that no filter may touch, with `-` for every `_`: those of one hop (RFC 9110 §7.6.1), of a message's framing, and those that
/// the proxy writes itself.
const RESERVED: [&str; 16] = [
    "cdn-loop",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
    "x-request-id",
];
/// Beginnings of such names: the handshake (RFC 6455 §11.3), and more that the proxy writes.
const RESERVED_PREFIXES: [&str; 3] = ["sec-websocket-", "x-forwarded-", "x-ws-ingress-"];

/// Why a filter cannot write or remove a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error(
        "must be the name of a header field: 1 to 256 letters, digits, and characters of !#$%&'*+-.^_`|~"
    )]
    Name,
    #[error("names a field that filters may not change; for Host use urlRewrite.hostname")]
    Reserved,
    #[error(
        "must be 1 to 4096 visible ASCII characters, with spaces or tabs between them only; line ends cannot be written"
    )]
    Value,
}

/// Everything that a rule changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    pub request_headers: HeaderModifier,
    pub response_headers: HeaderModifier,
    pub rewrite: Rewrite,
    /// The answer of the rule itself, in place of a backend's.
    pub redirect: Option<Redirect>,
}

/// Changes of header fields; a name stands in one of the lists at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// In place of all that were there.
    pub set: Vec<HeaderField>,
    /// Beside those that were there.
    pub add: Vec<HeaderField>,
    pub remove: Vec<FieldName>,
}

/// A field as a filter writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderField {
    pub name: FieldName,
    pub value: FieldValue,
}

/// The name of a field that filters may change, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldName(HeaderName);

/// A value that is one line of visible ASCII. It may be a credential, so Debug shows its length alone.
#[derive(Clone, PartialEq, Eq)]
pub struct FieldValue(HeaderValue);

/// What of the target and Host a backend gets in place of the client's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub hostname: Option<Hostname>,
    pub path: Option<PathModifier>,
}

/// Where a redirect leads; what is absent stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<RedirectScheme>,
    pub hostname: Option<Hostname>,
    pub port: Option<NonZeroU16>,
    pub path: Option<PathModifier>,
    pub status: RedirectStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectScheme {
    Http,
    Https,
}

/// The status of a redirect (RFC 9110 §15.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectStatus {
    MovedPermanently,
    Found,
    SeeOther,
    TemporaryRedirect,
    PermanentRedirect,
}

/// A change of a path; the query is not part of it.
#[derive(Clone, PartialEq, Eq)]
pub enum PathModifier {
    /// The whole path.
    Full(Arc<str>),
    /// The prefix that was matched; without a trailing slash, so that the root is the empty string.
    Prefix(Arc<str>),
}

impl FieldName {
    /// Parses a name in any case.
    ///
    /// # Errors
    /// If it is no name (RFC 9110 §5.1), or one that filters may not change.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.len() > MAX_FIELD_NAME_BYTES {
            return Err(FieldError::Name);
        }
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| FieldError::Name)?;
        let alike = alike(name.as_str());
        let begins = |prefix: &&str| alike.starts_with(prefix);
        if RESERVED.contains(&&*alike) || RESERVED_PREFIXES.iter().any(begins) {
            return Err(FieldError::Reserved);
        }
        Ok(Self(name))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A name as CGI-like backends read it: both characters alike, and both cases.
fn alike(name: &str) -> String {
    name.bytes()
        .map(|byte| char::from(alike_byte(byte)))
        .collect()
}

/// Whether CGI-like backends read both names alike.
fn are_alike(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().map(alike_byte).eq(b.bytes().map(alike_byte))
}

fn alike_byte(byte: u8) -> u8 {
    match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    }
}

impl FieldValue {
    /// Parses a value.
    ///
    /// # Errors
    /// If it is empty or too long, or holds anything that a field's line could end with or that is not ASCII.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let bytes = text.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ' || *byte == b'\t';
        let ends = [bytes.first(), bytes.last()];
        let is_value = bytes.len() <= MAX_FIELD_VALUE_BYTES
            && bytes.iter().all(inner)
            && ends.iter().all(|end| end.is_some_and(u8::is_ascii_graphic));
        HeaderValue::from_str(text)
            .ok()
            .filter(|_| is_value)
            .map(Self)
            .ok_or(FieldError::Value)
    }

    pub fn as_str(&self) -> &str {
        // ASCII by construction.
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl HeaderModifier {
    /// A name that stands in it twice; what that should mean nobody can say.
    pub fn repeated(&self) -> Option<&FieldName> {
        let written = self.set.iter().chain(&self.add).map(|field| &field.name);
        let names = written.chain(&self.remove).collect::<Vec<_>>();
        let mut rest = names.iter().enumerate();
        rest.find_map(|(index, name)| {
            let later = names.get(index + 1..)?;
            later.contains(name).then_some(*name)
        })
    }

    /// Whether it sets or removes the field of this name, in any case and in any spelling that a backend could take for it (`X_User` for
    /// `X-User`): what a message itself says there is not to pass, or a client could still say what the rule decides.
    pub fn replaces(&self, name: &str) -> bool {
        let set = self.set.iter().map(|field| &field.name);
        set.chain(&self.remove)
            .any(|replaced| are_alike(replaced.as_str(), name))
    }

    /// Changes the fields of a request, where every spelling of what is set or removed goes.
    pub fn apply_to_request(&self, headers: &mut HeaderMap) {
        let replaced = headers.keys().filter(|name| self.replaces(name.as_str()));
        for name in replaced.cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
        self.apply(headers);
    }

    /// Changes the fields.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let Self { set, add, remove } = self;
        for HeaderField { name, value } in set {
            headers.insert(name.0.clone(), value.0.clone());
        }
        for HeaderField { name, value } in add {
            headers.append(name.0.clone(), value.0.clone());
        }
        for name in remove {
            headers.remove(&name.0);
        }
    }
}

impl RedirectScheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL means when it names none (RFC 9110 §4.2).
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl RedirectStatus {
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            301 => Some(Self::MovedPermanently),
            302 => Some(Self::Found),
            303 => Some(Self::SeeOther),
            307 => Some(Self::TemporaryRedirect),
            308 => Some(Self::PermanentRedirect),
            _ => None,
        }
    }

    pub fn code(self) -> u16 {
        match self {
            Self::MovedPermanently => 301,
            Self::Found => 302,
            Self::SeeOther => 303,
            Self::TemporaryRedirect => 307,
            Self::PermanentRedirect => 308,
        }
    }
}

impl PathModifier {
    /// Replaces the whole path by `value`.
    ///
    /// # Errors
    /// If it is no path of a request.
    pub fn full(value: &str) -> Result<Self, PathError> {
        check_path(value)?;
        Ok(Self::Full(value.into()))
    }

    /// Replaces the prefix by `value`, which may be empty; a trailing slash makes no difference.
    ///
    /// # Errors
    /// If it is neither empty nor a path of a request.
    pub fn prefix(value: &str) -> Result<Self, PathError> {
        if !value.is_empty() {
            check_path(value)?;
        }
        Ok(Self::Prefix(
            value.strip_suffix('/').unwrap_or(value).into(),
        ))
    }

    /// The path that comes of `path`, of which `matched` is the prefix that the rule takes, without a trailing slash. Nothing if a
    /// prefix is to be replaced that is not there. What stays of the path is in the spelling that it was matched in.
    pub fn apply(&self, path: &str, matched: Option<&str>) -> Option<String> {
        match self {
            Self::Full(value) => Some(value.to_string()),
            Self::Prefix(value) => {
                let path = normal(path);
                let rest = path.strip_prefix(matched?)?;
                if !rest.is_empty() && !rest.starts_with('/') {
                    return None;
                }
                if value.is_empty() {
                    // "//host" at the beginning of a target is read as another host by some.
                    return Some(format!("/{}", rest.trim_start_matches('/')));
                }
                Some(format!("{value}{rest}"))
            }
        }
    }
}

impl fmt::Debug for PathModifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(value) => write!(f, "ReplaceFullPath {value}"),
            Self::Prefix(value) => write!(f, "ReplacePrefixMatch {value}/"),
        }
    }
}

#[cfg(test)]
mod tests;
