use super::*;
use crate::PathMatch;

/// As in the table of `HTTPPathModifier.replacePrefixMatch`.
#[track_caller]
fn check(path: &str, prefix: &str, replacement: &str, expected: &str) {
    let PathMatch::Prefix(matched) = PathMatch::prefix(prefix).unwrap() else {
        panic!("a prefix");
    };
    let modified = PathModifier::prefix(replacement)
        .unwrap()
        .apply(path, Some(&matched));
    assert_eq!(
        modified.as_deref(),
        Some(expected),
        "{path}: {prefix} -> {replacement:?}"
    );
}

#[test]
fn prefixes_are_replaced_as_gateway_api_has_it() {
    check("/foo/bar", "/foo", "/xyz", "/xyz/bar");
    check("/foo/bar", "/foo", "/xyz/", "/xyz/bar");
    check("/foo/bar", "/foo/", "/xyz", "/xyz/bar");
    check("/foo/bar", "/foo/", "/xyz/", "/xyz/bar");
    check("/foo", "/foo", "/xyz", "/xyz");
    check("/foo/", "/foo", "/xyz", "/xyz/");
    check("/foo/bar", "/foo", "", "/bar");
    check("/foo/", "/foo", "", "/");
    check("/foo", "/foo", "", "/");
    check("/foo/", "/foo", "/", "/");
    check("/foo", "/foo", "/", "/");
}

#[test]
fn prefixes_are_replaced_where_the_table_says_nothing() {
    check("/bar", "/", "/xyz", "/xyz/bar");
    check("/", "/", "/xyz", "/xyz/");
    check("/a%20b/c//d/", "/a%20b", "/e", "/e/c//d/");
    check("/foo//evil.example/x", "/foo", "/", "/evil.example/x");
    check("//evil.example/x", "/", "", "/evil.example/x");
    check("/%66oo/b%61r%2f", "/foo", "/xyz", "/xyz/bar%2F");
}

#[test]
fn a_prefix_that_is_not_there_cannot_be_replaced() {
    let modifier = PathModifier::prefix("/xyz").unwrap();
    assert_eq!(modifier.apply("/foobar", Some("/foo")), None);
    assert_eq!(modifier.apply("/bar", Some("/foo")), None);
    assert_eq!(modifier.apply("/foo", None), None);
}

#[test]
fn a_full_path_is_replaced_whatever_was_matched() {
    let modifier = PathModifier::full("/x/y/").unwrap();
    assert_eq!(modifier.apply("/foo", None).as_deref(), Some("/x/y/"));
}

#[test]
fn paths_are_those_of_requests() {
    for bad in [
        "x", "/a//b", "/a/../b", "/a?b", "/a#b", "/a%2Fb", "/a b", "/a\r\nb",
    ] {
        assert!(PathModifier::full(bad).is_err(), "{bad:?}");
        assert!(PathModifier::prefix(bad).is_err(), "{bad:?}");
    }
    assert!(PathModifier::full("").is_err());
}

#[test]
fn fields_of_the_hop_of_the_handshake_and_of_the_proxy_cannot_be_named() {
    for name in [
        "Host",
        "connection",
        "Keep-Alive",
        "Proxy-Connection",
        "proxy-authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Content-Length",
        "content_length",
        "Upgrade",
        "Expect",
        "Sec-WebSocket-Key",
        "sec_websocket_protocol",
        "X-Forwarded-For",
        "X_Forwarded_Whatever",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "X-Request-ID",
        "CDN_Loop",
        "X-Ws-Ingress-Rule",
    ] {
        assert_eq!(FieldName::parse(name), Err(FieldError::Reserved), "{name}");
    }
    for name in ["", "a b", "a:", "a\r\nb", "ü", "(a)", &"a".repeat(257)] {
        assert_eq!(FieldName::parse(name), Err(FieldError::Name), "{name:?}");
    }
    for name in [
        "X-Env",
        "Origin",
        "Cookie",
        "x_y",
        "Sec-Fetch-Mode",
        "Forwarded-By",
    ] {
        assert!(FieldName::parse(name).is_ok(), "{name}");
    }
}

#[test]
fn values_are_one_line_of_visible_ascii() {
    for value in [
        "",
        " a",
        "a ",
        "a\r\nb",
        "a\nb",
        "a\0",
        "a\x7f",
        "ü",
        "\t",
        &"a".repeat(4097),
    ] {
        assert_eq!(
            FieldValue::parse(value),
            Err(FieldError::Value),
            "{value:?}"
        );
    }
    for value in ["a", "a b\tc", "\"quoted\", more; x=1"] {
        assert_eq!(FieldValue::parse(value).unwrap().as_str(), value);
    }
}

fn field(name: &str, value: &str) -> HeaderField {
    HeaderField {
        name: FieldName::parse(name).unwrap(),
        value: FieldValue::parse(value).unwrap(),
    }
}

#[test]
fn fields_are_set_added_and_removed() {
    let modifier = HeaderModifier {
        set: vec![field("X-Set", "new"), field("x-fresh", "1")],
        add: vec![field("X-Add", "two")],
        remove: vec![FieldName::parse("X-Gone").unwrap()],
    };
    assert_eq!(modifier.repeated(), None);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-set", "old"),
        ("x-set", "older"),
        ("x-add", "one"),
        ("x-gone", "1"),
        ("x-gone", "2"),
        ("x-kept", "k"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    modifier.apply(&mut headers);
    let values = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(values("x-set"), ["new"]);
    assert_eq!(values("x-fresh"), ["1"]);
    assert_eq!(values("x-add"), ["one", "two"]);
    assert!(values("x-gone").is_empty());
    assert_eq!(values("x-kept"), ["k"]);
}

/// `/debug/table` shows all of a route.
#[test]
fn no_page_and_no_log_shows_a_value() {
    let shown = format!("{:?}", field("Authorization", "Bearer abc"));
    assert!(shown.contains("authorization"), "{shown}");
    assert!(!shown.contains("abc"), "{shown}");
}

#[test]
fn of_a_request_the_aliases_of_what_is_decided_go_too() {
    let modifier = HeaderModifier {
        set: vec![field("X-Set", "new")],
        add: vec![field("X-Add", "two")],
        remove: vec![FieldName::parse("x_gone_far").unwrap()],
    };
    let sent = [
        "x_set",
        "x-add",
        "x_add",
        "x-gone-far",
        "x-gone_far",
        "x-set-too",
    ];
    let sent = sent.map(|name| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static("one"),
        )
    });
    let mut headers = sent.into_iter().collect::<HeaderMap>();
    modifier.apply_to_request(&mut headers);
    let mut names = headers.keys().map(HeaderName::as_str).collect::<Vec<_>>();
    names.sort_unstable();
    assert_eq!(names, ["x-add", "x-set", "x-set-too", "x_add"]);
    assert_eq!(headers["x-set"], "new");
}

#[test]
fn a_name_that_stands_twice_is_found_in_any_case() {
    let modifier = HeaderModifier {
        set: vec![field("X-A", "1")],
        add: vec![field("X-B", "1")],
        remove: vec![FieldName::parse("x-a").unwrap()],
    };
    assert_eq!(modifier.repeated().map(FieldName::as_str), Some("x-a"));
}
