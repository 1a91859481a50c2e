//! The loop of every replica: events -> Store -> debounce -> compile -> [`Output`].
//!
//! At once when quiet, then at most one compile in 100 ms, on a thread of its own: 10,000 routes take long, and the Lease and the
//! push go on meanwhile. Nothing is compiled before every source was listed. Nothing is published before the Secrets that it refers
//! to were read, each for at most [`WITHHELD`]; the first time those that the watch shows for [`FIRST_WITHHELD`]. What was published
//! last stays whole meanwhile, so that a route which goes from one good certificate to another serves nothing else in between; that
//! is also why a Secret is forgotten only after a publish.
//!
//! [`WITHHELD`]: crate::secrets::WITHHELD

mod judged;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::blocking::blocking;
use crate::compile::Compiled;
use crate::debounce::{self, Debounce};
use crate::decode::Item;
use crate::freshness::Answers;
use crate::health::Health;
use crate::intake::{Intake, Source, Taken};
use crate::output::Output;
use crate::secret_reader::{Answer, Answered, SecretReader};
use crate::secrets::{Read, Ticket, Unanswered};
use crate::store::{ObjectKey, Snapshot};
use crate::watch::Event;
use judged::{Judged, judge};

/// Events that wait for the compiler. Watchers wait when it is full, and the API server with them.
pub(crate) const QUEUE: usize = 1024;
/// How often to read referenced Secrets that the watch does not show.
const REREAD: Duration = Duration::from_mins(1);
/// Longest sleep towards a time on the wall clock, which may be set or stand still while the machine sleeps.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);
/// Longest time that the first publish waits for Secrets which the watch shows. Without them dataplanes that start have no
/// certificates, so that it is worth waiting for an API server that is itself starting; but one Secret that cannot be read must not
/// keep all others from being served.
const FIRST_WITHHELD: Duration = Duration::from_secs(30);

/// The pure function that makes everything of a snapshot.
pub(crate) type Compile = Arc<dyn Fn(&Snapshot, Timestamp) -> Compiled + Send + Sync>;

/// What the watchers tell.
pub(crate) type Events = mpsc::Receiver<(Source, Event<Item>)>;

/// Turns what is watched into outputs.
pub(crate) struct Compiler {
    compile: Compile,
    intake: Intake,
    reader: SecretReader,
    outputs: watch::Sender<Option<Arc<Output>>>,
    answers: Answers<Source>,
    health: Arc<Health>,
    /// When a publish that waits for Secrets waits no longer.
    withheld_until: Option<Instant>,
    /// When the first publish waits no longer; nothing before the first compile.
    first_until: Option<Instant>,
    /// The requests for Secrets that were under way when everything was listed in an epoch: it is not over before their answers. What
    /// is asked later is not waited for, or a Secret that is written again and again would hold up the epoch.
    under_way: Vec<(ObjectKey, Ticket)>,
}

impl Compiler {
    pub(crate) fn new(
        compile: Compile,
        intake: Intake,
        reader: SecretReader,
        outputs: watch::Sender<Option<Arc<Output>>>,
        answers: Answers<Source>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            compile,
            intake,
            reader,
            outputs,
            answers,
            health,
            withheld_until: None,
            first_until: None,
            under_way: Vec::new(),
        }
    }

    /// Runs until the queue is closed.
    ///
    /// # Panics
    /// When the compile does: then nothing that it would come to can be trusted.
    pub(crate) async fn run(mut self, mut events: Events) {
        let mut debounce = Debounce::new(debounce::INTERVAL);
        let mut reread = interval(REREAD);
        reread.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recheck_at = None;
        let mut changed = false;
        loop {
            while !changed {
                self.acted();
                changed = tokio::select! {
                    event = events.recv() => match event {
                        Some((source, event)) => self.take(&source, event),
                        None => return,
                    },
                    answered = self.reader.next() => self.answered(answered),
                    _ = reread.tick() => {
                        let unlisted = self.intake.reread_unlisted();
                        self.read(unlisted);
                        false
                    }
                    () = reached(recheck_at) => true,
                    () = passed(self.withheld_until) => true,
                };
            }
            self.wait_for(&mut debounce).await;
            // What came meanwhile is part of it; no more than a full queue, or a busy cluster would never be compiled.
            for _ in 0..QUEUE {
                let Ok((source, event)) = events.try_recv() else {
                    break;
                };
                self.take(&source, event);
            }
            changed = false;
            recheck_at = None;
            if self.intake.is_listed() {
                let Some((judged, answered)) = self.judge(Timestamp::now()).await else {
                    return;
                };
                changed = answered;
                recheck_at = judged.recheck_at;
                self.publish(judged);
            }
        }
    }

    /// Everything that was taken is published, unless a publish is withheld; what is being read is not taken yet.
    fn acted(&mut self) {
        let now = Instant::now();
        self.under_way
            .retain(|(key, ticket)| self.intake.is_under_way(key, *ticket, now));
        if self.withheld_until.is_none() && self.under_way.is_empty() {
            self.answers.acted();
        }
    }

    /// Waits for the turn; Secrets are read on meanwhile.
    async fn wait_for(&mut self, debounce: &mut Debounce) {
        loop {
            tokio::select! {
                () = debounce.turn() => return,
                answered = self.reader.next() => self.answered(answered),
            };
        }
    }

    /// Compiles on a thread for work that blocks. Secrets are read on meanwhile; returns also whether an answer changed what the
    /// next compile comes to. Events wait, because whether they matter is only known afterwards. Nothing when the runtime ends.
    async fn judge(&mut self, now: Timestamp) -> Option<(Judged, bool)> {
        let (compile, snapshot) = (self.compile.clone(), self.intake.snapshot());
        let last = self.outputs.borrow().clone();
        let work = move || judge(&compile, &snapshot, now, last.as_deref());
        let mut judging = pin!(blocking(work));
        let mut changed = false;
        loop {
            tokio::select! {
                judged = &mut judging => return Some((judged?, changed)),
                answered = self.reader.next() => changed |= self.answered(answered),
            }
        }
    }

    fn read(&mut self, reads: Vec<Read>) {
        for read in reads {
            self.reader.read(read);
        }
    }

    /// Returns whether a compile could come out differently.
    fn take(&mut self, source: &Source, event: Event<Item>) -> bool {
        let is_undefined = self.is_undefined(source, &event);
        let event = if is_undefined {
            self.health.watched(source, &Event::<Item>::Watching);
            Event::Listed(Vec::new())
        } else {
            event
        };
        let redefined =
            matches!(event, Event::Listed(_)) && self.intake.define(source.kind, !is_undefined);
        if let Event::Answered(epoch) = event
            && self.answers.answered(source, epoch)
        {
            self.under_way = self.intake.under_way(Instant::now());
        }
        self.health.watched(source, &event);
        let Taken {
            changed,
            undecodable,
            read,
        } = self.intake.take(source, event);
        if undecodable {
            self.health.undecodable(self.intake.undecodable());
        }
        self.read(read);
        changed || redefined
    }

    /// Whether the cluster is without a kind that it may be without: then there are no objects of it, which is nothing to report. Once
    /// there were some, a 404 is no evidence that they are gone.
    fn is_undefined(&self, source: &Source, event: &Event<Item>) -> bool {
        let Event::Failed(failure) = event else {
            return false;
        };
        source.kind.is_optional() && failure.code() == Some(404) && self.intake.is_empty(source)
    }

    /// Returns whether a compile could come out differently, or a publish need not wait any more.
    fn answered(&mut self, answered: Answered) -> bool {
        let key = answered.key.clone();
        let failure = match &answered.answer {
            Answer::Failed { failure, .. } => Some(failure.clone()),
            Answer::Present(_) | Answer::Absent => None,
        };
        let Some(follows) = self.intake.answered(answered) else {
            return false;
        };
        match failure {
            Some(failure) => self.health.secret_failed(&key, &failure),
            None => self.health.secret_read(&key),
        }
        if let Some((read, wait)) = follows.next {
            self.reader.read_after(read, wait);
        }
        follows.changed
    }

    fn publish(&mut self, judged: Judged) {
        let Judged {
            output,
            references,
            unread,
            recheck_at: _,
            routes,
            seconds,
        } = judged;
        self.health.metrics.compiled(seconds, routes);
        let now = Instant::now();
        let read = self.intake.refer(references, now);
        self.read(read);
        self.withheld_until = self.withheld(&unread, now);
        if self.withheld_until.is_some() {
            return;
        }
        for key in self.intake.forget() {
            self.reader.forget(&key);
            self.health.secret_forgotten(&key);
        }
        let Some(output) = output else {
            return;
        };
        let last = self.outputs.borrow().as_ref().map(|last| last.sequence);
        if last != Some(output.sequence) {
            self.health.metrics.published(output.sequence);
            self.health.published();
            tracing::info!(
                sequence = output.sequence,
                routes = output.resources.routes.len(),
                backends = output.resources.backends.len(),
                certificates = output.resources.certificates.len(),
                "published"
            );
        }
        self.outputs.send_replace(Some(Arc::new(output)));
    }

    /// Until when not to publish without these Secrets, which nobody has read yet; nothing if they are not waited for.
    fn withheld(&mut self, unread: &[ObjectKey], now: Instant) -> Option<Instant> {
        let Unanswered { listed, due } = self.intake.unanswered(unread, now);
        if self.outputs.borrow().is_some() {
            return due;
        }
        let until = *self.first_until.get_or_insert(now + FIRST_WITHHELD);
        let until = if listed {
            Some(until)
        } else {
            due.map(|due| due.min(until))
        };
        until.filter(|until| now < *until)
    }
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

/// Waits for an instant; for ever if there is none.
async fn passed(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
