//! Requests that go round: a backend that leads back here, past every list of addresses (a load balancer of ours, a proxy that forwards
//! to it), would take connections until there are none.
//!
//! Each pass adds `CDN-Loop: ws-ingress` (RFC 8586 §2), which proxies of others pass on, and a request that came through here
//! [`MAX_PASSES`] times is refused. Who removes the field in between goes round; filters of ours cannot.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::handshake::tokens;

static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// What all installations call themselves.
const PSEUDONYM: &str = "ws-ingress";

/// Most passes of one request: two hops are two, and nobody has four times as many.
const MAX_PASSES: usize = 8;

/// Whether a request has come through here too often.
pub(crate) fn is_going_round(headers: &HeaderMap) -> bool {
    let passes = tokens(headers, &CDN_LOOP).filter(|entry| {
        let name = entry.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(PSEUDONYM)
    });
    passes.count() >= MAX_PASSES
}

/// Adds this pass.
pub(crate) fn count_pass(fields: &mut HeaderMap) {
    fields.append(&CDN_LOOP, HeaderValue::from_static(PSEUDONYM));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: bool) {
        let field = |line: &&str| (CDN_LOOP.clone(), HeaderValue::from_str(line).unwrap());
        let headers = lines.iter().map(field).collect();
        assert_eq!(is_going_round(&headers), expected, "{lines:?}");
    }

    #[test]
    fn passes_of_ours_are_counted_on_all_lines() {
        check(&[], false);
        check(&["ws-ingress"; 7], false);
        check(&["ws-ingress"; 8], true);
        check(
            &[
                "foo, WS-Ingress;v=1 , ws-ingress",
                &["ws-ingress"; 6].join(","),
            ],
            true,
        );
        check(
            &["ws-ingress.example, not-ws-ingress, x;ws-ingress"; 8],
            false,
        );
    }
}
