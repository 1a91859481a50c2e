//! What a Lease says, when we saw it, and what follows from that. Pure: the time is an argument.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use push::Fence;
use tokio::time::Instant;

/// How long a Lease holds after it was last seen to change. client-go's usual 15 s and 2 s between looks add up to a takeover
/// after more than 15 s; with 10 s a killed leader is followed within that, and three renewals may still fail.
pub(super) const LEASE_DURATION: Duration = Duration::from_secs(10);
/// Longest duration that is believed: another version may have its own, but a slip of the pen must not end all writing.
const LONGEST_BELIEVED: Duration = Duration::from_mins(1);

/// Names one process: the pod's uid, then a random part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pod: String,
    full: Arc<str>,
}

impl Identity {
    /// Outside a cluster there is no pod; then no other process is known to be an earlier one of ours.
    pub(crate) fn new(pod_uid: Option<&str>) -> Self {
        let random = format!("{:016x}", fastrand::u64(..));
        let pod = pod_uid.map_or_else(|| format!("{:016x}", fastrand::u64(..)), ToOwned::to_owned);
        let full = format!("{pod}_{random}").into();
        Self { pod, full }
    }

    /// Whether `holder` is an earlier process of the same pod: it is dead, because a container ends before it is started again.
    fn succeeds(&self, holder: &str) -> bool {
        let pod = holder.rsplit_once('_').map(|(pod, _)| pod);
        pod == Some(&self.pod) && holder != &*self.full
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// A Lease as it was read last.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    lease: Lease,
    uid: String,
    /// When what its holder writes was first seen as it is now.
    since: Instant,
}

/// What to do about a Lease.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// Somebody else holds it.
    Wait,
    /// There is none.
    Create(Lease),
    /// It is ours, or free: write this.
    Write(Lease),
}

impl Seen {
    /// Remembers a Lease; nothing if it lacks what every stored object has.
    pub(super) fn new(lease: Lease, before: Option<Self>, now: Instant) -> Option<Self> {
        lease.metadata.resource_version.as_ref()?;
        let uid = lease.metadata.uid.clone()?;
        let since = match before {
            // Only what the holder writes shows that it lives; others may label the Lease.
            Some(before) if before.uid == uid && before.lease.spec == lease.spec => before.since,
            Some(_) | None => now,
        };
        Some(Self { lease, uid, since })
    }

    fn spec(&self) -> LeaseSpec {
        self.lease.spec.clone().unwrap_or_default()
    }

    fn holder(&self) -> Option<String> {
        self.spec()
            .holder_identity
            .filter(|holder| !holder.is_empty())
    }

    /// When nobody holds it any more, unless it changes.
    pub(super) fn expires(&self) -> Instant {
        let seconds = self.spec().lease_duration_seconds;
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(LEASE_DURATION, Duration::from_secs);
        self.since + duration.min(LONGEST_BELIEVED)
    }

    /// Until when its holder may lead though the Lease was deleted; nothing if that is us, an earlier process of our pod, or
    /// nobody. Another Lease has another uid, so that no fence would tell the two leaders apart.
    pub(super) fn occupied_until(&self, identity: &Identity) -> Option<Instant> {
        let holder = self.holder()?;
        let ours = holder == *identity.full || identity.succeeds(&holder);
        (!ours).then(|| self.expires())
    }

    pub(super) fn fence(&self) -> Fence {
        let transitions = self.spec().lease_transitions.unwrap_or_default();
        Fence {
            lease_uid: self.uid.clone(),
            transitions: u64::try_from(transitions).unwrap_or_default(),
        }
    }

    /// The same Lease without a holder.
    pub(super) fn released(&self) -> Lease {
        self.with(LeaseSpec {
            holder_identity: Some(String::new()),
            renew_time: Some(wall_clock()),
            ..self.spec()
        })
    }

    /// Another spec for it, valid only if nobody wrote it meanwhile; everything else stays as others made it.
    fn with(&self, spec: LeaseSpec) -> Lease {
        let mut lease = self.lease.clone();
        lease.metadata.managed_fields = None;
        lease.spec = Some(spec);
        lease
    }
}

/// What follows from the Lease as it was seen last.
pub(super) fn decide(seen: Option<&Seen>, identity: &Identity, now: Instant) -> Decision {
    let Some(seen) = seen else {
        return Decision::Create(Lease {
            metadata: ObjectMeta::default(),
            spec: Some(held_by(identity, LeaseSpec::default(), 0)),
        });
    };
    let spec = seen.spec();
    let transitions = spec.lease_transitions.unwrap_or_default();
    match seen.holder() {
        Some(holder) if holder == *identity.full => {
            let acquired = spec.acquire_time.clone();
            let mut spec = held_by(identity, spec, transitions);
            spec.acquire_time = acquired.or(spec.acquire_time);
            Decision::Write(seen.with(spec))
        }
        Some(holder) if !identity.succeeds(&holder) && now < seen.expires() => Decision::Wait,
        Some(_) | None => {
            let spec = held_by(identity, spec, transitions.saturating_add(1));
            Decision::Write(seen.with(spec))
        }
    }
}

/// The wall clock is for people only; nobody compares it.
fn held_by(identity: &Identity, spec: LeaseSpec, transitions: i32) -> LeaseSpec {
    let now = wall_clock();
    LeaseSpec {
        holder_identity: Some(identity.to_string()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        lease_transitions: Some(transitions),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        ..spec
    }
}

fn wall_clock() -> MicroTime {
    MicroTime(Timestamp::now())
}

#[cfg(test)]
mod tests;
