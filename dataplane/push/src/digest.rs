//! Digests: what a resource and a set of them are called, by content.
//!
//! SHA-256 over the bytes as sent. Every part is length-prefixed, so that no two resources hash the same input. Both sides
//! compute them from what travelled, never from an encoding of their own: another build may encode the same resource otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::wire;

/// Names one resource as it was sent: key, features and body.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// Names a whole set of resources.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(Digest);

/// The digest of every resource of a set, and the version that they make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    by_key: BTreeMap<Arc<str>, Digest>,
    version: Version,
}

impl Digest {
    pub(crate) fn of(resource: &wire::Resource) -> Self {
        let wire::Resource {
            key,
            requires,
            body,
        } = resource;
        let mut hash = Sha256::new();
        add(&mut hash, key.as_bytes());
        add_length(&mut hash, requires.len());
        for feature in requires {
            add(&mut hash, feature.as_bytes());
        }
        add(&mut hash, body);
        Self(hash.finalize().into())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl Version {
    /// The version of a set, given in the order of its keys.
    pub(crate) fn of<'a>(sorted: impl IntoIterator<Item = (&'a str, &'a Digest)>) -> Self {
        let mut hash = Sha256::new();
        for (key, digest) in sorted {
            add(&mut hash, key.as_bytes());
            hash.update(digest.0);
        }
        Self(Digest(hash.finalize().into()))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Digest::from_bytes(bytes).map(Self)
    }

    /// As it travels.
    pub fn to_bytes(self) -> Bytes {
        self.0.to_bytes()
    }
}

impl Digests {
    pub(crate) fn new(by_key: BTreeMap<Arc<str>, Digest>) -> Self {
        let version = Version::of(by_key.iter().map(|(key, digest)| (&**key, digest)));
        Self { by_key, version }
    }

    /// The version of the set.
    pub fn version(&self) -> Version {
        self.version
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The digest under a key.
    pub fn get(&self, key: &str) -> Option<Digest> {
        self.by_key.get(key).copied()
    }

    /// The keys behind this one, in order; all without one.
    pub(crate) fn keys_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<str>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.by_key.range::<str, _>((after, Bound::Unbounded));
        behind.map(|(key, _)| key)
    }
}

fn add(hash: &mut Sha256, bytes: &[u8]) {
    add_length(hash, bytes.len());
    hash.update(bytes);
}

fn add_length(hash: &mut Sha256, length: usize) {
    hash.update((length as u64).to_be_bytes());
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(key: &str, requires: &[&str], body: &str) -> wire::Resource {
        wire::Resource {
            key: key.into(),
            requires: requires.iter().map(ToString::to_string).collect(),
            body: body.to_owned().into(),
        }
    }

    #[test]
    fn bytes_that_move_between_fields_change_the_digest() {
        let digests = [
            resource("ab", &[], "c"),
            resource("a", &[], "bc"),
            resource("a", &["b"], "c"),
            resource("a", &["b", "c"], ""),
            resource("a", &["bc"], ""),
            resource("a", &["", "bc"], ""),
        ];
        for (index, one) in digests.iter().enumerate() {
            for other in &digests[index + 1..] {
                assert_ne!(Digest::of(one), Digest::of(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn both_sides_of_every_build_agree_on_these() {
        // Fixed for ever: a controller and a dataplane of different builds compare them.
        let digest = Digest::of(&resource("route/a/b", &["route/x"], "body"));
        assert_eq!(digest.to_string(), DIGEST);
        let version = Version::of([("route/a/b", &digest)]);
        assert_eq!(version.to_string(), VERSION);
    }

    /// From Python's hashlib: each part after its length in 8 bytes, `requires` after its count.
    const DIGEST: &str = "571cbcaad595f6dfdc2253455aec954dbdfcfaa42dde2cd2378445ea7d928a01";
    const VERSION: &str = "7e607e9ba20febeb89f56cafcf1234b861ccc6f6e548a5218198328f6154dd2c";

    #[test]
    fn order_of_insertion_does_not_matter() {
        let entry = |key: &str| (Arc::from(key), Digest::of(&resource(key, &[], "")));
        let forward = Digests::new([entry("a"), entry("b")].into());
        let backward = Digests::new([entry("b"), entry("a")].into());
        assert_eq!(forward.version(), backward.version());
        assert_ne!(
            forward.version(),
            Digests::new([entry("a")].into()).version()
        );
    }
}
