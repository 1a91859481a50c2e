//! Hostnames and the patterns that claim them.
//!
//! In: text from a route, an SNI extension or a Host field. Out: [`Hostname`], a name in its one canonical spelling, and
//! [`HostPattern`], an exact name or a wildcard over its first labels. Precedence is Gateway API's: an exact name before any
//! wildcard, a longer wildcard before a shorter one. Ports, IP literals and internationalised spelling do not pass.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest name that DNS can carry, in bytes (RFC 1035 §2.3.4, without the root dot).
pub const MAX_HOSTNAME_BYTES: usize = 253;

/// Why a text is not a hostname or pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    #[error("is empty; write a DNS name such as chat.example.com")]
    Empty,
    #[error("is longer than 253 bytes, the most DNS can carry")]
    TooLong,
    #[error("has an empty label or one longer than 63 bytes; labels are separated by single dots")]
    LabelLength,
    #[error(
        "may hold only letters, digits, '-' and '.', and no label may begin or end with '-'; write other names in their xn-- form"
    )]
    Character,
    #[error("is an IP address; a route needs a DNS name")]
    IpAddress,
    #[error("has a wildcard that is not the whole first label; write *.example.com")]
    Wildcard,
}

/// A DNS name in lower case, without a trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// Parses a name as a peer sends it: any case, one trailing dot allowed (RFC 1034 §3.1).
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(HostnameError::Empty);
        }
        if name.len() > MAX_HOSTNAME_BYTES {
            return Err(HostnameError::TooLong);
        }
        for label in name.split('.') {
            check_label(label)?;
        }
        // A last label of digits only is how every parser of addresses recognises IPv4 (WHATWG URL §3.5).
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HostnameError::IpAddress);
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_label(label: &str) -> Result<(), HostnameError> {
    if label.is_empty() || label.len() > 63 {
        return Err(HostnameError::LabelLength);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !label.bytes().all(allowed) || label.starts_with('-') || label.ends_with('-') {
        return Err(HostnameError::Character);
    }
    Ok(())
}

/// So that a map by name can be asked for a part of a name without a copy of it.
impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a route claims: one name, or every name below a suffix (Gateway API `Hostname`: a wildcard stands for one or more
/// whole labels, never for none).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Exact(Hostname),
    /// `*.suffix`; holds the suffix.
    Wildcard(Hostname),
}

impl HostPattern {
    /// Parses `chat.example.com` or `*.example.com`. A trailing dot and upper case are accepted and normalised.
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        match text.strip_prefix("*.") {
            Some(suffix) => Hostname::parse(suffix).map(Self::Wildcard),
            None if text.contains('*') => Err(HostnameError::Wildcard),
            None => Hostname::parse(text).map(Self::Exact),
        }
    }

    /// Whether a request for `name` falls under this pattern.
    pub fn covers(&self, name: &Hostname) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Wildcard(suffix) => name
                .as_str()
                .strip_suffix(suffix.as_str())
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        let pattern = HostPattern::parse(pattern).unwrap();
        assert_eq!(
            pattern.covers(&Hostname::parse(name).unwrap()),
            expected,
            "{pattern} covers {name}"
        );
    }

    #[track_caller]
    fn refuse(pattern: &str, expected: HostnameError) {
        assert_eq!(HostPattern::parse(pattern), Err(expected), "{pattern}");
    }

    #[test]
    fn exact_matches_in_any_case_and_with_a_root_dot() {
        check("chat.example.com", "CHAT.Example.com.", true);
        check("chat.example.com", "a.chat.example.com", false);
    }

    #[test]
    fn wildcard_stands_for_one_or_more_whole_labels() {
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "a.b.example.com", true);
        check("*.example.com", "aexample.com", false);
    }

    #[test]
    fn wildcard_does_not_match_the_bare_domain() {
        check("*.example.com", "example.com", false);
    }

    #[test]
    fn refuses_what_is_not_a_dns_name() {
        refuse("", HostnameError::Empty);
        refuse("a..b", HostnameError::LabelLength);
        refuse("a_b.example.com", HostnameError::Character);
        refuse("-a.example.com", HostnameError::Character);
        refuse("10.0.0.1", HostnameError::IpAddress);
        refuse("a.*.example.com", HostnameError::Wildcard);
        refuse("*", HostnameError::Wildcard);
        refuse("*.", HostnameError::Empty);
        refuse("chat.example.com:443", HostnameError::Character);
        refuse(&"a.".repeat(130), HostnameError::TooLong);
    }
}
