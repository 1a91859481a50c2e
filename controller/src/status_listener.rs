//! The status listener, for the kubelet and Prometheus: `/healthz`, `/readyz` with its reasons, `/metrics`.
//!
//! Nothing here shows a key, and nothing here can be changed.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::health::Health;
use crate::leader::{Leadership, Standing};

/// The content type of OpenMetrics, which prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at once: a kubelet, a few Prometheus servers, a person.
const CONNECTIONS: usize = 32;
/// How long one may last: one answer, and no keep-alive. Held open, a few idle ones would keep the kubelet's probes out.
const CONNECTION: Duration = Duration::from_secs(10);
/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the pages are made of.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) health: Arc<Health>,
    pub(crate) standing: Standing,
    /// With the families of everybody.
    pub(crate) registry: Registry,
}

/// Listens; where there is no IPv6, `[::]` means every IPv4 address.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip().is_unspecified()
                && address.is_ipv6()
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Serves until it is dropped.
pub(crate) async fn serve(pages: Arc<Pages>, listener: TcpListener) {
    let tasks = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let Ok((tcp, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let pages = pages.clone();
        tasks.spawn(async move {
            let _permit = permit;
            let service = service_fn(|request| {
                let answer = pages.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).keep_alive(false);
            let serving = http.serve_connection(TokioIo::new(tcp), service);
            if let Ok(Err(error)) = timeout(CONNECTION, serving).await {
                tracing::debug!(%error, "status connection ended badly");
            }
        });
    }
}

impl Pages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n",
            ),
        }
    }

    fn leads(&self) -> bool {
        match self.standing.now() {
            Leadership::Leader(_) => true,
            Leadership::Follower => false,
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let reasons = self.health.reasons();
        let (status, mut lines) = match reasons.is_empty() {
            true if self.leads() => (StatusCode::OK, vec!["ready, leads".to_owned()]),
            true => (StatusCode::OK, vec!["ready, follows".to_owned()]),
            false => (StatusCode::SERVICE_UNAVAILABLE, reasons),
        };
        let warnings = self.health.warnings().into_iter();
        lines.extend(warnings.map(|warning| format!("warning: {warning}")));
        text(status, lines.join("\n") + "\n")
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.health.metrics.leads(self.leads());
        let mut page = String::new();
        if encode(&mut page, &self.registry).is_err() {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics could not be written\n",
            );
        }
        let mut response = text(StatusCode::OK, page);
        let open_metrics = HeaderValue::from_static(OPEN_METRICS);
        response.headers_mut().insert(CONTENT_TYPE, open_metrics);
        response
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
