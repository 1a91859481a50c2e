//! A Hello as the controller reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::{Digest, Digests};
use crate::{MAX_KEY_BYTES, MAX_RESOURCES, MAX_TEXT_BYTES, clean, wire};

/// Most features of a dataplane; each is a field of the API.
const MAX_FEATURES: usize = 256;

/// What a dataplane says of itself. Its identity is in its token, not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub pod: String,
    pub build: String,
    pub features: Vec<String>,
    /// What it holds, to compute a delta from.
    pub held: Digests,
}

/// Why a Hello cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    #[error("more than {MAX_FEATURES} features, or one longer than {MAX_TEXT_BYTES} bytes")]
    Features,
    #[error("more than {MAX_RESOURCES} digests")]
    TooManyDigests,
    #[error("a held key is empty or longer than {MAX_KEY_BYTES} bytes")]
    Key,
    #[error("a digest is not 32 bytes long")]
    Digest,
    #[error("a key is held twice")]
    Twice,
}

impl Greeting {
    /// Checks the first message of a dataplane.
    pub fn read(hello: wire::Hello) -> Result<Self, BadHello> {
        let wire::Hello {
            pod,
            build,
            features,
            held,
        } = hello;
        let too_long = |feature: &String| feature.len() > MAX_TEXT_BYTES;
        if features.len() > MAX_FEATURES || features.iter().any(too_long) {
            return Err(BadHello::Features);
        }
        if held.len() > MAX_RESOURCES {
            return Err(BadHello::TooManyDigests);
        }
        let mut digests = BTreeMap::new();
        for wire::HeldDigest { key, digest } in held {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(BadHello::Key);
            }
            let digest = Digest::from_bytes(&digest).ok_or(BadHello::Digest)?;
            if digests.insert(Arc::from(key), digest).is_some() {
                return Err(BadHello::Twice);
            }
        }
        Ok(Self {
            pod: clean(&pod, MAX_TEXT_BYTES),
            build: clean(&build, MAX_TEXT_BYTES),
            features,
            held: Digests::new(digests),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(key: &str, digest: &'static [u8]) -> wire::HeldDigest {
        wire::HeldDigest {
            key: key.into(),
            digest: digest.into(),
        }
    }

    #[track_caller]
    fn refuse(change: impl Fn(&mut wire::Hello), expected: BadHello) {
        let mut hello = wire::Hello::default();
        change(&mut hello);
        assert_eq!(Greeting::read(hello), Err(expected));
    }

    #[test]
    fn every_field_is_bounded() {
        refuse(
            |hello| hello.features = vec!["f".repeat(MAX_TEXT_BYTES + 1)],
            BadHello::Features,
        );
        refuse(
            |hello| hello.features = vec!["f".into(); MAX_FEATURES + 1],
            BadHello::Features,
        );
        refuse(
            |hello| hello.held = vec![held("a", &[0; 32]); MAX_RESOURCES + 1],
            BadHello::TooManyDigests,
        );
        refuse(|hello| hello.held = vec![held("", &[0; 32])], BadHello::Key);
        refuse(
            |hello| hello.held = vec![held("a", &[0; 31])],
            BadHello::Digest,
        );
        refuse(
            |hello| hello.held = vec![held("a", &[0; 32]); 2],
            BadHello::Twice,
        );
    }

    #[test]
    fn texts_for_people_are_made_fit_for_a_log() {
        let hello = wire::Hello {
            pod: "a\nb".into(),
            build: "b".repeat(MAX_TEXT_BYTES + 1),
            ..wire::Hello::default()
        };
        let greeting = Greeting::read(hello).unwrap();
        assert_eq!(greeting.pod, "a b");
        assert_eq!(greeting.build.len(), MAX_TEXT_BYTES);
    }
}
