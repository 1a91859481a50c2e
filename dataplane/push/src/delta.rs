//! The sender: resources -> an encoded set -> what one dataplane needs to get there from what it holds.
//!
//! A set is encoded once and shared by all streams; what did not change since the set before it is taken over with its bytes.
//! [`EncodedSet::full`] and [`EncodedSet::delta`] both give an update as parts of bounded size, to be sent in order and then
//! answered. What a stream keeps of the set that was acked is its [`Digests`]: no bodies, no keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use route_table::{Backend, CertificateResource, ResourceKey, Resources, Route};

use crate::encode::{self, Encoded};
use crate::key::key_text;
use crate::{
    Digest, Digests, MAX_BODY_BYTES, MAX_RESOURCES, MAX_SET_BYTES, PART_BYTES, Version, wire,
};

/// Everything that is pushed, encoded.
#[derive(Clone)]
pub struct EncodedSet {
    digests: Arc<Digests>,
    entries: BTreeMap<Arc<str>, Entry>,
}

#[derive(Clone)]
struct Entry {
    /// What it was encoded from, to know it again in the next set.
    source: Source,
    digest: Digest,
    encoded: Encoded,
}

#[derive(Clone, PartialEq)]
enum Source {
    Route(Arc<Route>),
    Backend(Arc<Backend>),
    Certificate(Arc<CertificateResource>),
}

/// A resource that no update can carry. It is left out of the set, so that the rest gets through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {bytes} bytes long; the push carries at most {MAX_BODY_BYTES}")]
pub struct TooLarge {
    pub key: ResourceKey,
    pub bytes: usize,
}

/// A set that no dataplane would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitExceeded {
    #[error("{count} resources are more than the {MAX_RESOURCES} that the push carries")]
    Resources { count: usize },
    #[error("{bytes} bytes of resources are more than the {MAX_SET_BYTES} that the push carries")]
    Bytes { bytes: usize },
}

impl EncodedSet {
    /// The set before any.
    pub fn empty() -> Self {
        Self {
            digests: Arc::new(Digests::new(BTreeMap::new())),
            entries: BTreeMap::new(),
        }
    }

    /// Encodes `resources`, and names those that are too large to be carried.
    pub fn encode(
        resources: &Resources,
        previous: &Self,
    ) -> Result<(Self, Vec<TooLarge>), LimitExceeded> {
        let mut entries = BTreeMap::new();
        let mut too_large = Vec::new();
        let mut total = 0;
        for (key, source) in sources(resources) {
            let text = key_text(&key);
            let (text, entry) = match previous.entries.get_key_value(&*text) {
                Some((held, entry)) if entry.source == source => (held.clone(), entry.clone()),
                Some(_) | None => {
                    let entry = Entry::new(&text, source);
                    (text.into(), entry)
                }
            };
            let bytes = entry.encoded.body.len();
            if bytes > MAX_BODY_BYTES {
                too_large.push(TooLarge { key, bytes });
                continue;
            }
            total += bytes;
            entries.insert(text, entry);
        }
        check_limits(entries.len(), total)?;
        let digests = entries
            .iter()
            .map(|(key, entry)| (key.clone(), entry.digest));
        let digests = Arc::new(Digests::new(digests.collect()));
        Ok((Self { digests, entries }, too_large))
    }

    pub fn version(&self) -> Version {
        self.digests.version()
    }

    /// What a dataplane holds once it has acked this set.
    pub fn digests(&self) -> &Arc<Digests> {
        &self.digests
    }

    /// The update that replaces whatever a dataplane holds.
    pub fn full(&self) -> Vec<wire::Update> {
        self.parts(None, self.entries.iter().collect(), Vec::new())
    }

    /// The update from what a dataplane holds to this set: the full one if it holds nothing, and one without changes if it
    /// holds this set already, since that has to be acked too.
    pub fn delta(&self, held: &Digests) -> Vec<wire::Update> {
        if held.is_empty() {
            return self.full();
        }
        let changed = self.entries.iter();
        let changed = changed.filter(|(key, entry)| held.get(key) != Some(entry.digest));
        let removals = held.keys().filter(|key| !self.entries.contains_key(*key));
        let removals = removals.map(ToString::to_string).collect();
        self.parts(Some(held.version()), changed.collect(), removals)
    }

    fn parts(
        &self,
        base: Option<Version>,
        upserts: Vec<(&Arc<str>, &Entry)>,
        removals: Vec<String>,
    ) -> Vec<wire::Update> {
        let mut parts = Parts {
            base: base.map(Version::to_bytes),
            version: self.version().to_bytes(),
            done: Vec::new(),
            bytes: 0,
        };
        for key in removals {
            let length = key.len();
            parts.room_for(length).removals.push(key);
        }
        for (key, entry) in upserts {
            let resource = entry.encoded.resource(key);
            let length = resource.encoded_len();
            parts.room_for(length).upserts.push(resource);
        }
        parts.finish()
    }
}

/// The parts of one update, the last of them still growing.
struct Parts {
    base: Option<Bytes>,
    version: Bytes,
    done: Vec<wire::Update>,
    bytes: usize,
}

/// Most bytes that protobuf puts before one entry: its tag and its length.
const FRAMING_BYTES: usize = 8;

impl Parts {
    /// The part that has room for an entry of `length` bytes.
    fn room_for(&mut self, length: usize) -> &mut wire::Update {
        let length = length + FRAMING_BYTES;
        let full = self.bytes + length > PART_BYTES && self.bytes > 0;
        self.bytes = if full { length } else { self.bytes + length };
        if full || self.done.is_empty() {
            self.done.push(wire::Update {
                base: self.base.clone(),
                version: self.version.clone(),
                upserts: Vec::new(),
                removals: Vec::new(),
                more: true,
            });
        }
        let last = self.done.len() - 1;
        &mut self.done[last]
    }

    fn finish(mut self) -> Vec<wire::Update> {
        // An update without changes is one part.
        self.room_for(0).more = false;
        self.done
    }
}

impl Entry {
    fn new(key: &str, source: Source) -> Self {
        let encoded = match &source {
            Source::Route(route) => encode::route(route),
            Source::Backend(backend) => encode::backend(backend),
            Source::Certificate(certificate) => encode::certificate(certificate),
        };
        let digest = Digest::of(&encoded.resource(key));
        Self {
            source,
            digest,
            encoded,
        }
    }
}

impl Encoded {
    /// The message; it shares the body's bytes.
    fn resource(&self, key: &str) -> wire::Resource {
        wire::Resource {
            key: key.to_owned(),
            requires: self.requires.iter().map(ToString::to_string).collect(),
            body: self.body.clone(),
        }
    }
}

fn check_limits(count: usize, bytes: usize) -> Result<(), LimitExceeded> {
    if count > MAX_RESOURCES {
        return Err(LimitExceeded::Resources { count });
    }
    if bytes > MAX_SET_BYTES {
        return Err(LimitExceeded::Bytes { bytes });
    }
    Ok(())
}

fn sources(resources: &Resources) -> impl Iterator<Item = (ResourceKey, Source)> + '_ {
    let Resources {
        routes,
        backends,
        certificates,
    } = resources;
    let routes = routes.iter().map(|(key, route)| {
        (
            ResourceKey::Route(key.clone()),
            Source::Route(route.clone()),
        )
    });
    let backends = backends.iter().map(|(key, backend)| {
        let source = Source::Backend(backend.clone());
        (ResourceKey::Backend(key.clone()), source)
    });
    let certificates = certificates.iter().map(|(key, certificate)| {
        let source = Source::Certificate(certificate.clone());
        (ResourceKey::Certificate(key.clone()), source)
    });
    routes.chain(backends).chain(certificates)
}

impl fmt::Debug for EncodedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedSet")
            .field("version", &self.version())
            .field("resources", &self.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
