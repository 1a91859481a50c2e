//! The receiver: updates -> what this dataplane holds -> resources for `RouteTable::build`.
//!
//! The parts of an update are decoded beside what is held, and taken over together after the last one, if everything about the
//! envelope is right: versions, keys, counts, sizes. Otherwise it is [`Refused`] and nothing has changed. One resource that cannot
//! be served does not refuse the update: it is held by its digest and reported with every Ack. In the table then stands:
//!
//! - if it requires a feature that is lacking: never its earlier form, which admits more than was asked, but its closed form;
//! - if it cannot be read: its last accepted form; without one, its closed form, as far as that can be read.
//!
//! If nothing at all can be read, the closed form is that of what stood there before.
//!
//! The closed form of a route answers 503 or refuses handshakes (`closed`); that of a backend or certificate is its absence,
//! which does the same to whoever names it.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use route_table::Resources;

use crate::digest::Digest;
use crate::{
    FEATURES, MAX_BODY_BYTES, MAX_KEY_BYTES, MAX_MESSAGE_BYTES, MAX_REQUIRES, MAX_RESOURCES,
    MAX_SET_BYTES, MAX_TEXT_BYTES, Version, clean, wire,
};

mod content;
mod staged;
use content::{Content, close_standing, remove};
use staged::{Change, Incoming, Staged};

/// What this dataplane holds. It outlives streams: a new one goes on where the last one ended.
#[derive(Debug)]
pub struct Held {
    features: &'static [&'static str],
    entries: BTreeMap<Arc<str>, Entry>,
    version: Version,
    resources: Resources,
    incoming: Incoming,
}

#[derive(Debug, Clone)]
struct Entry {
    digest: Digest,
    bytes: usize,
    state: State,
}

/// What stands in the resources under a key.
#[derive(Debug, Clone)]
enum State {
    /// The resource as it was sent.
    Accepted,
    /// The last accepted form, and why not this one.
    Kept { reason: String },
    /// The closed form, and why.
    Closed { reason: String },
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More parts follow; nothing to answer yet.
    Pending,
    /// The update is applied: build the table from [`Held::resources`], swap it, then answer with [`crate::ack`].
    Applied(Applied),
}

/// An applied update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    pub version: Version,
    /// Resources that were sent with other bytes than were held, and removals of what was held.
    pub changed: usize,
}

/// Why an update was refused whole. Nothing has changed; answer with [`crate::nack`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a version is not 32 bytes long")]
    VersionLength,
    #[error("the update changes version {base}, but {held} is held")]
    Base { base: Version, held: Version },
    #[error("a part belongs to another update than the parts before it")]
    MixedParts,
    #[error("the update comes to version {computed}, not to {announced} as it says")]
    Version {
        announced: Version,
        computed: Version,
    },
    #[error("a full set holds removals")]
    RemovalInFullSet,
    #[error("a key is empty or longer than {MAX_KEY_BYTES} bytes")]
    KeyLength,
    #[error("{key:?} occurs twice")]
    Twice { key: String },
    #[error(
        "{key:?} requires more than {MAX_REQUIRES} features, or one longer than {MAX_TEXT_BYTES} bytes"
    )]
    Requires { key: String },
    #[error("{key:?} has a body of {bytes} bytes; at most {MAX_BODY_BYTES} are taken")]
    BodyLength { key: String, bytes: usize },
    #[error("more than {MAX_RESOURCES} resources")]
    TooManyResources,
    #[error("more than {MAX_SET_BYTES} bytes of resources")]
    TooManyBytes,
}

impl Default for Held {
    fn default() -> Self {
        Self::new(FEATURES)
    }
}

impl Held {
    /// Nothing yet, for a dataplane that enforces `features`.
    pub fn new(features: &'static [&'static str]) -> Self {
        Self {
            features,
            entries: BTreeMap::new(),
            version: Version::of([]),
            resources: Resources::default(),
            incoming: Incoming::None,
        }
    }

    /// What the table is built from.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Keys and reasons of what is not served as it was sent.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter_map(|(key, entry)| match &entry.state {
                State::Accepted => None,
                State::Kept { reason } | State::Closed { reason } => Some((&**key, &**reason)),
            })
    }

    /// The first message of a stream. Parts of an update that an earlier stream left unfinished are forgotten.
    pub fn hello(&mut self, pod: &str, build: &str) -> wire::Hello {
        self.incoming = Incoming::None;
        let held = self.entries.iter().map(|(key, entry)| wire::HeldDigest {
            key: key.to_string(),
            digest: entry.digest.to_bytes(),
        });
        let mut hello = wire::Hello {
            pod: clean(pod, MAX_TEXT_BYTES),
            build: clean(build, MAX_TEXT_BYTES),
            features: self.features.iter().map(ToString::to_string).collect(),
            held: held.collect(),
        };
        // All or nothing: what is held but not listed could never be removed. Without any, a full set comes.
        if prost::Message::encoded_len(&hello) + ENVELOPE_BYTES > MAX_MESSAGE_BYTES {
            hello.held = Vec::new();
        }
        hello
    }

    /// Takes one part of an update. After an error its remaining parts are let go without another one.
    pub fn receive(&mut self, part: wire::Update) -> Result<Progress, Refused> {
        let more = part.more;
        let staged = match mem::replace(&mut self.incoming, Incoming::None) {
            Incoming::None => Staged::begin(&part, self.version),
            Incoming::Staged(staged) => staged.check_same(&part),
            Incoming::Skipping => {
                if more {
                    self.incoming = Incoming::Skipping;
                }
                return Ok(Progress::Pending);
            }
        };
        let taken = staged.and_then(|mut staged| {
            staged.take(part, self)?;
            Ok(staged)
        });
        match (taken, more) {
            (Ok(staged), true) => {
                self.incoming = Incoming::Staged(staged);
                Ok(Progress::Pending)
            }
            (Ok(staged), false) => self.commit(staged).map(Progress::Applied),
            (Err(refused), more) => {
                if more {
                    self.incoming = Incoming::Skipping;
                }
                Err(refused)
            }
        }
    }

    /// Takes everything over, or nothing.
    fn commit(&mut self, staged: Staged) -> Result<Applied, Refused> {
        let computed = self.check_outcome(&staged)?;
        let Staged { base, changes, .. } = staged;
        let mut changed = 0;
        if base.is_none() {
            let gone = |key: &&Arc<str>| !changes.contains_key(*key);
            let gone = self
                .entries
                .keys()
                .filter(gone)
                .cloned()
                .collect::<Vec<_>>();
            changed += gone.len();
            for key in gone {
                self.remove(&key);
            }
        }
        for (key, change) in changes {
            match change {
                Change::Keep => {}
                Change::Remove => changed += usize::from(self.remove(&key)),
                Change::Put {
                    digest,
                    bytes,
                    content,
                } => {
                    let state = self.put(&key, *content);
                    let entry = Entry {
                        digest,
                        bytes,
                        state,
                    };
                    self.entries.insert(key, entry);
                    changed += 1;
                }
            }
        }
        self.version = computed;
        let version = computed;
        Ok(Applied { version, changed })
    }

    /// The version, the count and the size that the update leads to, before anything changes.
    fn check_outcome(&self, staged: &Staged) -> Result<Version, Refused> {
        let mut after = BTreeMap::new();
        if staged.base.is_some() {
            let held = self.entries.iter();
            after.extend(held.map(|(key, entry)| (&**key, (&entry.digest, entry.bytes))));
        }
        for (key, change) in &staged.changes {
            match change {
                Change::Keep => {
                    let held = self.entries.get(key);
                    after.extend(held.map(|entry| (&**key, (&entry.digest, entry.bytes))));
                }
                Change::Put { digest, bytes, .. } => {
                    after.insert(&**key, (digest, *bytes));
                }
                Change::Remove => {
                    after.remove(&**key);
                }
            }
        }
        if after.len() > MAX_RESOURCES {
            return Err(Refused::TooManyResources);
        }
        if after.values().map(|(_, bytes)| bytes).sum::<usize>() > MAX_SET_BYTES {
            return Err(Refused::TooManyBytes);
        }
        let computed = Version::of(after.iter().map(|(key, (digest, _))| (*key, *digest)));
        let announced = staged.version;
        if computed != announced {
            return Err(Refused::Version {
                announced,
                computed,
            });
        }
        Ok(computed)
    }

    fn put(&mut self, key: &str, content: Content) -> State {
        let served = match self.entries.get(key).map(|entry| &entry.state) {
            Some(State::Accepted | State::Kept { .. }) => true,
            Some(State::Closed { .. }) | None => false,
        };
        match content {
            Content::Accepted(resource) => {
                resource.insert(&mut self.resources);
                State::Accepted
            }
            Content::Unreadable { reason, .. } if served => State::Kept { reason },
            Content::Unreadable { reason, closed } => {
                // Without one, what is closed already stays so.
                if let Some(closed) = closed {
                    closed.insert(&mut self.resources);
                }
                State::Closed { reason }
            }
            Content::Unsupported {
                reason,
                scope,
                closed,
            } => {
                match closed {
                    Some(closed) => closed.insert(&mut self.resources),
                    None => close_standing(&mut self.resources, key, scope),
                }
                State::Closed { reason }
            }
        }
    }

    fn remove(&mut self, key: &str) -> bool {
        remove(&mut self.resources, key);
        self.entries.remove(key).is_some()
    }
}

/// What the message around a Hello adds to it.
const ENVELOPE_BYTES: usize = 16;

#[cfg(test)]
mod tests;
