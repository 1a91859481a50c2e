//! Answers to an update: written by the dataplane, read by the controller.
//!
//! An Ack names everything in the set that is not served as it was sent, whether the push or the table refused it, and whenever
//! that was: the controller needs no memory of earlier Acks. If all of that does not fit into a message, the Ack says how many
//! there are, and the controller takes nothing for served that it cannot tell apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use route_table::{Rejected, ResourceKey};

use crate::key::{key_text, parse_key};
use crate::{
    Held, MAX_KEY_BYTES, MAX_MESSAGE_BYTES, MAX_REASON_BYTES, MAX_RESOURCES, Refused, Version,
    clean, wire,
};

/// What a dataplane answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The set is applied, but for these.
    Applied {
        version: Version,
        rejected: Arc<BTreeMap<ResourceKey, String>>,
        /// Whether `rejected` is all; if not, no resource may be taken for served.
        complete: bool,
    },
    /// Nothing has changed.
    Refused {
        /// Absent if the update had none that could be read.
        version: Option<Version>,
        reason: String,
    },
}

/// Why an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("a version is not 32 bytes long")]
    Version,
}

/// Most bytes that protobuf puts before one entry, or the message around the answer: tag and length.
const FRAMING_BYTES: usize = 16;

/// The Ack of what is held now, with what the table made of it.
pub fn ack(held: &Held, table: &[Rejected]) -> wire::Ack {
    let mut reasons = BTreeMap::new();
    for rejected in table {
        reasons.insert(key_text(&rejected.key), rejected.reason.to_string());
    }
    // Later, so that of two reasons the one about the newer bytes stays.
    for (key, reason) in held.rejected() {
        reasons.insert(key.to_owned(), reason.to_owned());
    }
    let mut ack = wire::Ack {
        version: held.version().to_bytes(),
        rejected: Vec::new(),
        rejected_total: reasons.len() as u64,
    };
    let mut room = MAX_MESSAGE_BYTES - FRAMING_BYTES - ack.encoded_len();
    for (key, reason) in reasons {
        let reason = clean(&reason, MAX_REASON_BYTES);
        let rejected = wire::Rejected { key, reason };
        let Some(left) = room.checked_sub(rejected.encoded_len() + FRAMING_BYTES) else {
            break;
        };
        room = left;
        ack.rejected.push(rejected);
    }
    ack
}

/// The Nack of an update; `version` as the refused part had it.
pub fn nack(version: &[u8], refused: &Refused) -> wire::Nack {
    wire::Nack {
        version: bytes::Bytes::copy_from_slice(version.get(..32).unwrap_or_default()),
        reason: clean(&refused.to_string(), MAX_REASON_BYTES),
    }
}

impl Verdict {
    /// Reads an Ack. Texts are made fit for a condition; a key that names no resource is dropped, since no route owns it. Of more
    /// entries than a set has resources, [`MAX_RESOURCES`] are kept: a message has room for many times as many short ones.
    pub fn from_ack(ack: wire::Ack) -> Result<Self, BadAnswer> {
        let wire::Ack {
            version,
            rejected,
            rejected_total,
        } = ack;
        let complete = rejected.len() as u64 >= rejected_total && rejected.len() <= MAX_RESOURCES;
        let readable = rejected
            .into_iter()
            .take(MAX_RESOURCES)
            .filter(|rejected| rejected.key.len() <= MAX_KEY_BYTES)
            .filter_map(|wire::Rejected { key, reason }| {
                Some((parse_key(&key)?, clean(&reason, MAX_REASON_BYTES)))
            });
        Ok(Self::Applied {
            version: Version::from_bytes(&version).ok_or(BadAnswer::Version)?,
            rejected: Arc::new(readable.collect()),
            complete,
        })
    }

    /// Reads a Nack.
    pub fn from_nack(nack: wire::Nack) -> Self {
        let wire::Nack { version, reason } = nack;
        Self::Refused {
            version: Version::from_bytes(&version),
            reason: clean(&reason, MAX_REASON_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use route_table::{Invalid, RouteKey};

    use super::*;
    use crate::samples::{resource, update_to};

    fn route_key(name: &str) -> ResourceKey {
        ResourceKey::Route(RouteKey {
            namespace: "default".into(),
            name: name.into(),
        })
    }

    #[test]
    fn ack_names_what_the_push_and_the_table_rejected() {
        let mut held = Held::default();
        let unsupported = resource("route/default/a", &["route/new"], b"");
        held.receive(update_to(&[unsupported])).unwrap();
        let table = ["a", "b"].map(|name| Rejected {
            key: route_key(name),
            reason: Invalid::NoMatch { rule: "0".into() },
        });
        let ack = ack(&held, &table);
        let Verdict::Applied {
            version,
            rejected,
            complete,
        } = Verdict::from_ack(ack).unwrap()
        else {
            panic!("not an Ack");
        };
        assert_eq!(version, held.version());
        assert!(complete);
        assert_eq!(rejected.len(), 2);
        assert!(rejected[&route_key("a")].contains("requires route/new"));
        assert_eq!(rejected[&route_key("b")], "rule 0 has no path match");
    }

    #[test]
    fn ack_that_would_be_too_long_says_so() {
        let mut held = Held::default();
        let feature = format!("route/{}", "x".repeat(200));
        let unsupported = |index| resource(&format!("route/default/r{index}"), &[&feature], b"");
        let set = (0..40_000).map(unsupported).collect::<Vec<_>>();
        held.receive(update_to(&set)).unwrap();
        let ack = ack(&held, &[]);
        let message = wire::FromDataplane {
            message: Some(wire::from_dataplane::Message::Ack(ack.clone())),
        };
        assert!(message.encoded_len() <= MAX_MESSAGE_BYTES);
        let Verdict::Applied { complete, .. } = Verdict::from_ack(ack).unwrap() else {
            panic!("not an Ack");
        };
        assert!(!complete);
    }

    #[test]
    fn of_an_ack_that_rejects_more_than_a_set_holds_no_more_is_kept() {
        let of = |count: usize| {
            let rejected = (0..count).map(|index| wire::Rejected {
                key: format!("route/default/r{index}"),
                reason: String::new(),
            });
            let ack = wire::Ack {
                version: Version::of([]).to_bytes(),
                rejected: rejected.collect(),
                rejected_total: count as u64,
            };
            match Verdict::from_ack(ack).unwrap() {
                Verdict::Applied {
                    version: _,
                    rejected,
                    complete,
                } => (rejected.len(), complete),
                Verdict::Refused { .. } => panic!("not an Ack"),
            }
        };
        assert_eq!(of(MAX_RESOURCES), (MAX_RESOURCES, true));
        assert_eq!(of(MAX_RESOURCES + 1), (MAX_RESOURCES, false));
    }

    #[test]
    fn nack_carries_the_version_and_the_reason() {
        let version = Version::of([]);
        let verdict = Verdict::from_nack(nack(&version.to_bytes(), &Refused::MixedParts));
        let expected = Verdict::Refused {
            version: Some(version),
            reason: Refused::MixedParts.to_string(),
        };
        assert_eq!(verdict, expected);
        let Verdict::Refused { version, .. } =
            Verdict::from_nack(nack(b"short", &Refused::VersionLength))
        else {
            panic!("not a Nack");
        };
        assert_eq!(version, None);
    }

    #[test]
    fn ack_without_a_version_is_refused() {
        let answer = Verdict::from_ack(wire::Ack::default());
        assert_eq!(answer, Err(BadAnswer::Version));
    }
}
