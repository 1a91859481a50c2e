//! How many connections there may be: in all, unproven, and unproven from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

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
    unproven: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection that was let in, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    gate: Arc<Gate>,
    unproven: Option<IpAddr>,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            counts: Mutex::default(),
        }
    }

    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Admission, Refusal> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = counts.by_address.get(&peer).copied().unwrap_or_default();
        if counts.connections >= self.limits.connections
            || counts.unproven >= self.limits.unproven
            || from_there >= self.limits.unproven_per_address
        {
            return Err(Refusal::TooManyConnections);
        }
        counts.connections += 1;
        counts.unproven += 1;
        counts.by_address.insert(peer, from_there + 1);
        Ok(Admission {
            gate: self.clone(),
            unproven: Some(peer),
        })
    }
}

impl Counts {
    fn proved(&mut self, peer: IpAddr) {
        self.unproven -= 1;
        if let Some(from_there) = self.by_address.get_mut(&peer) {
            *from_there -= 1;
            if *from_there == 0 {
                self.by_address.remove(&peer);
            }
        }
    }
}

impl Admission {
    /// The peer is known now.
    pub(super) fn prove(&mut self) {
        let mut counts = self
            .gate
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = self.unproven.take() {
            counts.proved(peer);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.prove();
        let mut counts = self
            .gate
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.connections -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<Gate> {
        Arc::new(Gate::new(Limits {
            connections: 4,
            unproven: 3,
            unproven_per_address: 2,
            ..Limits::default()
        }))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let gate = gate();
        let first = [1, 1].map(|last| gate.enter(address(last)).unwrap());
        assert_eq!(
            gate.enter(address(1)).unwrap_err(),
            Refusal::TooManyConnections
        );
        let _other = gate.enter(address(2)).unwrap();
        gate.enter(address(3)).unwrap_err();
        drop(first);
        gate.enter(address(1)).unwrap();
    }

    #[test]
    fn who_is_proved_makes_room_for_strangers_up_to_the_limit() {
        let gate = gate();
        let mut proved = Vec::new();
        for _ in 0..4 {
            let mut admission = gate.enter(address(1)).unwrap();
            admission.prove();
            proved.push(admission);
        }
        gate.enter(address(2)).unwrap_err();
        proved.clear();
        gate.enter(address(2)).unwrap();
        let counts = gate.counts.lock().unwrap();
        assert_eq!((counts.connections, counts.unproven), (0, 0));
        assert!(counts.by_address.is_empty());
    }
}
