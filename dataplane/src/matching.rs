//! What of a request rules are matched with.
//!
//! In: a head as the client sent it. Out: its path, query, header fields and offered subprotocols. Rules see what a backend would see of
//! them: a field that the client nominates in Connection goes no further than here (RFC 9110 §7.6.1), and so no rule sees it. What
//! tells who the client is no rule can ask for (`route_table::ConditionError`).

use std::borrow::Cow;

use http::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use http::request;
use route_table::{Host, Matched, RequestParts};

use crate::handshake::{PROTOCOL, tokens};

/// Where a client offers subprotocols; a static, because what is read of a head may live as long as the head.
static OFFERED: HeaderName = PROTOCOL;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    WebSocket,
    /// Ordinary HTTP, which has no subprotocols, whatever stands in its fields.
    Http,
}

/// The rule of a host that takes a request, if there is one.
pub(crate) fn find<'a>(host: &'a Host, head: &request::Parts, asks: Asks) -> Option<Matched<'a>> {
    host.find(&parts(head, &visible_to_rules(&head.headers), asks))
}

/// The fields that rules may see; a copy only if the client nominates some of them.
fn visible_to_rules(headers: &HeaderMap) -> Cow<'_, HeaderMap> {
    let mut visible = Cow::Borrowed(headers);
    // Every handshake nominates Upgrade, which no rule can ask for: that is not worth a copy.
    let nominated = tokens(headers, &CONNECTION);
    for nominated in nominated.filter(|name| !name.eq_ignore_ascii_case(UPGRADE.as_str())) {
        if visible.contains_key(nominated) {
            visible.to_mut().remove(nominated);
        }
    }
    visible
}

/// The parts of a request; `visible` is what [`visible_to_rules`] left of its fields.
fn parts<'a>(head: &'a request::Parts, visible: &'a HeaderMap, asks: Asks) -> RequestParts<'a> {
    // A list that is not well formed is refused once the rule is found; until then its tokens are what was offered.
    let offered = match asks {
        Asks::WebSocket => Some(tokens(&head.headers, &OFFERED)),
        Asks::Http => None,
    };
    RequestParts::new(
        head.uri.path(),
        head.uri.query(),
        visible,
        offered.into_iter().flatten(),
    )
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::HeaderValue;

    use super::*;

    #[test]
    fn a_nominated_field_is_not_seen_and_the_others_are() {
        let sent = [
            ("connection", "Upgrade, X-Env"),
            ("connection", "x-absent"),
            ("upgrade", "websocket"),
            ("x-env", "beta"),
            ("x-env", "gamma"),
            ("x-tenant", "blue"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        let visible = visible_to_rules(&headers);
        assert!(!visible.contains_key("x-env"));
        assert_eq!(visible.get("x-tenant").unwrap(), "blue");
        headers.insert(
            "connection",
            HeaderValue::from_static("keep-alive, Upgrade"),
        );
        assert!(matches!(visible_to_rules(&headers), Cow::Borrowed(_)));
    }

    #[test]
    fn only_a_websocket_offers_subprotocols() {
        let request = Request::builder()
            .uri("/ws?v=2")
            .header("sec-websocket-protocol", "chat, graphql-ws");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let offered = |asks| format!("{:?}", parts(&head, &head.headers, asks));
        assert!(offered(Asks::WebSocket).contains("graphql-ws"));
        let ordinary = RequestParts::new("/ws", Some("v=2"), &head.headers, []);
        assert_eq!(offered(Asks::Http), format!("{ordinary:?}"));
    }
}
