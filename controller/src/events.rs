//! Kubernetes Events for what an operator must see: an object that cannot be decoded, something that cannot be watched.
//!
//! The leader looks every [`EVERY`] at what is wrong and has lasted, and tells each trouble once in its term, about the object
//! itself, or about the Lease of the controller where there is no object. At most [`MOST_AT_ONCE`] at a look; never one per change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::args::ObjectName;
use crate::failure::Failure;
use crate::health::{Health, Trouble};
use crate::leader::{Leadership, Standing};
use crate::store::Kind;

/// How often to look.
const EVERY: Duration = Duration::from_secs(10);
/// A failure that ends sooner is a hiccup.
const LASTING: Duration = Duration::from_secs(10);
/// Events of one look; the rest waits for the next.
const MOST_AT_ONCE: usize = 10;
/// Longest wait for one answer.
const REQUEST: Duration = Duration::from_secs(3);

/// Writes the events.
pub(crate) struct EventWriter {
    client: Client,
    reporter: Reporter,
    /// What troubles without an object are about.
    lease: ObjectReference,
    standing: Standing,
    health: Arc<Health>,
}

impl EventWriter {
    pub(crate) fn new(
        client: Client,
        lease: &ObjectName,
        instance: String,
        standing: Standing,
        health: Arc<Health>,
    ) -> Self {
        let reporter = Reporter {
            controller: "ws-ingress.dev/controller".to_owned(),
            instance: Some(instance),
        };
        Self {
            client,
            reporter,
            lease: ObjectReference {
                api_version: Some("coordination.k8s.io/v1".to_owned()),
                kind: Some("Lease".to_owned()),
                namespace: Some(lease.namespace.clone()),
                name: Some(lease.name.clone()),
                ..ObjectReference::default()
            },
            standing,
            health,
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut told = BTreeMap::new();
        let mut failing = false;
        let mut look = interval(EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            match self.standing.now() {
                // Before the first publish nobody may lead, and what holds it up must be told all the same.
                standing if standing != Leadership::Follower || !self.health.is_published() => {
                    let failed = self.tell(&mut told).await.err();
                    if let Some(failure) = failed.as_ref().filter(|_| !failing) {
                        tracing::warn!(error = %failure, "events cannot be written");
                    }
                    failing = failed.is_some();
                }
                Leadership::Leader(_) | Leadership::Follower => told.clear(),
            }
        }
    }

    async fn tell(&self, told: &mut BTreeMap<String, String>) -> Result<(), Failure> {
        let troubles = self.health.troubles(LASTING);
        let now = troubles.iter().map(|trouble| self.event(trouble));
        let now = now.collect::<Vec<_>>();
        // What ended and comes back is worth telling again.
        told.retain(|about, _| now.iter().any(|(other, ..)| other == about));
        let news = now
            .into_iter()
            .filter(|(about, note, _)| told.get(about) != Some(note));
        for (about, note, reference) in news.take(MOST_AT_ONCE).collect::<Vec<_>>() {
            let event = Event {
                type_: EventType::Warning,
                reason: reason(&reference).to_owned(),
                note: Some(note.clone()),
                action: "Watch".to_owned(),
                secondary: None,
            };
            // A new one each time: it would count an event about the same object as the one before, and keep the first note.
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            let published = timeout(REQUEST, recorder.publish(&event, &reference)).await;
            let failure = match published.map(|published| published.map_err(Failure::from)) {
                Ok(Ok(())) => {
                    told.insert(about, note);
                    continue;
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Timeout(REQUEST),
            };
            // The next look tries again; the others would fail alike.
            return Err(failure);
        }
        Ok(())
    }

    /// What a trouble is about, in words and as an object, and what to say.
    fn event(&self, trouble: &Trouble) -> (String, String, ObjectReference) {
        match trouble {
            Trouble::Unwatched(label, error) => {
                let note = format!("{label} cannot be watched, what is known of it stays: {error}");
                (label.clone(), note, self.lease.clone())
            }
            Trouble::Undecodable(object, why) => {
                let note = format!("cannot be decoded and is taken for absent: {}", why.error);
                let reference = ObjectReference {
                    api_version: Some(api_version(object.kind)),
                    kind: Some(object.kind.to_string()),
                    namespace: Some(object.namespace.to_string()),
                    name: Some(object.name.to_string()),
                    uid: Some(why.uid.to_string()),
                    ..ObjectReference::default()
                };
                (object.to_string(), note, reference)
            }
        }
    }
}

fn reason(reference: &ObjectReference) -> &'static str {
    match reference.kind.as_deref() {
        Some("Lease") => "CannotWatch",
        Some(_) | None => "CannotDecode",
    }
}

fn api_version(kind: Kind) -> String {
    match kind {
        Kind::WebSocketRoute => format!("{}/{}", crds::GROUP, crds::VERSION),
        Kind::Secret | Kind::Service => "v1".to_owned(),
        Kind::ReferenceGrant => crate::store::GRANT_API_VERSION.to_owned(),
        Kind::EndpointSlice => "discovery.k8s.io/v1".to_owned(),
    }
}
