//! What a match asks of a request: a path, and conditions on header fields, query parameters and subprotocols.
//!
//! In: names and values as a user wrote them, and [`RequestParts`]. Out: whether they fit, and which of two matches is the more
//! specific. All comparisons are exact; there are no regular expressions, whose cost nobody could bound. How a request is read:
//!
//! - A header field on several lines is one value, its lines joined by `, ` in order (RFC 9110 §5.3). So a client cannot satisfy two rules
//!   by sending a field twice: `beta` twice is `beta, beta`.
//! - Query parameters are read as forms write them (`application/x-www-form-urlencoded`): between `&`, name and value around the first
//!   `=`, `+` for a space, `%` and two digits for a byte; any other `%` is itself. Of a repeated name the first counts (Gateway API
//!   `HTTPQueryParamMatch`).
//! - Subprotocols are compared letter for letter (RFC 6455 §4.1).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::{PathMatch, path};

/// Longest name of a header field, query parameter or subprotocol in a match, in bytes. Those in use are half as long.
pub const MAX_CONDITION_NAME_BYTES: usize = 64;

/// Longest value in a match, in characters: it names a version or a tenant, and is compared with many requests.
pub const MAX_CONDITION_VALUE_CHARS: usize = 256;

/// Fields that no rule may ask for: they say how this one connection is used, or frame the message (RFC 9110 §7.6.1).
const OF_ONE_HOP: [&str; 7] = [
    "connection",
    "content-length",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a text cannot stand in a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    #[error(
        "must be a name of 1 to 64 letters, digits and !#$%&'*+-.^_`|~ (a token of RFC 9110 section 5.6.2)"
    )]
    Name,
    #[error("cannot be matched; list the names that clients connect to in spec.hostnames")]
    Host,
    #[error("cannot be matched: it belongs to one connection; match another field")]
    OneHop,
    #[error("cannot be matched; list subprotocols in matches[].subprotocols")]
    Handshake,
    #[error(
        "cannot be matched: the proxy writes it and drops the client's own copy, which anybody could forge; match another field"
    )]
    Forgeable,
    #[error(
        "must be 1 to 256 visible ASCII characters, with spaces only between them, which is all that a header field can be matched by"
    )]
    HeaderValue,
    #[error(
        "must be 1 to 256 characters without control characters; write it decoded, not percent-encoded"
    )]
    QueryValue,
}

/// One way for a request to fit a rule: the path and all of the conditions.
#[derive(Clone, PartialEq, Eq)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub conditions: Conditions,
}

/// What is asked of a request beside its path; without any, nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// All of these.
    pub headers: Vec<HeaderMatch>,
    /// All of these.
    pub query_params: Vec<QueryParamMatch>,
    /// Any one of these, if there are any.
    pub subprotocols: Vec<Subprotocol>,
}

/// A header field and its whole value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    name: HeaderName,
    value: Arc<str>,
}

/// A query parameter and its whole value, both decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryParamMatch {
    name: Arc<str>,
    value: Arc<str>,
}

/// A subprotocol that a client may offer (`Sec-WebSocket-Protocol`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subprotocol(Arc<str>);

/// The parts of a request that rules are matched with.
#[derive(Debug)]
pub struct RequestParts<'a> {
    /// In the spelling that paths are compared in.
    path: Cow<'a, str>,
    query: &'a str,
    headers: Option<&'a HeaderMap>,
    offered: HashSet<&'a str>,
    /// Read when the first rule asks, and then once: a query may be as long as a request head.
    params: OnceCell<Params<'a>>,
}

/// Query parameters, decoded.
type Params<'a> = HashMap<Cow<'a, [u8]>, Cow<'a, [u8]>>;

/// More specific first.
pub(crate) type Specificity = (Reverse<usize>, Reverse<usize>, Reverse<bool>);

impl From<PathMatch> for RouteMatch {
    /// A match of the path alone.
    fn from(path: PathMatch) -> Self {
        Self {
            path,
            conditions: Conditions::default(),
        }
    }
}

impl Conditions {
    /// How many there are, each subprotocol counted: what a lookup compares at most for this match.
    pub fn count(&self) -> usize {
        let Self {
            headers,
            query_params,
            subprotocols,
        } = self;
        headers.len() + query_params.len() + subprotocols.len()
    }

    /// Most header matches first, then most query parameters (Gateway API `HTTPRouteRule`), then those that ask for a subprotocol. How
    /// many subprotocols are listed says nothing: any one of them will do.
    pub(crate) fn specificity(&self) -> Specificity {
        (
            Reverse(self.headers.len()),
            Reverse(self.query_params.len()),
            Reverse(!self.subprotocols.is_empty()),
        )
    }

    pub(crate) fn fit(&self, request: &RequestParts<'_>) -> bool {
        let Self {
            headers,
            query_params,
            subprotocols,
        } = self;
        headers.iter().all(|header| header.fits(request))
            && query_params.iter().all(|param| param.fits(request))
            && (subprotocols.is_empty()
                || subprotocols
                    .iter()
                    .any(|wanted| request.offered.contains(&*wanted.0)))
    }
}

impl HeaderMatch {
    /// A match of `name`, in any case, with exactly `value`.
    pub fn new(name: &str, value: &str) -> Result<Self, ConditionError> {
        if !is_token(name) {
            return Err(ConditionError::Name);
        }
        let name = HeaderName::try_from(name).map_err(|_| ConditionError::Name)?;
        // A backend behind CGI takes `X_Real_IP` for `X-Real-IP`, and so might whoever wrote the rule.
        let plain = name.as_str().replace('_', "-");
        if plain == "host" {
            return Err(ConditionError::Host);
        }
        if OF_ONE_HOP.contains(&&*plain) || plain.starts_with("proxy-") {
            return Err(ConditionError::OneHop);
        }
        if plain.starts_with("sec-websocket-") {
            return Err(ConditionError::Handshake);
        }
        if ["forwarded", "x-real-ip", "x-request-id"].contains(&&*plain)
            || plain.starts_with("x-forwarded-")
            || plain.starts_with("x-ws-ingress-")
        {
            return Err(ConditionError::Forgeable);
        }
        let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if value.is_empty()
            || value.len() > MAX_CONDITION_VALUE_CHARS
            || !value.bytes().all(visible)
            || value.trim_matches(' ') != value
        {
            return Err(ConditionError::HeaderValue);
        }
        Ok(Self {
            name,
            value: value.into(),
        })
    }

    /// The field's name, in lower case.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    pub fn value(&self) -> &str {
        &self.value
    }

    fn fits(&self, request: &RequestParts<'_>) -> bool {
        let Some(headers) = request.headers else {
            return false;
        };
        let mut lines = headers.get_all(&self.name).iter();
        let Some(first) = lines.next() else {
            return false;
        };
        let begun = self.value.as_bytes().strip_prefix(first.as_bytes());
        // Ends with the first line that differs: a client may send a hundred, and many rules may ask.
        let rest = lines.try_fold(begun, |rest, line| {
            let next = rest?.strip_prefix(b", ")?;
            Some(next.strip_prefix(line.as_bytes()))
        });
        rest.flatten().is_some_and(<[u8]>::is_empty)
    }
}

impl QueryParamMatch {
    /// A match of the parameter `name`, letter for letter, with exactly `value`.
    pub fn new(name: &str, value: &str) -> Result<Self, ConditionError> {
        if !is_token(name) {
            return Err(ConditionError::Name);
        }
        if value.is_empty()
            || value.chars().count() > MAX_CONDITION_VALUE_CHARS
            || value.contains(char::is_control)
        {
            return Err(ConditionError::QueryValue);
        }
        Ok(Self {
            name: name.into(),
            value: value.into(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn value(&self) -> &str {
        &self.value
    }

    fn fits(&self, request: &RequestParts<'_>) -> bool {
        let params = request.params.get_or_init(|| read_query(request.query));
        let sent = params.get(self.name.as_bytes());
        sent.is_some_and(|sent| **sent == *self.value.as_bytes())
    }
}

impl Subprotocol {
    /// A subprotocol of this name.
    pub fn new(name: &str) -> Result<Self, ConditionError> {
        if !is_token(name) {
            return Err(ConditionError::Name);
        }
        Ok(Self(name.into()))
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

impl<'a> RequestParts<'a> {
    /// A request by its path, its query without the '?', the fields that rules may see, and the subprotocols that it offers: of an
    /// ordinary request none.
    pub fn new(
        path: &'a str,
        query: Option<&'a str>,
        headers: &'a HeaderMap,
        offered: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            query: query.unwrap_or_default(),
            headers: Some(headers),
            offered: offered.into_iter().collect(),
            ..Self::of_path(path)
        }
    }

    /// A request with nothing but a path.
    pub fn of_path(path: &'a str) -> Self {
        Self {
            path: path::normal(path),
            query: "",
            headers: None,
            offered: HashSet::new(),
            params: OnceCell::new(),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// The first value of each parameter.
fn read_query(query: &str) -> Params<'_> {
    let mut params = HashMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        params
            .entry(decoded(name))
            .or_insert_with(|| decoded(value));
    }
    params
}

/// A name or value of a query as bytes; what it stands for need not be UTF-8.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return text.as_bytes().into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.first_chunk::<2>().filter(|_| first == b'%');
        let byte = escaped.and_then(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        bytes.push(match (byte, first) {
            (Some(byte), _) => byte,
            (None, b'+') => b' ',
            (None, first) => first,
        });
        let taken = if byte.is_some() { 2 } else { 0 };
        rest = after.get(taken..).unwrap_or_default();
    }
    bytes.into()
}

fn digit(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// A token of RFC 9110 §5.6.2, of bounded length.
fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=MAX_CONDITION_NAME_BYTES).contains(&text.len()) && text.bytes().all(tchar)
}

impl fmt::Debug for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.path, self.conditions)
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for HeaderMatch { name, value } in &self.headers {
            write!(f, ", header {name} {value:?}")?;
        }
        for QueryParamMatch { name, value } in &self.query_params {
            write!(f, ", query {name} {value:?}")?;
        }
        for (index, Subprotocol(name)) in self.subprotocols.iter().enumerate() {
            f.write_str(if index == 0 { ", subprotocol " } else { " or " })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
