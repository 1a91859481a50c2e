//! Which steps of precedence a case shows, worked out from its objects and its compiled routes, not by the code under test.
//!
//! For claims: every two claims on one hostname, and what decides between them. For requests: the rule that takes it against each
//! other rule that would, and what decides. On the way it checks that the table answers what the plain order says.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crds::WebSocketRoute;
use jiff::Timestamp;
use route_table::{HostPattern, PathMatch, RouteKey, RouteMatch};

use super::Run;
use super::view::Request;
use crate::store::ObjectKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Two recorded claims, by their time.
    ClaimRecorded,
    /// A recorded claim against the creation of a route without any.
    ClaimRecordedAgainstCreated,
    /// Two routes without recorded claims, by their creation.
    ClaimCreated,
    /// A hostname added to a route that has recorded claims is last, although the route is older.
    ClaimAddedLater,
    /// A route without any time is last.
    ClaimWithoutTime,
    ClaimNamespace,
    ClaimName,
    ExactHost,
    LongerWildcard,
    ExactPath,
    LongerPrefix,
    MoreHeaders,
    MoreQueryParams,
    Subprotocol,
    OlderRoute,
    RouteWithoutTime,
    RouteName,
    OrderInRoute,
}

impl Step {
    pub(super) const ALL: [Self; 18] = [
        Self::ClaimRecorded,
        Self::ClaimRecordedAgainstCreated,
        Self::ClaimCreated,
        Self::ClaimAddedLater,
        Self::ClaimWithoutTime,
        Self::ClaimNamespace,
        Self::ClaimName,
        Self::ExactHost,
        Self::LongerWildcard,
        Self::ExactPath,
        Self::LongerPrefix,
        Self::MoreHeaders,
        Self::MoreQueryParams,
        Self::Subprotocol,
        Self::OlderRoute,
        Self::RouteWithoutTime,
        Self::RouteName,
        Self::OrderInRoute,
    ];
}

pub(super) fn steps(run: &Run) -> Vec<Step> {
    let mut steps = claim_steps(run);
    for request in &run.requests {
        steps.extend(request_steps(run, request));
    }
    steps
}

/// Where the time of a claim is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    Recorded(Timestamp),
    Created(Timestamp),
    AddedLater,
    Absent,
}

impl Time {
    fn value(self) -> Option<Timestamp> {
        match self {
            Self::Recorded(time) | Self::Created(time) => Some(time),
            Self::AddedLater | Self::Absent => None,
        }
    }
}

fn claim_steps(run: &Run) -> Vec<Step> {
    let mut claims: BTreeMap<&str, Vec<(Time, &ObjectKey)>> = BTreeMap::new();
    for (key, route) in run
        .snapshot
        .routes()
        .filter(|(_, route)| route.spec.class_name == "ws-ingress")
    {
        for hostname in &route.spec.hostnames {
            claims
                .entry(hostname)
                .or_default()
                .push((time(route, hostname), key));
        }
    }
    let mut steps = Vec::new();
    for claims in claims.values() {
        for (index, (a, a_key)) in claims.iter().enumerate() {
            for (b, b_key) in &claims[index + 1..] {
                steps.push(match (a, b) {
                    _ if a.value() == b.value() && a_key.namespace != b_key.namespace => {
                        Step::ClaimNamespace
                    }
                    _ if a.value() == b.value() => Step::ClaimName,
                    (Time::AddedLater, _) | (_, Time::AddedLater) => Step::ClaimAddedLater,
                    (Time::Absent, _) | (_, Time::Absent) => Step::ClaimWithoutTime,
                    (Time::Recorded(_), Time::Recorded(_)) => Step::ClaimRecorded,
                    (Time::Created(_), Time::Created(_)) => Step::ClaimCreated,
                    (Time::Recorded(_), Time::Created(_))
                    | (Time::Created(_), Time::Recorded(_)) => Step::ClaimRecordedAgainstCreated,
                });
            }
        }
    }
    steps
}

fn time(route: &WebSocketRoute, hostname: &str) -> Time {
    let claims = route.status.iter().flat_map(|status| &status.claims);
    let recorded = claims.clone().find(|claim| claim.hostname == hostname);
    match (recorded, &route.metadata.creation_timestamp) {
        (Some(claim), _) => Time::Recorded(claim.since.0),
        (None, _) if claims.clone().next().is_some() => Time::AddedLater,
        (None, Some(created)) => Time::Created(created.0),
        (None, None) => Time::Absent,
    }
}

/// A rule that would take a request, by falling precedence when sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<'a> {
    wildcard: bool,
    suffix: Reverse<usize>,
    prefix: bool,
    length: Reverse<usize>,
    headers: Reverse<usize>,
    query_params: Reverse<usize>,
    subprotocol: Reverse<bool>,
    unknown_age: bool,
    created: Option<i64>,
    key: &'a RouteKey,
    rule: usize,
}

fn request_steps(run: &Run, request: &str) -> Vec<Step> {
    let asked = Request::read(request);
    let host = &asked.host;
    let mut candidates = Vec::new();
    for (key, route) in &run.compiled.resources.routes {
        for hostname in route
            .hostnames
            .iter()
            .filter(|hostname| hostname.pattern.covers(host))
        {
            let (wildcard, suffix) = match &hostname.pattern {
                HostPattern::Exact(name) => (false, name.as_str().len()),
                HostPattern::Wildcard(name) => (true, name.as_str().len()),
            };
            for (rule, held) in route.rules.iter().enumerate() {
                for found in held.matches.iter().filter(|found| takes(found, &asked)) {
                    let (prefix, length) = match &found.path {
                        PathMatch::Exact(value) => (false, value.len()),
                        PathMatch::Prefix(value) => (true, value.len()),
                    };
                    candidates.push(Candidate {
                        wildcard,
                        suffix: Reverse(suffix),
                        prefix,
                        length: Reverse(length),
                        headers: Reverse(found.conditions.headers.len()),
                        query_params: Reverse(found.conditions.query_params.len()),
                        subprotocol: Reverse(!found.conditions.subprotocols.is_empty()),
                        unknown_age: route.created.is_none(),
                        created: route.created,
                        key,
                        rule,
                    });
                }
            }
        }
    }
    candidates.sort();
    let Some((winner, losers)) = candidates.split_first() else {
        return Vec::new();
    };
    let answer = run.table.host(host).unwrap().find(&asked.parts()).unwrap();
    let rule = &run.compiled.resources.routes[winner.key].rules[winner.rule];
    assert_eq!(
        (answer.key, answer.rule),
        (winner.key, rule),
        "{}: {request}",
        run.name
    );
    losers
        .iter()
        .map(|loser| decided_by(winner, loser))
        .collect()
}

fn decided_by(winner: &Candidate<'_>, loser: &Candidate<'_>) -> Step {
    if winner.wildcard != loser.wildcard {
        Step::ExactHost
    } else if winner.suffix != loser.suffix {
        Step::LongerWildcard
    } else if winner.prefix != loser.prefix {
        Step::ExactPath
    } else if winner.length != loser.length {
        Step::LongerPrefix
    } else if winner.headers != loser.headers {
        Step::MoreHeaders
    } else if winner.query_params != loser.query_params {
        Step::MoreQueryParams
    } else if winner.subprotocol != loser.subprotocol {
        Step::Subprotocol
    } else if winner.unknown_age != loser.unknown_age {
        Step::RouteWithoutTime
    } else if winner.created != loser.created {
        Step::OlderRoute
    } else if winner.key != loser.key {
        Step::RouteName
    } else {
        Step::OrderInRoute
    }
}

fn takes(found: &RouteMatch, request: &Request<'_>) -> bool {
    let path = match &found.path {
        PathMatch::Exact(value) => **value == *request.path,
        PathMatch::Prefix(value) => format!("{}/", request.path).starts_with(&format!("{value}/")),
    };
    let mut headers = found.conditions.headers.iter();
    let mut params = found.conditions.query_params.iter();
    let mut subprotocols = found.conditions.subprotocols.iter();
    // The cases repeat no field and no parameter and escape nothing; `route-table` has tests for what does.
    path && headers.all(|header| {
        let sent = request.headers.get(header.name());
        sent.is_some_and(|sent| sent == header.value())
    }) && params.all(|param| {
        let pair = format!("{}={}", param.name(), param.value());
        let mut sent = request.query.iter().flat_map(|query| query.split('&'));
        sent.any(|sent| sent == pair)
    }) && (subprotocols.len() == 0
        || subprotocols.any(|name| request.offered.contains(&name.name())))
}
