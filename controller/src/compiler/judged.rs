//! One compile, and what it comes to beside the last output. Pure; it runs where nothing waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use route_table::RouteKey;
use tokio::time::Instant;

use super::Compile;
use crate::compile::{Compiled, References, RouteStatus};
use crate::output::{Output, Report};
use crate::store::{ObjectKey, SecretState, Snapshot};

/// What a compile comes to.
#[derive(Debug)]
pub(super) struct Judged {
    /// Nothing if it is the same as the last.
    pub(super) output: Option<Output>,
    pub(super) references: References,
    /// The Secrets among them that were not read when the snapshot was taken.
    pub(super) unread: Vec<ObjectKey>,
    pub(super) recheck_at: Option<Timestamp>,
    /// Routes of our class.
    pub(super) routes: usize,
    /// How long the compile took.
    pub(super) seconds: f64,
}

pub(super) fn judge(
    compile: &Compile,
    snapshot: &Snapshot,
    now: Timestamp,
    last: Option<&Output>,
) -> Judged {
    let began = Instant::now();
    let compiled = compile(snapshot, now);
    let seconds = began.elapsed().as_secs_f64();
    let Compiled {
        resources,
        statuses,
        references,
        recheck_at,
    } = compiled;
    let routes = statuses.len();
    let statuses = reports(snapshot, statuses);
    let output = match last.filter(|last| *last.resources == resources) {
        Some(last) if *last.statuses == statuses => None,
        Some(last) => Some((last.sequence, last.resources.clone())),
        None => Some((
            last.map_or(0, |last| last.sequence) + 1,
            Arc::new(resources),
        )),
    };
    let output = output.map(|(sequence, resources)| Output {
        sequence,
        resources,
        statuses: Arc::new(statuses),
    });
    let secrets = references.secrets.iter();
    let unread = secrets.filter(|key| snapshot.secret(key) == SecretState::NotYetRead);
    Judged {
        output,
        unread: unread.cloned().collect(),
        references,
        recheck_at,
        routes,
        seconds,
    }
}

/// The statuses with the uids of the routes that they speak of.
fn reports(
    snapshot: &Snapshot,
    mut statuses: BTreeMap<RouteKey, RouteStatus>,
) -> BTreeMap<RouteKey, Report> {
    let mut reports = BTreeMap::new();
    for (key, route) in snapshot.routes() {
        let key = RouteKey {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        };
        if let Some(status) = statuses.remove(&key) {
            let uid = route.metadata.uid.as_deref().unwrap_or_default().into();
            reports.insert(key, Report { uid, status });
        }
    }
    reports
}
