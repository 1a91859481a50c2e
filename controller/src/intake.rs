//! What is watched -> the Store, and when there is enough of it to publish anything.
//!
//! In: events of all watchers and answers about Secrets, in the order they come. Out: whether a compile could come out differently,
//! and which Secrets to read. Absence of evidence keeps: a watcher that fails changes nothing here. Evidence withdraws: `Deleted`,
//! or a list without the object. An object that does not decode is withdrawn alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::compile::References;
use crate::decode::{Content, Item};
use crate::observed::ObservedSender;
use crate::secret_reader::{self, Answer};
use crate::secrets::{Read, Secrets, Ticket, Unanswered};
use crate::store::{Kind, ObjectKey, ObjectRef, Snapshot, Store, UnlistedSecrets};
use crate::watch::Event;

/// What one watcher watches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    /// All namespaces if none.
    pub(crate) namespace: Option<Arc<str>>,
}

/// Everything that was watched.
pub(crate) struct Intake {
    store: Store,
    sources: BTreeMap<Source, Held>,
    secrets: Secrets,
    observed: ObservedSender,
    undecodable: BTreeMap<ObjectRef, Undecodable>,
}

/// What one source has shown.
#[derive(Debug, Default)]
struct Held {
    listed: bool,
    objects: BTreeSet<ObjectRef>,
}

/// An object that is there and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undecodable {
    pub(crate) uid: Arc<str>,
    pub(crate) error: String,
}

/// What follows from an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whether a compile could come out differently.
    pub(crate) changed: bool,
    /// Whether another object cannot be used, or one less.
    pub(crate) undecodable: bool,
    /// Secrets to read.
    pub(crate) read: Vec<Read>,
}

impl Intake {
    pub(crate) fn new(sources: impl Iterator<Item = Source>, observed: ObservedSender) -> Self {
        Self {
            store: Store::new(UnlistedSecrets::NotYetRead),
            sources: sources.map(|source| (source, Held::default())).collect(),
            secrets: Secrets::default(),
            observed,
            undecodable: BTreeMap::new(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// Whether every source was listed: before that a compile would withdraw what is merely not known yet.
    pub(crate) fn is_listed(&self) -> bool {
        self.sources.values().all(|held| held.listed)
    }

    /// What a publish without these Secrets may have to wait for.
    pub(crate) fn unanswered(&self, unread: &[ObjectKey], now: Instant) -> Unanswered {
        self.secrets.unanswered(unread, now)
    }

    /// The requests for Secrets that the watch shows which have had no answer yet, not even a failure, and are not overdue.
    pub(crate) fn under_way(&self, now: Instant) -> Vec<(ObjectKey, Ticket)> {
        self.secrets.under_way(now)
    }

    /// Whether this request is still one of [`Self::under_way`].
    pub(crate) fn is_under_way(&self, key: &ObjectKey, ticket: Ticket, now: Instant) -> bool {
        self.secrets.is_under_way(key, ticket, now)
    }

    /// Whether a source has shown no object.
    pub(crate) fn is_empty(&self, source: &Source) -> bool {
        self.sources
            .get(source)
            .is_none_or(|held| held.objects.is_empty())
    }

    /// The objects that are there and cannot be used.
    pub(crate) fn undecodable(&self) -> &BTreeMap<ObjectRef, Undecodable> {
        &self.undecodable
    }

    /// Whether the cluster has this kind. Returns whether a compile could come out differently.
    pub(crate) fn define(&mut self, kind: Kind, is_defined: bool) -> bool {
        self.store.define(kind, is_defined)
    }

    pub(crate) fn take(&mut self, source: &Source, event: Event<Item>) -> Taken {
        let mut taken = Taken::default();
        match event {
            Event::Listed(items) => {
                let mut held = self.sources.remove(source).unwrap_or_default();
                let now = items.iter().map(|item| item.reference.clone());
                let now = now.collect::<BTreeSet<_>>();
                for gone in held.objects.difference(&now) {
                    self.withdraw(gone, &mut taken);
                }
                for item in items {
                    if let Ok(Content::Route(_, observed)) = &item.content {
                        self.observed
                            .listed(&item.reference.key(), observed.clone());
                    }
                    self.apply(item, &mut taken);
                }
                taken.changed |= !held.listed;
                held.listed = true;
                held.objects = now;
                self.sources.insert(source.clone(), held);
            }
            Event::Applied(item) => {
                if let Some(held) = self.sources.get_mut(source) {
                    held.objects.insert(item.reference.clone());
                }
                self.apply(item, &mut taken);
            }
            Event::Deleted(item) => {
                if let Some(held) = self.sources.get_mut(source) {
                    held.objects.remove(&item.reference);
                }
                self.withdraw(&item.reference, &mut taken);
            }
            Event::Watching | Event::Failed(_) | Event::Answered(_) => {}
        }
        taken
    }

    fn apply(&mut self, item: Item, taken: &mut Taken) {
        let Item {
            reference,
            uid,
            content,
        } = item;
        let content = match content {
            Ok(content) => content,
            Err(error) => {
                self.withdraw(&reference, taken);
                self.undecodable
                    .insert(reference, Undecodable { uid, error });
                taken.undecodable = true;
                return;
            }
        };
        taken.undecodable |= self.undecodable.remove(&reference).is_some();
        match content {
            Content::Object(object) => taken.changed |= self.store.apply(object),
            Content::Route(object, observed) => {
                self.observed.saw(&reference.key(), observed);
                taken.changed |= self.store.apply(object);
            }
            Content::Secret(version) => {
                let key = reference.key();
                taken.read.extend(self.secrets.seen(&key, version));
            }
        }
    }

    fn withdraw(&mut self, reference: &ObjectRef, taken: &mut Taken) {
        taken.undecodable |= self.undecodable.remove(reference).is_some();
        match reference.kind {
            Kind::WebSocketRoute => {
                self.observed.gone(&reference.key());
                taken.changed |= self.store.delete(reference);
            }
            Kind::ExternalBackend | Kind::Service | Kind::EndpointSlice | Kind::ReferenceGrant => {
                taken.changed |= self.store.delete(reference);
            }
            Kind::Secret => {
                let key = reference.key();
                if self.secrets.is_kept(&key) {
                    taken.changed |= self.store.delete(reference);
                }
                taken.read.extend(self.secrets.gone(&key));
            }
        }
    }

    /// Routes refer to these objects and no others. Returns what to read. Secrets that nothing refers to any more are kept until
    /// [`Self::forget`], because what was published last has them.
    pub(crate) fn refer(&mut self, references: References, now: Instant) -> Vec<Read> {
        let References { secrets, services } = references;
        self.store.refer_to_services(services);
        self.secrets.refer(&secrets, now)
    }

    /// Forgets the Secrets that nothing refers to, and returns them.
    pub(crate) fn forget(&mut self) -> Vec<ObjectKey> {
        let forgotten = self.secrets.forget();
        for key in &forgotten {
            self.store.forget_secret(key);
        }
        forgotten
    }

    /// An answer about a Secret; nothing if it is no longer waited for. What was read stays until another answer or a deletion takes
    /// its place.
    pub(crate) fn answered(&mut self, answered: secret_reader::Answered) -> Option<Answered> {
        let secret_reader::Answered {
            key,
            ticket,
            answer,
        } = answered;
        if !self.secrets.awaits(&key, ticket) {
            return None;
        }
        let changed = match answer {
            Answer::Present(object) => self.store.apply(object),
            Answer::Absent => self.store.delete(&ObjectRef {
                kind: Kind::Secret,
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            }),
            Answer::Failed {
                failure: _,
                refused,
            } => {
                return Some(Answered {
                    // The Store stays as it is, but a publish may wait for this.
                    changed: refused,
                    next: self.secrets.failed(&key, refused),
                });
            }
        };
        let next = self.secrets.answered(&key);
        Some(Answered {
            changed,
            next: next.map(|read| (read, Duration::ZERO)),
        })
    }

    /// Secrets to read although no event told of a change.
    pub(crate) fn reread_unlisted(&mut self) -> Vec<Read> {
        self.secrets.ask_unlisted()
    }
}

/// What follows from an answer about a Secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Whether a compile could come out differently, or a publish need not wait any more.
    pub(crate) changed: bool,
    /// What to read next, and after how long.
    pub(crate) next: Option<(Read, Duration)>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} in namespace {namespace}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

#[cfg(test)]
mod tests;
