use prost::Message as _;
use route_table::{ConditionError, Hostname, PathError, RequestParts, RouteTable};

use super::*;
use crate::decode::{Undecodable, route};
use crate::samples::{self, resource, update_to};
use crate::{Held, encode};

const ROUTE: &str = "route/default/chat";

/// A path and one of each kind of condition.
fn sample() -> wire::RouteMatch {
    encode(&samples::route().rules[0].matches[1])
}

#[track_caller]
fn refuse(change: impl Fn(&mut wire::RouteMatch), field: &str, problem: FieldProblem) {
    let mut sent = wire::Route::decode(encode::route(&samples::route()).body).unwrap();
    change(&mut sent.rules[0].matches[1]);
    let field = format!("rules[0].matches[1].{field}");
    assert_eq!(route(&sent), Err(Undecodable { field, problem }));
}

#[test]
fn conditions_are_checked() {
    refuse(
        |found| found.headers[0].name = "x-forwarded-for".into(),
        "headers[0]",
        FieldProblem::Condition(ConditionError::Forgeable),
    );
    refuse(
        |found| found.query_params[0].value = String::new(),
        "query_params[0]",
        FieldProblem::Condition(ConditionError::QueryValue),
    );
    refuse(
        |found| found.subprotocols.push("a b".into()),
        "subprotocols[1]",
        FieldProblem::Condition(ConditionError::Name),
    );
    refuse(
        |found| found.path = Some(wire::route_match::Path::Exact("ws".into())),
        "path",
        FieldProblem::Path(PathError::NotAbsolute),
    );
}

/// Whether a request is refused that reaches `/ws` with what the sample asks for, or with none of it.
fn closed(requires: &[&str], body: &wire::Route) -> [bool; 2] {
    let mut held = Held::default();
    let sent = resource(ROUTE, requires, &body.encode_to_vec());
    held.receive(update_to(&[sent])).unwrap();
    let (table, rejected) = RouteTable::build(held.resources(), &RouteTable::empty());
    assert_eq!(rejected, []);
    let hostname = Hostname::parse("chat.example.com").unwrap();
    let host = table.host(&hostname).unwrap();
    let fields = [("x-env", "beta")].map(|(name, value)| {
        let name = http::HeaderName::from_static(name);
        (name, http::HeaderValue::from_static(value))
    });
    let fields = fields.into_iter().collect();
    let whole = RequestParts::new("/ws", Some("v=a+b"), &fields, ["chat.v1"]);
    [whole, RequestParts::of_path("/ws")]
        .map(|request| host.find(&request).is_some_and(|matched| matched.closed))
}

#[test]
fn a_closed_match_keeps_its_conditions_or_closes_its_whole_path() {
    let mut body = wire::Route::decode(encode::route(&samples::route()).body).unwrap();
    body.rules[0].matches = vec![sample()];
    let known = [HEADERS, QUERY_PARAMS, SUBPROTOCOLS];
    assert_eq!(closed(&known, &body), [false, false], "it is open");
    // It lacks something else: the conditions say which requests are not served.
    assert_eq!(closed(&["route/new"], &body), [true, false]);
    // Of a later form, or not readable: all that the path has.
    body.rules[0].matches[0].headers[0].name = "x-real-ip".into();
    assert_eq!(closed(&known, &body), [true, true]);
    body.rules[0].matches[0] = wire::RouteMatch {
        path: sample().path,
        ..wire::RouteMatch::default()
    };
    assert_eq!(closed(&["route/match-methods"], &body), [true, true]);
}
