//! Which pods have a stream, and what each of them has taken in this term.
//!
//! One stream a pod: a newer one ends the one before it, which may be a connection that died unnoticed. What a pod has taken stays
//! known when its stream ends, because it goes on serving it; unless it comes back holding something else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use push::{Fence, Version};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::delivery::{Deliveries, Delivery};
use crate::leader::{Leadership, Standing};

/// How long a pod without a stream is remembered. A dataplane dials again within seconds; one that does not for this long is gone.
const REMEMBERED_FOR: Duration = Duration::from_mins(15);

/// Knows the pods.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Mutex<State>,
    deliveries: watch::Sender<Arc<Deliveries>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    term: Option<Fence>,
    pods: HashMap<Arc<str>, Entry>,
    /// Numbers the streams, to tell two of one pod apart.
    streams: u64,
}

#[derive(Debug)]
struct Entry {
    stream: u64,
    superseded: CancellationToken,
    /// Of the set that was acknowledged last.
    version: Option<Version>,
    left: Option<Instant>,
}

/// A pod's stream. It leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    ledger: Arc<Ledger>,
    uid: Arc<str>,
    stream: u64,
    /// Cancelled when a newer stream of the same pod begins.
    pub(super) superseded: CancellationToken,
}

impl Ledger {
    pub(super) fn new(deliveries: watch::Sender<Arc<Deliveries>>, metrics: Metrics) -> Self {
        Self {
            state: Mutex::new(State {
                term: None,
                pods: HashMap::new(),
                streams: 0,
            }),
            deliveries,
            metrics,
        }
    }

    /// Forgets what was taken if the term is another one.
    pub(super) fn follow(&self, standing: &Standing) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock, so that terms are entered in their order.
        let term = match standing.now() {
            Leadership::Follower => None,
            Leadership::Leader(fence) => Some(fence),
        };
        if state.term == term {
            return;
        }
        state.term = term;
        for pod in state.pods.values_mut() {
            pod.version = None;
        }
        self.change(|deliveries| {
            let any = !deliveries.is_empty();
            deliveries.clear();
            any
        });
    }

    /// A stream of a pod begins.
    pub(super) fn join(self: &Arc<Self>, uid: &Arc<str>) -> Membership {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget(&mut state, Instant::now());
        state.streams += 1;
        let stream = state.streams;
        let superseded = CancellationToken::new();
        let version = state.pods.get(uid).and_then(|entry| {
            entry.superseded.cancel();
            entry.version
        });
        let entry = Entry {
            stream,
            superseded: superseded.clone(),
            version,
            left: None,
        };
        state.pods.insert(uid.clone(), entry);
        self.count(&state);
        Membership {
            ledger: self.clone(),
            uid: uid.clone(),
            stream,
            superseded,
        }
    }

    /// Drops the pods that are gone for long.
    fn forget(&self, state: &mut State, now: Instant) {
        let gone = |entry: &Entry| entry.left.is_some_and(|left| left + REMEMBERED_FOR <= now);
        let before = state.pods.len();
        state.pods.retain(|_, entry| !gone(entry));
        // Only pods that are listed have a delivery.
        if state.pods.len() < before {
            self.change(|deliveries| {
                let before = deliveries.len();
                deliveries.retain(|uid, _| state.pods.contains_key(uid));
                deliveries.len() < before
            });
        }
    }

    fn count(&self, state: &State) {
        let connected = state.pods.values().filter(|entry| entry.left.is_none());
        self.metrics.set_connected(connected.count());
    }

    /// Changes the map; `f` says whether it did, and nobody is told if not. It is copied only while a reader holds it: every Ack of
    /// every pod comes here.
    fn change(&self, f: impl FnOnce(&mut Deliveries) -> bool) {
        self.deliveries
            .send_if_modified(|deliveries| f(Arc::make_mut(deliveries)));
    }
}

impl Membership {
    /// What the pod holds when it comes: if that is not what it took last, nothing is known of it.
    pub(super) fn greet(&self, held: Version) {
        self.with_entry(|entry, _| {
            if entry.version == Some(held) {
                return;
            }
            entry.version = None;
            self.ledger
                .change(|deliveries| deliveries.remove(&self.uid).is_some());
        });
    }

    /// The pod has taken a set of the term `fence`.
    pub(super) fn record(&self, fence: &Fence, version: Version, delivery: Delivery) {
        self.with_entry(|entry, term| {
            if term != Some(fence) {
                return;
            }
            entry.version = Some(version);
            self.ledger.change(|deliveries| {
                let differs = deliveries.get(&self.uid) != Some(&delivery);
                deliveries.insert(self.uid.clone(), delivery);
                differs
            });
        });
    }

    /// Nothing happens if a newer stream of the pod has begun.
    fn with_entry(&self, f: impl FnOnce(&mut Entry, Option<&Fence>)) {
        let mut state = self
            .ledger
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let State { term, pods, .. } = &mut *state;
        let entry = pods.get_mut(&self.uid);
        if let Some(entry) = entry.filter(|entry| entry.stream == self.stream) {
            f(entry, term.as_ref());
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.with_entry(|entry, _| entry.left = Some(Instant::now()));
        let state = self
            .ledger
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.ledger.count(&state);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::time::advance;

    use super::*;

    fn taken(sequence: u64) -> Delivery {
        Delivery {
            sequence,
            left_out: Arc::default(),
            rejected: Arc::default(),
            complete: true,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_are_gone_for_long_are_forgotten() {
        let (sender, deliveries) = watch::channel(Arc::default());
        let ledger = Ledger::new(sender, Metrics::new(&mut Registry::default()));
        let ledger = Arc::new(ledger);
        let [gone, here] = ["gone", "here"].map(Arc::from);
        let stays = ledger.join(&here);
        drop(ledger.join(&gone));
        ledger.change(|deliveries| {
            deliveries.extend([&gone, &here].map(|uid| (uid.clone(), taken(1))));
            true
        });
        advance(REMEMBERED_FOR / 2).await;
        drop(ledger.join(&Arc::from("other")));
        assert_eq!(deliveries.borrow().len(), 2);
        advance(REMEMBERED_FOR / 2).await;
        drop(ledger.join(&Arc::from("other")));
        assert_eq!(deliveries.borrow().keys().collect::<Vec<_>>(), [&here]);
        drop(stays);
    }

    #[tokio::test]
    async fn a_stream_that_was_superseded_or_is_of_another_term_says_nothing() {
        let (sender, deliveries) = watch::channel(Arc::default());
        let ledger = Ledger::new(sender, Metrics::new(&mut Registry::default()));
        let ledger = Arc::new(ledger);
        let [now, before] = [2, 1].map(|transitions| Fence {
            lease_uid: "lease".into(),
            transitions,
        });
        ledger.state.lock().unwrap().term = Some(now.clone());
        let uid = Arc::from("uid-1");
        let version = push::EncodedSet::empty().version();
        let first = ledger.join(&uid);
        first.record(&before, version, taken(1));
        assert!(deliveries.borrow().is_empty());
        let second = ledger.join(&uid);
        assert!(first.superseded.is_cancelled() && !second.superseded.is_cancelled());
        first.record(&now, version, taken(1));
        assert!(deliveries.borrow().is_empty());
        second.record(&now, version, taken(2));
        // The end of the first is not the end of the second.
        drop(first);
        assert!(ledger.state.lock().unwrap().pods[&uid].left.is_none());
        second.greet(version);
        assert_eq!(deliveries.borrow()[&uid], taken(2));
    }
}
