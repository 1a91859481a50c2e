//! The status listener, for the kubelet and Prometheus: `/healthz`, `/readyz` with its reasons, `/metrics`.
//!
//! Healthy means that the process answers. Ready means that it has a route table, does not drain, and accepts connections; the body of a
//! 503 says what is missing. Nothing here shows a key, and nothing here can be changed.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::capacity::Capacity;
use crate::forward::Body;
use crate::local_http::text;
use crate::metrics::Metrics;
use crate::receive::{Link, LinkState};

/// The content type of OpenMetrics, which prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What readiness and the age of the table are told from.
#[derive(Debug)]
pub(crate) struct Status {
    metrics: Arc<Metrics>,
    capacity: Arc<Capacity>,
    /// How the connection to the controllers stands; absent in standalone.
    link: Option<watch::Receiver<Link>>,
    guards: Mutex<Guards>,
}

#[derive(Debug, Default)]
struct Guards {
    swapped: Option<Instant>,
    draining: bool,
}

impl Status {
    pub(crate) fn new(
        metrics: Arc<Metrics>,
        capacity: Arc<Capacity>,
        link: Option<watch::Receiver<Link>>,
    ) -> Self {
        Self {
            metrics,
            capacity,
            link,
            guards: Mutex::default(),
        }
    }

    /// A table is being served.
    pub(crate) fn table_swapped(&self, generation: u64) {
        self.guards
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .swapped = Some(Instant::now());
        self.metrics.table_swapped(generation);
    }

    pub(crate) fn begin_drain(&self) {
        self.guards
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .draining = true;
    }

    /// How long there has been no leader, and why; nothing while one is followed, or in standalone.
    fn alone(&self) -> Option<String> {
        let link = self.link.as_ref()?.borrow().clone();
        match link.state {
            LinkState::Following => None,
            LinkState::Alone { reason } => {
                let reason = reason.unwrap_or("no controller was dialled yet");
                Some(format!(
                    "no table from a controller for {} s: {reason}",
                    link.since.elapsed().as_secs()
                ))
            }
        }
    }

    /// Why the process is not ready; empty when it is. Losing the controllers is no reason: the last table is served on.
    fn reasons(&self) -> Vec<&'static str> {
        let guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reasons = Vec::new();
        if guards.swapped.is_none() {
            reasons.push("no route table yet");
        }
        if guards.draining {
            reasons.push("draining");
        }
        if self.capacity.is_full() {
            reasons.push("the limit of connections is reached");
        }
        reasons
    }

    pub(crate) fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.reasons() {
                reasons if reasons.is_empty() => text(StatusCode::OK, self.page(&["ready"])),
                reasons => text(StatusCode::SERVICE_UNAVAILABLE, self.page(&reasons)),
            },
            "/metrics" => self.metrics_page(),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n",
            ),
        }
    }

    /// One line each, then how the controllers are.
    fn page(&self, lines: &[&str]) -> String {
        let alone = self.alone();
        let lines = lines.iter().copied().chain(alone.as_deref());
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    fn metrics_page(&self) -> Response<Body> {
        let swapped = self
            .guards
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .swapped;
        let age = swapped.map_or(0.0, |swapped| swapped.elapsed().as_secs_f64());
        if let Some(link) = &self.link {
            self.metrics.show_link(&link.borrow());
        }
        match self.metrics.render(age) {
            Ok(page) => {
                let mut response = text(StatusCode::OK, page);
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
                response
            }
            Err(_) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics could not be written\n",
            ),
        }
    }
}
