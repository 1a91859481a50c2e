//! The fence: whose word is newer when two controllers both believe that they lead.
//!
//! A term of leadership is a Lease, by uid, and how often that Lease changed hands. A dataplane never goes back within one
//! Lease. The transitions of another Lease count from zero again, so they cannot be compared: a leader of another Lease is
//! followed, and the receiver logs it. That is right after a deleted Lease or a restored etcd; a leader of the deleted Lease
//! that was only stopped loses its own Lease at its next write.

use crate::{MAX_TEXT_BYTES, wire};

/// One term of leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// `metadata.uid` of the Lease.
    pub lease_uid: String,
    /// `spec.leaseTransitions` of the Lease.
    pub transitions: u64,
}

/// What a dataplane does with the leader that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceVerdict {
    /// The first one, the same one, or a later one of the same Lease: follow it.
    Follow,
    /// A leader of another Lease: follow it, and say so in the log.
    FollowNewLease,
    /// An earlier leader of the same Lease: leave it.
    Stale,
}

impl Fence {
    /// Compares the leader that was followed last with the one that is met now.
    pub fn judge(last: Option<&Self>, offered: &Self) -> FenceVerdict {
        match last {
            Some(last) if last.lease_uid != offered.lease_uid => FenceVerdict::FollowNewLease,
            Some(last) if offered.transitions < last.transitions => FenceVerdict::Stale,
            Some(_) | None => FenceVerdict::Follow,
        }
    }

    /// The first message of a leader.
    pub fn welcome(&self) -> wire::Welcome {
        let fence = wire::Fence {
            lease_uid: self.lease_uid.clone(),
            transitions: self.transitions,
        };
        wire::Welcome { fence: Some(fence) }
    }

    /// The fence of a Welcome; nothing if it has none that can be compared.
    pub fn from_welcome(welcome: wire::Welcome) -> Option<Self> {
        let wire::Fence {
            lease_uid,
            transitions,
        } = welcome.fence?;
        (!lease_uid.is_empty() && lease_uid.len() <= MAX_TEXT_BYTES).then_some(Self {
            lease_uid,
            transitions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(lease_uid: &str, transitions: u64) -> Fence {
        Fence {
            lease_uid: lease_uid.into(),
            transitions,
        }
    }

    #[track_caller]
    fn check(last: Option<(&str, u64)>, offered: (&str, u64), expected: FenceVerdict) {
        let last = last.map(|(uid, transitions)| fence(uid, transitions));
        let offered = fence(offered.0, offered.1);
        assert_eq!(Fence::judge(last.as_ref(), &offered), expected);
    }

    #[test]
    fn never_back_within_one_lease() {
        check(None, ("a", 0), FenceVerdict::Follow);
        check(Some(("a", 3)), ("a", 3), FenceVerdict::Follow);
        check(Some(("a", 3)), ("a", 4), FenceVerdict::Follow);
        check(Some(("a", 3)), ("a", 2), FenceVerdict::Stale);
    }

    #[test]
    fn another_lease_is_followed_whatever_its_transitions() {
        check(Some(("a", 3)), ("b", 0), FenceVerdict::FollowNewLease);
        check(Some(("a", 0)), ("b", 9), FenceVerdict::FollowNewLease);
    }

    #[test]
    fn welcome_carries_the_fence() {
        let sent = fence("a", 7);
        assert_eq!(Fence::from_welcome(sent.welcome()), Some(sent));
        assert_eq!(Fence::from_welcome(wire::Welcome { fence: None }), None);
        assert_eq!(Fence::from_welcome(fence("", 7).welcome()), None);
    }
}
