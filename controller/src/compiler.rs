//! The loop of every replica: events -> Store -> debounce -> compile -> [`Output`].
//!
//! At once when quiet, then at most one compile in 100 ms. Nothing is compiled before every source was listed, and nothing is
//! published before every Secret that routes refer to had an answer; after that, each compile that comes out differently is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use route_table::RouteKey;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::compile::{CompileConfig, Compiled, RouteStatus, compile};
use crate::debounce::{self, Debounce};
use crate::decode::Item;
use crate::health::Health;
use crate::intake::{Intake, Source, Taken};
use crate::output::{Output, Report};
use crate::secret_reader::{Answer, SecretReader};
use crate::store::{Kind, ObjectKey, Snapshot};
use crate::watch::Event;

/// Events that wait for the compiler. Watchers wait when it is full, and the API server with them.
pub(crate) const QUEUE: usize = 1024;
/// How often to read referenced Secrets that the watch does not show.
const REREAD: Duration = Duration::from_mins(1);
/// Longest sleep towards a time on the wall clock, which may be set or stand still while the machine sleeps.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// What comes in.
pub(crate) struct Queues {
    pub(crate) events: mpsc::Receiver<(Source, Event<Item>)>,
    pub(crate) answers: mpsc::Receiver<(ObjectKey, Answer)>,
}

/// Turns what is watched into outputs.
pub(crate) struct Compiler {
    pub(crate) config: CompileConfig,
    pub(crate) intake: Intake,
    pub(crate) reader: SecretReader,
    pub(crate) outputs: watch::Sender<Option<Arc<Output>>>,
    pub(crate) health: Arc<Health>,
}

impl Compiler {
    /// Runs until a queue is closed.
    pub(crate) async fn run(mut self, mut queues: Queues) {
        let mut debounce = Debounce::new(debounce::INTERVAL);
        let mut reread = interval(REREAD);
        reread.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recheck_at = None;
        loop {
            let changed = tokio::select! {
                event = queues.events.recv() => match event {
                    Some((source, event)) => self.take(&source, event),
                    None => return,
                },
                answer = queues.answers.recv() => match answer {
                    Some((key, answer)) => self.answered(&key, answer),
                    None => return,
                },
                _ = reread.tick() => {
                    let unlisted = self.intake.reread_unlisted();
                    self.read(unlisted);
                    false
                }
                () = reached(recheck_at) => true,
            };
            if !changed {
                continue;
            }
            debounce.turn().await;
            // What came meanwhile is part of it; no more than a full queue, or a busy cluster would never be compiled.
            for _ in 0..QUEUE {
                let Ok((source, event)) = queues.events.try_recv() else {
                    break;
                };
                self.take(&source, event);
            }
            while let Ok((key, answer)) = queues.answers.try_recv() {
                self.answered(&key, answer);
            }
            recheck_at = self.publish(Timestamp::now());
        }
    }

    fn read(&self, keys: Vec<ObjectKey>) {
        for key in keys {
            self.reader.read(key, Duration::ZERO);
        }
    }

    /// Returns whether a compile could come out differently.
    fn take(&mut self, source: &Source, event: Event<Item>) -> bool {
        let event = self.without_definition(source, event);
        self.health.watched(source, &event);
        let Taken { changed, read } = self.intake.take(source, event);
        self.health.undecodable(self.intake.undecodable());
        self.read(read);
        changed
    }

    /// The one kind whose definition may be absent: then there are no grants, which is nothing to report. Once there were some, a 404
    /// is no evidence that they are gone.
    fn without_definition(&self, source: &Source, event: Event<Item>) -> Event<Item> {
        match event {
            Event::Failed(failure)
                if source.kind == Kind::ReferenceGrant
                    && failure.code() == Some(404)
                    && self.intake.is_empty(source) =>
            {
                self.health.watched(source, &Event::<Item>::Watching);
                Event::Listed(Vec::new())
            }
            event => event,
        }
    }

    fn answered(&mut self, key: &ObjectKey, answer: Answer) -> bool {
        match &answer {
            Answer::Failed { failure, .. } => self.health.secret_failed(key, failure),
            Answer::Present(_) | Answer::Absent => self.health.secret_read(key),
        }
        let answered = self.intake.answered(key, answer);
        match answered.retry {
            Some(wait) => self.reader.read(key.clone(), wait),
            None => self.health.secret_read(key),
        }
        self.read(answered.taken.read);
        answered.taken.changed
    }

    /// Returns when time alone will change the result.
    fn publish(&mut self, now: Timestamp) -> Option<Timestamp> {
        if !self.intake.is_listed() {
            return None;
        }
        let snapshot = self.intake.snapshot();
        let began = Instant::now();
        let compiled = compile(&snapshot, &self.config, now);
        let seconds = began.elapsed().as_secs_f64();
        self.health
            .metrics
            .compiled(seconds, compiled.statuses.len());
        let Compiled {
            resources,
            statuses,
            references,
            recheck_at,
        } = compiled;
        let read = self.intake.refer(references);
        self.read(read);
        let last = self.outputs.borrow().clone();
        if last.is_none() && !self.intake.is_read() {
            return recheck_at;
        }
        let statuses = reports(&snapshot, statuses);
        let same = |last: &Arc<Output>| *last.resources == resources;
        let (sequence, resources) = match last.as_ref().filter(|last| same(last)) {
            Some(last) if *last.statuses == statuses && last.recheck_at == recheck_at => {
                return recheck_at;
            }
            Some(last) => (last.sequence, last.resources.clone()),
            None => (
                last.as_ref().map_or(0, |last| last.sequence) + 1,
                Arc::new(resources),
            ),
        };
        if last.is_none_or(|last| last.sequence != sequence) {
            self.health.metrics.published(sequence);
            self.health.published();
            tracing::info!(
                sequence,
                routes = resources.routes.len(),
                backends = resources.backends.len(),
                certificates = resources.certificates.len(),
                "published"
            );
        }
        self.outputs.send_replace(Some(Arc::new(Output {
            sequence,
            resources,
            statuses: Arc::new(statuses),
            recheck_at,
        })));
        recheck_at
    }
}

/// The statuses with the uids of the routes that they speak of.
fn reports(
    snapshot: &Snapshot,
    mut statuses: BTreeMap<RouteKey, RouteStatus>,
) -> BTreeMap<RouteKey, Report> {
    let mut reports = BTreeMap::new();
    for (key, route) in snapshot.routes() {
        let key = RouteKey {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        };
        if let Some(status) = statuses.remove(&key) {
            let uid = route.metadata.uid.as_deref().unwrap_or_default().into();
            reports.insert(key, Report { uid, status });
        }
    }
    reports
}

/// Waits for a time on the wall clock; for ever if there is none.
async fn reached(time: Option<Timestamp>) {
    let Some(time) = time else {
        return std::future::pending().await;
    };
    loop {
        let left = Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        sleep(left.min(LONGEST_SLEEP)).await;
    }
}
