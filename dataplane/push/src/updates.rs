//! One update on its way to one dataplane, a part at a time.
//!
//! Parts are made when they are asked for: what a stream keeps is where it stands, and not a second list of everything that it is
//! yet to send. The bodies in a part are those of the set.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use prost::Message;

use crate::delta::{EncodedSet, Entry};
use crate::{Digests, PART_BYTES, wire};

/// Most bytes that protobuf puts before one entry: its tag and its length.
const FRAMING_BYTES: usize = 8;

/// The parts of an update, in order. There is at least one, and the last has no `more`.
#[derive(Debug)]
pub struct Updates {
    set: EncodedSet,
    /// What the dataplane holds; absent for a full set.
    base: Option<Arc<Digests>>,
    at: At,
}

/// What comes next: the first that is behind this key.
#[derive(Debug)]
enum At {
    Removals(Option<Arc<str>>),
    Upserts(Option<Arc<str>>),
    End,
}

impl Updates {
    pub(crate) fn new(set: EncodedSet, base: Option<Arc<Digests>>) -> Self {
        let at = At::Removals(None);
        Self { set, base, at }
    }

    /// Whether the update replaces whatever the dataplane holds.
    pub fn is_full(&self) -> bool {
        self.base.is_none()
    }

    /// Takes removals as long as there is room; whether that was all of them.
    fn take_removals(&mut self, after: Option<&str>, part: &mut Part) -> bool {
        let held = self.base.iter().flat_map(|base| base.keys_after(after));
        for key in held.filter(|key| !self.set.entries().contains_key(*key)) {
            if !part.has_room(key.len()) {
                return false;
            }
            part.update.removals.push(key.to_string());
            self.at = At::Removals(Some(key.clone()));
        }
        true
    }

    /// The same for what is new or different.
    fn take_upserts(&mut self, after: Option<&str>, part: &mut Part) -> bool {
        for (key, entry) in entries_after(self.set.entries(), after) {
            let held = self.base.as_ref().and_then(|base| base.get(key));
            if held == Some(entry.digest()) {
                continue;
            }
            let resource = entry.resource(key);
            if !part.has_room(resource.encoded_len()) {
                return false;
            }
            part.update.upserts.push(resource);
            self.at = At::Upserts(Some(key.clone()));
        }
        true
    }
}

impl Iterator for Updates {
    type Item = wire::Update;

    fn next(&mut self) -> Option<wire::Update> {
        let base = self.base.as_ref().map(|base| base.version().to_bytes());
        let version = self.set.version().to_bytes();
        let mut part = Part {
            update: wire::Update {
                base,
                version,
                more: true,
                ..wire::Update::default()
            },
            bytes: 0,
        };
        if let At::Removals(after) = &self.at {
            let after = after.clone();
            if !self.take_removals(after.as_deref(), &mut part) {
                return Some(part.update);
            }
            self.at = At::Upserts(None);
        }
        if let At::Upserts(after) = &self.at {
            let after = after.clone();
            if self.take_upserts(after.as_deref(), &mut part) {
                self.at = At::End;
                part.update.more = false;
            }
            return Some(part.update);
        }
        None
    }
}

/// A part that is being filled.
struct Part {
    update: wire::Update,
    bytes: usize,
}

impl Part {
    /// Counts an entry of `length` bytes, if there is room for it; an empty part has room for any.
    fn has_room(&mut self, length: usize) -> bool {
        let length = length + FRAMING_BYTES;
        if self.bytes > 0 && self.bytes + length > PART_BYTES {
            return false;
        }
        self.bytes += length;
        true
    }
}

fn entries_after<'a>(
    entries: &'a BTreeMap<Arc<str>, Entry>,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
    let after = after.map_or(Bound::Unbounded, Bound::Excluded);
    entries.range::<str, _>((after, Bound::Unbounded))
}
