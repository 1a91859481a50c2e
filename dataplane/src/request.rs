//! One request, from its head to its answer.
//!
//! target and host -> rule -> handshake checks -> endpoint -> backend's answer, then `tunnel` for an upgrade. Each stage has its own file;
//! this one orders them and counts how they ended. Until the request is judged no backend is contacted, and until a 101 is proven nothing is
//! tunnelled.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::HeaderValue;
use http::{Request, Response, Uri, request};
use hyper::body::Incoming;
use route_table::{Host, HostTls, Hostname, Matched, NonUpgrade, RouteKey, RouteTable};
use tokio::time::Instant;

use crate::balance::Chosen;
use crate::client::Client;
use crate::connection::Connection;
use crate::fields::{self, Scheme};
use crate::filters;
use crate::forward::{self, Body, empty};
use crate::handshake;
use crate::loops;
use crate::matching::{self, Asks};
use crate::metrics::Metrics;
use crate::proxy_protocol::Ends;
use crate::reject::Reject;
use crate::tunnel;
use crate::upstream::{self, Answer, AnswerLimits};
use crate::{origin, plain};

/// Who asks, and the name of what is asked.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) request_id: HeaderValue,
    /// The address that the client connected to.
    pub(crate) destination: SocketAddr,
}

/// What a request comes to before a backend is chosen.
enum Judged<'a> {
    /// It needs no backend: the outcome that is counted, and the answer.
    Redirected(&'static str, Response<Body>),
    Matched(Matched<'a>),
}

impl Connection {
    /// Answers one request; whatever happens, it is counted once, a client that leaves before the answer too.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Response<Body> {
        let upgrade = handshake::asks_for_websocket(request.headers());
        let metrics = &self.shared.metrics;
        let mut counted = Counted {
            metrics,
            upgrade,
            outcome: "client_left",
        };
        let limits = &self.shared.config.limits;
        let served = if self.seat.is_turned_away() {
            Err(Reject::Crowded)
        } else if target_bytes(&request) > limits.target_bytes {
            Err(Reject::TargetTooLong)
        } else if head_bytes(&request) > limits.head_bytes {
            Err(Reject::HeadTooLarge)
        } else if loops::is_going_round(request.headers()) {
            Err(Reject::Loop)
        } else if upgrade {
            self.upgrade(request, caller).await
        } else {
            // Apart: an upgrade needs less room.
            Box::pin(self.forward(request, caller)).await
        };
        match served {
            Ok((outcome, response)) => {
                counted.outcome = outcome;
                response
            }
            Err(reject) => {
                let client = caller.client.address();
                tracing::debug!(peer = %self.peer, %client, reject = reject.label(), "request refused");
                counted.outcome = reject.label();
                reject.response()
            }
        }
    }

    /// Ordinary HTTP.
    async fn forward(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<(&'static str, Response<Body>), Reject> {
        let (mut head, body) = request.into_parts();
        let table = self.shared.table();
        let matched = match self.judge(&table, &head, Asks::Http, caller)? {
            Judged::Redirected(outcome, response) => return Ok((outcome, response)),
            Judged::Matched(matched) => matched,
        };
        match matched.rule.non_upgrade {
            NonUpgrade::Reject => return Err(Reject::UpgradeRequired),
            NonUpgrade::Forward => {}
        }
        let limit = matched.rule.timeouts.connect;
        let chosen = self.choose(&table, &matched, caller, limit).await?;
        let fields = caller.fields_for(&head.headers, &matched, &chosen);
        let (timeouts, filters) = (matched.rule.timeouts, matched.rule.filters.clone());
        if let Some(target) = filters::target(&matched, &head.uri)? {
            head.uri = target;
        }
        filters::withhold_trailers(&mut head.headers, &filters.request_headers);
        // A long answer must not keep an old table alive.
        drop(table);
        let request = Request::from_parts(head, body);
        let shared = &self.shared;
        self.send.set(timeouts.send);
        let upstreams = forward::Upstreams {
            dialer: &shared.dialer,
            pool: &shared.pool,
            limits: &shared.config.limits,
            tasks: &shared.tasks,
            metrics: &shared.metrics,
        };
        let mut response = forward::forward(request, fields, chosen, timeouts, upstreams).await?;
        filters::to_client(&mut response, &filters);
        Ok(("forwarded", response))
    }

    /// A request for a WebSocket: judged whole, then taken to a backend, then tunnelled if the backend agrees.
    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<(&'static str, Response<Body>), Reject> {
        let started = Instant::now();
        let upgrading = hyper::upgrade::on(&mut request);
        let (mut head, _) = request.into_parts();
        let table = self.shared.table();
        let matched = match self.judge(&table, &head, Asks::WebSocket, caller)? {
            Judged::Redirected(outcome, response) => return Ok((outcome, response)),
            Judged::Matched(matched) => matched,
        };
        let opening = handshake::check_opening(&head)?;
        let limit = matched.rule.timeouts.connect;
        let limit = limit.min(matched.rule.timeouts.handshake);
        let mut chosen = self.choose(&table, &matched, caller, limit).await?;
        let (key, timeouts) = (matched.key.clone(), matched.rule.timeouts);
        let fields = caller.fields_for(&head.headers, &matched, &chosen);
        let filters = matched.rule.filters.clone();
        if let Some(target) = filters::target(&matched, &head.uri)? {
            head.uri = target;
        }
        drop(table);

        self.send.set(timeouts.send);
        let deadline = started + timeouts.handshake;
        let dialer = &self.shared.dialer;
        let stream = upstream::connect(&mut chosen, dialer, &timeouts, deadline).await?;
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
        match upstream::upgrade(stream, request, &opening, answer_limits, deadline).await? {
            Answer::Refused(mut response) => {
                filters::to_client(&mut response, &filters);
                Ok(("refused_by_backend", response))
            }
            Answer::Upgraded(response, upgraded) => {
                let mut response = response.map(|()| empty());
                filters::to_client(&mut response, &filters);
                tunnel::start(self, upgrading, upgraded, chosen.place, timeouts, key);
                Ok(("upgraded", response))
            }
        }
    }

    /// What requests of both kinds are judged by before a backend is chosen, in this order.
    fn judge<'a>(
        &self,
        table: &'a RouteTable,
        head: &request::Parts,
        asks: Asks,
        caller: &Caller,
    ) -> Result<Judged<'a>, Reject> {
        let hostname = handshake::check_host_and_path(head)?;
        let hostname = hostname.as_ref();
        if let Some(redirect) = self.without_tls(table, hostname, &head.uri, caller)? {
            return Ok(Judged::Redirected("redirected_to_https", redirect));
        }
        let matched = self.find(table, hostname, head, asks, caller)?;
        match asks {
            Asks::Http => origin::check_ordinary(&head.headers, &matched.rule.origins)?,
            Asks::WebSocket => origin::check_upgrade(&head.headers, &matched.rule.origins)?,
        }
        let redirect = filters::redirect(&matched, &head.uri, &caller.client)?;
        Ok(match redirect {
            Some(redirect) => Judged::Redirected("redirected", redirect),
            None => Judged::Matched(matched),
        })
    }

    /// What the plain listener answers itself.
    fn without_tls(
        &self,
        table: &RouteTable,
        hostname: Option<&Hostname>,
        target: &Uri,
        caller: &Caller,
    ) -> Result<Option<Response<Body>>, Reject> {
        match caller.client.scheme() {
            // A trusted proxy ended TLS: a redirect would come back through it, for ever.
            Scheme::Https => return Ok(None),
            Scheme::Http if self.server_name.is_some() => return Ok(None),
            Scheme::Http => {}
        }
        let public_port = self.shared.config.https_public_port;
        plain::check(table, hostname, target, public_port)
    }

    /// The rule for a request. Over TLS the Host must fall under the hostname that TLS was made for: its certificate and policy
    /// are not those of another (RFC 9110 §7.4).
    fn find<'a>(
        &self,
        table: &'a RouteTable,
        hostname: Option<&Hostname>,
        head: &request::Parts,
        asks: Asks,
        caller: &Caller,
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
        let client_over_tls = over_tls || caller.client.scheme() == Scheme::Https;
        let host: &Host = host
            .filter(|host| match host.tls() {
                HostTls::Terminate { .. } => client_over_tls || host.tls().serves_plain(),
                HostTls::None => !over_tls,
            })
            .ok_or(Reject::NoHost)?;
        let matched = matching::find(host, head, asks).ok_or(Reject::NoRule)?;
        if matched.closed {
            return Err(Reject::Unsupported);
        }
        Ok(matched)
    }

    /// An endpoint for the request. Where there is none, a name that was never looked up is waited for until `limit`.
    async fn choose(
        &self,
        table: &RouteTable,
        matched: &Matched<'_>,
        caller: &Caller,
        limit: Duration,
    ) -> Result<Chosen, Reject> {
        let (rule, names) = (matched.rule, &self.shared.names);
        let take = || self.shared.loads.take(table, rule, names, caller.ends());
        if let Some(chosen) = take() {
            return Ok(chosen);
        }
        names.ready(table, rule, limit).await;
        take().ok_or(Reject::NoEndpoint)
    }
}

impl Caller {
    /// The ends of the client's connection, as a PROXY header tells a backend that wants one.
    fn ends(&self) -> Ends {
        Ends {
            source: self.client.address(),
            destination: self.destination,
        }
    }

    fn fields_for(
        &self,
        sent: &http::HeaderMap,
        matched: &Matched<'_>,
        chosen: &Chosen,
    ) -> http::HeaderMap {
        let RouteKey { namespace, name } = matched.key;
        let rule = [&**namespace, name, &matched.rule.name].join("/");
        let facts = fields::Facts {
            client: &self.client,
            request_id: &self.request_id,
            rule: &rule,
        };
        let mut fields = fields::to_backend(sent, facts);
        // An external backend is asked for by its own name, unless a filter gives another.
        if let Some(external) = &chosen.external {
            fields::set_host(&mut fields, &external.authority());
        }
        filters::to_backend(&mut fields, &matched.rule.filters);
        fields
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

fn target_bytes(request: &Request<Incoming>) -> usize {
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |part| part.as_str().len());
    let path = uri.path_and_query().map_or(0, |part| part.as_str().len());
    authority + path
}

/// About the bytes of a request head as it came: hyper's own limit may be passed by what one read brings at once.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let fields = request.headers().iter();
    // ": " and the line end.
    target_bytes(request)
        + fields
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum::<usize>()
}
