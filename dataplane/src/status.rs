//! The status listener, for the kubelet and Prometheus: `/healthz`, `/readyz` with its reasons, `/metrics`.
//!
//! Healthy means that the process answers. Ready means that it has a route table and does not drain; the body of a 503 says what
//! is missing. Nothing here shows a key, and nothing here can be changed.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::forward::{Body, full};
use crate::metrics::Metrics;

/// The content type of OpenMetrics, which prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a scraper may hold one of the few connections without asking for anything.
const IDLE: Duration = Duration::from_secs(90);
/// How long one connection may last in all; scrapers connect again.
const CONNECTION: Duration = Duration::from_hours(1);
/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What readiness and the age of the table are told from.
#[derive(Debug)]
pub(crate) struct Status {
    metrics: Arc<Metrics>,
    guards: Mutex<Guards>,
}

#[derive(Debug, Default)]
struct Guards {
    swapped: Option<Instant>,
    draining: bool,
}

impl Status {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
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

    /// Why the process is not ready; empty when it is.
    fn reasons(&self) -> Vec<&'static str> {
        let guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reasons = Vec::new();
        if guards.swapped.is_none() {
            reasons.push("no route table yet");
        }
        if guards.draining {
            reasons.push("draining");
        }
        reasons
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.reasons() {
                reasons if reasons.is_empty() => text(StatusCode::OK, "ready\n"),
                reasons => text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
            },
            "/metrics" => self.metrics_page(),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n",
            ),
        }
    }

    fn metrics_page(&self) -> Response<Body> {
        let swapped = self
            .guards
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .swapped;
        let age = swapped.map_or(0.0, |swapped| swapped.elapsed().as_secs_f64());
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

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// Serves at most `connections` at once, until it is dropped.
pub(crate) async fn serve(status: Arc<Status>, listener: TcpListener, connections: usize) {
    let tasks = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(connections));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let Ok((tcp, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let status = status.clone();
        tasks.spawn(async move {
            let _permit = permit;
            let service = service_fn(|request| {
                let answer = status.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE);
            let serving = http.serve_connection(TokioIo::new(tcp), service);
            if let Ok(Err(error)) = timeout(CONNECTION, serving).await {
                tracing::debug!(%error, "status connection ended badly");
            }
        });
    }
}
