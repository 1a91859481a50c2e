//! Snapshot -> route table and statuses: the list of steps, nothing else.
//!
//! Pure: no I/O, no randomness, time only as an argument. Equal snapshots give equal tables, whatever the order of events was. A
//! user's mistake is a [`Finding`], never an error, and disturbs no other route.

mod addresses;
mod backends;
mod certificates;
mod claims;
mod draft;
mod externals;
#[cfg(test)]
mod golden;
mod grants;
#[cfg(test)]
mod properties;
mod routes;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;
use route_table::{Loopback, Resources, RouteKey};

pub use status::{Condition, Finding, Reason, RouteStatus};

use crate::store::{ObjectKey, Snapshot};

/// What a compile depends on besides the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileConfig {
    /// Routes of another class are ignored.
    pub class: String,
    pub loopback_endpoints: Loopback,
    /// Ranges of addresses that no route may reach, besides those that none ever may.
    pub denied_backends: Vec<IpNet>,
    /// The Services of our own pods: no route may reach an address of theirs, or behind them. A route to the dataplane would go round for ever,
    /// and none may lead into the pages and the push of either.
    pub own_services: Vec<ObjectKey>,
}

/// What the objects come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    pub resources: Resources,
    /// Of every route of our class.
    pub statuses: BTreeMap<RouteKey, RouteStatus>,
    pub references: References,
    /// When a certificate's validity begins or ends next: no event tells, so compile again then.
    pub recheck_at: Option<Timestamp>,
}

/// What routes of our class refer to and may refer to, whether it is there or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// In a cluster, those that are to be read.
    pub secrets: BTreeSet<ObjectKey>,
    /// The changes of others, and of their EndpointSlices, cannot matter.
    pub services: BTreeSet<ObjectKey>,
}

/// Compiles everything.
pub fn compile(snapshot: &Snapshot, config: &CompileConfig, now: Timestamp) -> Compiled {
    let mut drafts = routes::read(snapshot, &config.class);
    grants::enforce(snapshot, &mut drafts);
    claims::settle(&mut drafts);
    let certificates = certificates::resolve(snapshot, &mut drafts, now);
    let (backends, off_limits) = backends::resolve(snapshot, &mut drafts, config);
    let externals = externals::resolve(snapshot, &mut drafts, config, &off_limits);
    let routes = routes::finish(&drafts);
    let statuses = drafts
        .into_iter()
        .map(|draft| (draft.key.clone(), status::of(draft, now)))
        .collect();
    Compiled {
        resources: Resources {
            routes,
            backends: backends.resources,
            externals,
            certificates: certificates.resources,
        },
        statuses,
        references: References {
            secrets: certificates.named,
            services: backends.named,
        },
        recheck_at: certificates.recheck_at,
    }
}
