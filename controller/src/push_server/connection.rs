//! One connection: let in, TLS, HTTP/2, one stream, and the end.
//!
//! It must prove who it is in time, and ends when its stream does: in order if the peer goes along, and by force if not.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service;

use super::Shared;
use super::flight::laden;
use super::limits::{CALLS, HEADER_BYTES, SEND_BUFFER_BYTES, WINDOW_BYTES};
use super::refusal::Refusal;
use super::service::Calls;

/// What a call needs to know of its connection, and tells it.
#[derive(Debug)]
pub(super) struct Progress {
    /// Cancelled when a call has come.
    pub(super) called: CancellationToken,
    /// Cancelled when a token was accepted.
    pub(super) proven: CancellationToken,
    /// Cancelled when the stream is over, or the call refused, and the connection may end.
    pub(super) over: CancellationToken,
}

/// Spawns the tasks of HTTP/2 where they can be waited for.
#[derive(Debug, Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: IpAddr) {
    let began = Instant::now();
    let progress = Arc::new(Progress {
        called: CancellationToken::new(),
        proven: CancellationToken::new(),
        over: CancellationToken::new(),
    });
    let stopped = async {
        shared.stop.cancelled().await;
        if progress.proven.is_cancelled() {
            // The stream ends by itself and needs a moment for its last word.
            std::future::pending::<()>().await;
        }
    };
    let served = async {
        let admission = shared.gate.enter(peer)?;
        let evicted = admission.evicted.clone();
        let served = async {
            let tls = handshake(&shared, tcp, began).await?;
            let calls = Calls {
                shared: shared.clone(),
                peer,
                admission: Mutex::new(Some(admission)),
                progress: progress.clone(),
            };
            speak(&shared, tls, calls, &progress, began).await
        };
        tokio::select! {
            served = served => served,
            () = evicted.cancelled() => Err(Refusal::Evicted),
        }
    };
    let served = tokio::select! {
        served = served => served,
        () = stopped => return,
    };
    if let Err(refusal) = served {
        shared.metrics.refused(&refusal);
        tracing::debug!(%peer, reason = %refusal, "a connection to the push server was refused");
    }
}

async fn handshake(
    shared: &Shared,
    tcp: TcpStream,
    began: Instant,
) -> Result<TlsStream<TcpStream>, Refusal> {
    let config = shared.tls.borrow().clone().ok_or(Refusal::NoCertificate)?;
    // Answers are small, and each is waited for.
    let accepting = match tcp.set_nodelay(true) {
        Ok(()) => TlsAcceptor::from(config).accept(tcp),
        Err(_) => return Err(Refusal::Handshake),
    };
    let accepted = timeout_at(began + shared.limits.arrival, accepting).await;
    let accepted = accepted.map_err(|_| Refusal::HandshakeTimeout)?;
    accepted.map_err(|error| Refusal::of_handshake(&error))
}

async fn speak(
    shared: &Shared,
    tls: TlsStream<TcpStream>,
    calls: Calls,
    progress: &Progress,
    began: Instant,
) -> Result<(), Refusal> {
    let limits = &shared.limits;
    let calls = push::server(calls);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let answering = calls.clone().call(request.map(tonic::body::Body::new));
        async move { answering.await.map(laden) }
    });
    let mut http = http2::Builder::new(Tracked(shared.tasks.clone()));
    http.timer(TokioTimer::new())
        .max_concurrent_streams(CALLS)
        .max_header_list_size(HEADER_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.pong);
    let mut connection = pin!(http.serve_connection(TokioIo::new(tls), service));

    let proved = async {
        let called = timeout_at(began + limits.arrival, progress.called.cancelled());
        called.await.map_err(|_| Refusal::NoCall)?;
        let proven = timeout_at(began + limits.proof, progress.proven.cancelled());
        proven.await.map_err(|_| Refusal::ProofTimeout)
    };
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(|_| Refusal::Http),
        proved = proved => proved?,
        () = progress.over.cancelled() => {}
    }
    tokio::select! {
        // How it broke, the stream says.
        _ = connection.as_mut() => return Ok(()),
        () = progress.over.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    // By force, if it does not end in time.
    drop(timeout(limits.farewell, connection).await);
    Ok(())
}
