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
use push::{Digests, Fence, Greeting, Updates, Verdict};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tonic::{Code, Status, Streaming};

use super::Shared;
use super::ended::Ended;
use super::ledger::Membership;
use super::metrics::{Kind, Outcome};
use super::service::Outgoing;
use super::sets::Published;
use super::turns::{Greets, Room};
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
    pub(super) outbound: mpsc::Sender<Outgoing>,
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
            greets: None,
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
            let last = Outgoing {
                message: Err(ended.status()),
                room: None,
            };
            if outbound.send(last).await.is_ok() {
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
    outbound: mpsc::Sender<Outgoing>,
    /// As long as what the dataplane said that it holds is kept for this stream alone.
    greets: Option<Arc<Greets>>,
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
        self.send(self.slot().await?, welcome, None)?;

        let [least, most] = self.shared.limits.retry;
        let mut backoff = Backoff::new(least, most);
        let mut held = Some(self.keep(held));
        let mut taken = None;
        loop {
            let newest = self.newer_than(taken).await?;
            if self.update(&newest, held.take()).await? {
                backoff.reset();
                held = Some(newest.set.digests().clone());
                taken = Some(newest.sequence);
            } else {
                self.pause(backoff.next()).await?;
            }
        }
    }

    async fn hello(&mut self) -> Result<Greeting, Ended> {
        let limit = self.shared.limits.hello;
        // Nothing of it is read before.
        let greets = timeout(limit, self.shared.turns.greet()).await;
        let greets = Arc::new(greets.map_err(|_| Ended::Busy)?);
        self.greets = Some(greets.clone());
        let first = timeout(limit, receive(&mut self.inbound)).await;
        match first.map_err(|_| Ended::NoHello)?? {
            Some(from_dataplane::Message::Hello(hello)) => {
                let reading = move || {
                    let greeting = Greeting::read(hello);
                    drop(greets);
                    greeting
                };
                let greeting = self.work(reading).await?;
                greeting.map_err(Ended::BadHello)
            }
            Some(from_dataplane::Message::Ack(_) | from_dataplane::Message::Nack(_)) | None => {
                Err(Ended::NotHello)
            }
        }
    }

    /// What the dataplane holds; if that is the newest set, in the memory that all streams share.
    fn keep(&mut self, held: Digests) -> Arc<Digests> {
        let newest = self.published.borrow().clone();
        let newest = newest.filter(|newest| newest.set.version() == held.version());
        if newest.is_some() || held.is_empty() {
            self.greets = None;
        }
        newest.map_or_else(|| Arc::new(held), |newest| newest.set.digests().clone())
    }

    /// Does beside the runtime what takes tens of milliseconds for a large set. It goes on when the stream ends meanwhile, and so has
    /// to keep itself what it takes of the memory.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let working = self.shared.tasks.spawn_blocking(work).await;
        working.map_err(|error| {
            tracing::error!(%error, "work for a stream failed");
            Ended::Failed
        })
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
        base: Option<Arc<Digests>>,
    ) -> Result<bool, Ended> {
        let parts = match base {
            Some(base) => newest.set.delta(&base),
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
        let mut rest = Some(parts);
        while let Some(mut parts) = rest.take() {
            let slot = self.slot().await?;
            // No limit here: whoever has the room reads on, or loses it with its stream after `part` or `answer`.
            let room = self.shared.turns.part().await;
            let greets = self.greets.clone();
            let making = move || {
                let made = parts.next().map(|part| (part, parts, room));
                drop(greets);
                made
            };
            let Some((part, parts, mut room)) = self.work(making).await? else {
                break;
            };
            rest = part.more.then_some(parts);
            let bytes = part.encoded_len();
            room.keep(bytes);
            self.send(slot, ToDataplane::Update(part), Some(room))?;
            self.shared.metrics.sent(bytes);
        }
        self.greets = None;
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

    /// The place of the next message, as soon as HTTP/2 has taken the one before the last.
    async fn slot(&self) -> Result<mpsc::Permit<'_, Outgoing>, Ended> {
        let slot = timeout(self.shared.limits.part, self.outbound.reserve()).await;
        slot.map_err(|_| Ended::TooSlow)?.map_err(|_| Ended::Broken)
    }

    fn send(
        &self,
        slot: mpsc::Permit<'_, Outgoing>,
        message: ToDataplane,
        room: Option<Room>,
    ) -> Result<(), Ended> {
        if !leads(&self.shared.standing, self.fence) {
            return Err(Ended::LeadershipLost);
        }
        let message = Ok(FromController {
            message: Some(message),
        });
        slot.send(Outgoing { message, room });
        Ok(())
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
