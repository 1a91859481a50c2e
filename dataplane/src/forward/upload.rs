//! A request's body on its way to the backend: when it may begin, how it goes on, and whether it came to its end.
//!
//! With `Expect: 100-continue` it begins when the backend says 100, so that a client whose upload would be refused never sends it; a
//! backend that says nothing for `Limits::expect` is not asked again (RFC 9110 §10.1.1: wait, but not indefinitely). hyper tells the
//! client to go on when the body is first asked for.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::body::{Body, BodyError, Silent};

/// Most interim answers (100, 102, 103) that count as a sign of life; real servers send one or two, and one that sends them for ever
/// does not answer.
const MAX_INTERIM_ANSWERS: usize = 8;

/// How far the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sending,
    /// All of it was taken.
    Ended,
    /// The client paused for longer than it may.
    Silent,
    /// The client broke it off, or its chunks cannot be read.
    Broken,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// When the last of it was taken, or the backend last showed that it is there.
    progress: Instant,
    interim: usize,
    /// Whether the final answer is there; a body that has not begun then never does.
    answered: bool,
    go_on: Option<oneshot::Sender<()>>,
}

/// What is known of a request's body while hyper sends it.
#[derive(Debug, Clone)]
pub(super) struct Upload(Arc<Mutex<State>>);

impl Upload {
    /// Watches the body of a request that is to be sent; `expects` is how long it waits for the backend's word, if it waits.
    pub(super) fn watch(body: Body, expects: Option<Duration>) -> (Self, Body) {
        let (go_on, told) = oneshot::channel();
        let upload = Self(Arc::new(Mutex::new(State {
            stage: if body.is_end_stream() {
                Stage::Ended
            } else {
                Stage::Sending
            },
            progress: Instant::now(),
            interim: 0,
            answered: false,
            go_on: Some(go_on),
        })));
        let gate = expects.map(|limit| -> Gate {
            let upload = upload.clone();
            Box::pin(async move {
                tokio::select! {
                    told = told => if told.is_err() { pending().await },
                    () = sleep(limit) => {}
                }
                if upload.state().answered {
                    pending::<()>().await;
                }
            })
        });
        let watched = Watched {
            body,
            upload: upload.clone(),
            gate,
        };
        (upload, watched.boxed_unsync())
    }

    /// Listens to the interim answers to this request.
    pub(super) fn listen(&self, request: &mut Request<Body>) {
        let upload = self.clone();
        hyper::ext::on_informational(request, move |answer| upload.interim(answer.status()));
    }

    fn interim(&self, status: StatusCode) {
        let mut state = self.state();
        if state.interim < MAX_INTERIM_ANSWERS {
            state.interim += 1;
            state.progress = Instant::now();
        }
        if status == StatusCode::CONTINUE
            && let Some(go_on) = state.go_on.take()
        {
            // A body that does not wait has no ear for it.
            let _ = go_on.send(());
        }
    }

    /// The request is sent now, for the first time or once more.
    pub(super) fn begin(&self) {
        self.state().progress = Instant::now();
    }

    /// The final answer is there.
    pub(super) fn answered(&self) {
        self.state().answered = true;
    }

    /// Whether all of it was taken.
    pub(super) fn is_complete(&self) -> bool {
        self.state().stage == Stage::Ended
    }

    /// Whether it ended because the client paused for too long.
    pub(super) fn client_was_silent(&self) -> bool {
        self.state().stage == Stage::Silent
    }

    /// Whether the client broke it off, or sent what is no body.
    pub(super) fn is_broken(&self) -> bool {
        self.state().stage == Stage::Broken
    }

    /// Returns once the backend said nothing for `limit`, counted from the end of the request: while it is still sent, the client has
    /// `Limits::request_body` for each pause and the backend `timeouts.send` for each write. Zero is no limit.
    pub(super) async fn silence(&self, limit: Duration) {
        if limit.is_zero() {
            return pending().await;
        }
        loop {
            let due = {
                let state = self.state();
                match state.stage {
                    Stage::Sending => Instant::now() + limit,
                    Stage::Ended | Stage::Silent | Stage::Broken => state.progress + limit,
                }
            };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens when the body may begin.
type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Watched {
    body: Body,
    upload: Upload,
    gate: Option<Gate>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            ready!(gate.as_mut().poll(context));
            this.gate = None;
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let mut state = this.upload.state();
        state.progress = Instant::now();
        match &frame {
            None => state.stage = Stage::Ended,
            // Nobody asks on behind trailers.
            Some(Ok(frame)) if frame.is_trailers() || this.body.is_end_stream() => {
                state.stage = Stage::Ended;
            }
            Some(Ok(_)) => {}
            Some(Err(error)) if error.is::<Silent>() => state.stage = Stage::Silent,
            Some(Err(_)) => state.stage = Stage::Broken,
        }
        drop(state);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::forward::body::full;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_expecting_body_begins_after_the_limit_but_never_behind_an_answer() {
        let (_upload, mut body) = Upload::watch(full("body"), Some(SECOND));
        let started = Instant::now();
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        assert_eq!(started.elapsed(), SECOND);

        let (upload, mut body) = Upload::watch(full("body"), Some(SECOND));
        upload.answered();
        assert!(timeout(60 * SECOND, body.frame()).await.is_err());
        assert!(!upload.is_complete());
    }

    #[tokio::test]
    async fn a_body_is_complete_only_when_all_of_it_was_taken() {
        let (upload, mut body) = Upload::watch(full("body"), None);
        assert!(!upload.is_complete());
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(upload.is_complete());
        let (upload, _body) = Upload::watch(full(""), None);
        assert!(upload.is_complete(), "there is none");
    }

    #[tokio::test(start_paused = true)]
    async fn interim_answers_without_end_are_no_sign_of_life() {
        let (upload, _body) = Upload::watch(full(""), None);
        let talking = async {
            loop {
                sleep(SECOND / 2).await;
                upload.interim(StatusCode::PROCESSING);
            }
        };
        let started = Instant::now();
        tokio::select! {
            () = upload.silence(SECOND) => {}
            () = talking => {}
        }
        let times = u32::try_from(MAX_INTERIM_ANSWERS).unwrap();
        assert_eq!(started.elapsed(), times * SECOND / 2 + SECOND);
    }
}
