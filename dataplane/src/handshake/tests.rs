use http::{Request, Response};

use super::*;

const GOOD: &[(&str, &str)] = &[
    ("host", "chat.example.com"),
    ("upgrade", "websocket"),
    ("connection", "keep-alive, Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The good request with one field replaced (`Some`) or left out (`None`), then more fields.
fn request(change: Option<(&str, Option<&str>)>, more: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::get("/chat");
    for (name, value) in GOOD {
        builder = match change {
            Some((changed, Some(new))) if changed == *name => builder.header(*name, new),
            Some((changed, None)) if changed == *name => builder,
            _ => builder.header(*name, *value),
        };
    }
    for (name, value) in more {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

#[track_caller]
fn check(change: Option<(&str, Option<&str>)>, more: &[(&str, &str)], expected: Option<Reject>) {
    let judged = check_opening(&request(change, more));
    assert_eq!(judged.err(), expected, "{change:?} {more:?}");
}

#[test]
fn the_sample_handshake_of_the_rfc_is_accepted() {
    let opening = check_opening(&request(None, &[])).unwrap();
    assert_eq!(opening.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn each_missing_or_wrong_field_has_its_own_refusal() {
    check(Some(("upgrade", None)), &[], Some(Reject::Upgrade));
    check(
        Some(("upgrade", Some("websocket, h2c"))),
        &[],
        Some(Reject::Upgrade),
    );
    check(None, &[("upgrade", "websocket")], Some(Reject::Upgrade));
    check(Some(("upgrade", Some("WebSocket"))), &[], None);
    check(Some(("connection", None)), &[], Some(Reject::Connection));
    check(
        Some(("connection", Some("close"))),
        &[],
        Some(Reject::Connection),
    );
    check(
        Some(("sec-websocket-version", None)),
        &[],
        Some(Reject::NoVersion),
    );
    check(
        Some(("sec-websocket-version", Some("8"))),
        &[],
        Some(Reject::Version),
    );
    check(
        None,
        &[("sec-websocket-version", "13")],
        Some(Reject::NoVersion),
    );
    check(Some(("sec-websocket-key", None)), &[], Some(Reject::Key));
    check(
        Some(("sec-websocket-key", Some("c2hvcnQ="))),
        &[],
        Some(Reject::Key),
    );
    check(
        Some(("sec-websocket-key", Some("not base64 at all!!!===="))),
        &[],
        Some(Reject::Key),
    );
    check(None, &[("content-length", "5")], Some(Reject::Body));
    check(None, &[("content-length", "0")], None);
    check(
        None,
        &[("transfer-encoding", "chunked")],
        Some(Reject::Body),
    );
}

#[test]
fn connection_may_not_strip_the_handshake() {
    for nominated in [
        "Upgrade, Sec-WebSocket-Key",
        "upgrade, Origin",
        "Upgrade,host",
    ] {
        check(
            Some(("connection", Some(nominated))),
            &[],
            Some(Reject::Connection),
        );
    }
}

#[test]
fn offers_must_parse() {
    check(
        None,
        &[
            ("sec-websocket-protocol", "a, b"),
            ("sec-websocket-protocol", "c"),
        ],
        None,
    );
    check(
        None,
        &[("sec-websocket-protocol", "a, a")],
        Some(Reject::Protocols),
    );
    check(
        None,
        &[("sec-websocket-protocol", "a,,b")],
        Some(Reject::Protocols),
    );
    check(
        None,
        &[(
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits=\"10\", foo",
        )],
        None,
    );
    check(
        None,
        &[("sec-websocket-extensions", "permessage deflate")],
        Some(Reject::Extensions),
    );
    check(
        None,
        &[("sec-websocket-extensions", "a;;b")],
        Some(Reject::Extensions),
    );
}

#[track_caller]
fn answer(fields: &[(&str, &str)], expected: Result<bool, Reject>) {
    let offers = [
        ("sec-websocket-protocol", "a, b"),
        ("sec-websocket-extensions", "permessage-deflate, x-own"),
    ];
    let opening = check_opening(&request(None, &offers)).unwrap();
    let builder = fields
        .iter()
        .fold(Response::builder(), |builder, (name, value)| {
            builder.header(*name, *value)
        });
    let headers = builder.body(()).unwrap().into_parts().0.headers;
    assert_eq!(
        check_answer(&headers, &opening).map(|agreed| agreed.frames_are_known),
        expected,
        "{fields:?}"
    );
}

#[test]
fn only_a_proven_101_opens_the_tunnel() {
    let (upgrade, connection) = (("upgrade", "websocket"), ("connection", "upgrade"));
    let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    answer(&[upgrade, connection, accept], Ok(true));
    answer(&[connection, accept], Err(Reject::BadAnswer));
    answer(&[upgrade, accept], Err(Reject::BadAnswer));
    answer(&[upgrade, connection], Err(Reject::BadAnswer));
    answer(
        &[upgrade, connection, ("sec-websocket-accept", "AAAA")],
        Err(Reject::BadAnswer),
    );
    answer(
        &[upgrade, connection, accept, accept],
        Err(Reject::BadAnswer),
    );
    answer(
        &[upgrade, connection, accept, ("sec-websocket-protocol", "b")],
        Ok(true),
    );
    answer(
        &[upgrade, connection, accept, ("sec-websocket-protocol", "c")],
        Err(Reject::BadAnswer),
    );
    answer(
        &[
            upgrade,
            connection,
            accept,
            ("sec-websocket-protocol", "a, b"),
        ],
        Err(Reject::BadAnswer),
    );
    answer(
        &[
            upgrade,
            connection,
            accept,
            ("sec-websocket-extensions", "permessage-deflate"),
        ],
        Ok(true),
    );
    answer(
        &[
            upgrade,
            connection,
            accept,
            ("sec-websocket-extensions", "x-own"),
        ],
        Ok(false),
    );
    answer(
        &[
            upgrade,
            connection,
            accept,
            ("sec-websocket-extensions", "x-foreign"),
        ],
        Err(Reject::BadAnswer),
    );
}

#[track_caller]
fn target(uri: &str, hosts: &[&str], expected: Result<Option<&str>, Reject>) {
    let builder = hosts.iter().fold(Request::get(uri), |builder, host| {
        builder.header("host", *host)
    });
    let judged = check_host_and_path(&builder.body(()).unwrap().into_parts().0);
    let judged = judged.map(|hostname| hostname.map(|hostname| hostname.to_string()));
    assert_eq!(
        judged,
        expected.map(|name| name.map(ToString::to_string)),
        "{uri} {hosts:?}"
    );
}

#[test]
fn a_target_needs_one_host_and_a_plain_path() {
    target(
        "/",
        &["Chat.example.com:8443"],
        Ok(Some("chat.example.com")),
    );
    target("/", &["[::1]:8443"], Ok(None));
    target("/", &[], Err(Reject::Host));
    target("/", &["a.example.com", "a.example.com"], Err(Reject::Host));
    target("/", &["user@a.example.com"], Err(Reject::Host));
    target("/", &["a b"], Err(Reject::Host));
    target("/", &["a.example.com:"], Ok(Some("a.example.com")));
    target("/", &["a.example.com:http"], Err(Reject::Host));
    target("/", &["a.example.com:65536"], Err(Reject::Host));
    target("/", &[""], Err(Reject::Host));
    target(
        "http://a.example.com/x",
        &["a.example.com"],
        Ok(Some("a.example.com")),
    );
    target(
        "http://b.example.com/x",
        &["a.example.com"],
        Err(Reject::Target),
    );
    target("*", &["a.example.com"], Err(Reject::Target));
    target("/a/../b", &["a.example.com"], Err(Reject::DotSegments));
    target("/a/%2E%2e/b", &["a.example.com"], Err(Reject::DotSegments));
    target("/a%2f..%5cb", &["a.example.com"], Err(Reject::DotSegments));
    target("/a/..;x=1/b", &["a.example.com"], Err(Reject::DotSegments));
    target(
        "/a/%2e%2E%3bx/b",
        &["a.example.com"],
        Err(Reject::DotSegments),
    );
    target("/a..b/...", &["a.example.com"], Ok(Some("a.example.com")));
}
