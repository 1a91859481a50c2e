//! The story of one client connection, top to bottom.
//!
//! accept -> TLS -> request head -> target and host -> rule -> handshake checks -> endpoint -> backend's answer -> relay. Each stage
//! has its own file; this one orders them, gives them their deadlines and counts how they ended. Until a 101 is proven nothing
//! is tunnelled, and until the request is judged no backend is contacted.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use route_table::{Host, HostTls, Hostname, Matched, NonUpgrade, RouteTable, Timeouts};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::balance::Place;
use crate::fields::{self, Client, Scheme};
use crate::forward::{self, Body, empty};
use crate::handshake;
use crate::listener::Side;
use crate::metrics::Metrics;
use crate::reject::Reject;
use crate::relay::{self, Relay};
use crate::run::Shared;
use crate::send_limit::SendLimit;
use crate::tls::{ServerStream, TlsError};
use crate::upstream::{self, Answer, AnswerLimits, Upgraded};

/// What is known of a connection before any request.
struct Connection {
    shared: Arc<Shared>,
    peer: IpAddr,
    /// The hostname that TLS was made for; nothing on the plain listener.
    server_name: Option<Hostname>,
    /// Set with the first complete head, which ends the deadline that began at accept.
    head_seen: AtomicBool,
    /// Held until the connection, and any relay that grew out of it, has ended.
    permit: Arc<OwnedSemaphorePermit>,
}

/// Serves one accepted connection to its end; a relay goes on in a task of its own.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    side: Side,
    tcp: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let limits = &shared.config.limits;
    let deadline = Instant::now() + limits.head;
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "connection was gone before it was served");
        return;
    }
    let stream = SendLimit::new(tcp, limits.send);
    let (stream, server_name) = match side {
        Side::Plain => (ServerStream::Plain(stream), None),
        Side::Tls => match handshake_tls(&shared, stream, deadline).await {
            Some((stream, name)) => (stream, Some(name)),
            None => return,
        },
    };
    let head_seen = AtomicBool::new(false);
    let peer = peer.ip().to_canonical();
    let connection = Arc::new(Connection {
        shared,
        peer,
        server_name,
        head_seen,
        permit: Arc::new(permit),
    });
    serve_http(&connection, stream, deadline).await;
}

async fn handshake_tls(
    shared: &Shared,
    stream: SendLimit,
    deadline: Instant,
) -> Option<(ServerStream, Hostname)> {
    let table = shared.table();
    let (outcome, accepted) = match timeout_at(
        deadline,
        shared.tls.accept(stream, &table, &shared.stopping),
    )
    .await
    {
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
    let service = service_fn(|request| {
        let connection = connection.clone();
        connection.head_seen.store(true, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(connection.answer(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.keep_alive);
    http.max_buf_size(limits.head_bytes)
        .max_headers(limits.head_fields)
        .title_case_headers(true);
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

impl Connection {
    /// Answers one request; whatever happens, it is counted once, a client that leaves before the answer too.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let upgrade = handshake::asks_for_websocket(request.headers());
        let metrics = &self.shared.metrics;
        let mut counted = Counted {
            metrics,
            upgrade,
            outcome: "client_left",
        };
        let served = if head_bytes(&request) > self.shared.config.limits.head_bytes {
            Err(Reject::HeadTooLarge)
        } else if upgrade {
            self.upgrade(request).await
        } else {
            self.forward(request).await
        };
        match served {
            Ok((outcome, response)) => {
                counted.outcome = outcome;
                response
            }
            Err(reject) => {
                tracing::debug!(peer = %self.peer, reject = reject.label(), "request refused");
                counted.outcome = reject.label();
                reject.response()
            }
        }
    }

    /// Ordinary HTTP.
    async fn forward(
        &self,
        request: Request<Incoming>,
    ) -> Result<(&'static str, Response<Body>), Reject> {
        let (head, body) = request.into_parts();
        let hostname = handshake::check_host_and_path(&head)?;
        let table = self.shared.table();
        let matched = self.find(&table, hostname.as_ref(), head.uri.path())?;
        match matched.rule.non_upgrade {
            NonUpgrade::Reject => return Err(Reject::UpgradeRequired),
            NonUpgrade::Forward => {}
        }
        let place = self
            .shared
            .loads
            .take(&table, matched.rule)
            .ok_or(Reject::NoEndpoint)?;
        let fields = self.fields_for(&head.headers, &matched);
        let timeouts = matched.rule.timeouts;
        // A long answer must not keep an old table alive.
        drop(table);
        let request = Request::from_parts(head, body);
        let shared = &self.shared;
        let response = forward::forward(
            request,
            fields,
            place,
            timeouts,
            &shared.config.limits,
            &shared.tasks,
        )
        .await?;
        Ok(("forwarded", response))
    }

    /// A request for a WebSocket: judged whole, then taken to a backend, then tunnelled if the backend agrees.
    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
    ) -> Result<(&'static str, Response<Body>), Reject> {
        let started = Instant::now();
        let upgrading = hyper::upgrade::on(&mut request);
        let (head, _) = request.into_parts();
        let hostname = handshake::check_host_and_path(&head)?;
        let table = self.shared.table();
        let matched = self.find(&table, hostname.as_ref(), head.uri.path())?;
        let opening = handshake::check_opening(&head)?;
        let place = self
            .shared
            .loads
            .take(&table, matched.rule)
            .ok_or(Reject::NoEndpoint)?;
        let (key, timeouts) = (matched.key.clone(), matched.rule.timeouts);
        let fields = self.fields_for(&head.headers, &matched);
        drop(table);

        let deadline = started + timeouts.handshake;
        let tcp = upstream::connect(place.address(), timeouts.connect, deadline).await?;
        let limits = &self.shared.config.limits;
        let answer_limits = AnswerLimits {
            head_bytes: limits.head_bytes,
            head_fields: limits.head_fields,
            read: timeouts.read,
        };
        let target = upstream::origin_form(&head.uri);
        let request = upstream::Request {
            target: &target,
            fields,
        };
        let stream = SendLimit::new(tcp, timeouts.send);
        match upstream::upgrade(stream, request, &opening, answer_limits, deadline).await? {
            Answer::Refused(response) => Ok(("refused_by_backend", response)),
            Answer::Upgraded(upgraded) => {
                let response = upgraded.response.clone().map(|()| empty());
                self.start_relay(upgrading, *upgraded, place, timeouts, key);
                Ok(("upgraded", response))
            }
        }
    }

    /// The rule for a request. Over TLS the Host must fall under the hostname that TLS was made for: its certificate and policy
    /// are not those of another (RFC 9110 §7.4).
    fn find<'a>(
        &self,
        table: &'a RouteTable,
        hostname: Option<&Hostname>,
        path: &str,
    ) -> Result<Matched<'a>, Reject> {
        let host = hostname.and_then(|name| table.host(name));
        let over_tls = match &self.server_name {
            Some(name) => {
                let served = table.host(name).map(|host| host.pattern());
                if hostname != Some(name) && served != host.map(|host| host.pattern()) {
                    return Err(Reject::Misdirected);
                }
                true
            }
            None => false,
        };
        let host: &Host = host
            .filter(|host| matches!(host.tls(), HostTls::Terminate { .. }) == over_tls)
            .ok_or(Reject::NoHost)?;
        let matched = host.find(path).ok_or(Reject::NoRule)?;
        if matched.route.closed {
            return Err(Reject::Unsupported);
        }
        Ok(matched)
    }

    fn fields_for(&self, sent: &http::HeaderMap, matched: &Matched<'_>) -> http::HeaderMap {
        let scheme = if self.server_name.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let rule = format!("{}/{}", matched.key, matched.rule.name);
        fields::to_backend(
            sent,
            Client {
                address: self.peer,
                scheme,
                rule: &rule,
            },
        )
    }

    /// Starts the relay in a task of its own, so that nothing of HTTP stays in memory with it.
    fn start_relay(
        &self,
        upgrading: OnUpgrade,
        upgraded: Upgraded,
        place: Place,
        timeouts: Timeouts,
        key: route_table::RouteKey,
    ) {
        let (shared, permit) = (self.shared.clone(), self.permit.clone());
        self.shared.tasks.spawn(async move {
            let Some((downstream, early)) = take_stream(upgrading, &shared).await else {
                return;
            };
            let limits = &shared.config.limits;
            let (registered, signal) = shared.relays.register(key);
            let relay = Relay {
                downstream,
                upstream: upgraded.stream,
                to_upstream: early,
                to_downstream: upgraded.leftover,
                limits: relay::Limits {
                    read: timeouts.read,
                    send: timeouts.send,
                    half_close: limits.half_close,
                    close_linger: limits.close_linger,
                },
                frames_are_known: upgraded.agreed.frames_are_known,
                signal,
            };
            let ended = relay::run(relay).await;
            tracing::debug!(cause = ended.label(), "relay ended");
            shared.metrics.relay_ended(ended);
            registered.end(ended);
            drop((permit, place));
        });
    }
}

/// Counts a request when it is dropped: hyper drops it unanswered when the client leaves.
struct Counted<'a> {
    metrics: &'a Metrics,
    upgrade: bool,
    outcome: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.upgrade {
            self.metrics.handshake(self.outcome);
        } else {
            self.metrics.request(self.outcome);
        }
    }
}

/// About the bytes of a request head as it came: hyper's own limit may be passed by what one read brings at once.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter();
    // ": " and the line end.
    target
        + fields
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum::<usize>()
}

/// Takes the client's stream back from hyper once the 101 is written, with the bytes that came early.
async fn take_stream(upgrading: OnUpgrade, shared: &Shared) -> Option<(ServerStream, Bytes)> {
    match timeout(shared.config.limits.head, upgrading).await {
        Ok(Ok(upgraded)) => {
            let parts = upgraded.downcast::<TokioIo<ServerStream>>().ok()?;
            Some((parts.io.into_inner(), parts.read_buf))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "client left before the 101 was written");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
