//! The metric families of the push server. Labels come from closed sets; pods are never labels.

use std::collections::BTreeMap;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use push::OverLimit;
use route_table::ResourceKey;

use super::refusal::Refusal;

type Label = (&'static str, &'static str);

/// What `/metrics` shows of the push. A clone counts into the same families.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    connected: Gauge,
    refusals: Family<[Label; 1], Counter>,
    updates: Family<[Label; 2], Counter>,
    streams_ended: Family<[Label; 1], Counter>,
    sent_bytes: Counter,
    /// For `turns`, which counts in them.
    pub(super) queued_bytes: Gauge,
    pub(super) waiting: Gauge,
    set_resources: Gauge,
    left_out: Family<[Label; 1], Gauge>,
}

/// What an update replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Full,
    Delta,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Applied,
    /// Applied, but for some resources.
    Rejected,
    /// A Nack.
    Refused,
    Unreadable,
    /// The stream ended before the answer.
    Unanswered,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            connected,
            refusals,
            updates,
            streams_ended,
            sent_bytes,
            queued_bytes,
            waiting,
            set_resources,
            left_out,
        } = metrics.clone();
        registry.register(
            "dataplanes_connected",
            "Dataplane pods with a stream",
            connected,
        );
        registry.register(
            "push_refusals",
            "Connections and calls that were turned away, by reason",
            refusals,
        );
        registry.register("push_updates", "Updates by kind and outcome", updates);
        registry.register(
            "push_streams_ended",
            "Streams that ended, by cause",
            streams_ended,
        );
        registry.register(
            "push_sent_bytes",
            "Bytes of updates that were sent",
            sent_bytes,
        );
        registry.register(
            "push_queued_bytes",
            "Bytes of updates that were made and are not yet written to a socket",
            queued_bytes,
        );
        registry.register(
            "push_waiting_streams",
            "Streams that wait for their turn to greet or to be sent a part",
            waiting,
        );
        registry.register(
            "push_set_resources",
            "Resources in the newest set",
            set_resources,
        );
        registry.register(
            "push_left_out_resources",
            "Resources that are over a limit of the push: held as they were, or routes that are left out",
            left_out,
        );
        metrics
    }

    pub(super) fn set_connected(&self, pods: usize) {
        self.connected.set(gauge(pods));
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        let label = [("reason", refusal.label())];
        self.refusals.get_or_create(&label).inc();
    }

    pub(super) fn update(&self, kind: Kind, outcome: Outcome) {
        let kind = match kind {
            Kind::Full => "full",
            Kind::Delta => "delta",
        };
        let outcome = match outcome {
            Outcome::Applied => "applied",
            Outcome::Rejected => "rejected",
            Outcome::Refused => "refused",
            Outcome::Unreadable => "unreadable",
            Outcome::Unanswered => "unanswered",
        };
        let labels = [("kind", kind), ("outcome", outcome)];
        self.updates.get_or_create(&labels).inc();
    }

    pub(super) fn stream_ended(&self, cause: &'static str) {
        self.streams_ended.get_or_create(&[("cause", cause)]).inc();
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    pub(super) fn set_encoded(
        &self,
        resources: usize,
        left_out: &BTreeMap<ResourceKey, OverLimit>,
    ) {
        self.set_resources.set(gauge(resources));
        for (why, label) in [
            (OverLimit::Body, "too_large"),
            (OverLimit::Resources, "too_many_resources"),
            (OverLimit::Bytes, "too_many_bytes"),
        ] {
            let count = left_out.values().filter(|other| **other == why).count();
            let left_out = self.left_out.get_or_create(&[("reason", label)]);
            left_out.set(gauge(count));
        }
    }
}

pub(super) fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
