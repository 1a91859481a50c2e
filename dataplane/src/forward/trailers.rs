//! Trailers: the fields that may follow a chunked body (RFC 9110 §6.5).
//!
//! hyper sends those that `Trailer` announced, and a client gets them if it said `TE: trailers`. So the announcement is what is judged
//! here: a field that belongs to one hop, or that only we may write, is not announced onwards and so does not pass.

use http::header::{CONNECTION, COOKIE, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRAILER};

use crate::fields;
use crate::handshake::tokens;

/// Most fields that are announced onwards; real messages have one to three.
const MAX_TRAILERS: usize = 16;

/// Lets a request announce its trailers, and say that the client takes an answer's.
pub(super) fn pass_on(sent: &HeaderMap, to_backend: &mut HeaderMap) {
    announce(announced(sent), to_backend);
    let takes = tokens(sent, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    if takes {
        to_backend.insert(TE, HeaderValue::from_static("trailers"));
        // RFC 9110 §10.1.4: TE is for the next hop alone.
        to_backend.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// The names that a message announces and that may pass.
pub(super) fn announced(headers: &HeaderMap) -> Option<HeaderValue> {
    let nominated = |name: &HeaderName| {
        tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(name.as_str()))
    };
    let passing = tokens(headers, &TRAILER)
        .filter_map(|name| name.parse::<HeaderName>().ok())
        .filter(|name| !fields::is_hop_by_hop(name) && !fields::is_ours(name) && !nominated(name))
        .filter(|name| !fields::is_alias(name) && ![COOKIE, EXPECT].contains(name))
        .take(MAX_TRAILERS)
        .map(|name| name.as_str().to_owned())
        .collect::<Vec<_>>();
    HeaderValue::try_from(passing.join(", "))
        .ok()
        .filter(|names| !names.is_empty())
}

pub(super) fn announce(names: Option<HeaderValue>, headers: &mut HeaderMap) {
    if let Some(names) = names {
        headers.insert(TRAILER, names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &[(&str, &str)], expected: Option<&str>) {
        let sent: HeaderMap = sent
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let announced = announced(&sent);
        let names = announced.as_ref().map(|names| names.to_str().unwrap());
        assert_eq!(names, expected, "{sent:?}");
    }

    #[test]
    fn only_fields_that_may_come_late_and_from_a_stranger_are_announced() {
        check(&[], None);
        check(&[("trailer", "Digest, X-Sum")], Some("digest, x-sum"));
        check(
            &[("trailer", "a"), ("trailer", "b"), ("connection", "B")],
            Some("a"),
        );
        for forbidden in [
            "X-Real-IP",
            "X_Forwarded_For",
            "Forwarded",
            "X-Ws-Ingress-Rule",
            "Connection",
            "Upgrade",
            "Transfer-Encoding",
            "Proxy-Authorization",
            "Content_Length",
            "Cookie",
            "no name",
            "",
        ] {
            check(&[("trailer", forbidden)], None);
        }
    }

    #[test]
    fn a_client_that_takes_trailers_says_so_to_the_backend() {
        for (said, expected) in [
            ("trailers", true),
            ("gzip, Trailers", true),
            ("gzip", false),
        ] {
            let sent = HeaderMap::from_iter([(TE, said.parse().unwrap())]);
            let mut passed = HeaderMap::new();
            pass_on(&sent, &mut passed);
            assert_eq!(passed.contains_key(TE), expected, "{said}");
            assert_eq!(passed.contains_key(CONNECTION), expected, "{said}");
        }
    }
}
