//! Ordinary HTTP on a rule with `nonUpgrade: Forward`: one request, streamed both ways by hyper.
//!
//! In: a request that asks for no WebSocket and the endpoint that takes it. Out: the backend's answer, or a [`Reject`]. Neither body is
//! ever held whole. The upstream connection comes from the pool or is made, and goes back only when both messages ended cleanly on it;
//! everything else closes it. A request is sent a second time only when that cannot be noticed: nothing of it was sent, or it is
//! idempotent, has no body, and a connection that had been idle ended without a byte. A client that goes away ends the upstream request
//! (one that had sent more behind it at the latest after `timeouts.read`: nobody reads on to see it go), and a backend that breaks off
//! never looks complete.
//!
//! Interim answers end here: a 100 starts the upload, and 103 is dropped, since hyper's server cannot send it.

mod body;
mod connection;
mod trailers;
mod upload;

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use route_table::Timeouts;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use self::body::BodyError;
pub(crate) use self::body::{Body, empty, full, sent_before_failure, within};
pub(crate) use self::connection::Connection;
use self::connection::Unanswered;
use self::upload::Upload;
use crate::balance::{Chosen, Place};
use crate::config::Limits;
use crate::fields::{self, TransferCoding};
use crate::metrics::Metrics;
use crate::pool::{Home, Key, Pool};
use crate::reject::Reject;
use crate::upstream::{self, Dialer};

/// How long a connection has after the last byte of an answer to be clean: hyper needs one turn for that.
const SETTLE: Duration = Duration::from_secs(1);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What forwarding needs of the process.
pub(crate) struct Upstreams<'a> {
    pub(crate) dialer: &'a Dialer,
    pub(crate) pool: &'a Pool<Connection>,
    pub(crate) limits: &'a Limits,
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) metrics: &'a Metrics,
}

/// Forwards one request; `fields` are those for the backend.
pub(crate) async fn forward(
    request: Request<Incoming>,
    fields: HeaderMap,
    mut chosen: Chosen,
    timeouts: Timeouts,
    upstreams: Upstreams<'_>,
) -> Result<Response<Body>, Reject> {
    let (mut request, upload) = rewrite(request, fields, upstreams.limits)?;
    upload.listen(&mut request);
    let mut way = Way {
        key: Key::of(&chosen),
        chosen: &mut chosen,
        upload: &upload,
        timeouts,
        upstreams,
    };
    let (answer, connection) = way.ask(request).await?;
    upload.answered();
    let (mut head, body) = answer.into_parts();
    let coding = fields::transfer_coding(&head.headers);
    // HTTP/1.0 knows no chunks (RFC 9112 §6.1).
    let chunked_1_0 = head.version == Version::HTTP_10 && coding == Some(TransferCoding::Chunked);
    let framed = coding.is_some() && !chunked_1_0 && fields::lengths_are_numbers(&head.headers);
    if head.status == StatusCode::SWITCHING_PROTOCOLS || !framed {
        return Err(Reject::BadAnswer);
    }
    let keep = keep_for(&head.headers, head.version, way.upstreams.limits);
    let announced = trailers::announced(&head.headers);
    head.headers = fields::to_client(head.status, &head.headers);
    trailers::announce(announced, &mut head.headers);
    head.version = Version::HTTP_11;
    let mut passing = Passing {
        body,
        lent: Some(Lent {
            connection,
            keep,
            upload: upload.clone(),
            pool: way.upstreams.pool.clone(),
            tasks: way.upstreams.tasks.clone(),
            _place: chosen.place,
        }),
    };
    if http_body::Body::is_end_stream(&passing.body) {
        passing.give_back();
    }
    let body = within(passing.boxed_unsync(), timeouts.read);
    Ok(Response::from_parts(head, sent_before_failure(body)))
}

/// The request as the backend gets it: origin-form, HTTP/1.1, our fields.
fn rewrite(
    request: Request<Incoming>,
    mut fields: HeaderMap,
    limits: &Limits,
) -> Result<(Request<Body>, Upload), Reject> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().cloned().ok_or(Reject::Target)?;
    let body: Body = body.map_err(Into::into).boxed_unsync();
    let has_body = !http_body::Body::is_end_stream(&body);
    // hyper would leave out a GET's body of unknown length.
    if has_body && !fields.contains_key(CONTENT_LENGTH) {
        fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    trailers::pass_on(&head.headers, &mut fields);
    // It means nothing from HTTP/1.0 (RFC 9110 §10.1.1), or without a body.
    let expects = if has_body && head.version == Version::HTTP_11 {
        let expected = fields.get(EXPECT);
        expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    } else {
        fields.remove(EXPECT);
        false
    };
    let body = within(body, limits.request_body);
    let (upload, body) = Upload::watch(body, expects.then_some(limits.expect));
    let mut rewritten = Request::new(body);
    *rewritten.method_mut() = head.method;
    *rewritten.uri_mut() = Uri::from(target);
    *rewritten.headers_mut() = fields;
    Ok((rewritten, upload))
}

/// One request's way to its endpoint.
struct Way<'a> {
    /// Nothing if a connection of this client's is nobody else's.
    key: Option<Key>,
    chosen: &'a mut Chosen,
    upload: &'a Upload,
    timeouts: Timeouts,
    upstreams: Upstreams<'a>,
}

/// A connection in use, and its way back if it has one.
struct InUse {
    connection: Connection,
    home: Option<Home>,
}

impl Way<'_> {
    /// Sends the request over an idle connection or a fresh one, and over a fresh one if an idle one turns out to be dead.
    async fn ask(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, InUse), Reject> {
        let Upstreams { pool, metrics, .. } = self.upstreams;
        let mut kind = "fresh";
        let idle = self.key.as_ref().and_then(|key| pool.take(key));
        if let Some((connection, home)) = idle {
            let copy = repeatable(&request, self.upload);
            let mut in_use = InUse {
                connection,
                home: Some(home),
            };
            match self.send(&mut in_use, request).await? {
                Ok(answer) => {
                    metrics.upstream_request("reused");
                    return Ok((answer, in_use));
                }
                Err(failed) => {
                    let copy = copy.filter(|_| failed.ended_silently);
                    let Some(again) = failed.unsent.map(|unsent| *unsent).or(copy) else {
                        return Err(self.reject(&failed.error));
                    };
                    tracing::debug!(error = %failed.error, "idle connection was dead; asking once more");
                    request = again;
                    kind = "retried";
                }
            }
        }
        let mut in_use = self.connect().await?;
        let sent = self.send(&mut in_use, request).await?;
        let answer = sent.map_err(|failed| self.reject(&failed.error))?;
        metrics.upstream_request(kind);
        Ok((answer, in_use))
    }

    async fn connect(&mut self) -> Result<InUse, Reject> {
        let Upstreams {
            pool,
            dialer,
            limits,
            tasks,
            ..
        } = self.upstreams;
        let home = self.key.clone().and_then(|key| pool.home(key));
        let wanted = self.chosen.place.address();
        let deadline = Instant::now() + self.timeouts.connect;
        let mut stream = upstream::connect(self.chosen, dialer, &self.timeouts, deadline).await?;
        let send = stream.socket().share();
        let connection = Connection::new(stream, send, limits, tasks).await;
        let connection = connection.map_err(|error| self.reject(&error))?;
        // Where another endpoint had to do, the connection is for this one request.
        let home = home.filter(|_| self.chosen.place.address() == wanted);
        Ok(InUse { connection, home })
    }

    async fn send(
        &self,
        in_use: &mut InUse,
        request: Request<Body>,
    ) -> Result<Result<Response<Incoming>, Unanswered>, Reject> {
        self.upload.begin();
        let asking = in_use.connection.ask(request, self.timeouts.send);
        tokio::select! {
            answer = asking => Ok(answer),
            () = self.upload.silence(self.timeouts.read) => Err(Reject::AnswerTimeout),
        }
    }

    fn reject(&self, error: &hyper::Error) -> Reject {
        tracing::debug!(%error, "backend gave no answer");
        if self.upload.client_was_silent() {
            Reject::BodyTimeout
        } else if self.upload.is_broken() {
            Reject::BrokenBody
        } else if error.is_parse() {
            Reject::BadAnswer
        } else if is_timeout(error) {
            Reject::AnswerTimeout
        } else {
            Reject::Unreachable
        }
    }
}

/// Whether a write to the backend waited for too long.
fn is_timeout(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::TimedOut;
        }
        cause = error.source();
    }
    false
}

/// A copy of a request that may be sent twice (RFC 9110 §9.2.2): idempotent, and without a body.
fn repeatable(request: &Request<Body>, upload: &Upload) -> Option<Request<Body>> {
    let idempotent = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ];
    if !upload.is_complete() || !idempotent.contains(request.method()) {
        return None;
    }
    let mut copy = Request::new(empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// How long the connection may wait after this answer: less than the backend says that it waits itself (`Keep-Alive: timeout=5`, which
/// Node and Apache send), by a second for the way there. HTTP/1.0 has no persistence that is worth the doubt.
fn keep_for(headers: &HeaderMap, version: Version, limits: &Limits) -> Duration {
    if version != Version::HTTP_11 {
        return Duration::ZERO;
    }
    let said = headers.get(KEEP_ALIVE).and_then(|value| {
        let parameters = value.to_str().ok()?.split(',');
        let timeout = parameters
            .filter_map(|parameter| parameter.trim().split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
        timeout?.1.trim().trim_matches('"').parse().ok()
    });
    let said = said.map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(1)));
    said.map_or(limits.upstream_idle, |said| said.min(limits.upstream_idle))
}

/// A connection while an answer passes, and what is held with it.
struct Lent {
    connection: InUse,
    keep: Duration,
    upload: Upload,
    pool: Pool<Connection>,
    tasks: TaskTracker,
    /// The endpoint's load is a request, not a connection.
    _place: Place,
}

impl Lent {
    /// The answer is complete: the connection goes back once it is clean, if the request is complete too.
    fn give_back(self) {
        let InUse {
            mut connection,
            home,
        } = self.connection;
        let Some(home) = home.filter(|_| self.upload.is_complete()) else {
            return;
        };
        let (pool, keep) = (self.pool, self.keep);
        self.tasks.spawn(async move {
            if timeout(SETTLE, connection.settled()).await == Ok(true) {
                pool.put(connection, home, keep);
            }
        });
    }
}

/// An answer's body on its way to the client. Dropped before its end, it closes the connection.
struct Passing {
    body: Incoming,
    lent: Option<Lent>,
}

impl Passing {
    fn give_back(&mut self) {
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        let ended = match &frame {
            None => true,
            // Nobody asks on behind trailers.
            Some(Ok(frame)) => frame.is_trailers() || this.body.is_end_stream(),
            Some(Err(_)) => {
                this.lent = None;
                false
            }
        };
        if ended {
            this.give_back();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
