//! A small HTTP listener for people and probes on the same machine: the status and the admin addresses.
//!
//! Answers are made at once from what is in memory; nothing here reaches a backend. Few connections at a time, each for a bounded
//! time, so that a scraper that hangs costs nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::forward::{Body, full};

/// How long one may last: one answer, and no keep-alive. Held open, a few idle ones would keep the kubelet's probes out.
const CONNECTION: Duration = Duration::from_secs(10);
/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves at most `connections` at once, until it is dropped.
pub(crate) async fn serve<A>(listener: TcpListener, connections: usize, answer: A)
where
    A: Fn(&Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
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
        let answer = answer.clone();
        tasks.spawn(async move {
            let _permit = permit;
            let service = service_fn(|request| {
                let answer = answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).keep_alive(false);
            let serving = http.serve_connection(TokioIo::new(tcp), service);
            if let Ok(Err(error)) = timeout(CONNECTION, serving).await {
                tracing::debug!(%error, "connection to a local listener ended badly");
            }
        });
    }
}

/// An answer in plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
