//! From a hostname and a path to the rule that serves them.
//!
//! A [`Host`] gathers every rule of every route that serves one hostname pattern. Precedence is Gateway API's (`HTTPRouteRule`):
//! `Exact` before the longest prefix, then the older route, then the route's namespace/name, then the order in the route. The most specific hostname
//! decides alone: a request that none of its rules takes does not fall back to a wildcard above it, whose TLS may differ.

use std::sync::Arc;

use crate::path::PathIndex;
use crate::{HostPattern, HostTls, Route, RouteKey, Rule};

/// A route that serves some host.
pub(crate) type Serving = (RouteKey, Arc<Route>);

/// All that is served under one hostname pattern.
#[derive(Debug)]
pub struct Host {
    pattern: HostPattern,
    tls: HostTls,
    routes: Vec<Serving>,
    paths: PathIndex<Position>,
}

/// A rule by route and index: no self-reference, no second `Arc` a rule.
#[derive(Debug, Clone, Copy)]
struct Position {
    route: usize,
    rule: usize,
}

/// The rule that takes a request, and the route that it is from.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'a> {
    pub key: &'a RouteKey,
    pub route: &'a Arc<Route>,
    pub rule: &'a Rule,
}

impl Host {
    /// Indexes the rules of `routes`, which come in order of precedence.
    pub(crate) fn new(pattern: HostPattern, tls: HostTls, routes: Vec<Serving>) -> Self {
        let mut paths = PathIndex::new();
        for (route, (_, held)) in routes.iter().enumerate() {
            for (rule, held) in held.rules.iter().enumerate() {
                for path in &held.matches {
                    paths.insert(path, Position { route, rule });
                }
            }
        }
        Self {
            pattern,
            tls,
            routes,
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

    pub fn pattern(&self) -> &HostPattern {
        &self.pattern
    }

    pub fn tls(&self) -> &HostTls {
        &self.tls
    }

    /// The best rule for a request path (without its query), if any takes it.
    pub fn find(&self, path: &str) -> Option<Matched<'_>> {
        let position = self.paths.find(path)?;
        let (key, route) = self.routes.get(position.route)?;
        let rule = route.rules.get(position.rule)?;
        Some(Matched { key, route, rule })
    }
}
