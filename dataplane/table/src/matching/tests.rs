use http::HeaderValue;

use super::*;

fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_str(value).unwrap();
        fields.append(HeaderName::from_static(name), value);
    }
    fields
}

#[track_caller]
fn check_header(name: &str, value: &str, lines: &[(&'static str, &str)], expected: bool) {
    let conditions = Conditions {
        headers: vec![HeaderMatch::new(name, value).unwrap()],
        ..Conditions::default()
    };
    let fields = fields(lines);
    let request = RequestParts::new("/", None, &fields, []);
    assert_eq!(
        conditions.fit(&request),
        expected,
        "{conditions:?} {lines:?}"
    );
}

#[track_caller]
fn check_query(name: &str, value: &str, query: &str, expected: bool) {
    let conditions = Conditions {
        query_params: vec![QueryParamMatch::new(name, value).unwrap()],
        ..Conditions::default()
    };
    let fields = HeaderMap::new();
    let request = RequestParts::new("/", Some(query), &fields, []);
    assert_eq!(conditions.fit(&request), expected, "{conditions:?} {query}");
}

#[track_caller]
fn check_subprotocols(wanted: &[&str], offered: &[&str], expected: bool) {
    let wanted = wanted.iter().map(|name| Subprotocol::new(name).unwrap());
    let conditions = Conditions {
        subprotocols: wanted.collect(),
        ..Conditions::default()
    };
    let fields = HeaderMap::new();
    let request = RequestParts::new("/", None, &fields, offered.iter().copied());
    assert_eq!(
        conditions.fit(&request),
        expected,
        "{conditions:?} {offered:?}"
    );
}

#[test]
fn a_header_is_compared_whole_and_its_name_in_any_case() {
    check_header("X-Env", "beta", &[("x-env", "beta")], true);
    check_header("x-eNV", "a b", &[("x-env", "a b")], true);
    for sent in ["Beta", "beta2", "bet", "beta, gamma", ""] {
        check_header("X-Env", "beta", &[("x-env", sent)], false);
    }
    check_header("X-Env", "beta", &[("x-other", "beta")], false);
    check_header("X-Env", "beta", &[], false);
}

#[test]
fn lines_of_one_header_are_one_value_in_their_order() {
    let lines = [("x-env", "beta"), ("x-other", "1"), ("x-env", "gamma")];
    check_header("X-Env", "beta, gamma", &lines, true);
    for value in ["beta", "gamma", "gamma, beta", "beta,gamma", "betagamma"] {
        check_header("X-Env", value, &lines, false);
    }
    check_header(
        "X-Env",
        "beta",
        &[("x-env", "beta"), ("x-env", "beta")],
        false,
    );
    check_header("X-Env", "beta", &[("x-env", "beta"), ("x-env", "")], false);
}

#[test]
fn a_query_parameter_is_compared_decoded_and_the_first_counts() {
    for query in [
        "v=2",
        "a=1&v=2",
        "&&v=2&",
        "v=2&v=1",
        "v=%32",
        "%76=2",
        "vv=1&v=2&w",
    ] {
        check_query("v", "2", query, true);
    }
    for query in [
        "",
        "v",
        "v=",
        "v=1&v=2",
        "V=2",
        "v=22",
        "v=2;a=1",
        "v==2",
        "%76=1&v=2",
    ] {
        check_query("v", "2", query, false);
    }
    check_query("v", "a b", "v=a+b", true);
    check_query("v", "a b", "v=a%20b", true);
    check_query("v", "a+b", "v=a%2Bb", true);
    check_query("v", "a=b", "v=a=b", true);
    check_query("v", "é", "v=%c3%A9", true);
    // Broken escapes stand for themselves, and what is decoded is not decoded again.
    for (value, query) in [
        ("100%", "v=100%"),
        ("%zz", "v=%zz"),
        ("%4", "v=%4"),
        ("%31", "v=%2531"),
    ] {
        check_query("v", value, query, true);
    }
    check_query("v", "1", "v=%2531", false);
}

#[test]
fn any_one_of_the_subprotocols_will_do_and_an_ordinary_request_offers_none() {
    check_subprotocols(&["graphql-ws"], &["graphql-ws"], true);
    check_subprotocols(&["a", "b"], &["x", "b"], true);
    check_subprotocols(&["a", "b"], &["A", "ab"], false);
    check_subprotocols(&["a"], &[], false);
    check_subprotocols(&[], &[], true);
    check_subprotocols(&[], &["a"], true);
}

#[test]
fn all_kinds_of_conditions_must_be_met() {
    let conditions = Conditions {
        headers: vec![
            HeaderMatch::new("X-Env", "beta").unwrap(),
            HeaderMatch::new("X-Tenant", "blue").unwrap(),
        ],
        query_params: vec![QueryParamMatch::new("v", "2").unwrap()],
        subprotocols: vec![Subprotocol::new("chat").unwrap()],
    };
    assert_eq!(conditions.count(), 4);
    let all = [("x-env", "beta"), ("x-tenant", "blue")];
    for (lines, query, offered, expected) in [
        (&all[..], "v=2", &["chat"][..], true),
        (&all[..1], "v=2", &["chat"], false),
        (&all, "v=1", &["chat"], false),
        (&all, "v=2", &["talk"], false),
    ] {
        let fields = fields(lines);
        let request = RequestParts::new("/", Some(query), &fields, offered.iter().copied());
        assert_eq!(
            conditions.fit(&request),
            expected,
            "{lines:?} {query} {offered:?}"
        );
    }
}

#[test]
fn fields_that_a_rule_cannot_be_sure_of_are_refused() {
    for (name, expected) in [
        ("", ConditionError::Name),
        ("X Env", ConditionError::Name),
        ("X-Énv", ConditionError::Name),
        (":authority", ConditionError::Name),
        (&"x".repeat(65), ConditionError::Name),
        ("Host", ConditionError::Host),
        ("Connection", ConditionError::OneHop),
        ("transfer_encoding", ConditionError::OneHop),
        ("Content-Length", ConditionError::OneHop),
        ("Proxy-Authorization", ConditionError::OneHop),
        ("Sec-WebSocket-Protocol", ConditionError::Handshake),
        ("X-Forwarded-For", ConditionError::Forgeable),
        ("X_Real_IP", ConditionError::Forgeable),
        ("Forwarded", ConditionError::Forgeable),
        ("X-Request-ID", ConditionError::Forgeable),
        ("x_request_id", ConditionError::Forgeable),
        ("X-Ws-Ingress-Rule", ConditionError::Forgeable),
    ] {
        assert_eq!(HeaderMatch::new(name, "1"), Err(expected), "{name}");
    }
    for name in ["Origin", "X-Forward", "User-Agent", "x_env", "Cookie"] {
        assert!(HeaderMatch::new(name, "1").is_ok(), "{name}");
    }
}

#[test]
fn values_that_no_request_can_have_are_refused() {
    for value in ["", " a", "a ", "a\nb", "a\tb", "é", &"a".repeat(257)] {
        let made = HeaderMatch::new("X-Env", value);
        assert_eq!(made, Err(ConditionError::HeaderValue), "{value}");
    }
    for value in ["", "a\nb", &"é".repeat(257)] {
        let made = QueryParamMatch::new("v", value);
        assert_eq!(made, Err(ConditionError::QueryValue), "{value}");
    }
    assert!(QueryParamMatch::new("v", &"é".repeat(256)).is_ok());
    assert_eq!(QueryParamMatch::new("a b", "1"), Err(ConditionError::Name));
    assert_eq!(Subprotocol::new("a,b"), Err(ConditionError::Name));
}
