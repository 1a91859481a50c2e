//! From a hostname and a request to the rule that serves it.
//!
//! A [`Host`] gathers every rule of every route that serves one hostname pattern. Precedence is Gateway API's (`HTTPRouteRule`):
//! `Exact` before the longest prefix; at one path most header matches, then most query parameters, then whether a subprotocol is asked
//! for (ours; Gateway API has none); then the older route, then the route's namespace/name, then the order in the route. A match whose
//! conditions a request does not meet is none, so that shorter prefixes come after it. The most specific hostname
//! decides alone: a request that none of its rules takes does not fall back to a wildcard above it, whose TLS may differ.
//!
//! A lookup goes from path to path by hashes, and compares the conditions that stand at each: of all of them on a hostname there are at
//! most [`MAX_CONDITIONS_OF_HOST`].

use std::sync::Arc;

use crate::path::PathIndex;
use crate::{Conditions, HostPattern, HostTls, RequestParts, Route, RouteKey, Rule};

/// Most header, query and subprotocol conditions of one hostname, over all its routes, and so the most that one lookup compares. Each
/// takes some ten nanoseconds (`make bench-lookup`): with all of them at one path a request costs about what a TLS handshake does, and
/// 10,000 routes with a condition each fit.
pub const MAX_CONDITIONS_OF_HOST: usize = 16_384;

/// A route that serves some host.
pub(crate) type Serving = (RouteKey, Arc<Route>);

/// All that is served under one hostname pattern.
#[derive(Debug)]
pub struct Host {
    pattern: HostPattern,
    tls: HostTls,
    routes: Vec<Serving>,
    /// Indices of the routes that went over [`MAX_CONDITIONS_OF_HOST`], in order: their whole paths are closed.
    shut: Vec<usize>,
    /// At each path by precedence; nothing stands behind one without conditions, which takes every request.
    paths: PathIndex<Vec<Candidate>>,
}

/// A match by route and indices: no self-reference, no second `Arc` a rule.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    route: usize,
    rule: usize,
    /// The match whose conditions must be met; none if it has none.
    conditions_of: Option<usize>,
}

/// The rule that takes a request, and the route that it is from.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'a> {
    pub key: &'a RouteKey,
    pub route: &'a Arc<Route>,
    pub rule: &'a Rule,
    /// Whether the request is refused: the route is closed, or there is no room for its conditions.
    pub closed: bool,
}

impl Host {
    /// Indexes the rules of `routes`, which come in order of precedence.
    pub(crate) fn new(pattern: HostPattern, tls: HostTls, routes: Vec<Serving>) -> Self {
        let mut paths = PathIndex::<Vec<Candidate>>::new();
        let mut shut = Vec::new();
        let mut room = MAX_CONDITIONS_OF_HOST;
        for (index, (_, route)) in routes.iter().enumerate() {
            let matches = route.rules.iter().flat_map(|rule| &rule.matches);
            let count = matches.map(|found| found.conditions.count()).sum::<usize>();
            let fits = count <= room;
            if fits {
                room -= count;
            } else {
                shut.push(index);
            }
            for (rule, held) in route.rules.iter().enumerate() {
                for (number, found) in held.matches.iter().enumerate() {
                    let conditional = fits && found.conditions.count() > 0;
                    paths.entry(&found.path).push(Candidate {
                        route: index,
                        rule,
                        conditions_of: conditional.then_some(number),
                    });
                }
            }
        }
        for candidates in paths.entries() {
            // Stable: what is alike stays in the order of routes and rules.
            candidates.sort_by_key(|candidate| {
                let conditions = conditions(&routes, *candidate);
                conditions.map_or_else(
                    || Conditions::default().specificity(),
                    Conditions::specificity,
                )
            });
            let last = candidates
                .iter()
                .position(|candidate| candidate.conditions_of.is_none());
            candidates.truncate(last.map_or(candidates.len(), |last| last + 1));
            candidates.shrink_to_fit();
        }
        Self {
            pattern,
            tls,
            routes,
            shut,
            paths,
        }
    }

    /// Whether this host would be built again from exactly these parts.
    pub(crate) fn is_made_of(&self, tls: &HostTls, routes: &[Serving]) -> bool {
        let same = |(a, b): (&Serving, &Serving)| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1);
        self.tls == *tls
            && self.routes.len() == routes.len()
            && self.routes.iter().zip(routes).all(same)
    }

    /// The routes that went over [`MAX_CONDITIONS_OF_HOST`].
    pub(crate) fn shut(&self) -> impl Iterator<Item = &RouteKey> {
        let routes = self.shut.iter().filter_map(|index| self.routes.get(*index));
        routes.map(|(key, _)| key)
    }

    pub fn pattern(&self) -> &HostPattern {
        &self.pattern
    }

    pub fn tls(&self) -> &HostTls {
        &self.tls
    }

    /// The best rule for a request, if any takes it.
    pub fn find(&self, request: &RequestParts<'_>) -> Option<Matched<'_>> {
        let fits = |candidate: &Candidate| {
            conditions(&self.routes, *candidate).is_none_or(|asked| asked.fit(request))
        };
        let found = self.paths.find_map(request.path(), |candidates| {
            candidates.iter().copied().find(fits)
        })?;
        let (key, route) = self.routes.get(found.route)?;
        Some(Matched {
            key,
            route,
            rule: route.rules.get(found.rule)?,
            closed: route.closed || self.shut.binary_search(&found.route).is_ok(),
        })
    }
}

/// What a candidate asks for beside its path, if anything.
fn conditions(routes: &[Serving], candidate: Candidate) -> Option<&Conditions> {
    let number = candidate.conditions_of?;
    let (_, route) = routes.get(candidate.route)?;
    let found = route.rules.get(candidate.rule)?.matches.get(number)?;
    Some(&found.conditions)
}
