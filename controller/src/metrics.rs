//! The metric families of the controller, all in one place. Labels come from closed sets: kinds, outcomes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds of a compile: a small cluster takes a millisecond, 10,000 routes a tenth of a second.
const COMPILE_SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// What is watched; with `--watch-namespace`, one of each for each namespace, which an operator chose.
type ByWatched = Family<[(&'static str, String); 1], Gauge>;

/// What `/metrics` shows, but for the push, which registers its own families.
#[derive(Debug)]
pub(crate) struct Metrics {
    leader: Gauge,
    watch_listed: ByWatched,
    watch_fresh: ByWatched,
    unread_secrets: Gauge,
    undecodable_objects: Gauge,
    routes: Gauge,
    compile_seconds: Histogram,
    publishes: Counter,
    sequence: Gauge,
    status_writes: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            leader: Gauge::default(),
            watch_listed: ByWatched::default(),
            watch_fresh: ByWatched::default(),
            unread_secrets: Gauge::default(),
            undecodable_objects: Gauge::default(),
            routes: Gauge::default(),
            compile_seconds: Histogram::new(COMPILE_SECONDS),
            publishes: Counter::default(),
            sequence: Gauge::default(),
            status_writes: Family::default(),
        };
        let Self {
            leader,
            watch_listed,
            watch_fresh,
            unread_secrets,
            undecodable_objects,
            routes,
            compile_seconds,
            publishes,
            sequence,
            status_writes,
        } = &metrics;
        registry.register(
            "leader",
            "1 while this replica holds the Lease",
            leader.clone(),
        );
        let text = "1 once this was listed; 0 for any holds up the first publish";
        registry.register("watch_listed", text, watch_listed.clone());
        let text = "1 while this is watched; 0 while what is known of it grows stale";
        registry.register("watch_fresh", text, watch_fresh.clone());
        let text = "Secrets that routes refer to and that cannot be read now";
        registry.register("unread_secrets", text, unread_secrets.clone());
        let text = "Objects that are there and cannot be decoded";
        registry.register("undecodable_objects", text, undecodable_objects.clone());
        registry.register("routes", "Routes of our class", routes.clone());
        registry.register(
            "compile_seconds",
            "Seconds of each compile",
            compile_seconds.clone(),
        );
        registry.register(
            "publishes",
            "Sets of resources that were published",
            publishes.clone(),
        );
        registry.register(
            "sequence",
            "Number of the last set that was published",
            sequence.clone(),
        );
        registry.register(
            "status_writes",
            "Writes of a route's status by outcome",
            status_writes.clone(),
        );
        metrics
    }

    pub(crate) fn watched(&self, watched: &str, listed: bool, fresh: bool) {
        for (family, value) in [(&self.watch_listed, listed), (&self.watch_fresh, fresh)] {
            family
                .get_or_create(&[("watched", watched.to_owned())])
                .set(i64::from(value));
        }
    }

    pub(crate) fn unread_secrets(&self, count: usize) {
        self.unread_secrets.set(count_of(count));
    }

    pub(crate) fn undecodable(&self, count: usize) {
        self.undecodable_objects.set(count_of(count));
    }

    pub(crate) fn compiled(&self, seconds: f64, routes: usize) {
        self.compile_seconds.observe(seconds);
        self.routes.set(count_of(routes));
    }

    pub(crate) fn published(&self, sequence: u64) {
        self.publishes.inc();
        self.sequence
            .set(i64::try_from(sequence).unwrap_or(i64::MAX));
    }

    pub(crate) fn status_write(&self, outcome: &'static str) {
        self.status_writes
            .get_or_create(&[("outcome", outcome)])
            .inc();
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }
}

fn count_of(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
