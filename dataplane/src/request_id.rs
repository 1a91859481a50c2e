//! The name of one request in everybody's logs: `X-Request-ID`.
//!
//! A trusted proxy's one is kept, so that its log and ours meet; everybody else gets a new one, 128 random bits in hexadecimal as
//! nginx's `$request_id` has them. The backend gets it, the client gets it with every answer, and the debug log has it in each line.
//! Only the answer to a head that is no HTTP or too large may have none: it is hyper's (400, 431), before there is a request.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::crypto::{SecureRandom, aws_lc_rs};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is kept. A UUID has 36 bytes, a trace with its span 55; what is longer is no name and would fill logs.
const MAX_ID_BYTES: usize = 128;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Makes ids.
pub(crate) struct RequestIds {
    random: &'static dyn SecureRandom,
}

impl fmt::Debug for RequestIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestIds")
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        // The generator of the keys: ids of all pods must differ, and one must not tell the next.
        let random = aws_lc_rs::default_provider().secure_random;
        Self { random }
    }
}

impl RequestIds {
    /// The id of a request with these fields: the one that it has, if its peer is trusted and it has exactly one in a sane form.
    pub(crate) fn of(&self, headers: &HeaderMap, peer_is_trusted: bool) -> HeaderValue {
        let mut sent = headers.get_all(X_REQUEST_ID).iter();
        let sent = sent.next().filter(|_| sent.next().is_none());
        let kept = sent.filter(|id| peer_is_trusted && is_sane(id.as_bytes()));
        kept.map_or_else(|| self.make(), HeaderValue::clone)
    }

    fn make(&self) -> HeaderValue {
        let mut bytes = [0; 16];
        if self.random.fill(&mut bytes).is_err() {
            // The system has no randomness; a request is served all the same.
            bytes = fastrand::u128(..).to_be_bytes();
        }
        let digit = |nibble: u8| DIGITS[usize::from(nibble & 0xf)];
        let id: Vec<u8> = bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
            .collect();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// Visible ASCII without spaces, so that a line of a log keeps its parts.
fn is_sane(id: &[u8]) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &[&str], peer_is_trusted: bool, kept: bool) {
        let value = |id: &&str| {
            (
                X_REQUEST_ID,
                HeaderValue::from_bytes(id.as_bytes()).unwrap(),
            )
        };
        let headers = sent.iter().map(value).collect();
        let id = RequestIds::default().of(&headers, peer_is_trusted);
        let id = id.to_str().unwrap();
        if kept {
            assert_eq!([id], sent);
        } else {
            assert_eq!(id.len(), 32, "{id}");
            assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            assert!(!sent.contains(&id));
        }
    }

    #[test]
    fn only_a_trusted_peers_sane_id_is_kept() {
        check(&["4f2a-1"], true, true);
        check(&["4f2a-1"], false, false);
        check(&[], true, false);
        check(&[""], true, false);
        check(&["a", "b"], true, false);
        check(&["a b"], true, false);
        check(&["a\tb"], true, false);
        check(&["\u{e9}"], true, false);
        check(&[&"a".repeat(MAX_ID_BYTES)], true, true);
        check(&[&"a".repeat(MAX_ID_BYTES + 1)], true, false);
    }

    #[test]
    fn no_two_made_ids_are_alike() {
        let ids = RequestIds::default();
        let mut made: Vec<_> = (0..1000).map(|_| ids.make()).collect();
        made.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        made.dedup();
        assert_eq!(made.len(), 1000);
    }
}
