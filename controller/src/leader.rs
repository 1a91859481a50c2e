//! Who leads: one replica holds a Lease, pushes and writes statuses; the others wait.
//!
//! After client-go's leader election. No clock but this process's own monotonic one is compared with: a Lease is held for as long as
//! it says after *we* last saw it change. Every write carries the resourceVersion that it is based on, so that of two writers one
//! fails. A leader that cannot renew in time stops by itself, well before anyone may follow it: [`Standing::now`] compares with the
//! clock, so a process that was stopped and continued finds out before its next write, whatever its tasks do first. A write of
//! ours whose answer was lost is recognised by the identity, which no other process has.

mod class;
mod record;
mod standing;
mod term;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use push::Fence;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::args::ObjectName;
use crate::failure::Failure;
use crate::health::Health;
use crate::observed::ObservedStatuses;
use crate::output::Output;

pub(crate) use class::{Claim, Rivals};
pub(crate) use record::Identity;
use record::{Decision, Seen, decide};
pub(crate) use standing::Opening;
pub use standing::{Leadership, Standing};
pub(crate) use term::{Knowledge, Terms};

/// How often the holder writes the Lease: five times in [`record::LEASE_DURATION`], at the price of one small write each.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often the others read it. A follower sees a release within this time, and a killed leader is followed at the latest after
/// this and [`record::LEASE_DURATION`]: 11 s and the time of two requests, under the 15 s that are promised.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last successful write proves that we lead, counted from before it was sent: three tries. The rest of
/// [`record::LEASE_DURATION`], 4 s, is for a write that began just before the end.
const PROVEN_FOR: Duration = Duration::from_secs(6);
/// How soon a leader tries again after a write that failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Longest wait for the answer to one request; a second and a third must still fit into [`PROVEN_FOR`].
const REQUEST: Duration = Duration::from_secs(2);

/// Takes part in the election.
pub(crate) struct Elector {
    leases: Api<Lease>,
    name: String,
    identity: Identity,
    seen: Option<Seen>,
    /// Until then the holder of a Lease that was deleted may still lead.
    vacant_from: Option<Instant>,
    /// Whether a write of ours may have gone through without an answer, so that `seen` is out of date.
    uncertain: bool,
    health: Arc<Health>,
    held: watch::Sender<Option<Fence>>,
    proven_until: watch::Sender<Instant>,
}

/// Why a Lease was not read or written.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    /// Another one wrote, created or deleted it since we read it.
    #[error("somebody else wrote the Lease first")]
    Conflict,
    #[error("the API server did not answer within {REQUEST:?}")]
    Timeout,
    #[error(transparent)]
    Failed(Failure),
    #[error("the Lease has no uid or resourceVersion")]
    Incomplete,
}

impl Elector {
    pub(crate) fn new(
        client: &Client,
        lease: &ObjectName,
        identity: Identity,
        health: Arc<Health>,
    ) -> (Self, Standing, Opening) {
        let (held, held_receiver) = watch::channel(None);
        let (proven_until, proven_receiver) = watch::channel(Instant::now());
        let (opened, opened_receiver) = watch::channel(None);
        let elector = Self {
            leases: Api::namespaced(client.clone(), &lease.namespace),
            name: lease.name.clone(),
            identity,
            seen: None,
            vacant_from: None,
            uncertain: false,
            health,
            held,
            proven_until,
        };
        let standing = Standing {
            held: held_receiver,
            proven_until: proven_receiver,
            opened: opened_receiver,
        };
        (elector, standing, Opening(opened))
    }

    /// Takes part as soon as there is something to publish: a replica that has nothing leaves the Lease to those that have.
    pub(crate) async fn stand(
        mut self,
        mut outputs: watch::Receiver<Option<Arc<Output>>>,
        observed: watch::Receiver<ObservedStatuses>,
        resign: CancellationToken,
    ) {
        tokio::select! {
            published = outputs.wait_for(Option::is_some) => if published.is_err() { return },
            () = resign.cancelled() => return,
        }
        // A status that was written tells a Lease that was deleted from a first start, which nobody should have to wait for. Without
        // one, two leaders at once would have nothing to disagree about.
        let was_written = |output: &Arc<Output>| {
            let observed = observed.borrow();
            let mut statuses = output.statuses.keys().filter_map(|key| observed.get(key));
            statuses.any(|observed| !observed.status.conditions.is_empty())
        };
        if outputs.borrow().as_ref().is_some_and(was_written) {
            self.expect_a_holder();
        }
        self.run(resign).await;
    }

    /// Somebody has led before, though this process has not seen the Lease yet: if there is none, it was deleted, and its holder may
    /// not have noticed.
    fn expect_a_holder(&mut self) {
        self.vacant_from = Some(Instant::now() + record::LEASE_DURATION);
    }

    /// Runs until `stop`, then releases the Lease if we hold it. Nothing may push or write any more when `stop` is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            // Never cut short: a write that went through unheard would make the release fail. It is two requests at most.
            match self.step().await {
                Ok(()) | Err(LeaseError::Conflict) => {
                    if failing {
                        tracing::info!(lease = %self.name, "the Lease can be used again");
                        self.health.lease(None);
                    }
                    failing = false;
                }
                Err(error) => {
                    let error = error.to_string();
                    if !failing {
                        tracing::warn!(lease = %self.name, error, "the Lease cannot be used");
                    }
                    self.health.lease(Some(error));
                    failing = true;
                }
            }
            let pause = self.pause();
            tokio::select! {
                () = sleep_until(pause) => {}
                () = stop.cancelled() => break,
            }
            self.end_if_unproven();
        }
        self.release().await;
    }

    /// When to look at the Lease again.
    fn pause(&self) -> Instant {
        let now = Instant::now();
        if self.leads() {
            let pause = if self.uncertain {
                RETRY_AFTER
            } else {
                RENEW_EVERY
            };
            return (now + pause).min(*self.proven_until.borrow());
        }
        let expires = self.seen.as_ref().map(Seen::expires);
        let expires = expires.filter(|expires| *expires > now);
        expires.map_or(now + LOOK_EVERY, |expires| expires.min(now + LOOK_EVERY))
    }

    /// Reads the Lease and writes it if it is ours to write.
    async fn step(&mut self) -> Result<(), LeaseError> {
        if self.uncertain || !self.leads() {
            self.look().await?;
        }
        let sent = Instant::now();
        let occupied = self.vacant_from.is_some_and(|vacant| sent < vacant);
        let written = match decide(self.seen.as_ref(), &self.identity, sent) {
            Decision::Create(_) if occupied => {
                self.follow("the Lease was deleted, and its holder may not know yet");
                return Ok(());
            }
            Decision::Wait => {
                self.follow("another replica holds the Lease");
                return Ok(());
            }
            Decision::Create(lease) => self.create(lease).await,
            Decision::Write(lease) => self.write(lease).await,
        };
        match written {
            Ok(lease) => self.lead(&lease, sent),
            Err(LeaseError::Conflict) => {
                // Whoever wrote it may lead, or has only put a label on it: look. Until then the proof of the last write holds, and
                // nobody else can lead before it has run out.
                self.uncertain = true;
                Err(LeaseError::Conflict)
            }
            Err(error) => {
                self.uncertain = true;
                Err(error)
            }
        }
    }

    fn leads(&self) -> bool {
        self.held.borrow().is_some()
    }

    async fn look(&mut self) -> Result<(), LeaseError> {
        let lease = ask(self.leases.get_opt(&self.name)).await?;
        let now = Instant::now();
        if let Some(lease) = lease {
            let seen = Seen::new(lease, self.seen.take(), now);
            self.seen = Some(seen.ok_or(LeaseError::Incomplete)?);
        } else if let Some(held) = self.seen.take() {
            self.vacant_from = held.occupied_until(&self.identity);
        }
        self.uncertain = false;
        Ok(())
    }

    async fn create(&self, mut lease: Lease) -> Result<Lease, LeaseError> {
        lease.metadata.name = Some(self.name.clone());
        ask(self.leases.create(&PostParams::default(), &lease)).await
    }

    async fn write(&self, lease: Lease) -> Result<Lease, LeaseError> {
        let written = ask(self
            .leases
            .replace(&self.name, &PostParams::default(), &lease))
        .await;
        match written {
            // It was deleted.
            Err(LeaseError::Failed(failure)) if failure.code() == Some(404) => {
                Err(LeaseError::Conflict)
            }
            Ok(_) | Err(_) => written,
        }
    }

    /// The Lease says that we lead; `sent` is when we asked it to.
    fn lead(&mut self, lease: &Lease, sent: Instant) -> Result<(), LeaseError> {
        // A proof that ran out before this one came ended the term for everybody who asked: they must hear of both.
        self.end_if_unproven();
        let seen = Seen::new(lease.clone(), None, sent).ok_or(LeaseError::Incomplete)?;
        let fence = seen.fence();
        self.seen = Some(seen);
        self.uncertain = false;
        // First, so that whoever is woken by the term finds it proven.
        self.proven_until.send_replace(sent + PROVEN_FOR);
        let begins = self.held.send_if_modified(|held| {
            let changes = held.as_ref() != Some(&fence);
            *held = Some(fence.clone());
            changes
        });
        if begins {
            let Fence {
                lease_uid,
                transitions,
            } = fence;
            tracing::info!(identity = %self.identity, lease_uid, transitions, "this replica holds the Lease");
        }
        Ok(())
    }

    fn end_if_unproven(&mut self) {
        if Instant::now() >= *self.proven_until.borrow() {
            self.follow("the Lease could not be renewed in time");
        }
    }

    fn follow(&mut self, why: &'static str) {
        let ended = self.held.send_if_modified(|held| held.take().is_some());
        if ended {
            tracing::warn!(identity = %self.identity, why, "this replica does not lead any more");
        }
    }

    /// Gives the Lease away, so that nobody has to wait for its end. Once only: whoever waits gets it a little later.
    async fn release(&mut self) {
        let led = self.leads();
        self.held.send_replace(None);
        let Some(seen) = self.seen.as_ref().filter(|_| led) else {
            return;
        };
        match self.write(seen.released()).await {
            Ok(_) => tracing::info!(lease = %self.name, "the Lease is released"),
            Err(error) => {
                tracing::warn!(%error, "the Lease was not released; another replica waits for its end");
            }
        }
    }
}

/// One request with its deadline.
async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    match timeout(REQUEST, request).await {
        Ok(Ok(answer)) => Ok(answer),
        // 409 also stands for a Lease that was created meanwhile.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(LeaseError::Conflict),
        Ok(Err(error)) => Err(LeaseError::Failed(error.into())),
        Err(_) => Err(LeaseError::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::time::sleep;

    use super::*;
    use crate::metrics::Metrics;
    use crate::push_server::fake_api::FakeApi;

    fn elector() -> (Elector, Standing) {
        let lease = ObjectName {
            namespace: "ws-ingress".to_owned(),
            name: "lease".to_owned(),
        };
        let metrics = Metrics::new(&mut Registry::default());
        let health = Arc::new(Health::new(std::iter::empty(), metrics));
        let identity = Identity::new(None);
        let client = FakeApi::new().client();
        let (elector, standing, _) = Elector::new(&client, &lease, identity, health);
        (elector, standing)
    }

    /// Whether it holds the Lease that nobody had made before, after this time.
    async fn holds_after(wait: Duration, expects: bool) -> bool {
        let (mut elector, standing) = elector();
        if expects {
            elector.expect_a_holder();
        }
        let stop = CancellationToken::new();
        let story = async {
            sleep(wait).await;
            let holds = standing.held().is_some();
            stop.cancel();
            holds
        };
        let ((), holds) = tokio::join!(elector.run(stop.clone()), story);
        holds
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_lease_is_made_at_once_unless_somebody_has_led_before() {
        assert!(holds_after(LOOK_EVERY, false).await);
        assert!(!holds_after(record::LEASE_DURATION / 2, true).await);
        assert!(holds_after(record::LEASE_DURATION + LOOK_EVERY, true).await);
    }

    #[test]
    fn the_times_leave_room_for_each_other() {
        assert!(PROVEN_FOR + REQUEST < record::LEASE_DURATION);
        assert!(RENEW_EVERY + 2 * REQUEST <= PROVEN_FOR);
        let takeover = record::LEASE_DURATION + LOOK_EVERY + 2 * REQUEST;
        assert!(takeover <= Duration::from_secs(15));
    }
}
