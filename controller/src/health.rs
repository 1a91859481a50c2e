//! What works and what does not, for readiness, metrics, events and the log.
//!
//! Everybody tells here what became of the API server's answers. Not ready means that nothing was published yet, with the reasons;
//! after that the controller stays ready, because dataplanes reach it through its Service and what it has is still the best there
//! is. What is stale then is told beside it, with the error. A failure is logged when it begins and when it ends, never for each try.
//! The one exception is the class: who holds the Lease while another installation has the class serves nobody and is not ready.
//! Names of users' objects stand in the log and in events only: whoever reaches the status port learns kinds and counts, and of
//! another installation what is needed to end the conflict, its namespace, Lease and role.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::failure::Failure;
use crate::intake::Undecodable;
use crate::metrics::Metrics;
use crate::store::{ObjectKey, ObjectRef};
use crate::watch::Event;

/// Shared by all tasks.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) metrics: Metrics,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    /// By what is watched.
    watched: BTreeMap<String, Watched>,
    unread_secrets: BTreeMap<ObjectKey, Failure>,
    undecodable: BTreeMap<ObjectRef, Undecodable>,
    lease: Option<String>,
    /// Who serves our class instead of us.
    class_held: Option<String>,
    statuses: Option<String>,
    /// How many resources are over a limit of the push.
    left_out: usize,
    published: bool,
}

/// One watcher.
#[derive(Debug, Default)]
struct Watched {
    /// Whether nothing is published before it was listed.
    required: bool,
    listed: bool,
    failing: Option<(Failure, Instant)>,
}

impl Facts {
    /// The Secrets that could not be read, by what the API server said; its sentences name them.
    fn unread(&self, how: &str) -> Vec<String> {
        let mut counts = BTreeMap::<_, usize>::new();
        for failure in self.unread_secrets.values() {
            *counts.entry(failure.brief()).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|(failure, count)| format!("Secret: {count} {how}: {failure}"))
            .collect()
    }
}

/// Something that an operator should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    Undecodable(ObjectRef, Undecodable),
    /// What is watched, and the error.
    Unwatched(String, String),
    /// Who serves our class instead of us.
    ClassHeld(String),
}

impl Health {
    /// Everything that the first publish waits for, so that what was never heard of is missed.
    pub(crate) fn new(watched: impl Iterator<Item = String>, metrics: Metrics) -> Self {
        let watched = watched.map(|label| {
            (
                label,
                Watched {
                    required: true,
                    ..Watched::default()
                },
            )
        });
        Self {
            metrics,
            facts: Mutex::new(Facts {
                watched: watched.collect(),
                ..Facts::default()
            }),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watcher told something.
    pub(crate) fn watched<T>(&self, label: impl fmt::Display, event: &Event<T>) {
        if matches!(
            event,
            Event::Applied(_) | Event::Deleted(_) | Event::Answered(_)
        ) {
            // Every change of every pod in the cluster: nothing to note, so it costs nothing.
            return;
        }
        let label = label.to_string();
        let mut facts = self.facts();
        let watched = facts.watched.entry(label.clone()).or_default();
        match event {
            Event::Applied(_) | Event::Deleted(_) | Event::Answered(_) => return,
            Event::Listed(objects) => {
                if !watched.listed {
                    tracing::info!(watched = label, objects = objects.len(), "listed");
                }
                watched.listed = true;
            }
            Event::Watching => {
                if watched.failing.take().is_some() {
                    tracing::info!(watched = label, "watched again");
                }
            }
            Event::Failed(failure) => {
                if watched.failing.is_none() {
                    tracing::warn!(watched = label, error = %failure, "cannot be watched; what is known of it stays");
                }
                let since = watched
                    .failing
                    .take()
                    .map_or_else(Instant::now, |(_, since)| since);
                watched.failing = Some((failure.clone(), since));
            }
        }
        let (listed, fresh) = (watched.listed, watched.failing.is_none());
        self.metrics.watched(&label, listed, fresh);
    }

    /// A Secret was read.
    pub(crate) fn secret_read(&self, key: &ObjectKey) {
        if self.secret_forgotten(key) {
            tracing::info!(secret = %key, "read again");
        }
    }

    /// A Secret is not needed any more. Returns whether it could not be read.
    pub(crate) fn secret_forgotten(&self, key: &ObjectKey) -> bool {
        let mut facts = self.facts();
        let was_unread = facts.unread_secrets.remove(key).is_some();
        self.metrics.unread_secrets(facts.unread_secrets.len());
        was_unread
    }

    pub(crate) fn secret_failed(&self, key: &ObjectKey, failure: &Failure) {
        let mut facts = self.facts();
        if facts
            .unread_secrets
            .insert(key.clone(), failure.clone())
            .is_none()
        {
            tracing::warn!(secret = %key, error = %failure, "cannot be read; what is known of it stays");
        }
        self.metrics.unread_secrets(facts.unread_secrets.len());
    }

    pub(crate) fn undecodable(&self, now: &BTreeMap<ObjectRef, Undecodable>) {
        let mut facts = self.facts();
        if facts.undecodable == *now {
            return;
        }
        for (object, Undecodable { uid: _, error }) in now {
            if !facts.undecodable.contains_key(object) {
                tracing::warn!(%object, error, "cannot be decoded; it is taken for absent");
            }
        }
        facts.undecodable.clone_from(now);
        self.metrics.undecodable(now.len());
    }

    pub(crate) fn lease(&self, error: Option<String>) {
        self.facts().lease = error;
    }

    /// Who keeps this replica, which holds the Lease, from leading; who looks at the others logs it.
    pub(crate) fn class_held(&self, by: Option<String>) {
        self.facts().class_held = by;
    }

    pub(crate) fn statuses_written(&self) {
        if self.facts().statuses.take().is_some() {
            tracing::info!("statuses can be written again, or are another replica's to write");
        }
    }

    pub(crate) fn statuses_failed(&self, failure: &Failure) {
        if self.facts().statuses.replace(failure.to_string()).is_none() {
            tracing::warn!(error = %failure, "statuses cannot be written; they will be");
        }
    }

    /// So many resources are over a limit of the push. Which ones, the conditions of their routes say.
    pub(crate) fn left_out(&self, now: usize) {
        let before = std::mem::replace(&mut self.facts().left_out, now);
        match (before, now) {
            (0, 1..) => {
                tracing::error!(
                    resources = now,
                    "over a limit of the push: routes are left out, or resources held as they were; their routes are not Programmed"
                );
            }
            (1.., 0) => tracing::info!("within the limits of the push again"),
            (_, _) => {}
        }
    }

    pub(crate) fn published(&self) {
        self.facts().published = true;
    }

    pub(crate) fn is_published(&self) -> bool {
        self.facts().published
    }

    /// Why nothing was published yet, or may not be; empty when something was.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let facts = self.facts();
        if facts.published {
            return facts.class_held.iter().cloned().collect();
        }
        let missing = facts
            .watched
            .iter()
            .filter(|(_, watched)| watched.required && !watched.listed);
        let mut reasons = missing
            .map(|(label, watched)| match &watched.failing {
                Some((failure, _)) => format!("{label}: not listed yet: {failure}"),
                None => format!("{label}: not listed yet"),
            })
            .collect::<Vec<_>>();
        reasons.extend(facts.unread("not read yet"));
        if reasons.is_empty() {
            reasons.push("nothing was published yet".to_owned());
        }
        reasons
    }

    /// What is not as it should be while the controller goes on with what it has.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let facts = self.facts();
        let stale = facts.watched.iter().filter_map(|(label, watched)| {
            let (failure, since) = watched.failing.as_ref()?;
            let seconds = since.elapsed().as_secs();
            match (watched.required, watched.listed) {
                (_, true) => Some(format!("{label}: stale for {seconds} s: {failure}")),
                (false, false) => Some(format!("{label}: unknown for {seconds} s: {failure}")),
                // A reason, no warning.
                (true, false) => None,
            }
        });
        let unread = facts.unread("stale");
        let mut undecodable = BTreeMap::<_, usize>::new();
        for object in facts.undecodable.keys() {
            *undecodable.entry(object.kind.to_string()).or_default() += 1;
        }
        let undecodable = undecodable
            .into_iter()
            .map(|(kind, count)| format!("{kind}: {count} cannot be decoded; the log names them"));
        let lease = facts.lease.iter().map(|error| format!("Lease: {error}"));
        let statuses = facts
            .statuses
            .iter()
            .map(|error| format!("statuses: {error}"));
        let left_out = (facts.left_out > 0).then(|| {
            let count = facts.left_out;
            format!("push: {count} resources are over a limit; their routes are not Programmed")
        });
        stale
            .chain(unread)
            .chain(undecodable)
            .chain(lease)
            .chain(statuses)
            .chain(left_out)
            .collect()
    }

    /// What lasts and is worth an event; a hiccup is none.
    pub(crate) fn troubles(&self, lasting: std::time::Duration) -> Vec<Trouble> {
        let facts = self.facts();
        let unwatched = facts.watched.iter().filter_map(|(label, watched)| {
            let (failure, since) = watched.failing.as_ref()?;
            (since.elapsed() >= lasting)
                .then(|| Trouble::Unwatched(label.clone(), failure.to_string()))
        });
        let undecodable = facts.undecodable.iter();
        let undecodable =
            undecodable.map(|(object, why)| Trouble::Undecodable(object.clone(), why.clone()));
        let class_held = facts.class_held.iter().cloned().map(Trouble::ClassHeld);
        // Objects last: there may be many, and what tells of them has its limits.
        unwatched.chain(class_held).chain(undecodable).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::registry::Registry;

    use super::*;

    fn failed() -> Event<()> {
        Event::Failed(Failure::Refused {
            code: 403,
            reason: "Forbidden".to_owned(),
            message: "no".to_owned(),
        })
    }

    fn health() -> Health {
        let watched = ["Secret", "Service"].map(ToOwned::to_owned);
        let metrics = Metrics::new(&mut Registry::default());
        Health::new(watched.into_iter(), metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_listed_is_the_reason() {
        let health = health();
        assert_eq!(
            health.reasons(),
            ["Secret: not listed yet", "Service: not listed yet"]
        );
        health.watched("Secret", &failed());
        health.watched("Service", &Event::Listed(vec![()]));
        assert_eq!(
            health.reasons(),
            ["Secret: not listed yet: 403 Forbidden: no"]
        );
        health.watched("Secret", &Event::Listed(vec![()]));
        assert_eq!(health.reasons(), ["nothing was published yet"]);
        health.published();
        assert!(health.reasons().is_empty());
    }

    #[tokio::test]
    async fn the_pages_name_no_object() {
        let health = health();
        for name in ["payroll-tls", "bank-tls"] {
            let key = ObjectKey {
                namespace: "treasury".into(),
                name: name.into(),
            };
            let failure = Failure::Refused {
                code: 403,
                reason: "Forbidden".to_owned(),
                message: format!("secrets {name:?} is forbidden in the namespace treasury"),
            };
            health.secret_failed(&key, &failure);
        }
        let object = ObjectRef {
            kind: crate::store::Kind::WebSocketRoute,
            namespace: "treasury".into(),
            name: "payroll".into(),
        };
        let why = Undecodable {
            uid: "u".into(),
            error: "spec.payroll".to_owned(),
        };
        health.undecodable(&[(object, why)].into());
        assert_eq!(
            health.reasons()[2..],
            ["Secret: 2 not read yet: 403 Forbidden"]
        );
        assert_eq!(
            health.warnings(),
            [
                "Secret: 2 stale: 403 Forbidden",
                "WebSocketRoute: 1 cannot be decoded; the log names them"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_later_is_stale_until_it_is_watched_again() {
        let health = health();
        health.watched("Secret", &Event::Listed(vec![()]));
        health.published();
        health.watched("Secret", &failed());
        tokio::time::advance(Duration::from_secs(34)).await;
        health.watched("Secret", &failed());
        assert!(health.reasons().is_empty());
        assert_eq!(
            health.warnings(),
            ["Secret: stale for 34 s: 403 Forbidden: no"]
        );
        assert_eq!(health.troubles(Duration::from_secs(30)).len(), 1);
        assert!(health.troubles(Duration::from_secs(35)).is_empty());
        health.watched("Secret", &Event::<()>::Watching);
        assert!(health.warnings().is_empty());
    }
}
