//! Bodies: those that we write ourselves, and what is watched on those that pass.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use tokio::time::{Instant, Sleep, sleep};

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

/// Why a body ended that [`within`] watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing came for the whole time that one read may take")]
pub(crate) struct Silent;

/// A body that fails with [`Silent`] when it gives nothing for `limit` although it is asked; zero is no limit.
pub(crate) fn within(body: Body, limit: Duration) -> Body {
    if limit.is_zero() {
        return body;
    }
    Within {
        body,
        limit,
        waiting: false,
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

/// See [`within`].
struct Within {
    body: Body,
    limit: Duration,
    /// Whether the timer runs: the time in which nobody asked, because the other side was slow, is not this side's silence.
    waiting: bool,
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
            this.waiting = false;
            return Poll::Ready(frame);
        }
        if !this.waiting {
            this.waiting = true;
            this.timer.as_mut().reset(Instant::now() + this.limit);
        }
        this.timer
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(Silent.into())))
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio::time::advance;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn watched() -> (mpsc::Sender<&'static str>, Body) {
        let (sender, receiver) = mpsc::channel::<&'static str>(8);
        let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            let frame = Ok::<_, BodyError>(Frame::data(Bytes::from_static(piece.as_bytes())));
            Some((frame, receiver))
        });
        (
            sender,
            within(StreamBody::new(pieces).boxed_unsync(), LIMIT),
        )
    }

    fn is_silent(frame: Option<Result<Frame<Bytes>, BodyError>>) -> bool {
        frame.is_some_and(|frame| frame.is_err_and(|error| error.is::<Silent>()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_speaks_now_and_then_lives_and_a_silent_one_ends() {
        let (sender, mut body) = watched();
        for _ in 0..4 {
            let speaking = async {
                sleep(LIMIT * 2 / 3).await;
                sender.send("piece").await.unwrap();
            };
            let (frame, ()) = tokio::join!(body.frame(), speaking);
            assert!(frame.is_some_and(|frame| frame.is_ok()));
        }
        let started = Instant::now();
        assert!(is_silent(body.frame().await));
        assert_eq!(started.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_nobody_asks_is_no_silence() {
        let (sender, mut body) = watched();
        sender.send("piece").await.unwrap();
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        // The other side is slow: for longer than the limit nobody asks for more.
        advance(LIMIT * 2).await;
        let asked =
            poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context).is_ready()));
        assert!(!asked.await, "it was ended for the pause of the other side");
        sender.send("piece").await.unwrap();
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
    }
}
