//! One stream: Hello, Welcome, then update and answer, until something ends it.
//!
//! There is no queue: between two updates a stream knows what the dataplane holds, and takes the set that is newest then. After a
//! refusal it knows nothing, waits longer each time, and sends the full set.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use push::wire::from_controller::Message as ToDataplane;
use push::wire::{FromController, FromDataplane, from_dataplane};
use push::{BadHello, Digests, Fence, Greeting, Updates, Verdict};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tonic::{Code, Status, Streaming};

use super::Shared;
use super::ledger::Membership;
use super::metrics::{Kind, Outcome};
use super::service::Message;
use super::sets::Published;
use crate::backoff::Backoff;
use crate::delivery::Delivery;
use crate::leader::{Leadership, Standing};
use crate::token::Pod;

/// A stream whose token was accepted.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Pod,
    /// Of the term in which it began, and in which it ends.
    pub(super) fence: Fence,
    pub(super) inbound: Streaming<FromDataplane>,
    pub(super) outbound: mpsc::Sender<Message>,
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    #[error("the dataplane ended it")]
    Closed,
    #[error("the connection broke")]
    Broken,
    #[error("not the leader")]
    LeadershipLost,
    #[error("the controller is stopping")]
    Stopping,
    #[error("the token has expired; dial again with the next one")]
    TokenExpired,
    #[error("the pod has begun another stream")]
    Superseded,
    #[error("no Hello came in time")]
    NoHello,
    #[error("the first message is no Hello")]
    NotHello,
    #[error("the Hello cannot be read: {0}")]
    BadHello(BadHello),
    #[error("a message came that answers nothing")]
    Unexpected,
    #[error("a message is longer than {} bytes", push::MAX_MESSAGE_BYTES)]
    TooLong,
    #[error("a message cannot be read")]
    Unreadable,
    #[error("the dataplane reads too slowly")]
    TooSlow,
    #[error("an update was not answered in time")]
    Unanswered,
}

impl Ended {
    /// The metric label.
    fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::LeadershipLost => "leadership_lost",
            Self::Stopping => "stopping",
            Self::TokenExpired => "token_expired",
            Self::Superseded => "superseded",
            Self::NoHello => "no_hello",
            Self::NotHello => "not_hello",
            Self::BadHello(_) => "bad_hello",
            Self::Unexpected => "unexpected_message",
            Self::TooLong => "message_too_long",
            Self::Unreadable => "message_unreadable",
            Self::TooSlow => "too_slow",
            Self::Unanswered => "unanswered",
        }
    }

    /// The last word to the dataplane.
    pub(super) fn status(self) -> Status {
        let code = match self {
            Self::Closed | Self::Broken => Code::Cancelled,
            Self::LeadershipLost | Self::Stopping => Code::Unavailable,
            Self::TokenExpired => Code::Unauthenticated,
            Self::Superseded => Code::Aborted,
            Self::NotHello | Self::BadHello(_) | Self::Unexpected | Self::Unreadable => {
                Code::InvalidArgument
            }
            Self::TooLong => Code::OutOfRange,
            Self::NoHello | Self::TooSlow | Self::Unanswered => Code::DeadlineExceeded,
        };
        Status::new(code, self.to_string())
    }
}

/// Whether this replica still leads in the term of `fence`.
pub(super) fn leads(standing: &Standing, fence: &Fence) -> bool {
    match standing.now() {
        Leadership::Follower => false,
        Leadership::Leader(now) => now == *fence,
    }
}

impl Session {
    /// Runs the stream to its end, and tells the dataplane why it ended.
    pub(super) async fn run(self) {
        let Self {
            shared,
            pod,
            fence,
            inbound,
            outbound,
        } = self;
        let membership = shared.ledger.join(&pod.uid);
        let mut conversation = Conversation {
            shared: &shared,
            pod: &pod,
            fence: &fence,
            membership: &membership,
            published: shared.published.clone(),
            inbound,
            outbound: outbound.clone(),
        };
        let ended = tokio::select! {
            biased;
            () = leadership_lost(shared.standing.clone(), &fence) => Ended::LeadershipLost,
            () = shared.stop.cancelled() => Ended::Stopping,
            () = membership.superseded.cancelled() => Ended::Superseded,
            () = sleep_until(pod.proven_until) => Ended::TokenExpired,
            ended = conversation.hold() => { let Err(ended) = ended; ended }
        };
        // What waits to be sent is let go with the conversation's end of the channel; what HTTP/2 has is on its way.
        drop(conversation);
        drop(membership);
        shared.metrics.stream_ended(ended.label());
        tracing::info!(pod = %pod.name, reason = %ended, "a dataplane's stream ended");
        let farewell = async {
            if outbound.send(Err(ended.status())).await.is_ok() {
                outbound.closed().await;
            }
        };
        drop(timeout(shared.limits.farewell, farewell).await);
    }
}

async fn leadership_lost(mut standing: Standing, fence: &Fence) {
    while leads(&standing, fence) {
        standing.changed().await;
    }
}

/// What is said on one stream.
struct Conversation<'a> {
    shared: &'a Shared,
    pod: &'a Pod,
    fence: &'a Fence,
    membership: &'a Membership,
    published: watch::Receiver<Option<Arc<Published>>>,
    inbound: Streaming<FromDataplane>,
    outbound: mpsc::Sender<Message>,
}

impl Conversation<'_> {
    async fn hold(&mut self) -> Result<Infallible, Ended> {
        let greeting = self.hello().await?;
        let Greeting {
            pod: _,
            build,
            features,
            held,
        } = greeting;
        tracing::info!(
            pod = %self.pod.name,
            build,
            features = features.len(),
            held = %held.version(),
            "a dataplane has connected"
        );
        self.membership.greet(held.version());
        let welcome = ToDataplane::Welcome(self.fence.welcome());
        self.send(welcome).await?;

        let [least, most] = self.shared.limits.retry;
        let mut backoff = Backoff::new(least, most);
        let mut held = Some(Arc::new(held));
        let mut taken = None;
        loop {
            let newest = self.newer_than(taken).await?;
            let base = held.take();
            if self.update(&newest, base.as_ref()).await? {
                backoff.reset();
                held = Some(newest.set.digests().clone());
                taken = Some(newest.sequence);
            } else {
                self.pause(backoff.next()).await?;
            }
        }
    }

    async fn hello(&mut self) -> Result<Greeting, Ended> {
        let first = timeout(self.shared.limits.hello, receive(&mut self.inbound)).await;
        match first.map_err(|_| Ended::NoHello)?? {
            Some(from_dataplane::Message::Hello(hello)) => {
                Greeting::read(hello).map_err(Ended::BadHello)
            }
            Some(from_dataplane::Message::Ack(_) | from_dataplane::Message::Nack(_)) | None => {
                Err(Ended::NotHello)
            }
        }
    }

    /// The newest set, as soon as it is another one than was taken.
    async fn newer_than(&mut self, taken: Option<u64>) -> Result<Arc<Published>, Ended> {
        loop {
            let newest = self.published.borrow_and_update().clone();
            if let Some(newest) = newest.filter(|newest| Some(newest.sequence) != taken) {
                return Ok(newest);
            }
            tokio::select! {
                changed = self.published.changed() => changed.map_err(|_| Ended::Stopping)?,
                ended = quiet(&mut self.inbound) => return Err(ended),
            }
        }
    }

    async fn pause(&mut self, pause: Duration) -> Result<(), Ended> {
        tokio::select! {
            () = sleep(pause) => Ok(()),
            ended = quiet(&mut self.inbound) => Err(ended),
        }
    }

    /// Sends what leads from `base` to the set, all of it without a base, and reads the answer: whether it was taken.
    async fn update(
        &mut self,
        newest: &Published,
        base: Option<&Arc<Digests>>,
    ) -> Result<bool, Ended> {
        let parts = match base {
            Some(base) => newest.set.delta(base),
            None => newest.set.full(),
        };
        let kind = if parts.is_full() {
            Kind::Full
        } else {
            Kind::Delta
        };
        let answered = self.exchange(parts).await;
        let outcome = match &answered {
            Ok(answer) => self.judge(newest, answer.as_ref()),
            Err(_) => Outcome::Unanswered,
        };
        self.shared.metrics.update(kind, outcome);
        answered?;
        match outcome {
            Outcome::Applied | Outcome::Rejected => Ok(true),
            Outcome::Refused | Outcome::Unreadable | Outcome::Unanswered => Ok(false),
        }
    }

    async fn exchange(&mut self, parts: Updates) -> Result<Option<Verdict>, Ended> {
        for part in parts {
            let bytes = part.encoded_len();
            self.send(ToDataplane::Update(part)).await?;
            self.shared.metrics.sent(bytes);
        }
        let answer = timeout(self.shared.limits.answer, receive(&mut self.inbound)).await;
        match answer.map_err(|_| Ended::Unanswered)?? {
            Some(from_dataplane::Message::Ack(ack)) => Ok(Verdict::from_ack(ack).ok()),
            Some(from_dataplane::Message::Nack(nack)) => Ok(Some(Verdict::from_nack(nack))),
            Some(from_dataplane::Message::Hello(_)) => Err(Ended::Unexpected),
            // An answer of a later build.
            None => Ok(None),
        }
    }

    fn judge(&self, newest: &Published, answer: Option<&Verdict>) -> Outcome {
        let pod = &self.pod.name;
        match answer {
            Some(Verdict::Applied {
                version,
                rejected,
                complete,
            }) if *version == newest.set.version() => {
                let outcome = if rejected.is_empty() && *complete {
                    Outcome::Applied
                } else {
                    Outcome::Rejected
                };
                let delivery = Delivery {
                    sequence: newest.sequence,
                    left_out: newest.left_out.clone(),
                    rejected: rejected.clone(),
                    complete: *complete,
                };
                self.membership.record(self.fence, *version, delivery);
                outcome
            }
            Some(Verdict::Refused { version: _, reason }) => {
                tracing::warn!(%pod, reason, "a dataplane refused an update; it gets the full set");
                Outcome::Refused
            }
            Some(Verdict::Applied { .. }) | None => {
                tracing::warn!(%pod, "a dataplane's answer cannot be read; it gets the full set");
                Outcome::Unreadable
            }
        }
    }

    async fn send(&self, message: ToDataplane) -> Result<(), Ended> {
        if !leads(&self.shared.standing, self.fence) {
            return Err(Ended::LeadershipLost);
        }
        let message = FromController {
            message: Some(message),
        };
        let sent = timeout(self.shared.limits.part, self.outbound.send(Ok(message))).await;
        sent.map_err(|_| Ended::TooSlow)?.map_err(|_| Ended::Broken)
    }
}

/// The next message; nothing if it is of a kind that this build does not know.
async fn receive(
    inbound: &mut Streaming<FromDataplane>,
) -> Result<Option<from_dataplane::Message>, Ended> {
    match inbound.message().await {
        Ok(Some(FromDataplane { message })) => Ok(message),
        Ok(None) => Err(Ended::Closed),
        Err(status) => Err(broken(&status)),
    }
}

/// Reads while nothing is due; returns why the stream has to end. Messages of a later build are let pass.
async fn quiet(inbound: &mut Streaming<FromDataplane>) -> Ended {
    loop {
        match receive(inbound).await {
            Ok(None) => {}
            Ok(Some(_)) => return Ended::Unexpected,
            Err(ended) => return ended,
        }
    }
}

/// What an error of the stream means. tonic tells a peer's nonsense from a broken connection only by the absence of a cause.
fn broken(status: &Status) -> Ended {
    let caused = std::error::Error::source(status).is_some();
    match status.code() {
        Code::OutOfRange if !caused => Ended::TooLong,
        Code::Internal | Code::Unimplemented if !caused => Ended::Unreadable,
        _ => Ended::Broken,
    }
}
