//! How often one pod may begin a stream.
//!
//! Each stream ends the one before it and costs the reading of a Hello. A dataplane waits longer each time that it dials again; who
//! does not is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{STREAM_BURST, STREAM_INTERVAL};

/// Knows the pods that have begun a stream lately.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Until when the streams that each has begun would last at one every interval.
    paid_until: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Arrivals {
    /// Whether the pod may begin another one now.
    pub(super) fn admit(&self, uid: &Arc<str>) -> bool {
        self.admit_at(uid, Instant::now())
    }

    fn admit_at(&self, uid: &Arc<str>, now: Instant) -> bool {
        let mut paid_until = self
            .paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // As many are left as tokens were accepted in a burst's time.
        paid_until.retain(|_, until| *until > now);
        let until = paid_until.get(uid).copied().unwrap_or(now) + STREAM_INTERVAL;
        let admitted = until.duration_since(now) <= most();
        if admitted {
            paid_until.insert(uid.clone(), until);
        }
        admitted
    }
}

fn most() -> Duration {
    STREAM_INTERVAL * STREAM_BURST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_begins_so_many_streams_at_once_and_then_one_an_interval() {
        let arrivals = Arrivals::default();
        let [one, other] = ["uid-1", "uid-2"].map(Arc::from);
        let began = Instant::now();
        for _ in 0..STREAM_BURST {
            assert!(arrivals.admit_at(&one, began));
        }
        assert!(!arrivals.admit_at(&one, began));
        assert!(arrivals.admit_at(&other, began));
        let next = began + STREAM_INTERVAL;
        assert!(arrivals.admit_at(&one, next));
        assert!(!arrivals.admit_at(&one, next));
        // Who was quiet for long is forgotten.
        let late = next + most();
        assert!(arrivals.admit_at(&other, late));
        assert_eq!(arrivals.paid_until.lock().unwrap().len(), 1);
    }
}
