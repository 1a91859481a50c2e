//! Writes the status of every route: the leader alone, by server-side apply, only what changed, not faster than [`EVERY`].
//!
//! In: outputs, deliveries, the fleet, and the statuses as they stand. Out: patches. After a change everything is compared
//! (`turn` says when); what differs waits in order of key and is written one by one, each with a new look at whether we still lead. A
//! route that is gone, or another one of its name, is left alone. When we begin to lead, everything is written again.

mod former;
mod plan;
mod turn;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use route_table::RouteKey;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::blocking::blocking;
use crate::decode::{Observed, observed, typed};
use crate::delivery::Deliveries;
use crate::desired::Desired;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::health::Health;
use crate::leader::{Leadership, Standing};
use crate::observed::{ObservedSender, ObservedStatuses};
use crate::output::Output;
use crate::store::ObjectKey;
use former::former_managers;
use plan::Plan;
use turn::Turn;

/// Least time between two writes: 10,000 routes take 100 s, and an API server has far more than 100 small writes a second.
const EVERY: Duration = Duration::from_millis(10);
/// How soon to look at statuses that changed in the API: most of these are our own writes, which need no look.
const OTHERS: Duration = Duration::from_secs(2);
/// Longest wait for one answer: a write that began while we led must be over before anyone else leads.
const REQUEST: Duration = Duration::from_secs(3);
/// The name of the writer, before the namespace of the installation: two of them must not take each other for the same.
const MANAGER: &str = "ws-ingress.dev/controller/";
/// Waits after the API server refused or gave no answer.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// What the statuses are made of.
pub(crate) struct Inputs {
    pub(crate) outputs: watch::Receiver<Option<Arc<Output>>>,
    pub(crate) deliveries: watch::Receiver<Arc<Deliveries>>,
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
    pub(crate) observed: watch::Receiver<ObservedStatuses>,
    pub(crate) standing: Standing,
}

/// The writer.
pub(crate) struct StatusWriter {
    client: Client,
    manager: String,
    inputs: Inputs,
    observed: ObservedSender,
    health: Arc<Health>,
    plan: Plan,
    backoff: Backoff,
    /// No write before.
    not_before: Instant,
}

/// What became of one write.
enum Written {
    Done(Option<Observed>),
    /// The route is gone.
    Gone,
    /// It is not as it was observed, or another one.
    Outdated,
    /// The API server will never take it as it is.
    Invalid(Failure),
    Failed(Failure),
}

impl StatusWriter {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        inputs: Inputs,
        observed: ObservedSender,
        health: Arc<Health>,
    ) -> Self {
        Self {
            client,
            manager: format!("{MANAGER}{namespace}"),
            inputs,
            observed,
            health,
            plan: Plan::default(),
            backoff: Backoff::new(RETRY[0], RETRY[1]),
            not_before: Instant::now(),
        }
    }

    /// Runs until `stop`; a write that has begun is finished.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turn = Turn::new();
        loop {
            let waiting = !self.plan.pending.is_empty();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.inputs.standing.changed() => {
                    self.plan = Plan::default();
                    self.recovered();
                    turn.due(Duration::ZERO);
                }
                Ok(()) = self.inputs.outputs.changed() => turn.due(Duration::ZERO),
                Ok(()) = self.inputs.deliveries.changed() => turn.due(Duration::ZERO),
                Ok(()) = self.inputs.fleet.changed() => turn.due(Duration::ZERO),
                Ok(()) = self.inputs.observed.changed() => turn.due(OTHERS),
                () = turn.reached() => {
                    let began = Instant::now();
                    if !self.compare().await {
                        return;
                    }
                    turn.done(began);
                }
                () = sleep_until(self.not_before), if waiting => if !self.write_next().await {
                    turn.due(OTHERS);
                },
            }
        }
    }

    fn leads(&self) -> bool {
        match self.inputs.standing.now() {
            Leadership::Leader(_) => true,
            Leadership::Follower => false,
        }
    }

    /// Compares on a thread for work that blocks: with many routes it takes long, and the Lease must be renewed meanwhile. False when
    /// the runtime ends.
    async fn compare(&mut self) -> bool {
        let output = self.inputs.outputs.borrow().clone();
        let Some(output) = output.filter(|_| self.leads()) else {
            self.plan.pending.clear();
            return true;
        };
        let deliveries = self.inputs.deliveries.borrow().clone();
        let fleet = self.inputs.fleet.borrow().clone();
        let observed = self.inputs.observed.clone();
        let mut plan = mem::take(&mut self.plan);
        let compared = blocking(move || {
            // Not compared under the lock: the watch would wait for it, and with it a thread of the runtime.
            let observed = observed.borrow().clone();
            plan.compare(&output, &deliveries, &fleet, &observed);
            plan
        });
        let Some(plan) = compared.await else {
            return false;
        };
        self.plan = plan;
        true
    }

    /// Writes one status; false if what should stand there must be found out again.
    async fn write_next(&mut self) -> bool {
        self.not_before = Instant::now() + EVERY;
        if !self.leads() {
            self.plan.pending.clear();
            return false;
        }
        let Some((key, desired)) = self.plan.next() else {
            return true;
        };
        let observed = self.inputs.observed.borrow().get(&key).cloned();
        let Some(observed) = observed.filter(|observed| observed.uid == desired.uid) else {
            return true;
        };
        let written = self.write(&key, &desired, &observed).await;
        self.health.metrics.status_write(written.label());
        match written {
            Written::Done(seen) => {
                self.recovered();
                let version = seen.as_ref().map_or(observed.version, |seen| seen.version);
                if let Some(seen) = seen {
                    self.observed.wrote(&object_key(&key), seen);
                }
                self.plan.sent.insert(key, (desired, version));
            }
            // The watch tells what it is now; the next comparison is not before it can have done so.
            Written::Gone | Written::Outdated => {
                self.recovered();
                return false;
            }
            Written::Invalid(failure) => {
                tracing::warn!(route = %key, error = %failure, "the API server does not take the status; is the CustomResourceDefinition older than the controller?");
                self.plan.sent.insert(key, (desired, observed.version));
            }
            Written::Failed(failure) => {
                self.not_before = Instant::now() + self.backoff.next();
                self.health.statuses_failed(&failure);
                self.plan.pending.insert(key, desired);
            }
        }
        true
    }

    fn recovered(&mut self) {
        self.backoff.reset();
        self.health.statuses_written();
    }

    async fn write(&self, key: &RouteKey, desired: &Desired, observed: &Observed) -> Written {
        let failure = match self.replace(key, desired, observed).await {
            Ok(written) => return written,
            Err(failure) => failure,
        };
        match failure.code() {
            Some(404) => Written::Gone,
            Some(409) => Written::Outdated,
            Some(400 | 422) => Written::Invalid(failure),
            Some(_) | None => Written::Failed(failure),
        }
    }

    /// First takes away what must not stay, whoever owns it, and then applies over the version that this made: at no time between
    /// the two does a claim stand that is not ours.
    async fn replace(
        &self,
        key: &RouteKey,
        desired: &Desired,
        observed: &Observed,
    ) -> Result<Written, Failure> {
        let mut without = None;
        if let Some(removal) = desired.removal(observed) {
            let params = PatchParams {
                field_manager: Some(self.manager.clone()),
                ..PatchParams::default()
            };
            let object = self.patch(key, &params, &Patch::Merge(&removal)).await?;
            without = seen(object);
            if without.is_none() || !self.leads() {
                return Ok(Written::Outdated);
            }
        }
        let observed = without.as_ref().unwrap_or(observed);
        let patch = desired.patch(key, observed, Timestamp::now());
        let object = self.apply(key, &self.manager, &patch).await?;
        let object = self.take_over(key, object).await;
        Ok(Written::Done(seen(object)))
    }

    /// Ends what installations before this one own in the status: what only they own, such as a claim that is given up, would stay
    /// for ever, because an apply removes only what is its own. Everything that is to stay is ours as well since our last apply.
    /// What fails is tried again with the next write.
    async fn take_over(&self, key: &RouteKey, mut object: DynamicObject) -> DynamicObject {
        for manager in former_managers(&object.metadata, &self.manager) {
            if !self.leads() {
                break;
            }
            let nothing = former::nothing(&object.metadata);
            match self.apply(key, &manager, &nothing).await {
                Ok(after) => {
                    tracing::info!(route = %key, manager, "the status was taken over");
                    object = after;
                }
                Err(error) => {
                    tracing::debug!(route = %key, manager, %error, "the status was not taken over");
                    break;
                }
            }
        }
        object
    }

    async fn apply(
        &self,
        key: &RouteKey,
        manager: &str,
        patch: &Value,
    ) -> Result<DynamicObject, Failure> {
        let params = PatchParams::apply(manager).force();
        self.patch(key, &params, &Patch::Apply(patch)).await
    }

    async fn patch(
        &self,
        key: &RouteKey,
        params: &PatchParams,
        patch: &Patch<&Value>,
    ) -> Result<DynamicObject, Failure> {
        let resource = ApiResource::erase::<crds::WebSocketRoute>(&());
        let routes =
            Api::<DynamicObject>::namespaced_with(self.client.clone(), &key.namespace, &resource);
        match timeout(REQUEST, routes.patch_status(&key.name, params, patch)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::Timeout(REQUEST)),
        }
    }
}

/// The status in an answer, if it can be read.
fn seen(object: DynamicObject) -> Option<Observed> {
    let route = typed::<crds::WebSocketRoute>(object).ok();
    route.as_ref().map(observed)
}

impl Written {
    fn label(&self) -> &'static str {
        match self {
            Self::Done(_) => "written",
            Self::Gone => "gone",
            Self::Outdated => "outdated",
            Self::Invalid(_) => "invalid",
            Self::Failed(failure) if failure.code() == Some(403) => "forbidden",
            Self::Failed(_) => "failed",
        }
    }
}

fn object_key(key: &RouteKey) -> ObjectKey {
    ObjectKey {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

#[cfg(test)]
mod tests;
