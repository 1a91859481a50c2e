//! The metric families, all in one place. Labels come from closed sets; hostnames and addresses are never labels.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::receive::{Link, LinkState};

/// One label with a value from a closed set.
type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    connections: Connections,
    open_sockets: Gauge,
    handshakes: Labelled,
    ordinary: OrdinaryHttp,
    tls_handshakes: TlsHandshakes,
    proxy_headers: Labelled,
    relays_ended: Labelled,
    drained_sockets: Labelled,
    name_lookups: Labelled,
    upstream_connect_failures: Labelled,
    accept_errors: Counter,
    table_generation: Gauge,
    table_swaps: Counter,
    table_age: Gauge<f64, AtomicU64>,
    push_following: Gauge,
    push_state_age: Gauge<f64, AtomicU64>,
    push_rejected: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("ws_ingress"),
            connections: Connections::default(),
            open_sockets: Gauge::default(),
            handshakes: Labelled::default(),
            ordinary: OrdinaryHttp::default(),
            tls_handshakes: TlsHandshakes::default(),
            proxy_headers: Labelled::default(),
            relays_ended: Labelled::default(),
            drained_sockets: Labelled::default(),
            name_lookups: Labelled::default(),
            upstream_connect_failures: Labelled::default(),
            accept_errors: Counter::default(),
            table_generation: Gauge::default(),
            table_swaps: Counter::default(),
            table_age: Gauge::default(),
            push_following: Gauge::default(),
            push_state_age: Gauge::default(),
            push_rejected: Gauge::default(),
        };
        let Self {
            registry,
            connections,
            open_sockets,
            handshakes,
            ordinary,
            tls_handshakes,
            proxy_headers,
            relays_ended,
            drained_sockets,
            name_lookups,
            upstream_connect_failures,
            accept_errors,
            table_generation,
            table_swaps,
            table_age,
            push_following: _,
            push_state_age: _,
            push_rejected: _,
        } = &mut metrics;
        connections.register(registry);
        registry.register(
            "open_sockets",
            "WebSockets that are open now",
            open_sockets.clone(),
        );
        registry.register(
            "handshakes",
            "Requests for a WebSocket by outcome",
            handshakes.clone(),
        );
        ordinary.register(registry);
        tls_handshakes.register(registry);
        registry.register(
            "proxy_headers",
            "Connections that must begin with a PROXY header, by outcome",
            proxy_headers.clone(),
        );
        registry.register(
            "relays_ended",
            "WebSockets that ended, by cause",
            relays_ended.clone(),
        );
        registry.register(
            "drained_sockets",
            "WebSockets that drain closed or cut",
            drained_sockets.clone(),
        );
        registry.register(
            "name_lookups",
            "Look-ups of the names of external backends by outcome; failed_kept: the last answer is used on",
            name_lookups.clone(),
        );
        registry.register(
            "upstream_connect_failures",
            "Connections to endpoints that failed, by cause; no_local_port: the system had no port left for the endpoint",
            upstream_connect_failures.clone(),
        );
        registry.register(
            "accept_errors",
            "Connections that the system refused to accept",
            accept_errors.clone(),
        );
        registry.register(
            "table_generation",
            "Generation of the route table that is served; 0 before the first",
            table_generation.clone(),
        );
        registry.register(
            "table_swaps",
            "Route tables that were swapped in",
            table_swaps.clone(),
        );
        registry.register(
            "table_age_seconds",
            "Seconds since the last swap; absent tables are 0 s old",
            table_age.clone(),
        );
        metrics.register_push();
        metrics
    }

    fn register_push(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "push_following",
            "1 while a leading controller is followed; always 0 in standalone",
            self.push_following.clone(),
        );
        registry.register(
            "push_state_age_seconds",
            "Seconds since a leader was found or lost; 0 in standalone",
            self.push_state_age.clone(),
        );
        registry.register(
            "push_rejected_resources",
            "Resources that are not served as the controller sent them",
            self.push_rejected.clone(),
        );
    }

    pub(crate) fn set_open_connections(&self, open: usize) {
        self.connections.open.set(number(open));
    }

    pub(crate) fn set_connection_limit(&self, limit: usize) {
        self.connections.limit.set(number(limit));
    }

    /// Accepting stopped because the limit of connections was reached.
    pub(crate) fn accept_stopped(&self) {
        self.connections.accept_stops.inc();
    }

    pub(crate) fn set_open_sockets(&self, open: usize) {
        self.open_sockets
            .set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// A request for a WebSocket ended in `outcome`.
    pub(crate) fn handshake(&self, outcome: &'static str) {
        self.handshakes.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// An ordinary request ended in `outcome`.
    pub(crate) fn request(&self, outcome: &'static str) {
        self.ordinary
            .requests
            .get_or_create(&[("outcome", outcome)])
            .inc();
    }

    /// An ordinary request was answered over an upstream connection of this kind.
    pub(crate) fn upstream_request(&self, connection: &'static str) {
        self.ordinary
            .upstream_requests
            .get_or_create(&[("connection", connection)])
            .inc();
    }

    pub(crate) fn set_upstream_idle(&self, idle: usize) {
        self.ordinary
            .upstream_idle
            .set(i64::try_from(idle).unwrap_or(i64::MAX));
    }

    pub(crate) fn tls_handshake(&self, outcome: &'static str) {
        self.tls_handshakes
            .ended
            .get_or_create(&[("outcome", outcome)])
            .inc();
    }

    /// A handshake waits until this is dropped.
    pub(crate) fn tls_handshake_waits(&self) -> impl Drop + use<> {
        self.tls_handshakes.waiting.inc();
        Waiting(self.tls_handshakes.waiting.clone())
    }

    pub(crate) fn proxy_header(&self, outcome: &'static str) {
        self.proxy_headers
            .get_or_create(&[("outcome", outcome)])
            .inc();
    }

    pub(crate) fn relay_ended(&self, ended: crate::relay::Ended) {
        self.relays_ended
            .get_or_create(&[("cause", ended.label())])
            .inc();
    }

    pub(crate) fn drained_socket(&self, cut: bool) {
        let result = if cut { "cut" } else { "closed" };
        self.drained_sockets
            .get_or_create(&[("result", result)])
            .inc();
    }

    pub(crate) fn name_lookup(&self, outcome: &'static str) {
        self.name_lookups
            .get_or_create(&[("outcome", outcome)])
            .inc();
    }

    pub(crate) fn upstream_connect_failed(&self, cause: &'static str) {
        self.upstream_connect_failures
            .get_or_create(&[("cause", cause)])
            .inc();
    }

    pub(crate) fn accept_error(&self) {
        self.accept_errors.inc();
    }

    pub(crate) fn table_swapped(&self, generation: u64) {
        self.table_generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.table_swaps.inc();
    }

    /// How the connection to the controllers stands at this moment.
    pub(crate) fn show_link(&self, link: &Link) {
        self.push_following
            .set(i64::from(link.state == LinkState::Following));
        self.push_state_age.set(link.since.elapsed().as_secs_f64());
        self.push_rejected
            .set(i64::try_from(link.rejected).unwrap_or(i64::MAX));
    }

    /// The text that Prometheus scrapes, at a moment when the table is `table_age_seconds` old.
    pub(crate) fn render(&self, table_age_seconds: f64) -> Result<String, std::fmt::Error> {
        self.table_age.set(table_age_seconds);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// TLS with clients, before any request.
#[derive(Debug, Default)]
struct TlsHandshakes {
    ended: Labelled,
    waiting: Gauge,
}

impl TlsHandshakes {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_handshakes",
            "TLS handshakes by outcome",
            self.ended.clone(),
        );
        registry.register(
            "tls_handshakes_waiting",
            "TLS handshakes that wait until they are computed",
            self.waiting.clone(),
        );
    }
}

/// One more in a gauge while it lives.
struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A count as a gauge has it.
fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Connections of clients, whatever they are for.
#[derive(Debug, Default)]
struct Connections {
    open: Gauge,
    limit: Gauge,
    accept_stops: Counter,
}

impl Connections {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "open_connections",
            "Connections of clients that are open now",
            self.open.clone(),
        );
        registry.register(
            "connection_limit",
            "Connections of clients at which accepting stops; from 95 % of it on new ones are answered 503, both until 90 % are left",
            self.limit.clone(),
        );
        registry.register(
            "accept_stops",
            "Times that accepting stopped because the limit of connections was reached",
            self.accept_stops.clone(),
        );
    }
}

/// What is forwarded and not relayed.
#[derive(Debug, Default)]
struct OrdinaryHttp {
    requests: Labelled,
    upstream_requests: Labelled,
    upstream_idle: Gauge,
}

impl OrdinaryHttp {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "Requests of ordinary HTTP by outcome",
            self.requests.clone(),
        );
        registry.register(
            "upstream_requests",
            "Answered requests of ordinary HTTP by upstream connection: fresh, reused, or retried on a fresh one",
            self.upstream_requests.clone(),
        );
        registry.register(
            "upstream_idle_connections",
            "Upstream connections that wait for their next request",
            self.upstream_idle.clone(),
        );
    }
}
