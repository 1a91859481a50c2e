//! How many connections there may be: in all, unproven, and unproven from one address.
//!
//! Who has not proved who it is keeps no newcomer out: when there is no room, the oldest unproven connection of the address that has
//! most of them is ended. A newcomer from another address so gets in at once, whatever a few addresses hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::limits::Limits;
use super::refusal::Refusal;

/// Counts connections.
#[derive(Debug)]
pub(super) struct Gate {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    /// Numbers the connections in the order in which they came.
    numbered: u64,
    unproven: BTreeMap<u64, Unproven>,
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Unproven {
    peer: IpAddr,
    evicted: CancellationToken,
}

/// A connection that was let in, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    gate: Arc<Gate>,
    number: u64,
    proven: bool,
    /// Cancelled when it has to make room; it is not counted any more then.
    pub(super) evicted: CancellationToken,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            counts: Mutex::default(),
        }
    }

    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Admission, Refusal> {
        let mut counts = self.counts();
        let from_there = counts.by_address.get(&peer).map_or(0, BTreeSet::len);
        if from_there >= self.limits.unproven_per_address {
            return Err(Refusal::TooManyConnections);
        }
        let full = counts.connections >= self.limits.connections
            || counts.unproven.len() >= self.limits.unproven;
        if full && !counts.make_room() {
            return Err(Refusal::TooManyConnections);
        }
        counts.connections += 1;
        counts.numbered += 1;
        let number = counts.numbered;
        let evicted = CancellationToken::new();
        let unproven = Unproven {
            peer,
            evicted: evicted.clone(),
        };
        counts.unproven.insert(number, unproven);
        counts.by_address.entry(peer).or_default().insert(number);
        Ok(Admission {
            gate: self.clone(),
            number,
            proven: false,
            evicted,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Ends the oldest unproven connection of the address that has most, of the one that came first if several have as many. Not if
    /// all are proven.
    fn make_room(&mut self) -> bool {
        let most = self.by_address.values();
        let most = most.max_by_key(|numbers| (numbers.len(), Reverse(numbers.first().copied())));
        let Some(oldest) = most.and_then(|numbers| numbers.first().copied()) else {
            return false;
        };
        if let Some(unproven) = self.take_unproven(oldest) {
            unproven.evicted.cancel();
            self.connections -= 1;
        }
        true
    }

    /// The connection does not count as unproven any more; nothing if it did not.
    fn take_unproven(&mut self, number: u64) -> Option<Unproven> {
        let unproven = self.unproven.remove(&number)?;
        if let Some(from_there) = self.by_address.get_mut(&unproven.peer) {
            from_there.remove(&number);
            if from_there.is_empty() {
                self.by_address.remove(&unproven.peer);
            }
        }
        Some(unproven)
    }
}

impl Admission {
    /// The peer is known now. Returns whether the connection may stay: not if it had to make room just before.
    pub(super) fn prove(&mut self) -> bool {
        if !self.proven {
            self.proven = self.gate.counts().take_unproven(self.number).is_some();
        }
        self.proven
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        if self.proven || counts.take_unproven(self.number).is_some() {
            counts.connections -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<Gate> {
        Arc::new(Gate::new(Limits {
            connections: 5,
            unproven: 4,
            unproven_per_address: 2,
            ..Limits::default()
        }))
    }

    #[track_caller]
    fn enter(gate: &Arc<Gate>, last: u8) -> Admission {
        gate.enter(IpAddr::from([10, 0, 0, last])).unwrap()
    }

    #[track_caller]
    fn refused(gate: &Arc<Gate>, last: u8) {
        let refusal = gate.enter(IpAddr::from([10, 0, 0, last])).unwrap_err();
        assert_eq!(refusal, Refusal::TooManyConnections);
    }

    /// Connections, and unproven ones among them.
    fn counts(gate: &Gate) -> (usize, usize) {
        let counts = gate.counts();
        (counts.connections, counts.unproven.len())
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let gate = gate();
        let first = [1, 1].map(|last| enter(&gate, last));
        refused(&gate, 1);
        let _other = enter(&gate, 2);
        drop(first);
        enter(&gate, 1);
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_oldest_of_who_has_most() {
        let gate = gate();
        let [one, other, second, third] = [3, 1, 2, 2].map(|last| enter(&gate, last));
        let newcomer = enter(&gate, 4);
        assert!(second.evicted.is_cancelled());
        for stays in [&one, &other, &third, &newcomer] {
            assert!(!stays.evicted.is_cancelled());
        }
        assert_eq!(counts(&gate), (4, 4));
        // Of several with as many, who came first.
        let next = enter(&gate, 5);
        assert!(one.evicted.is_cancelled());
        drop([one, other, second, third, newcomer, next]);
        assert_eq!(counts(&gate), (0, 0));
        assert!(gate.counts().by_address.is_empty());
    }

    #[test]
    fn who_had_to_make_room_is_not_proved_any_more() {
        let gate = gate();
        let mut all = [1, 1, 2, 2].map(|last| enter(&gate, last));
        let _newcomer = enter(&gate, 3);
        let stay = all.each_mut().map(Admission::prove);
        assert_eq!(stay, [false, true, true, true]);
        assert_eq!(counts(&gate), (4, 1));
        drop(all);
        assert_eq!(counts(&gate), (1, 1));
    }

    #[test]
    fn who_is_proved_is_never_ended_for_a_stranger() {
        let gate = gate();
        let mut proved = [1, 1, 1, 1].map(|last| {
            let mut admission = enter(&gate, last);
            assert!(admission.prove());
            admission
        });
        let stranger = enter(&gate, 2);
        let mut next = enter(&gate, 3);
        assert!(stranger.evicted.is_cancelled());
        assert!(next.prove());
        refused(&gate, 4);
        assert!(proved.iter_mut().all(Admission::prove));
        assert!(
            proved
                .iter()
                .all(|admission| !admission.evicted.is_cancelled())
        );
    }
}
