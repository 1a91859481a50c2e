use std::sync::Arc;

use route_table::{Conditions, OriginPattern, RouteKey};

use super::*;
use crate::{FEATURES, Held, samples};

/// The only rule of a route, changed.
fn with(change: impl Fn(&mut Rule)) -> Route {
    let mut route = samples::route();
    let rule = &mut route.rules[0];
    rule.origins = OriginPolicy::default();
    rule.filters = Arc::default();
    for weighted in &mut rule.backends {
        weighted.proxy_protocol = None;
    }
    for found in &mut rule.matches {
        found.conditions = Conditions::default();
    }
    change(rule);
    route
}

/// Whether a dataplane that enforces `features` serves the route, and not its closed form.
fn is_served(route: &Route, features: &'static [&'static str]) -> bool {
    let encoded = super::route(route);
    let sent = samples::resource("route/default/chat", &encoded.requires, &encoded.body);
    let mut held = Held::new(features);
    held.receive(samples::update_to(&[sent])).unwrap();
    let key = RouteKey {
        namespace: "default".into(),
        name: "chat".into(),
    };
    !held.resources().routes[&key].closed
}

#[track_caller]
fn check(change: impl Fn(&mut Rule), expected: &[&str]) {
    let route = with(change);
    assert_eq!(super::route(&route).requires, expected);
    assert!(is_served(&route, FEATURES), "this build enforces all");
    assert_eq!(is_served(&route, &[]), expected.is_empty(), "an older one");
}

#[test]
fn a_field_that_narrows_what_is_admitted_requires_its_feature() {
    check(|_| {}, &[]);
    let origin = || OriginPattern::parse("https://app.example.com").unwrap();
    check(
        |rule| rule.origins.allowed = vec![origin()],
        &["route/allowed-origins"],
    );
    check(
        |rule| rule.origins.refuse_missing = true,
        &["route/allowed-origins"],
    );
    let filters = samples::route().rules[0].filters.clone();
    check(|rule| rule.filters = filters.clone(), &["route/filters"]);
    let both = |rule: &mut Rule| {
        rule.filters = filters.clone();
        rule.origins.refuse_missing = true;
    };
    check(both, &["route/allowed-origins", "route/filters"]);
    check(
        |rule| rule.backends[1].proxy_protocol = Some(ProxyProtocol::V1),
        &["route/proxy-protocol"],
    );
    let conditions = |keep: fn(&mut Conditions, Conditions)| {
        move |rule: &mut Rule| {
            let all = samples::route().rules[0].matches[1].conditions.clone();
            keep(&mut rule.matches[1].conditions, all);
        }
    };
    check(
        conditions(|kept, all| kept.headers = all.headers),
        &["route/match-headers"],
    );
    check(
        conditions(|kept, all| kept.query_params = all.query_params),
        &["route/match-query-params"],
    );
    check(
        conditions(|kept, all| kept.subprotocols = all.subprotocols),
        &["route/match-subprotocols"],
    );
}
