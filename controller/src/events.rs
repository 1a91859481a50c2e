//! Kubernetes Events for what an operator must see: an object that cannot be decoded, something that cannot be watched.
//!
//! Whoever holds the Lease, and before the first publish every replica, looks each [`EVERY`] at what is wrong and has lasted, and
//! tells each trouble once in its term, about the object itself, or about the Lease of the controller where there is no object. At most [`MOST_AT_ONCE`] at a look; never one per change:
//! of one trouble, whatever becomes of its words, there is at most one event in [`AGAIN`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::args::ObjectName;
use crate::failure::Failure;
use crate::health::{Health, Trouble};
use crate::leader::Standing;
use crate::store::Kind;

/// How often to look.
const EVERY: Duration = Duration::from_secs(10);
/// A failure that ends sooner is a hiccup.
const LASTING: Duration = Duration::from_secs(10);
/// Events of one look; the rest waits for the next.
const MOST_AT_ONCE: usize = 10;
/// Least time between two events of one trouble, when its words change or it ends and comes back: an API server whose errors alternate
/// would otherwise be written to at every look.
const AGAIN: Duration = Duration::from_mins(10);
/// Most troubles that are remembered as told, a few hundred bytes each. What comes beyond them waits until some have ended; the log
/// has all.
const MOST_TOLD: usize = 1000;
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
        let mut told = Told::default();
        let mut failing = false;
        let mut look = interval(EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            // Whoever holds the Lease, even while another installation keeps it from leading; and before the first publish
            // everybody, because what holds that up keeps all from standing.
            if self.standing.held().is_some() || !self.health.is_published() {
                let failed = self.tell(&mut told).await.err();
                if let Some(failure) = failed.as_ref().filter(|_| !failing) {
                    tracing::warn!(error = %failure, "events cannot be written");
                }
                failing = failed.is_some();
            } else {
                told = Told::default();
            }
        }
    }

    async fn tell(&self, told: &mut Told) -> Result<(), Failure> {
        let troubles = self.health.troubles(LASTING);
        let news = troubles.iter().map(|trouble| self.report(trouble));
        let news = told.news(news.collect(), Instant::now());
        for report in news.into_iter().take(MOST_AT_ONCE) {
            let event = Event {
                type_: EventType::Warning,
                reason: report.reason.to_owned(),
                note: Some(report.note.clone()),
                action: "Watch".to_owned(),
                secondary: None,
            };
            // A new one each time: it would count an event about the same object as the one before, and keep the first note.
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            let published = recorder.publish(&event, &report.object);
            let published = timeout(REQUEST, published).await;
            let failure = match published.map(|published| published.map_err(Failure::from)) {
                Ok(Ok(())) => {
                    told.told(report, Instant::now());
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

    fn report(&self, trouble: &Trouble) -> Report {
        match trouble {
            Trouble::Unwatched(label, error) => Report {
                about: format!("watching {label}"),
                reason: "CannotWatch",
                note: format!("{label} cannot be watched, what is known of it stays: {error}"),
                object: self.lease.clone(),
            },
            Trouble::ClassHeld(by) => Report {
                about: "the class".to_owned(),
                reason: "ClassHeld",
                note: by.clone(),
                object: self.lease.clone(),
            },
            Trouble::Undecodable(object, why) => Report {
                about: object.to_string(),
                reason: "CannotDecode",
                note: format!("cannot be decoded and is taken for absent: {}", why.error),
                object: ObjectReference {
                    api_version: Some(api_version(object.kind)),
                    kind: Some(object.kind.to_string()),
                    namespace: Some(object.namespace.to_string()),
                    name: Some(object.name.to_string()),
                    uid: Some(why.uid.to_string()),
                    ..ObjectReference::default()
                },
            },
        }
    }
}

/// A trouble as an event.
#[derive(Debug, Clone, PartialEq)]
struct Report {
    /// What tells it apart from other troubles, however it is worded.
    about: String,
    reason: &'static str,
    note: String,
    object: ObjectReference,
}

/// What was told: the words and when.
#[derive(Debug, Default)]
struct Told(BTreeMap<String, (String, Instant)>);

impl Told {
    /// What of this is to be told now. What ended is forgotten after a while: when it comes back then, it is worth telling again.
    fn news(&mut self, reports: Vec<Report>, now: Instant) -> Vec<Report> {
        let lasting: BTreeSet<_> = reports.iter().map(|report| &report.about).collect();
        self.0
            .retain(|about, (_, at)| lasting.contains(about) || now < *at + AGAIN);
        let is_news = |report: &Report| {
            let told = self.0.get(&report.about);
            told.is_none_or(|(note, at)| *note != report.note && *at + AGAIN <= now)
        };
        let mut room = MOST_TOLD.saturating_sub(self.0.len());
        let mut has_room = |report: &Report| {
            let known = self.0.contains_key(&report.about);
            let fits = known || room > 0;
            room -= usize::from(fits && !known);
            fits
        };
        let news = reports.into_iter().filter(is_news);
        news.filter(|report| has_room(report)).collect()
    }

    fn told(&mut self, report: Report, now: Instant) {
        self.0.insert(report.about, (report.note, now));
    }
}

fn api_version(kind: Kind) -> String {
    match kind {
        Kind::WebSocketRoute | Kind::ExternalBackend => {
            format!("{}/{}", crds::GROUP, crds::VERSION)
        }
        Kind::Secret | Kind::Service => "v1".to_owned(),
        Kind::ReferenceGrant => crate::store::GRANT_API_VERSION.to_owned(),
        Kind::EndpointSlice => "discovery.k8s.io/v1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(about: &str, note: &str) -> Report {
        Report {
            about: about.to_owned(),
            reason: "CannotWatch",
            note: note.to_owned(),
            object: ObjectReference::default(),
        }
    }

    #[test]
    fn a_trouble_whose_words_alternate_is_told_once_in_a_while() {
        let start = Instant::now();
        let mut told = Told::default();
        let mut events = 0;
        // An hour of looks; it even ends now and then.
        for look in 0..360 {
            let now = start + EVERY * look;
            let reports = match look % 3 {
                0 => vec![report("watching Secret", "403")],
                1 => vec![report("watching Secret", "timeout")],
                _ => Vec::new(),
            };
            for news in told.news(reports, now) {
                told.told(news, now);
                events += 1;
            }
        }
        assert_eq!(events, 6);
    }

    #[test]
    fn many_troubles_are_all_told_in_time_up_to_the_limit() {
        let start = Instant::now();
        let mut told = Told::default();
        let reports = |count: usize| {
            let about = 0..count;
            about
                .map(|number| report(&format!("{number:05}"), "x"))
                .collect::<Vec<_>>()
        };
        for news in told.news(reports(2 * MOST_TOLD), start) {
            told.told(news, start);
        }
        assert_eq!(told.0.len(), MOST_TOLD);
        assert!(told.news(reports(2 * MOST_TOLD), start).is_empty());
        // Some ended, and the next have their turn.
        let left = reports(2 * MOST_TOLD).split_off(MOST_TOLD / 2);
        let news = told.news(left, start + AGAIN);
        assert_eq!(news.len(), MOST_TOLD / 2);
        assert_eq!(news[0].about, format!("{MOST_TOLD:05}"));
    }

    #[test]
    fn each_trouble_is_told_once_while_it_lasts_and_again_when_it_comes_back_later() {
        let start = Instant::now();
        let mut told = Told::default();
        let both = || vec![report("a", "x"), report("b", "x")];
        assert_eq!(told.news(both(), start), both());
        told.told(report("a", "x"), start);
        assert_eq!(told.news(both(), start), [report("b", "x")]);
        told.told(report("b", "x"), start);
        assert!(told.news(both(), start + 5 * AGAIN).is_empty());
        assert!(told.news(Vec::new(), start + 5 * AGAIN).is_empty());
        assert_eq!(told.news(both(), start + 6 * AGAIN), both());
    }
}
