//! Which Secrets are to be read, and when. Pure but for the time that it is told; `secret_queue` puts the reads in order and
//! `secret_reader` does them.
//!
//! In: the names and versions of all TLS Secrets as they are watched, the Secrets that routes refer to, and answers. Out: what to
//! read next. A referenced Secret is read once for each version that the watch shows, one request at a time. One that the watch
//! does not show is read too: it may be there with another type, which its author wants to be told. Of Secrets that nothing refers
//! to only the version is known here.
//!
//! Each request has a ticket, which its retries keep: one chain of requests for each Secret, and an answer to an earlier chain is
//! of no use any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::store::ObjectKey;

/// Waits between tries for one Secret: soon after a hiccup; at most this long after RBAC was given back.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];
/// Longest time that a publish waits for a Secret since routes first referred to it. An answer takes milliseconds, and this leaves
/// room for two more tries after a hiccup. One that never answers delays everything else once by this, which nobody takes for an
/// outage.
pub(crate) const WITHHELD: Duration = Duration::from_secs(3);
/// How often the unlisted names of one namespace may delay publishes, for [`WITHHELD`] in all: names cost their author nothing, and
/// with ever new ones nobody's changes would be published.
pub(crate) const UNLISTED_DELAY_EVERY: Duration = Duration::from_mins(1);

/// Names one state of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretVersion {
    pub(crate) uid: Arc<str>,
    pub(crate) version: Arc<str>,
}

/// Names one chain of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(pub(crate) u64);

/// A Secret to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) key: ObjectKey,
    pub(crate) ticket: Ticket,
    pub(crate) pace: Pace,
}

/// How soon to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The watch shows a version that was not read yet. There are no more of these than somebody wrote Secrets.
    Prompt,
    /// Nothing shows that there is anything to read, or it failed before. Names cost their author nothing, and a failing API server
    /// needs rest.
    Patient,
}

/// What is known of each Secret.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// What the watch shows.
    listed: BTreeMap<ObjectKey, SecretVersion>,
    records: BTreeMap<ObjectKey, Record>,
    /// When unlisted names of a namespace began to delay publishes.
    delaying: BTreeMap<Arc<str>, Instant>,
    tickets: u64,
}

/// How far the reading of a Secret is.
#[derive(Debug)]
struct Record {
    /// Whether routes refer to it. If not, it is still part of what was published last.
    referenced: bool,
    /// When routes first referred to it.
    since: Instant,
    /// When publishes that lack it do not wait for it any more.
    due: Instant,
    /// What the watch showed when the last answer was asked for; nothing before the first answer.
    answered: Option<Shown>,
    /// The request that is under way.
    asked: Option<Asked>,
    /// Whether the answer was refused. It is asked again, but the first publish does not wait for that: it may be refused for good,
    /// and what one route refers to must not hold up all others.
    refused: bool,
    backoff: Option<Backoff>,
}

#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    /// What the watch showed at that time.
    shown: Shown,
}

/// What the watch shows of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    Nothing,
    Version(SecretVersion),
}

/// Of Secrets that were not read when something was compiled: those that were not refused either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// Whether the watch shows one of them.
    pub(crate) listed: bool,
    /// When the last of those that still have time to answer is due.
    pub(crate) due: Option<Instant>,
}

impl Secrets {
    /// The watch shows a Secret. Returns what to read.
    pub(crate) fn seen(&mut self, key: &ObjectKey, version: SecretVersion) -> Option<Read> {
        self.listed.insert(key.clone(), version);
        if let Some(record) = self.records.get_mut(key) {
            record.due = record.since + WITHHELD;
        }
        self.ask(key)
    }

    /// The watch shows it no more. Returns what to read: another type may have taken its place.
    pub(crate) fn gone(&mut self, key: &ObjectKey) -> Option<Read> {
        self.listed.remove(key);
        self.ask(key)
    }

    /// Whether what is known of it is kept.
    pub(crate) fn is_kept(&self, key: &ObjectKey) -> bool {
        self.records.contains_key(key)
    }

    /// Routes refer to these and no others. What they do not refer to any more is kept until [`Self::forget`].
    pub(crate) fn refer(&mut self, keys: &BTreeSet<ObjectKey>, now: Instant) -> Vec<Read> {
        self.delaying
            .retain(|_, began| now < *began + UNLISTED_DELAY_EVERY);
        for (key, record) in &mut self.records {
            record.referenced = keys.contains(key);
        }
        let mut read = Vec::new();
        for key in keys {
            if !self.records.contains_key(key) {
                let began = if self.listed.contains_key(key) {
                    now
                } else {
                    *self.delaying.entry(key.namespace.clone()).or_insert(now)
                };
                let record = Record {
                    referenced: true,
                    since: now,
                    due: began + WITHHELD,
                    answered: None,
                    asked: None,
                    refused: false,
                    backoff: None,
                };
                self.records.insert(key.clone(), record);
                read.extend(self.ask(key));
            }
        }
        read
    }

    /// Forgets the Secrets that routes do not refer to, and returns them.
    pub(crate) fn forget(&mut self) -> Vec<ObjectKey> {
        let forgotten = self
            .records
            .extract_if(.., |_, record| !record.referenced)
            .map(|(key, _)| key);
        forgotten.collect()
    }

    /// Whether an answer to this ticket is waited for.
    pub(crate) fn awaits(&self, key: &ObjectKey, ticket: Ticket) -> bool {
        let asked = self
            .records
            .get(key)
            .and_then(|record| record.asked.as_ref());
        asked.is_some_and(|asked| asked.ticket == ticket)
    }

    /// The request that is under way was answered for good. Returns what to read, because the watch has shown another version since.
    pub(crate) fn answered(&mut self, key: &ObjectKey) -> Option<Read> {
        let record = self.records.get_mut(key)?;
        if let Some(asked) = record.asked.take() {
            record.answered = Some(asked.shown);
        }
        record.refused = false;
        record.backoff = None;
        self.ask(key)
    }

    /// The request that is under way failed. Returns how long to wait before the next, which is the same read again.
    pub(crate) fn failed(&mut self, key: &ObjectKey, refused: bool) -> Option<(Read, Duration)> {
        let record = self.records.get_mut(key)?;
        let ticket = record.asked.as_ref()?.ticket;
        record.refused |= refused;
        let [least, most] = RETRY;
        let backoff = record
            .backoff
            .get_or_insert_with(|| Backoff::new(least, most));
        let read = Read {
            key: key.clone(),
            ticket,
            pace: Pace::Patient,
        };
        Some((read, backoff.next()))
    }

    /// What a publish without these may have to wait for.
    pub(crate) fn unanswered(&self, unread: &[ObjectKey], now: Instant) -> Unanswered {
        let mut unanswered = Unanswered::default();
        for key in unread {
            let record = self.records.get(key);
            if let Some(record) = record.filter(|record| !record.refused) {
                unanswered.listed |= self.listed.contains_key(key);
                let due = Some(record.due).filter(|due| now < *due);
                unanswered.due = unanswered.due.max(due);
            }
        }
        unanswered
    }

    /// The requests for Secrets that the watch shows which have had no answer yet, not even a failure, and are not overdue.
    pub(crate) fn under_way(&self, now: Instant) -> Vec<(ObjectKey, Ticket)> {
        let listed = self
            .records
            .iter()
            .filter(|(key, record)| record.referenced && self.listed.contains_key(*key));
        let under_way = listed.filter_map(|(key, record)| {
            let ticket = record.asked.as_ref()?.ticket;
            self.is_under_way(key, ticket, now)
                .then(|| (key.clone(), ticket))
        });
        under_way.collect()
    }

    /// Whether this request has had no answer yet, not even a failure, and is not overdue.
    pub(crate) fn is_under_way(&self, key: &ObjectKey, ticket: Ticket, now: Instant) -> bool {
        let record = self.records.get(key).filter(|record| {
            let overdue = record.answered.is_none() && record.due <= now;
            record.backoff.is_none() && !overdue
        });
        record.is_some() && self.awaits(key, ticket)
    }

    /// The referenced Secrets that the watch does not show, each marked as asked for: no event tells when one of another type
    /// comes or goes.
    pub(crate) fn ask_unlisted(&mut self) -> Vec<Read> {
        let Self {
            listed,
            records,
            delaying: _,
            tickets,
        } = self;
        let unlisted = records.iter_mut().filter(|(key, record)| {
            record.referenced && record.asked.is_none() && !listed.contains_key(*key)
        });
        let ask =
            |(key, record): (&ObjectKey, &mut Record)| record.ask(key, Shown::Nothing, tickets);
        unlisted.map(ask).collect()
    }

    /// Marks a Secret as asked for if it needs to be.
    fn ask(&mut self, key: &ObjectKey) -> Option<Read> {
        let record = self.records.get_mut(key)?;
        let listed = self.listed.get(key).cloned();
        let shown = listed.map_or(Shown::Nothing, Shown::Version);
        match &record.asked {
            None if record.answered.as_ref() == Some(&shown) => None,
            None => Some(record.ask(key, shown, &mut self.tickets)),
            // It may have been waiting patiently until there is something to read.
            Some(asked) if asked.shown == Shown::Nothing && shown != Shown::Nothing => Some(Read {
                key: key.clone(),
                ticket: asked.ticket,
                pace: Pace::Prompt,
            }),
            Some(_) => None,
        }
    }
}

impl Record {
    /// Begins a new chain of requests.
    fn ask(&mut self, key: &ObjectKey, shown: Shown, tickets: &mut u64) -> Read {
        *tickets += 1;
        let ticket = Ticket(*tickets);
        let pace = match shown {
            Shown::Version(_) => Pace::Prompt,
            Shown::Nothing => Pace::Patient,
        };
        self.asked = Some(Asked { ticket, shown });
        Read {
            key: key.clone(),
            ticket,
            pace,
        }
    }
}

#[cfg(test)]
mod tests;
