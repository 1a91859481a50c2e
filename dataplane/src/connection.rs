//! One client connection: a PROXY header where one is due, TLS, then requests one after the other.
//!
//! accept -> PROXY header -> TLS -> request heads, each answered by `request`. The deadline that begins at accept ends with the first complete head; no stage
//! resets it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use route_table::Hostname;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::Instrument as _;

use crate::capacity::Seat;
use crate::client::Client;
use crate::fields::Scheme;
use crate::forward::Body;
use crate::lingering::Lingering;
use crate::listener::Side;
use crate::proxy_protocol::{self, Ends};
use crate::request::Caller;
use crate::request_id::X_REQUEST_ID;
use crate::run::Shared;
use crate::send_limit::{SendLimit, SendTime};
use crate::tls::{ServerStream, TlsError};

/// What is known of a connection before any request.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    /// Who is at the other end, by a PROXY header if there is one; IPv4 is never written as IPv6.
    pub(crate) peer: SocketAddr,
    /// Where the peer connected to, by the same word.
    destination: SocketAddr,
    /// The hostname that TLS was made for; nothing on the plain listener.
    pub(crate) server_name: Option<Hostname>,
    /// How long the client may take no byte of an answer: `Limits::send` until a rule is known, which has its own.
    pub(crate) send: SendTime,
    /// Whether the last request had a body, of which more may come behind its answer.
    body: Arc<AtomicBool>,
    /// Set with the first complete head, which ends the deadline that began at accept.
    head_seen: AtomicBool,
    /// Held until the connection, and any relay that grew out of it, has ended.
    pub(crate) seat: Arc<Seat>,
}

/// Serves one accepted connection to its end; a relay goes on in a task of its own.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    side: Side,
    mut tcp: TcpStream,
    peer: SocketAddr,
    seat: Seat,
) {
    let limits = &shared.config.limits;
    let deadline = Instant::now() + limits.head;
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "connection was gone before it was served");
        return;
    }
    let own = tcp.local_addr().map(|own| canonical_ends(peer, own));
    let Ok(own) = own else {
        return;
    };
    let Some(ends) = ends_by_proxy_header(&shared, &mut tcp, own, deadline).await else {
        return;
    };
    let mut stream = SendLimit::new(tcp, limits.send);
    let send = stream.share();
    let (stream, server_name) = match side {
        Side::Plain => (ServerStream::Plain(stream), None),
        Side::Tls => match handshake_tls(&shared, stream, deadline).await {
            Some((stream, name)) => (stream, Some(name)),
            None => return,
        },
    };
    let head_seen = AtomicBool::new(false);
    let connection = Arc::new(Connection {
        shared,
        peer: ends.source,
        destination: ends.destination,
        server_name,
        send,
        body: Arc::default(),
        head_seen,
        seat: Arc::new(seat),
    });
    serve_http(&connection, stream, deadline).await;
}

/// A connection's own ends; IPv4 came as IPv6 to a listener for both.
fn canonical_ends(peer: SocketAddr, own: SocketAddr) -> Ends {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    Ends {
        source: canonical(peer),
        destination: canonical(own),
    }
}

/// The ends that the peer speaks for; nothing if it had to say so and did not.
async fn ends_by_proxy_header(
    shared: &Shared,
    tcp: &mut TcpStream,
    own: Ends,
    deadline: Instant,
) -> Option<Ends> {
    let peer = own.source;
    if !proxy_protocol::is_due(peer, &shared.config.proxy_protocol_peers) {
        return Some(own);
    }
    let (outcome, ends) = match proxy_protocol::take(tcp, deadline, &shared.stopping).await {
        Ok(Some(ends)) => ("proxied", Some(ends)),
        Ok(None) => ("local", Some(own)),
        Err(error) => {
            tracing::debug!(%peer, %error, "connection closed");
            (error.label(), None)
        }
    };
    shared.metrics.proxy_header(outcome);
    ends
}

async fn handshake_tls(
    shared: &Shared,
    stream: SendLimit,
    deadline: Instant,
) -> Option<(ServerStream, Hostname)> {
    let (tls, slots) = (&shared.tls, &shared.tls_slots);
    let accepted = timeout_at(
        deadline,
        tls.accept(stream, || shared.table(), slots, &shared.stopping),
    )
    .await;
    let (outcome, accepted) = match accepted {
        Ok(Ok(accepted)) => ("accepted", Some(accepted)),
        Ok(Err(error)) => {
            let cause = if let TlsError::Handshake(cause) = &error {
                cause.to_string()
            } else {
                String::new()
            };
            tracing::debug!(%error, %cause, "no TLS connection");
            (error.label(), None)
        }
        Err(_) => ("timeout", None),
    };
    shared.metrics.tls_handshake(outcome);
    accepted
}

async fn serve_http(connection: &Arc<Connection>, stream: ServerStream, deadline: Instant) {
    let limits = &connection.shared.config.limits;
    let service = service_fn(|request: Request<Incoming>| {
        let connection = connection.clone();
        connection.head_seen.store(true, Ordering::Relaxed);
        let has_body = !request.body().is_end_stream();
        connection.body.store(has_body, Ordering::Relaxed);
        named(connection, request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.keep_alive);
    http.max_buf_size(limits.head_bytes)
        .max_headers(limits.head_fields)
        .title_case_headers(true);
    let stream = Lingering::new(stream, connection.body.clone(), limits.unread_body);
    let serving = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let mut stopping = false;
    let mut deadline_passed = false;
    let ended = loop {
        tokio::select! {
            ended = &mut serving => break ended,
            () = sleep_until(deadline), if !deadline_passed => {
                if !connection.head_seen.load(Ordering::Relaxed) {
                    tracing::debug!("no request head came in time");
                    return;
                }
                deadline_passed = true;
            }
            () = connection.shared.stopping.cancelled(), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended badly");
    }
}

/// Answers a request under its id, which its answer has, a refusal too, and every line of the log.
async fn named(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let shared = &connection.shared;
    let scheme = match connection.server_name {
        Some(_) => Scheme::Https,
        None => Scheme::Http,
    };
    let trusted = &shared.config.trusted_proxies;
    let client = Client::judge(connection.peer, scheme, request.headers(), trusted);
    let id = shared
        .request_ids
        .of(request.headers(), client.peer_is_trusted());
    let span = tracing::debug_span!("request", id = id.to_str().unwrap_or_default());
    let caller = Caller {
        client,
        request_id: id.clone(),
        destination: connection.destination,
    };
    // A future that is awaited where it is made takes its room once; one that has a name takes it twice.
    let mut response = connection.answer(request, &caller).instrument(span).await;
    response.headers_mut().insert(X_REQUEST_ID, id);
    Ok(response)
}

#[cfg(test)]
mod tests;
