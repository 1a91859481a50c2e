//! How many reviews are asked for: so many a second in all, and so many for one address.
//!
//! Two token buckets for every review. What one address uses up, the others still have: a stranger who forges tokens as fast as it
//! can takes its own share, and every dataplane keeps coming in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Reviews in all: a rollout of a few hundred dataplanes comes in within seconds, and the API server hardly notices.
const ALL: Limit = Limit {
    per_second: 20.0,
    burst: 100.0,
};
/// Reviews for one address: a dataplane needs one when it starts and one whenever its token was renewed. Several may share an
/// address behind the host's network.
const ONE_ADDRESS: Limit = Limit {
    per_second: 2.0,
    burst: 20.0,
};
/// Most addresses that are told apart. If more come at once they share what is left of [`ALL`].
const MAX_ADDRESSES: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Limit {
    per_second: f64,
    burst: f64,
}

/// Both limits and what is left of them.
#[derive(Debug)]
pub(super) struct ReviewRate {
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    all: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    limit: Limit,
    left: f64,
    at: Instant,
}

impl ReviewRate {
    pub(super) fn new(now: Instant) -> Self {
        let buckets = Buckets {
            all: Bucket::new(ALL, now),
            addresses: HashMap::new(),
        };
        Self {
            buckets: Mutex::new(buckets),
        }
    }

    /// Whether one more review may be asked for on behalf of `peer`; counts it if so.
    pub(super) fn take(&self, peer: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { all, addresses } = &mut *buckets;
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&peer) {
            // A full bucket is like none.
            addresses.retain(|_, bucket| !bucket.is_full(now));
        }
        all.refill(now);
        if all.left < 1.0 {
            return false;
        }
        if addresses.len() < MAX_ADDRESSES || addresses.contains_key(&peer) {
            let address = addresses
                .entry(peer)
                .or_insert_with(|| Bucket::new(ONE_ADDRESS, now));
            address.refill(now);
            if address.left < 1.0 {
                return false;
            }
            address.left -= 1.0;
        }
        all.left -= 1.0;
        true
    }
}

impl Bucket {
    fn new(limit: Limit, now: Instant) -> Self {
        Self {
            limit,
            left: limit.burst,
            at: now,
        }
    }

    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * self.limit.per_second).min(self.limit.burst);
        self.at = now;
    }

    fn is_full(&self, now: Instant) -> bool {
        let mut later = *self;
        later.refill(now);
        later.left >= later.limit.burst
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// How many of `tries` at once get through.
    fn taken(rate: &ReviewRate, peer: IpAddr, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| rate.take(peer, now)).count()
    }

    #[tokio::test]
    async fn a_stranger_takes_its_share_and_no_more() {
        let start = Instant::now();
        let rate = ReviewRate::new(start);
        assert_eq!(taken(&rate, address(1), start, 10_000), 20);
        assert_eq!(taken(&rate, address(2), start, 1), 1);
        let later = start + Duration::from_secs(3);
        assert_eq!(taken(&rate, address(1), later, 10_000), 6);
    }

    #[tokio::test]
    async fn many_strangers_are_bounded_together() {
        let start = Instant::now();
        let rate = ReviewRate::new(start);
        let all = (0..=255).map(|last| taken(&rate, address(last), start, 100));
        assert_eq!(all.sum::<usize>(), 100);
        let later = start + Duration::from_secs(1);
        let all = (0..=255).map(|last| taken(&rate, address(last), later, 100));
        assert_eq!(all.sum::<usize>(), 20);
    }

    #[tokio::test]
    async fn addresses_are_forgotten_when_they_have_all_again() {
        let start = Instant::now();
        let rate = ReviewRate::new(start);
        let mut now = start;
        for index in 0..u32::try_from(MAX_ADDRESSES).unwrap() * 3 {
            now += Duration::from_millis(50);
            assert!(rate.take(IpAddr::from(index.to_be_bytes()), now));
        }
        let buckets = rate.buckets.lock().unwrap();
        assert!(buckets.addresses.len() <= MAX_ADDRESSES);
    }
}
