//! The order in which Secrets are read. Pure but for the time that it is told.
//!
//! In: reads, now or after a wait. Out: which one is next, and when there will be one. A Secret waits here at most once. Prompt reads
//! go first, as fast as they are answered; patient ones are spaced out. Among each, the namespaces take turns, so that whoever names
//! a thousand Secrets waits behind himself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::secrets::{Pace, Read};
use crate::store::ObjectKey;

/// Least time between two patient reads: 100 a second are nothing to an API server, and 6,000 Secrets that no watch shows are still
/// read each minute. Without it, one author who names Secrets that do not exist would decide how much is asked.
pub(crate) const SPACING: Duration = Duration::from_millis(10);

/// What waits to be read.
#[derive(Debug)]
pub(crate) struct SecretQueue {
    waiting: BTreeMap<ObjectKey, (Read, Place)>,
    prompt: Lane,
    patient: Lane,
    later: BTreeSet<(Instant, ObjectKey)>,
    /// When the next patient read may begin.
    earliest: Instant,
    arrivals: u64,
}

/// Where a Secret waits.
#[derive(Debug, Clone, Copy)]
enum Place {
    Prompt { arrival: u64 },
    Patient { arrival: u64 },
    Later { until: Instant },
}

/// First come, first served within a namespace; the namespaces take turns.
#[derive(Debug, Default)]
struct Lane {
    namespaces: BTreeMap<Arc<str>, BTreeMap<u64, ObjectKey>>,
    /// Whose turn it was last.
    last: Option<Arc<str>>,
}

impl SecretQueue {
    pub(crate) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            prompt: Lane::default(),
            patient: Lane::default(),
            later: BTreeSet::new(),
            earliest: Instant::now(),
            arrivals: 0,
        }
    }

    /// Puts a read in its lane; whatever waited for the same Secret is replaced.
    pub(crate) fn push(&mut self, read: Read) {
        self.remove(&read.key);
        self.arrivals += 1;
        let arrival = self.arrivals;
        let (lane, place) = match read.pace {
            Pace::Prompt => (&mut self.prompt, Place::Prompt { arrival }),
            Pace::Patient => (&mut self.patient, Place::Patient { arrival }),
        };
        lane.push(arrival, read.key.clone());
        self.waiting.insert(read.key.clone(), (read, place));
    }

    /// Lets a read wait until then, and then go into its lane.
    pub(crate) fn push_later(&mut self, read: Read, until: Instant) {
        self.remove(&read.key);
        self.later.insert((until, read.key.clone()));
        let place = Place::Later { until };
        self.waiting.insert(read.key.clone(), (read, place));
    }

    /// The Secret need not be read any more.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        match self.waiting.remove(key) {
            Some((_, Place::Prompt { arrival })) => self.prompt.remove(arrival, key),
            Some((_, Place::Patient { arrival })) => self.patient.remove(arrival, key),
            Some((_, Place::Later { until })) => {
                self.later.remove(&(until, key.clone()));
            }
            None => {}
        }
    }

    /// Takes out what may be read now.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Read> {
        while let Some((until, key)) = self.later.first().cloned()
            && until <= now
        {
            self.later.remove(&(until, key.clone()));
            if let Some((read, _)) = self.waiting.remove(&key) {
                self.push(read);
            }
        }
        let key = self.prompt.pop().or_else(|| {
            let key = (self.earliest <= now).then(|| self.patient.pop())??;
            self.earliest = now + SPACING;
            Some(key)
        })?;
        self.waiting.remove(&key).map(|(read, _)| read)
    }

    /// When [`Self::pop`] will have something; nothing if nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let later = self.later.first().map(|(until, _)| *until);
        let patient = (!self.patient.is_empty()).then_some(self.earliest);
        let prompt = (!self.prompt.is_empty()).then(Instant::now);
        [prompt, patient, later].into_iter().flatten().min()
    }
}

impl Lane {
    fn push(&mut self, arrival: u64, key: ObjectKey) {
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        namespace.insert(arrival, key);
    }

    fn remove(&mut self, arrival: u64, key: &ObjectKey) {
        if let Some(namespace) = self.namespaces.get_mut(&key.namespace) {
            namespace.remove(&arrival);
            if namespace.is_empty() {
                self.namespaces.remove(&key.namespace);
            }
        }
    }

    fn pop(&mut self) -> Option<ObjectKey> {
        let last = self.last.take();
        let after = last.map_or(Unbounded, Excluded);
        let next = self.namespaces.range((after, Unbounded)).next();
        let (namespace, keys) = next.or_else(|| self.namespaces.first_key_value())?;
        let (arrival, key) = keys.first_key_value()?;
        let (arrival, key) = (*arrival, key.clone());
        self.last = Some(namespace.clone());
        self.remove(arrival, &key);
        Some(key)
    }

    fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Ticket;

    fn read(namespace: &str, name: &str, pace: Pace) -> Read {
        Read {
            key: ObjectKey {
                namespace: namespace.into(),
                name: name.into(),
            },
            ticket: Ticket(1),
            pace,
        }
    }

    /// What is read until nothing is left, and how long after the beginning.
    async fn drained(queue: &mut SecretQueue) -> Vec<(String, Duration)> {
        let start = Instant::now();
        let mut drained = Vec::new();
        while let Some(due) = queue.due() {
            tokio::time::sleep_until(due).await;
            let read = queue.pop(Instant::now()).unwrap();
            drained.push((read.key.to_string(), start.elapsed()));
        }
        assert!(queue.waiting.is_empty() && queue.later.is_empty());
        drained
    }

    fn names(drained: &[(String, Duration)]) -> Vec<&str> {
        drained.iter().map(|(name, _)| &**name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn patient_reads_are_spaced_out_and_prompt_ones_go_first() {
        let mut queue = SecretQueue::new();
        for number in 0..1000 {
            queue.push(read("a", &number.to_string(), Pace::Patient));
        }
        for number in 0..1000 {
            queue.push(read("a", &format!("listed-{number}"), Pace::Prompt));
        }
        let drained = drained(&mut queue).await;
        assert_eq!(drained.len(), 2000);
        let (name, after) = &drained[999];
        assert_eq!((&**name, *after), ("a/listed-999", Duration::ZERO));
        let (name, after) = &drained[1999];
        assert_eq!((&**name, *after), ("a/999", SPACING * 999));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_waits_once_and_the_last_word_counts() {
        let mut queue = SecretQueue::new();
        queue.push(read("a", "x", Pace::Patient));
        queue.push_later(read("a", "x", Pace::Patient), Instant::now() + SPACING * 9);
        queue.push(read("a", "x", Pace::Patient));
        queue.push(read("a", "y", Pace::Patient));
        queue.push(read("a", "y", Pace::Prompt));
        assert_eq!(names(&drained(&mut queue).await), ["a/y", "a/x"]);
        queue.push(read("a", "x", Pace::Patient));
        queue.remove(&read("a", "x", Pace::Patient).key);
        assert_eq!(drained(&mut queue).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_for_later_waits_and_then_queues() {
        let mut queue = SecretQueue::new();
        let wait = Duration::from_secs(8);
        queue.push_later(read("a", "x", Pace::Patient), Instant::now() + wait);
        queue.push_later(read("a", "y", Pace::Patient), Instant::now() + wait);
        let drained = drained(&mut queue).await;
        let expected = [("a/x".to_owned(), wait), ("a/y".to_owned(), wait + SPACING)];
        assert_eq!(drained, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_take_turns() {
        let mut queue = SecretQueue::new();
        for name in ["1", "2", "3"] {
            queue.push(read("greedy", name, Pace::Patient));
        }
        queue.push(read("modest", "1", Pace::Patient));
        queue.push(read("other", "1", Pace::Patient));
        let order = ["greedy/1", "modest/1", "other/1", "greedy/2", "greedy/3"];
        assert_eq!(names(&drained(&mut queue).await), order);
    }
}
