//! Which rule takes a request, by path, headers, query and subprotocols: as a plain sort over all rules says, and never at a cost that
//! grows past its limit.
//!
//! The reference shares no code with the product: it keeps what was asked as texts, joins and decodes for itself, and orders by the
//! words of Gateway API's `HTTPRouteRule`. Names and values are few, so that rules collide; the test counts that each step decided.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy recognises only inside #[test] functions"
)]

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use route_table::{
    Conditions, HeaderMatch, HostPattern, HostTls, Hostname, Invalid, MAX_CONDITIONS_OF_HOST,
    NonUpgrade, PathMatch, QueryParamMatch, RequestParts, ResourceKey, Resources, Route,
    RouteHostname, RouteKey, RouteMatch, RouteTable, Rule, Subprotocol, Timeouts,
};

const HOST: &str = "a.example.com";

/// A match as a user writes it.
#[derive(Debug, Clone)]
struct Asked {
    exact: bool,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
    subprotocols: Vec<&'static str>,
}

/// A route: its name, its age, and the matches of each rule.
#[derive(Debug, Clone)]
struct Author {
    name: &'static str,
    created: Option<i64>,
    rules: Vec<Vec<Asked>>,
}

#[derive(Debug, Clone)]
struct Sent {
    path: &'static str,
    /// Names and values as they stand in the target.
    query: Vec<(&'static str, &'static str)>,
    headers: Vec<(&'static str, &'static str)>,
    offered: Vec<&'static str>,
}

/// Where a match stands.
#[derive(Debug, Clone)]
struct Place<'a> {
    asked: &'a Asked,
    created: Option<i64>,
    name: &'a str,
    rule: usize,
}

#[test]
fn the_rule_that_gateway_api_names_takes_the_request() {
    let decided = RefCell::new(BTreeMap::<&str, u32>::new());
    let count = |step| *decided.borrow_mut().entry(step).or_default() += 1;
    let cases = (vec(author(), 1..=4), vec(sent(), 16));
    run(cases, |(mut authors, requests)| {
        for (author, name) in authors.iter_mut().zip(["r2", "r1", "r3", "r0"]) {
            author.name = name;
        }
        let table = table(authors.iter().map(|author| (author.name, route(author))));
        for request in requests {
            let found = find(&table, &request);
            let expected = reference(&authors, &request, &count);
            prop_assert_eq!(&found, &expected, "{:?}", request);
            count(if found.is_some() { "taken" } else { "refused" });
        }
        Ok(())
    });
    let decided = decided.into_inner();
    for step in [
        "taken",
        "refused",
        "exact",
        "prefix",
        "headers",
        "query",
        "subprotocol",
        "older",
        "name",
        "order",
        "shorter prefix after unmet conditions",
    ] {
        let times = decided.get(step).copied().unwrap_or_default();
        assert!(times > 20, "{step} decided {times} times: {decided:?}");
    }
}

fn reference(
    authors: &[Author],
    request: &Sent,
    count: &impl Fn(&'static str),
) -> Option<(String, String)> {
    let mut fitting: Vec<Place<'_>> = Vec::new();
    let mut longest_unmet = 0;
    for author in authors {
        for (rule, matches) in author.rules.iter().enumerate() {
            for asked in matches {
                if !path_fits(asked, request.path) {
                    continue;
                }
                if !rest_fits(asked, request) {
                    longest_unmet = longest_unmet.max(asked.path.len());
                    continue;
                }
                fitting.push(Place {
                    asked,
                    created: author.created,
                    name: author.name,
                    rule,
                });
            }
        }
    }
    // Bubble the best to the front, and say what each comparison was decided by.
    let mut best = fitting.first()?.clone();
    for other in &fitting[1..] {
        let (order, step) = compare(&best, other);
        count(step);
        if order == Ordering::Greater {
            best = other.clone();
        }
    }
    if longest_unmet > best.asked.path.len() {
        count("shorter prefix after unmet conditions");
    }
    Some((best.name.to_owned(), best.rule.to_string()))
}

/// Less is better.
fn compare(a: &Place<'_>, b: &Place<'_>) -> (Ordering, &'static str) {
    let more = |a: usize, b: usize| b.cmp(&a);
    let characters = |asked: &Asked| asked.path.trim_end_matches('/').chars().count();
    let age = |place: &Place<'_>| place.created.unwrap_or(i64::MAX);
    let asks = |place: &Place<'_>| usize::from(!place.asked.subprotocols.is_empty());
    let steps = [
        ("exact", b.asked.exact.cmp(&a.asked.exact)),
        ("prefix", more(characters(a.asked), characters(b.asked))),
        (
            "headers",
            more(a.asked.headers.len(), b.asked.headers.len()),
        ),
        ("query", more(a.asked.query.len(), b.asked.query.len())),
        ("subprotocol", more(asks(a), asks(b))),
        ("older", age(a).cmp(&age(b))),
        ("name", a.name.cmp(b.name)),
        ("order", a.rule.cmp(&b.rule)),
    ];
    let mut steps = steps.into_iter();
    let (step, order) = steps
        .find(|(_, order)| *order != Ordering::Equal)
        .unwrap_or(("nothing", Ordering::Equal));
    (order, step)
}

fn path_fits(asked: &Asked, path: &str) -> bool {
    let path = &path.replace("%61", "a").replace("%62", "b");
    if asked.exact {
        return asked.path == path;
    }
    let elements = |path: &str| {
        let elements = path.split('/').skip(1).map(ToOwned::to_owned);
        elements.collect::<Vec<_>>()
    };
    let mut wanted = elements(asked.path);
    if wanted.last().is_some_and(String::is_empty) {
        wanted.pop();
    }
    elements(path).starts_with(&wanted)
}

fn rest_fits(asked: &Asked, request: &Sent) -> bool {
    let headers = asked.headers.iter().all(|(name, value)| {
        let lines = request.headers.iter();
        let lines = lines.filter(|(sent, _)| sent.eq_ignore_ascii_case(name));
        let lines = lines.map(|(_, value)| *value).collect::<Vec<_>>();
        !lines.is_empty() && lines.join(", ") == *value
    });
    let query = asked.query.iter().all(|(name, value)| {
        let mut params = request.query.iter();
        params
            .find(|(sent, _)| plain(sent) == *name)
            .is_some_and(|(_, sent)| plain(sent) == *value)
    });
    let mut wanted = asked.subprotocols.iter();
    headers
        && query
        && (asked.subprotocols.is_empty() || wanted.any(|name| request.offered.contains(name)))
}

/// The few escapes that the queries here have.
fn plain(text: &str) -> String {
    text.replace("%76", "v")
        .replace("%31", "1")
        .replace('+', " ")
}

fn find(table: &RouteTable, request: &Sent) -> Option<(String, String)> {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = name.parse::<HeaderName>().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let pairs = request.query.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}={value}"));
    let query = pairs.collect::<Vec<_>>().join("&");
    let query = Some(query.as_str()).filter(|query| !query.is_empty());
    let offered = request.offered.iter().copied();
    let parts = RequestParts::new(request.path, query, &headers, offered);
    let host = table.host(&Hostname::parse(HOST).unwrap()).unwrap();
    let matched = host.find(&parts)?;
    Some((matched.key.name.to_string(), matched.rule.name.to_string()))
}

fn author() -> impl Strategy<Value = Author> {
    // Few of each, so that equal ones meet, and few conditions, so that they are met.
    let path = select(vec!["/", "/a", "/a/", "/a/b", "/a/bc", "/a/b/c"]);
    let headers = vec![("X-Env", "beta"), ("x-tenant", "blue"), ("X-Env2", "a, b")];
    let query = vec![("v", "1"), ("w", "a b")];
    let subprotocols = vec!["chat", "Chat", "graphql-ws"];
    let rest = (
        prop_oneof![3 => subsequence(headers, 0..=2), 2 => Just(Vec::new())],
        prop_oneof![1 => subsequence(query, 0..=2), 2 => Just(Vec::new())],
        prop_oneof![1 => subsequence(subprotocols, 0..=2), 2 => Just(Vec::new())],
    );
    let asked = (prop::bool::weighted(0.3), path, rest).prop_map(
        |(exact, path, (headers, query, subprotocols))| Asked {
            exact,
            path,
            headers,
            query,
            subprotocols,
        },
    );
    let rules = vec(vec(asked, 1..4), 1..4);
    (option::of(0..2_i64), rules).prop_map(|(created, rules)| Author {
        name: "",
        created,
        rules,
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let path = select(vec![
        "/", "/a", "/a/b", "/a/b/", "/a/b/c", "/a/bc/d", "/b/x", "/%61", "/a/%62/c", "/a%2fb",
    ]);
    let query = vec![("%76", "1"), ("v", "2"), ("v", "%31"), ("w", "a+b")];
    let query = subsequence(query, 1..=4).prop_shuffle();
    let headers = vec![
        ("x-env", "beta"),
        ("X-TENANT", "blue"),
        ("x-env2", "a"),
        ("x-env2", "b"),
        ("x-env", "gamma"),
    ];
    let headers = subsequence(headers, 2..=5);
    let offered = subsequence(vec!["chat", "graphql-ws", "other"], 0..=3);
    (path, query, headers, offered).prop_map(|(path, query, headers, offered)| Sent {
        path,
        query,
        headers,
        offered,
    })
}

fn route(author: &Author) -> Route {
    let rules = author.rules.iter().enumerate().map(|(index, matches)| {
        let matches = matches.iter().map(|asked| RouteMatch {
            path: if asked.exact {
                PathMatch::exact(asked.path).unwrap()
            } else {
                PathMatch::prefix(asked.path).unwrap()
            },
            conditions: conditions(&asked.headers, &asked.query, &asked.subprotocols),
        });
        rule(&index.to_string(), matches.collect())
    });
    route_of(author.created, rules.collect())
}

fn conditions(
    headers: &[(&str, &str)],
    query: &[(&str, &str)],
    subprotocols: &[&str],
) -> Conditions {
    let headers = headers
        .iter()
        .map(|(name, value)| HeaderMatch::new(name, value).unwrap());
    let query = query
        .iter()
        .map(|(name, value)| QueryParamMatch::new(name, value).unwrap());
    let subprotocols = subprotocols
        .iter()
        .map(|name| Subprotocol::new(name).unwrap());
    Conditions {
        headers: headers.collect(),
        query_params: query.collect(),
        subprotocols: subprotocols.collect(),
    }
}

fn route_of(created: Option<i64>, rules: Vec<Rule>) -> Route {
    Route {
        created,
        hostnames: vec![RouteHostname {
            pattern: HostPattern::parse(HOST).unwrap(),
            tls: HostTls::None,
        }],
        rules,
        closed: false,
    }
}

fn rule(name: &str, matches: Vec<RouteMatch>) -> Rule {
    Rule {
        name: name.into(),
        matches,
        non_upgrade: NonUpgrade::Reject,
        origins: route_table::OriginPolicy::default(),
        filters: Arc::default(),
        backends: Vec::new(),
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            read: Duration::ZERO,
            send: Duration::ZERO,
        },
    }
}

fn key(name: &str) -> RouteKey {
    RouteKey {
        namespace: "n1".into(),
        name: name.into(),
    }
}

fn resources<'a>(routes: impl Iterator<Item = (&'a str, Route)>) -> Resources {
    Resources {
        routes: routes
            .map(|(name, route)| (key(name), Arc::new(route)))
            .collect(),
        ..Resources::default()
    }
}

fn table<'a>(routes: impl Iterator<Item = (&'a str, Route)>) -> RouteTable {
    let (table, rejected) = RouteTable::build(&resources(routes), &RouteTable::empty());
    assert_eq!(rejected, []);
    table
}

fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config {
        cases: 500,
        failure_persistence: None,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

/// A rule at one path for each number, each with a header condition of its own.
fn crowd(path: &str, numbers: std::ops::Range<usize>) -> Rule {
    let matches = numbers.map(|number| RouteMatch {
        path: PathMatch::prefix(path).unwrap(),
        conditions: conditions(&[("x-tenant", &number.to_string())], &[], &[]),
    });
    rule("crowd", matches.collect())
}

/// What a request comes to: the route that takes it, and whether it is open.
#[track_caller]
fn answer(table: &RouteTable, path: &str, tenant: &str) -> Option<(String, bool)> {
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_str(tenant).unwrap());
    let parts = RequestParts::new(path, None, &headers, []);
    let host = table.host(&Hostname::parse(HOST).unwrap()).unwrap();
    let matched = host.find(&parts)?;
    Some((matched.key.name.to_string(), !matched.closed))
}

#[test]
fn the_route_that_goes_over_the_limit_of_conditions_is_refused_and_no_other() {
    let most = MAX_CONDITIONS_OF_HOST;
    let whole = |path| rule("whole", vec![PathMatch::prefix(path).unwrap().into()]);
    let resources = resources(
        [
            ("whole", route_of(Some(0), vec![whole("/")])),
            ("old", route_of(Some(1), vec![crowd("/a", 0..most - 1)])),
            (
                "over",
                route_of(Some(2), vec![crowd("/a", most..most + 2), whole("/over")]),
            ),
            ("fits", route_of(Some(3), vec![crowd("/b", 0..1)])),
        ]
        .into_iter(),
    );
    let (table, rejected) = RouteTable::build(&resources, &RouteTable::empty());
    let [rejected] = &rejected[..] else {
        panic!("{rejected:?}");
    };
    assert_eq!(rejected.key, ResourceKey::Route(key("over")));
    assert!(matches!(rejected.reason, Invalid::TooManyConditions { .. }));
    let says = |path, tenant: usize, route: &str, open| {
        let answer = answer(&table, path, &tenant.to_string());
        assert_eq!(answer, Some((route.to_owned(), open)), "{path} {tenant}");
    };
    says("/a", 0, "old", true);
    says("/a", most - 2, "old", true);
    // Nothing less specific gets what it asked for.
    says("/a", most, "over", false);
    says("/over", 1, "over", false);
    says("/b", 0, "fits", true);
    says("/c", 0, "whole", true);

    // As long as it is so, and no swap for it.
    let (again, rejected) = RouteTable::build(&resources, &table);
    assert_eq!(
        (rejected.len(), again.generation()),
        (1, table.generation())
    );
}

#[test]
fn a_closed_route_refuses_the_requests_that_its_conditions_fit_and_no_others() {
    let closed = Route {
        closed: true,
        ..route_of(Some(1), vec![crowd("/a", 0..1)])
    };
    let open = route_of(
        Some(2),
        vec![rule("0", vec![PathMatch::prefix("/a").unwrap().into()])],
    );
    let table = table([("closed", closed), ("open", open)].into_iter());
    assert_eq!(
        answer(&table, "/a", "0"),
        Some(("closed".to_owned(), false))
    );
    assert_eq!(answer(&table, "/a", "1"), Some(("open".to_owned(), true)));
}
