//! Path matches of a rule and the index that finds the best one.
//!
//! In: `Exact` and `PathPrefix` values. Out: [`PathIndex`], which gives what stands at a request path, best first, in time that
//! depends on the depth of the path, not on the number of rules. Prefixes match whole elements (Gateway API `PathMatchPathPrefix`):
//! `/chat` matches `/chat`, `/chat/` and `/chat/a`, never `/chatter`. Paths are compared in one spelling ([`normal`]), letter for letter;
//! dot segments never get here, the handshake refuses them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

/// Longest path value of a match, in bytes (Gateway API `HTTPPathMatch`).
pub const MAX_PATH_BYTES: usize = 1024;

/// Why a text cannot be the value of a path match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("must begin with '/'")]
    NotAbsolute,
    #[error("is longer than 1024 bytes")]
    TooLong,
    #[error(
        "holds an empty element ('//'), which no request path can be matched to; remove the second '/'"
    )]
    EmptyElement,
    #[error("holds '.' or '..' as an element; write the path that they lead to")]
    DotSegment,
    #[error(
        "holds a character that a request path cannot: percent-encode it, and leave out '?' and '#'"
    )]
    Character,
    #[error(
        "holds a '%' without two hexadecimal digits behind it, or %00; write the character '%' itself as %25"
    )]
    PercentEncoding,
    #[error("holds %2F or %2E, which servers read in different ways; write '/' or '.'")]
    EncodedDelimiter,
}

/// How one rule matches the request path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathMatch {
    Exact(Arc<str>),
    /// Without a trailing slash; the root prefix is the empty string.
    Prefix(Arc<str>),
}

impl PathMatch {
    /// A match of exactly `value`.
    pub fn exact(value: &str) -> Result<Self, PathError> {
        check_path(value)?;
        Ok(Self::Exact(normal(value).into()))
    }

    /// A match of `value` and everything below it; a trailing slash makes no difference.
    pub fn prefix(value: &str) -> Result<Self, PathError> {
        check_path(value)?;
        let value = normal(value);
        Ok(Self::Prefix(
            value.strip_suffix('/').unwrap_or(&value).into(),
        ))
    }
}

/// A path in the spelling that paths are compared in: letters, digits, `-._~` plain, and the digits of what is encoded in upper case.
/// Servers read every other spelling as this one (RFC 3986 §6.2.2), and so a client could choose which rule takes its request.
pub(crate) fn normal(path: &str) -> Cow<'_, str> {
    let mut parts = path.split('%');
    let first = parts.next().unwrap_or_default();
    if first.len() == path.len() {
        return path.into();
    }
    let mut normal = String::with_capacity(path.len());
    normal.push_str(first);
    for part in parts {
        let (byte, rest) = match encoded_byte(part) {
            Some(byte) => (Some(byte), part.get(2..).unwrap_or_default()),
            None => (None, part),
        };
        // Writing to a String cannot fail.
        let _ = match byte {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                normal.write_char(byte.into())
            }
            Some(byte) => write!(normal, "%{byte:02X}"),
            None => normal.write_char('%'),
        };
        normal.push_str(rest);
    }
    normal.into()
}

/// The byte whose two digits a text begins with: a pct-encoded of RFC 3986 §2.1, behind its '%'.
fn encoded_byte(text: &str) -> Option<u8> {
    let digits = text.get(..2)?;
    // `from_str_radix` would take a sign.
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| are_digits)
}

/// Whether each '%' of a path begins an encoded byte (RFC 3986 §2.1) that is not zero: what else it stands for differs from server to
/// server, and a zero byte ends the name of a file for some.
pub fn is_encoded_well(path: &str) -> bool {
    // Split at every '%', each part but the first begins with its digits.
    let mut parts = path.split('%').skip(1);
    parts.all(|part| encoded_byte(part).is_some_and(|byte| byte != 0))
}

/// Whether any segment is `.` or `..` once %2E, %2F, %5C, `\` and parameters (`..;x`) are read as lenient servers read them.
pub fn has_dot_segments(path: &str) -> bool {
    if !path.contains('.') && !path.contains('%') {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    let plain = lower
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "/")
        .replace("%3b", ";")
        .replace('\\', "/");
    plain
        .split('/')
        .filter_map(|segment| segment.split(';').next())
        .any(|name| name == "." || name == "..")
}

pub(crate) fn check_path(value: &str) -> Result<(), PathError> {
    if value.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    if !value.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if value.contains("//") {
        return Err(PathError::EmptyElement);
    }
    // pchar of RFC 3986 §3.3: everything visible but the delimiters of the other parts.
    if !value
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !br#"?#"<>\^`{|}"#.contains(&byte))
    {
        return Err(PathError::Character);
    }
    if !is_encoded_well(value) {
        return Err(PathError::PercentEncoding);
    }
    let lower = value.to_ascii_lowercase();
    if lower.contains("%2f") || lower.contains("%2e") {
        return Err(PathError::EncodedDelimiter);
    }
    // As a request is judged: what no request can have, no rule can ask for or write.
    if has_dot_segments(value) {
        return Err(PathError::DotSegment);
    }
    Ok(())
}

impl fmt::Debug for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "Exact {value}"),
            Self::Prefix(value) => write!(f, "PathPrefix {value}/"),
        }
    }
}

/// What stands at each path: `Exact` first, then from the longest prefix to the shortest.
#[derive(Debug, Clone)]
pub(crate) struct PathIndex<T> {
    exact: HashMap<Arc<str>, T>,
    prefix: HashMap<Arc<str>, T>,
    /// Length of the longest prefix: a request path of thousands of slashes costs no more look-ups than the rules have bytes.
    longest_prefix: usize,
}

impl<T: Default> PathIndex<T> {
    pub(crate) fn new() -> Self {
        Self {
            exact: HashMap::new(),
            prefix: HashMap::new(),
            longest_prefix: 0,
        }
    }

    /// What stands at this match, to be added to.
    pub(crate) fn entry(&mut self, path: &PathMatch) -> &mut T {
        match path {
            PathMatch::Exact(value) => self.exact.entry(value.clone()).or_default(),
            PathMatch::Prefix(value) => {
                self.longest_prefix = self.longest_prefix.max(value.len());
                self.prefix.entry(value.clone()).or_default()
            }
        }
    }

    pub(crate) fn entries(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.prefix.values_mut())
    }

    /// The first that `choose` takes something of, in order of precedence.
    pub(crate) fn find_map<'a, R>(
        &'a self,
        path: &str,
        choose: impl Fn(&'a T) -> Option<R>,
    ) -> Option<R> {
        if let Some(chosen) = self.exact.get(path).and_then(&choose) {
            return Some(chosen);
        }
        // Cut at each element from the longest prefix that any rule has.
        let mut end = path.len();
        loop {
            if end <= self.longest_prefix
                && let Some(entry) = path.get(..end).and_then(|prefix| self.prefix.get(prefix))
                && let Some(chosen) = choose(entry)
            {
                return Some(chosen);
            }
            end = path.get(..end)?.rfind('/')?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(matches: &[PathMatch], path: &str, expected: Option<usize>) {
        let mut index = PathIndex::<Option<usize>>::new();
        for (position, path) in matches.iter().enumerate() {
            index.entry(path).get_or_insert(position);
        }
        assert_eq!(index.find_map(path, |entry| *entry), expected, "{path}");
    }

    fn prefix(value: &str) -> PathMatch {
        PathMatch::prefix(value).unwrap()
    }

    #[test]
    fn prefix_matches_whole_elements() {
        for path in ["/chat", "/chat/", "/chat/a/b"] {
            check(&[prefix("/chat")], path, Some(0));
            check(&[prefix("/chat/")], path, Some(0));
        }
        for path in ["/chatter", "/cha", "/", "/other/chat", "//chat"] {
            check(&[prefix("/chat")], path, None);
        }
    }

    #[test]
    fn root_prefix_matches_everything() {
        for path in ["/", "/a", "/a/b/", "//", "/🦀"] {
            check(&[prefix("/")], path, Some(0));
        }
    }

    #[test]
    fn exact_wins_over_prefix_and_longer_over_shorter() {
        let matches = [
            prefix("/"),
            prefix("/a"),
            prefix("/a/b"),
            PathMatch::exact("/a/b").unwrap(),
        ];
        check(&matches, "/a/b", Some(3));
        check(&matches, "/a/b/", Some(2));
        check(&matches, "/a/c", Some(1));
        check(&matches, "/b", Some(0));
    }

    #[test]
    fn first_of_two_equal_matches_stays() {
        check(&[prefix("/a"), prefix("/a/")], "/a", Some(0));
    }

    #[test]
    fn one_spelling_of_a_path_is_compared() {
        for (path, expected) in [
            ("/chat", "/chat"),
            ("/%63h%61%74/%7e%2D%5f%2E", "/chat/~-_."),
            ("/caf%c3%a9", "/caf%C3%A9"),
            // What a delimiter is, its encoded form is not (RFC 3986 §2.2), and what is decoded is not decoded again.
            ("/a%2fb%3a%25%2561", "/a%2Fb%3A%25%2561"),
            ("/%", "/%"),
            ("/%6/%+1%é1%", "/%6/%+1%é1%"),
            ("/é%61", "/éa"),
        ] {
            assert_eq!(normal(path), expected, "{path}");
            assert_eq!(normal(&normal(path)), expected, "{path}");
        }
        assert_eq!(PathMatch::exact("/%63hat"), PathMatch::exact("/chat"));
        assert_eq!(prefix("/caf%c3%a9/%7E/"), prefix("/caf%C3%A9/~"));
    }

    #[test]
    fn takes_what_is_percent_encoded() {
        for value in ["/100%25", "/%e4%F6", "/%25zz"] {
            assert!(PathMatch::exact(value).is_ok(), "{value}");
        }
    }

    #[test]
    fn refuses_values_that_no_request_can_match() {
        for (value, expected) in [
            ("", PathError::NotAbsolute),
            ("chat", PathError::NotAbsolute),
            ("/a//b", PathError::EmptyElement),
            ("/a/../b", PathError::DotSegment),
            ("/a/..;x/b", PathError::DotSegment),
            ("/a/..%5Cb", PathError::DotSegment),
            ("/a%00", PathError::PercentEncoding),
            ("/a?b", PathError::Character),
            ("/a b", PathError::Character),
            ("/ü", PathError::Character),
            ("/a%2Fb", PathError::EncodedDelimiter),
            ("/100%", PathError::PercentEncoding),
            ("/%2", PathError::PercentEncoding),
            ("/%2/a", PathError::PercentEncoding),
            ("/%zz", PathError::PercentEncoding),
            ("/%20%%41", PathError::PercentEncoding),
        ] {
            assert_eq!(PathMatch::exact(value), Err(expected), "{value}");
        }
        assert_eq!(
            PathMatch::prefix(&"/a".repeat(513)),
            Err(PathError::TooLong)
        );
    }
}
