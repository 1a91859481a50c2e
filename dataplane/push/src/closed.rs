//! The closed form of a route that this dataplane must not serve: its requests are answered 503, or its handshakes refused.
//!
//! In: the message, as far as it can be read. Out: a route with the same hostnames and paths and no backends, which the table
//! finds like any other and which says that it is closed. Without it these requests would fall through to a less specific rule. A hostname or
//! path that cannot be read is left out: nothing is known of it, and closing more would disturb other routes. A match keeps its conditions, so that
//! it closes its own requests and no others of its path; if they cannot be read, or are of a kind that is not known here, it closes the whole path.

use std::sync::Arc;
use std::time::Duration;

use route_table::{
    HostTls, NonUpgrade, OnPlain, OriginPolicy, Route, RouteHostname, RouteMatch, Rule, Timeouts,
};

use crate::decode::{self, MAX_ENTRIES, Place};
use crate::{key, matches, wire};

/// Never waited for, since there is nothing to connect to; but the table refuses zero.
const NEVER_USED: Duration = Duration::from_secs(1);

/// A host without certificates fails every handshake; on the plain listener it is refused.
const NO_HANDSHAKE: HostTls = HostTls::Terminate {
    certificates: Vec::new(),
    plain: OnPlain::Refuse,
};

/// How much of a route is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Requests that the route matches: 503.
    Requests,
    /// TLS handshakes of its hostnames: refused.
    Handshakes,
}

impl Scope {
    /// What an unknown feature closes, by its name; a name without a known beginning closes more.
    pub(crate) fn of_feature(feature: &str) -> Self {
        if feature.starts_with("route/") {
            Self::Requests
        } else {
            Self::Handshakes
        }
    }
}

/// The route in its closed form.
pub(crate) fn route(message: &wire::Route, scope: Scope) -> Route {
    let place = Place::root("");
    let hostnames = message.hostnames.iter().take(MAX_ENTRIES);
    let hostnames = hostnames.filter_map(|hostname| {
        let pattern = decode::pattern(&place, hostname).ok()?;
        let tls = match scope {
            // TLS of a later kind may ask clients for more than any that is known here.
            Scope::Requests => decode::tls(&place, hostname).unwrap_or(NO_HANDSHAKE),
            Scope::Handshakes => NO_HANDSHAKE,
        };
        Some(RouteHostname { pattern, tls })
    });
    let rules = message.rules.iter().take(MAX_ENTRIES).enumerate();
    Route {
        created: message.created,
        hostnames: hostnames.collect(),
        rules: rules.filter_map(rule).collect(),
        closed: true,
    }
}

/// The closed form of a route that was accepted, for when what came after it cannot be read at all.
pub(crate) fn of_accepted(route: &Route, scope: Scope) -> Route {
    let hostnames = route.hostnames.iter().map(|hostname| RouteHostname {
        pattern: hostname.pattern.clone(),
        tls: match scope {
            Scope::Requests => hostname.tls.clone(),
            Scope::Handshakes => NO_HANDSHAKE,
        },
    });
    let rules = route.rules.iter();
    let rules = rules.filter_map(|rule| closed_rule(rule.name.clone(), rule.matches.clone()));
    Route {
        created: route.created,
        hostnames: hostnames.collect(),
        rules: rules.collect(),
        closed: true,
    }
}

fn rule((index, message): (usize, &wire::Rule)) -> Option<Rule> {
    let place = Place::root("");
    let matches = message.matches.iter().take(MAX_ENTRIES);
    let matches = matches.filter_map(|found| matches::decode_closed(&place, found));
    let name = key::name(&message.name).unwrap_or_else(|| Arc::from(index.to_string()));
    closed_rule(name, matches.collect())
}

fn closed_rule(name: Arc<str>, matches: Vec<RouteMatch>) -> Option<Rule> {
    // The table refuses a rule without a match, and would then keep the route's open form.
    if matches.is_empty() {
        return None;
    }
    Some(Rule {
        name,
        matches,
        non_upgrade: NonUpgrade::Reject,
        origins: OriginPolicy::default(),
        filters: Arc::default(),
        backends: Vec::new(),
        timeouts: Timeouts {
            connect: NEVER_USED,
            handshake: NEVER_USED,
            read: NEVER_USED,
            send: NEVER_USED,
        },
    })
}
