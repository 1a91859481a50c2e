//! The sender: resources -> an encoded set -> what one dataplane needs to get there from what it holds.
//!
//! A set is encoded once and shared by all streams; what did not change since the set before it is taken over with its bytes.
//! What is over a limit disturbs nothing else: one resource that is too large is held (its body is [`HOLD_BODY`]), and if all
//! together are too many or too large, the youngest routes of those who use the most lose what they lead to (`fit`).
//! [`EncodedSet::full`] and [`EncodedSet::delta`] both give an update as parts of bounded size, to be sent in order and then answered. What a stream
//! keeps of the set that was acked is its [`Digests`]: no bodies, no keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use route_table::{
    Backend, CertificateResource, External, ResourceKey, Resources, Route, RouteKey,
};

use crate::encode::{self, Encoded};
use crate::fit::{Costs, fit};
use crate::key::{key_text, parse_key};
use crate::updates::Updates;
use crate::{
    Digest, Digests, HOLD_BODY, MAX_BODY_BYTES, MAX_RESOURCES, MAX_SET_BYTES, Version, wire,
};

/// What a resource takes of [`MAX_SET_BYTES`] is counted in pages, so that an endpoint more or less hardly ever changes what fits.
const PAGE_BYTES: usize = 1024;

/// Everything that is pushed, encoded.
#[derive(Clone)]
pub struct EncodedSet {
    digests: Arc<Digests>,
    entries: Arc<Entries>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    /// What it was encoded from, to know it again in the next set.
    source: Source,
    digest: Digest,
    encoded: Encoded,
    /// Whether it is too large, so that it stands here with nothing to read.
    holds: bool,
}

#[derive(Clone, PartialEq)]
enum Source {
    Route(Arc<Route>),
    Backend(Arc<Backend>),
    External(Arc<External>),
    Certificate(Arc<CertificateResource>),
}

/// A resource that is not sent as it is, so that the rest gets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub key: ResourceKey,
    pub why: OverLimit,
}

/// Why a resource is not sent as it is; to be read after its key. No numbers that move: this ends up in statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum OverLimit {
    #[error(
        "is longer than the {MAX_BODY_BYTES} bytes that the push carries of one resource; dataplane pods that have an earlier \
         form serve that on, later pods none. Make it smaller"
    )]
    Body,
    #[error(
        "is left out: all routes, Service ports and certificates together are more than the {MAX_RESOURCES} that the push \
         carries, and the youngest routes of the namespaces that use the most of them go first; clients get 503, or no TLS \
         handshake. Delete routes of its \
         namespace, or let them share Services and certificates"
    )]
    Resources,
    #[error(
        "is left out: all routes, endpoints and certificates together are more than the {MAX_SET_BYTES} bytes that the push \
         carries, and the youngest routes of the namespaces that use the most of them go first; clients get 503, or no TLS \
         handshake. Delete routes of its \
         namespace, or let them share Services and certificates"
    )]
    Bytes,
}

/// What a set may be. A dataplane refuses more than the default; a test may want less.
#[derive(Debug, Clone, Copy)]
pub struct SetLimits {
    /// Of one resource.
    pub body_bytes: usize,
    pub resources: usize,
    /// Of all bodies, in pages of 1 KiB.
    pub bytes: usize,
}

impl Default for SetLimits {
    fn default() -> Self {
        Self {
            body_bytes: MAX_BODY_BYTES,
            resources: MAX_RESOURCES,
            bytes: MAX_SET_BYTES,
        }
    }
}

impl EncodedSet {
    /// The set before any.
    pub fn empty() -> Self {
        Self {
            digests: Arc::new(Digests::new(BTreeMap::new())),
            entries: Arc::default(),
        }
    }

    /// Encodes `resources`, and names those that are over a limit: a resource that is held, or a route that is left out together
    /// with what no other route needs.
    pub fn encode(resources: &Resources, previous: &Self) -> (Self, Vec<LeftOut>) {
        Self::encode_within(SetLimits::default(), resources, previous)
    }

    /// The same within other limits.
    pub fn encode_within(
        limits: SetLimits,
        resources: &Resources,
        previous: &Self,
    ) -> (Self, Vec<LeftOut>) {
        let mut left_out = BTreeMap::new();
        // By count first, and before anything is encoded: what would not fit costs little then.
        let few = fit(resources, limits.resources, &Count).map(|few| {
            left_out.extend(
                few.left_out
                    .into_iter()
                    .map(|key| (key, OverLimit::Resources)),
            );
            few.resources
        });
        let resources = few.as_ref().unwrap_or(resources);
        let mut entries = encoded(resources, [&previous.entries; 2], limits);
        let most = limits.bytes / PAGE_BYTES;
        let all = entries.values().map(Entry::pages).sum::<usize>();
        let small = if all > most {
            let pages = Pages {
                entries: &entries,
                body_bytes: limits.body_bytes,
            };
            fit(resources, most, &pages)
        } else {
            None
        };
        if let Some(small) = small {
            for key in small.left_out {
                left_out.entry(key).or_insert(OverLimit::Bytes);
            }
            entries = encoded(&small.resources, [&entries, &previous.entries], limits);
        }
        let held = entries.iter().filter(|(_, entry)| entry.holds);
        let held = held.filter_map(|(key, _)| {
            let why = OverLimit::Body;
            parse_key(key).map(|key| LeftOut { key, why })
        });
        let left_out = left_out.into_iter().map(|(key, why)| LeftOut {
            key: ResourceKey::Route(key),
            why,
        });
        let left_out = left_out.chain(held).collect();
        let digests = entries
            .iter()
            .map(|(key, entry)| (key.clone(), entry.digest));
        let digests = Arc::new(Digests::new(digests.collect()));
        let entries = Arc::new(entries);
        (Self { digests, entries }, left_out)
    }

    pub fn version(&self) -> Version {
        self.digests.version()
    }

    /// What a dataplane holds once it has acked this set.
    pub fn digests(&self) -> &Arc<Digests> {
        &self.digests
    }

    pub(crate) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The update that replaces whatever a dataplane holds.
    pub fn full(&self) -> Updates {
        Updates::new(self.clone(), None)
    }

    /// The update from what a dataplane holds to this set: the full one if it holds nothing, and one without changes if it
    /// holds this set already, since that has to be acked too.
    pub fn delta(&self, held: &Arc<Digests>) -> Updates {
        let base = (!held.is_empty()).then(|| held.clone());
        Updates::new(self.clone(), base)
    }
}

impl Entry {
    fn new(key: &str, source: Source, most_bytes: usize) -> Self {
        let mut encoded = match &source {
            Source::Route(route) => encode::route(route),
            Source::Backend(backend) => encode::backend(backend),
            Source::External(external) => encode::external(external),
            Source::Certificate(certificate) => encode::certificate(certificate),
        };
        let holds = encoded.body.len() > most_bytes;
        if holds {
            encoded.body = Bytes::from_static(HOLD_BODY);
        }
        let digest = Digest::of(&encoded.resource(key));
        Self {
            source,
            digest,
            encoded,
            holds,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The message; it shares the body's bytes.
    pub(crate) fn resource(&self, key: &str) -> wire::Resource {
        self.encoded.resource(key)
    }

    fn pages(&self) -> usize {
        self.encoded.body.len().div_ceil(PAGE_BYTES).max(1)
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

type Entries = BTreeMap<Arc<str>, Entry>;

/// All resources, with the bytes of those that are in one of `known` as they are.
fn encoded(resources: &Resources, known: [&Entries; 2], limits: SetLimits) -> Entries {
    let entry = |(key, source)| {
        let text = key_text(&key);
        let known = known.into_iter().find_map(|known| {
            let known = known.get_key_value(&*text);
            known.filter(|(_, entry)| entry.source == source)
        });
        if let Some((held, entry)) = known {
            return (held.clone(), entry.clone());
        }
        let entry = Entry::new(&text, source, limits.body_bytes);
        (text.into(), entry)
    };
    sources(resources).map(entry).collect()
}

/// Every resource is one.
struct Count;

impl Costs for Count {
    fn of(&self, _: &ResourceKey) -> usize {
        1
    }

    fn of_stub(&self, _: &RouteKey, _: &Arc<Route>) -> usize {
        1
    }
}

/// Pages of encoded bodies.
struct Pages<'a> {
    entries: &'a Entries,
    body_bytes: usize,
}

impl Costs for Pages<'_> {
    fn of(&self, key: &ResourceKey) -> usize {
        self.entries.get(&*key_text(key)).map_or(0, Entry::pages)
    }

    fn of_stub(&self, key: &RouteKey, stub: &Arc<Route>) -> usize {
        let text = key_text(&ResourceKey::Route(key.clone()));
        Entry::new(&text, Source::Route(stub.clone()), self.body_bytes).pages()
    }
}

fn sources(resources: &Resources) -> impl Iterator<Item = (ResourceKey, Source)> + '_ {
    let Resources {
        routes,
        backends,
        externals,
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
    let externals = externals.iter().map(|(key, external)| {
        let source = Source::External(external.clone());
        (ResourceKey::External(key.clone()), source)
    });
    let certificates = certificates.iter().map(|(key, certificate)| {
        let source = Source::Certificate(certificate.clone());
        (ResourceKey::Certificate(key.clone()), source)
    });
    let backends = backends.chain(externals);
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
