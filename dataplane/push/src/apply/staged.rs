//! An update under way: its parts so far, checked and decoded, beside what is held.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content::{Content, read};
use super::{Held, Refused};
use crate::digest::Digest;
use crate::{
    MAX_BODY_BYTES, MAX_KEY_BYTES, MAX_REQUIRES, MAX_RESOURCES, MAX_SET_BYTES, MAX_TEXT_BYTES,
    Version, wire,
};

/// The update that is under way.
#[derive(Debug)]
pub(super) enum Incoming {
    None,
    Staged(Staged),
    /// It was refused; its remaining parts are let go.
    Skipping,
}

/// The parts so far.
#[derive(Debug)]
pub(super) struct Staged {
    /// Absent: a full set.
    pub(super) base: Option<Version>,
    pub(super) version: Version,
    pub(super) changes: BTreeMap<Arc<str>, Change>,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) enum Change {
    /// Sent with the digest that is held already.
    Keep,
    Put {
        digest: Digest,
        bytes: usize,
        content: Box<Content>,
    },
    Remove,
}

impl Staged {
    /// The first part says what all are about.
    pub(super) fn begin(part: &wire::Update, held: Version) -> Result<Self, Refused> {
        let (base, version) = versions(part)?;
        if let Some(base) = base
            && base != held
        {
            return Err(Refused::Base { base, held });
        }
        Ok(Self {
            base,
            version,
            changes: BTreeMap::new(),
            bytes: 0,
        })
    }

    pub(super) fn check_same(self, part: &wire::Update) -> Result<Self, Refused> {
        if versions(part)? != (self.base, self.version) {
            return Err(Refused::MixedParts);
        }
        Ok(self)
    }

    pub(super) fn take(&mut self, part: wire::Update, held: &Held) -> Result<(), Refused> {
        if self.base.is_none() && !part.removals.is_empty() {
            return Err(Refused::RemovalInFullSet);
        }
        for key in part.removals {
            check_key(&key)?;
            self.add(key, Change::Remove)?;
        }
        for resource in part.upserts {
            check_resource(&resource)?;
            let bytes = resource.body.len();
            self.bytes += bytes;
            if self.bytes > MAX_SET_BYTES {
                return Err(Refused::TooManyBytes);
            }
            let digest = Digest::of(&resource);
            let known = held.entries.get(&*resource.key);
            let change = if known.is_some_and(|entry| entry.digest == digest) {
                Change::Keep
            } else {
                Change::Put {
                    digest,
                    bytes,
                    content: Box::new(read(&resource, held.features)),
                }
            };
            self.add(resource.key, change)?;
        }
        Ok(())
    }

    fn add(&mut self, key: String, change: Change) -> Result<(), Refused> {
        if self.changes.len() >= 2 * MAX_RESOURCES {
            // As many removals as can be held, and as many resources as may replace them.
            return Err(Refused::TooManyResources);
        }
        match self.changes.insert(Arc::from(&*key), change) {
            None => Ok(()),
            Some(_) => Err(Refused::Twice { key }),
        }
    }
}

fn versions(part: &wire::Update) -> Result<(Option<Version>, Version), Refused> {
    let version = |bytes: &[u8]| Version::from_bytes(bytes).ok_or(Refused::VersionLength);
    let base = part.base.as_deref().map(version).transpose()?;
    Ok((base, version(&part.version)?))
}

fn check_key(key: &str) -> Result<(), Refused> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(Refused::KeyLength);
    }
    Ok(())
}

fn check_resource(resource: &wire::Resource) -> Result<(), Refused> {
    let wire::Resource {
        key,
        requires,
        body,
    } = resource;
    check_key(key)?;
    let too_long = |feature: &String| feature.len() > MAX_TEXT_BYTES;
    if requires.len() > MAX_REQUIRES || requires.iter().any(too_long) {
        return Err(Refused::Requires { key: key.clone() });
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(Refused::BodyLength {
            key: key.clone(),
            bytes: body.len(),
        });
    }
    Ok(())
}
