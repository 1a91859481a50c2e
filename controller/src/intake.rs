//! What is watched -> the Store, and when there is enough of it to publish anything.
//!
//! In: events of all watchers and answers about Secrets, in the order they come. Out: whether a compile could come out differently,
//! and which Secrets to read. Absence of evidence keeps: a watcher that fails changes nothing here. Evidence withdraws: `Deleted`,
//! or a list without the object. An object that does not decode is withdrawn alone. The gate is closed until every source was
//! listed once and every Secret that routes refer to had an answer; then it stays open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::compile::References;
use crate::decode::{Content, Item};
use crate::observed::ObservedSender;
use crate::secret_reader::Answer;
use crate::secrets::{Referenced, Secrets};
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
    /// Secrets to read now.
    pub(crate) read: Vec<ObjectKey>,
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

    /// Whether every Secret had an answer.
    pub(crate) fn is_read(&self) -> bool {
        self.secrets.all_answered()
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
            Event::Watching | Event::Failed(_) => {}
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
                return;
            }
        };
        self.undecodable.remove(&reference);
        match content {
            Content::Object(object) => taken.changed |= self.store.apply(object),
            Content::Route(object, observed) => {
                self.observed.saw(&reference.key(), observed);
                taken.changed |= self.store.apply(object);
            }
            Content::Secret(version) => {
                let key = reference.key();
                if self.secrets.seen(&key, version) {
                    taken.read.push(key);
                }
            }
        }
    }

    fn withdraw(&mut self, reference: &ObjectRef, taken: &mut Taken) {
        self.undecodable.remove(reference);
        match reference.kind {
            Kind::WebSocketRoute => {
                self.observed.gone(&reference.key());
                taken.changed |= self.store.delete(reference);
            }
            Kind::Service | Kind::EndpointSlice | Kind::ReferenceGrant => {
                taken.changed |= self.store.delete(reference);
            }
            Kind::Secret => {
                let key = reference.key();
                if self.secrets.is_referenced(&key) {
                    taken.changed |= self.store.delete(reference);
                }
                if self.secrets.gone(&key) {
                    taken.read.push(key);
                }
            }
        }
    }

    /// Routes refer to these objects and no others. Returns the Secrets to read now.
    pub(crate) fn refer(&mut self, references: References) -> Vec<ObjectKey> {
        let References { secrets, services } = references;
        self.store.refer_to_services(services);
        let Referenced { read, forget } = self.secrets.refer(&secrets);
        for key in &forget {
            self.store.forget_secret(key);
        }
        read
    }

    /// An answer for good. What was read stays until another answer or a deletion takes its place.
    pub(crate) fn answered(&mut self, key: &ObjectKey, answer: Answer) -> Answered {
        // Before the bookkeeping moves on: the first answer may open the gate without changing the Store.
        let was_read = self.is_read();
        let mut answered = Answered::default();
        if !self.secrets.is_referenced(key) {
            return answered;
        }
        match answer {
            Answer::Present(object) => answered.taken.changed = self.store.apply(object),
            Answer::Absent => {
                answered.taken.changed = self.store.delete(&ObjectRef {
                    kind: Kind::Secret,
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                });
            }
            Answer::Failed {
                failure: _,
                refused,
            } => {
                answered.retry = self.secrets.failed(key, refused);
                answered.taken.changed = self.is_read() != was_read;
                return answered;
            }
        }
        if self.secrets.answered(key) {
            answered.taken.read.push(key.clone());
        }
        answered.taken.changed |= self.is_read() != was_read;
        answered
    }

    /// Secrets to read although no event told of a change.
    pub(crate) fn reread_unlisted(&mut self) -> Vec<ObjectKey> {
        self.secrets.ask_unlisted()
    }
}

/// What follows from an answer about a Secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) taken: Taken,
    /// Ask again after this time.
    pub(crate) retry: Option<std::time::Duration>,
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
