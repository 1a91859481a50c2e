//! Whether a request comes from a page that its rule takes requests from (`allowedOrigins`, `allowMissingOrigin`).
//!
//! Browsers let any page open a WebSocket to any host, with the user's cookies; only the server can refuse (RFC 6455 §10.2).
//! Checked before any backend is contacted.

use http::header::{HeaderMap, ORIGIN};
use route_table::OriginPolicy;

use crate::reject::Reject;

/// A handshake. A browser always sends an Origin with it (RFC 6455 §4.1), so that its absence can be refused.
pub(crate) fn check_upgrade(headers: &HeaderMap, policy: &OriginPolicy) -> Result<(), Reject> {
    if policy.refuse_missing && !headers.contains_key(ORIGIN) {
        return Err(Reject::NoOrigin);
    }
    check_ordinary(headers, policy)
}

/// Ordinary HTTP: a foreign page may post a form or a Socket.IO message with the user's cookies too. A browser sends no Origin when a
/// page of the same host just reads, so that its absence says nothing.
pub(crate) fn check_ordinary(headers: &HeaderMap, policy: &OriginPolicy) -> Result<(), Reject> {
    let mut sent = headers.get_all(ORIGIN).iter();
    let (Some(origin), false) = (sent.next(), policy.allowed.is_empty()) else {
        return Ok(());
    };
    // Which of several is the page's nobody can say (RFC 6454 §7.3 has one).
    let origin = origin.to_str().ok().filter(|_| sent.next().is_none());
    let allowed = |origin: &str| policy.allowed.iter().any(|allowed| allowed.covers(origin));
    if origin.is_some_and(allowed) {
        Ok(())
    } else {
        Err(Reject::Origin)
    }
}

#[cfg(test)]
mod tests {
    use route_table::OriginPattern;

    use super::*;

    #[track_caller]
    fn check(
        policy: &OriginPolicy,
        origins: &[&str],
        upgrade: Option<Reject>,
        ordinary: Option<Reject>,
    ) {
        let headers = origins
            .iter()
            .map(|origin| (ORIGIN, origin.parse().unwrap()))
            .collect::<HeaderMap>();
        assert_eq!(
            check_upgrade(&headers, policy).err(),
            upgrade,
            "{origins:?}"
        );
        assert_eq!(
            check_ordinary(&headers, policy).err(),
            ordinary,
            "{origins:?}"
        );
    }

    #[test]
    fn any_origin_is_taken_where_nothing_is_said() {
        let policy = OriginPolicy::default();
        check(&policy, &[], None, None);
        check(&policy, &["https://evil.example"], None, None);
        check(&policy, &["null", "null"], None, None);
    }

    #[test]
    fn one_allowed_origin_is_taken_and_nothing_else() {
        let foreign = Some(Reject::Origin);
        let mut policy = OriginPolicy {
            allowed: vec![OriginPattern::parse("https://app.example.com").unwrap()],
            refuse_missing: false,
        };
        let app = "https://app.example.com";
        check(&policy, &[app], None, None);
        check(&policy, &[], None, None);
        check(&policy, &["null"], foreign, foreign);
        check(&policy, &["https://evil.example"], foreign, foreign);
        check(&policy, &[app, app], foreign, foreign);
        check(&policy, &[""], foreign, foreign);
        policy.refuse_missing = true;
        check(&policy, &[app], None, None);
        check(&policy, &[], Some(Reject::NoOrigin), None);
    }

    #[test]
    fn an_origin_can_be_asked_for_without_saying_which() {
        let policy = OriginPolicy {
            allowed: Vec::new(),
            refuse_missing: true,
        };
        check(&policy, &[], Some(Reject::NoOrigin), None);
        check(&policy, &["https://any.example"], None, None);
    }
}
