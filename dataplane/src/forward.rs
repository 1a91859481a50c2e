//! Ordinary HTTP on a rule with `nonUpgrade: Forward`: one request, streamed both ways by hyper.
//!
//! In: a request that asks for no WebSocket and the endpoint that takes it. Out: the backend's answer, or a [`Reject`]. One fresh
//! upstream connection a request; neither body is ever held whole. A client that goes away ends the upstream request (one that had
//! sent more behind it at the latest after `timeouts.read`: nobody reads on to see it go), and a backend that breaks off never looks
//! complete.

use std::error::Error;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{EXPECT, HeaderMap};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use route_table::Timeouts;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::balance::Place;
use crate::config::Limits;
use crate::fields;
use crate::proxy_protocol::Preface;
use crate::reject::Reject;
use crate::send_limit::SendLimit;
use crate::upstream;

pub(crate) type BodyError = Box<dyn Error + Send + Sync>;

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that fails when it gives nothing for `limit`; zero is no limit.
pub(crate) fn within(body: Body, limit: Duration) -> Body {
    if limit.is_zero() {
        return body;
    }
    Within {
        body,
        limit,
        timer: Box::pin(sleep(limit)),
    }
    .boxed_unsync()
}

/// An answer's body whose failure is told one turn late: when a body fails, hyper drops what it has not sent yet, and the client of a
/// backend that answers and breaks off at once would get a bare end instead of the status and the part that came. The one turn is
/// enough while the client's socket takes what is written; a client that reads slowly may still lose what hyper buffers for it
/// (`Limits::head_bytes`) before the cut.
pub(crate) fn sent_before_failure(body: Body) -> Body {
    let failure = None;
    SentBeforeFailure { body, failure }.boxed_unsync()
}

/// Forwards one request; `fields` are those for the backend.
pub(crate) async fn forward(
    request: Request<Incoming>,
    mut fields: HeaderMap,
    place: Place,
    preface: Option<Preface>,
    timeouts: Timeouts,
    limits: &Limits,
    tasks: &TaskTracker,
) -> Result<Response<Body>, Reject> {
    // hyper has told the client to go on by itself; the backend would only say it a second time.
    fields.remove(EXPECT);
    let deadline = Instant::now() + timeouts.connect;
    let tcp = upstream::open(
        place.address(),
        preface.as_ref(),
        timeouts.connect,
        deadline,
    )
    .await?;
    let io = TokioIo::new(SendLimit::new(tcp, timeouts.send));
    let mut client = http1::Builder::new();
    client
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.head_fields)
        .title_case_headers(true);
    let (mut sender, connection) = client.handshake(io).await.map_err(reject)?;
    // It ends with the answer's body, or when the request is dropped because the client went away.
    tasks.spawn(async move {
        let _place = place;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "backend's connection ended badly");
        }
    });
    let progress = Arc::new(Mutex::new(Instant::now()));
    let request = rewrite(request, fields, timeouts.read, progress.clone())?;
    let answering = sender.send_request(request);
    let answer = tokio::select! {
        answer = answering => answer.map_err(reject)?,
        () = silence(&progress, timeouts.read) => return Err(Reject::AnswerTimeout),
    };
    let (mut head, body) = answer.into_parts();
    let coded = fields::transfer_coding(&head.headers);
    if head.status == StatusCode::SWITCHING_PROTOCOLS || coded.is_none() {
        return Err(Reject::BadAnswer);
    }
    head.headers = fields::to_client(&head.headers);
    head.version = Version::HTTP_11;
    let body = within(body.map_err(Into::into).boxed_unsync(), timeouts.read);
    Ok(Response::from_parts(head, sent_before_failure(body)))
}

/// The request as the backend gets it: origin-form, HTTP/1.1, our fields.
fn rewrite(
    request: Request<Incoming>,
    fields: HeaderMap,
    read: Duration,
    progress: Arc<Mutex<Instant>>,
) -> Result<Request<Body>, Reject> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().cloned().ok_or(Reject::Target)?;
    let body = within(body.map_err(Into::into).boxed_unsync(), read);
    let mut rewritten = Request::new(Noted { body, progress }.boxed_unsync());
    *rewritten.method_mut() = head.method;
    *rewritten.uri_mut() = Uri::from(target);
    *rewritten.headers_mut() = fields;
    Ok(rewritten)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands in map_err, which gives the error away"
)]
fn reject(error: hyper::Error) -> Reject {
    tracing::debug!(%error, "backend gave no answer");
    if error.is_parse() {
        Reject::BadAnswer
    } else {
        Reject::Unreachable
    }
}

/// Returns once nothing of the request was taken for `limit`: an upload that makes progress is no silence of the backend. Zero is
/// no limit.
async fn silence(progress: &Mutex<Instant>, limit: Duration) {
    if limit.is_zero() {
        return pending().await;
    }
    loop {
        let due = *progress.lock().unwrap_or_else(PoisonError::into_inner) + limit;
        if due <= Instant::now() {
            return;
        }
        sleep_until(due).await;
    }
}

/// A request's body that notes when the last of it was taken.
struct Noted {
    body: Body,
    progress: Arc<Mutex<Instant>>,
}

impl http_body::Body for Noted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// See [`within`].
struct Within {
    body: Body,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl http_body::Body for Within {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let next = Instant::now() + this.limit;
            this.timer.as_mut().reset(next);
            return Poll::Ready(frame);
        }
        this.timer
            .as_mut()
            .poll(context)
            .map(|()| Some(Err("nothing came for the whole read timeout".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// See [`sent_before_failure`].
struct SentBeforeFailure {
    body: Body,
    failure: Option<BodyError>,
}

impl http_body::Body for SentBeforeFailure {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Err(failure))) => {
                self.failure = Some(failure);
                // hyper flushes when there is nothing to write, and then asks again.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
