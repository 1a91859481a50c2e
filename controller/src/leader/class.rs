//! Whether another installation serves our class: two of them would write the same statuses, each against the other.
//!
//! Every Lease of ours says in its metadata which class its installation serves, and in which namespaces. Who holds a Lease looks
//! at all that say the same, and leads only if none of them is older and alive. Each has its own Lease before it looks, so of two
//! that start at once one finds the other. That a Lease lives shows in its being renewed while we watch, as for a follower; what
//! an installation leaves behind when it is uninstalled blocks nobody for longer than that.
//!
//! The age is the API server's word: who may make Leases in a namespace of theirs cannot push an installation aside that is there
//! already. Statuses would tell less: a holder writes nothing for as long as nothing changes.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::record::Seen;
use crate::args::ObjectName;
use crate::failure::Failure;

/// Label of our Leases, to find them.
const LABEL: &str = "ws-ingress.dev/lease";
const LABEL_VALUE: &str = "controller";
/// Annotation with the class.
const CLASS: &str = "ws-ingress.dev/class";
/// Annotation with the namespaces that are watched, separated by ','; empty if it is all of them.
const NAMESPACES: &str = "ws-ingress.dev/watch-namespaces";
/// Longest wait for the list.
const REQUEST: Duration = Duration::from_secs(2);
/// Most Leases that are looked at; a cluster has a handful of installations.
const MOST: u32 = 500;

/// What an installation serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    class: String,
    /// All if there are none.
    namespaces: Vec<String>,
}

impl Claim {
    pub(crate) fn new(class: String, namespaces: Vec<String>) -> Self {
        Self { class, namespaces }
    }

    /// Writes it down on our Lease.
    pub(super) fn note(&self, metadata: &mut ObjectMeta) {
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(LABEL.to_owned(), LABEL_VALUE.to_owned());
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(CLASS.to_owned(), self.class.clone());
        annotations.insert(NAMESPACES.to_owned(), self.namespaces.join(","));
    }

    fn read(metadata: &ObjectMeta) -> Option<Self> {
        let annotations = metadata.annotations.as_ref()?;
        let namespaces = annotations.get(NAMESPACES)?;
        let namespaces = namespaces.split(',').filter(|name| !name.is_empty());
        Some(Self {
            class: annotations.get(CLASS)?.clone(),
            namespaces: namespaces.map(ToOwned::to_owned).collect(),
        })
    }

    /// Whether a route could be of both.
    fn overlaps(&self, other: &Self) -> bool {
        let everywhere = self.namespaces.is_empty() || other.namespaces.is_empty();
        let shared = || {
            let mut ours = self.namespaces.iter();
            ours.any(|name| other.namespaces.contains(name))
        };
        self.class == other.class && (everywhere || shared())
    }
}

/// What became of the look at the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The class is ours.
    Free,
    /// There is an older Lease; whether it is renewed is not known yet.
    Unsure,
    /// Somebody else has the class; who, and what to do about it.
    Held(String),
}

/// Looks at the Leases of other installations.
pub(crate) struct Rivals {
    leases: Api<Lease>,
    ours: ObjectName,
    claim: Claim,
    seen: BTreeMap<(String, String), Rival>,
}

/// A Lease of another installation that serves our class.
struct Rival {
    seen: Seen,
    /// Whether it was renewed while we watched.
    renewed: bool,
}

impl Rivals {
    pub(crate) fn new(client: Client, ours: ObjectName, claim: Claim) -> Self {
        Self {
            leases: Api::all(client),
            ours,
            claim,
            seen: BTreeMap::new(),
        }
    }

    /// Looks once.
    pub(super) async fn look(&mut self) -> Result<Verdict, Failure> {
        let params = ListParams::default()
            .labels(&format!("{LABEL}={LABEL_VALUE}"))
            .limit(MOST);
        let listed = timeout(REQUEST, self.leases.list(&params)).await;
        let listed = listed.map_err(|_| Failure::Timeout(REQUEST))??;
        Ok(self.judge(listed.items, Instant::now()))
    }

    fn judge(&mut self, leases: Vec<Lease>, now: Instant) -> Verdict {
        let name = |lease: &Lease| {
            let ObjectMeta {
                namespace, name, ..
            } = &lease.metadata;
            (
                namespace.clone().unwrap_or_default(),
                name.clone().unwrap_or_default(),
            )
        };
        let age = |lease: &Lease| {
            let created = lease.metadata.creation_timestamp.clone();
            (created.map(|created| created.0), name(lease))
        };
        let is_ours =
            |lease: &&Lease| name(lease) == (self.ours.namespace.clone(), self.ours.name.clone());
        // Without one of our own, which somebody has just deleted, everybody is older.
        let our_age = leases.iter().find(is_ours).map(age);
        let mut before = std::mem::take(&mut self.seen);
        for lease in leases {
            let older = our_age.as_ref().is_none_or(|ours| age(&lease) < *ours);
            let overlaps =
                Claim::read(&lease.metadata).is_some_and(|theirs| theirs.overlaps(&self.claim));
            if !older || !overlaps || is_ours(&&lease) {
                continue;
            }
            let name = name(&lease);
            let before = before.remove(&name);
            let known = before.as_ref().map(|rival| rival.seen.clone());
            let was_renewed = before.as_ref().is_some_and(|rival| rival.renewed);
            if let Some(seen) = Seen::new(lease, known, now) {
                let renewed = was_renewed || before.is_some_and(|rival| !rival.seen.is_same(&seen));
                self.seen.insert(name, Rival { seen, renewed });
            }
        }
        let mut rivals = self.seen.iter();
        let alive = |rival: &Rival| rival.seen.is_held() && now < rival.seen.expires();
        let held = rivals
            .clone()
            .find(|(_, rival)| rival.renewed && alive(rival));
        if let Some(((namespace, lease), _)) = held {
            return Verdict::Held(format!(
                "class {} is served by the installation in namespace {namespace} (Lease {lease}): uninstall one of the two, or give it another --class",
                self.claim.class
            ));
        }
        if rivals.any(|(_, rival)| alive(rival)) {
            Verdict::Unsure
        } else {
            Verdict::Free
        }
    }
}

#[cfg(test)]
mod tests;
