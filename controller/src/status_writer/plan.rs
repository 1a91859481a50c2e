//! Which statuses to write: what should stand there against what stands, and in which order. Pure but for its memory of one term.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use route_table::RouteKey;

use crate::compile::Reason;
use crate::delivery::Deliveries;
use crate::desired::{Desired, is_recorded_programmed};
use crate::fleet::Fleet;
use crate::observed::ObservedStatuses;
use crate::output::Output;
use crate::programmed::{Facts, Generation, Programmed};

/// What to write. It begins anew with every term.
#[derive(Debug, Default)]
pub(super) struct Plan {
    programmed: Programmed,
    /// What was written in this term, and the version that the route had then.
    pub(super) sent: BTreeMap<RouteKey, (Arc<Desired>, u64)>,
    pub(super) pending: BTreeMap<RouteKey, Arc<Desired>>,
    /// The last one written: every route gets its turn, however often the first ones change.
    last: Option<RouteKey>,
}

impl Plan {
    /// Compares everything.
    pub(super) fn compare(
        &mut self,
        output: &Output,
        deliveries: &Deliveries,
        fleet: &Fleet,
        observed: &ObservedStatuses,
    ) {
        let standing = |key: &RouteKey, uid: &Arc<str>| {
            observed.get(key).filter(|observed| observed.uid == *uid)
        };
        let generations = output.statuses.iter().map(|(key, report)| {
            let generation = report.status.observed_generation;
            let observed = standing(key, &report.uid);
            Generation {
                key,
                uid: &report.uid,
                generation,
                recorded: observed
                    .is_some_and(|observed| is_recorded_programmed(observed, generation)),
                waits: report
                    .status
                    .findings
                    .iter()
                    .any(|finding| finding.reason == Reason::CertificateNotYetRead),
            }
        });
        let facts = Facts {
            sequence: output.sequence,
            resources: &output.resources,
            deliveries,
            pods: fleet.pods.as_ref(),
        };
        let mut programmed = self.programmed.judge(generations, facts);
        self.sent.retain(|key, _| output.statuses.contains_key(key));
        self.pending.clear();
        for (key, report) in &*output.statuses {
            // Otherwise the object was replaced, which the next output will know.
            let Some(observed) = standing(key, &report.uid) else {
                continue;
            };
            let desired = Desired::new(report, programmed.remove(key), fleet.addresses.as_ref());
            let stands = self.sent.get(key).is_some_and(|(sent, version)| {
                // Somebody else's write since then counts only if it changed something of ours.
                sent.is_same(&desired)
                    && (observed.version <= *version || !desired.differs(observed))
            });
            if !stands {
                self.pending.insert(key.clone(), Arc::new(desired));
            }
        }
    }

    /// Takes the next one to write.
    pub(super) fn next(&mut self) -> Option<(RouteKey, Arc<Desired>)> {
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.pending.range((after, Bound::Unbounded)).next();
        let key = next
            .or_else(|| self.pending.first_key_value())
            .map(|(key, _)| key.clone())?;
        let desired = self.pending.remove(&key)?;
        self.last = Some(key.clone());
        Some((key, desired))
    }
}
