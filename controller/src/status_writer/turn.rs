//! When to compare everything again: soon after a change, and never so often that nothing else gets done.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::debounce;

/// After a comparison, this many times as long is left to the writes; comparing 10,000 routes takes longer than a write.
const SHARE: u32 = 4;

/// The next comparison.
#[derive(Debug)]
pub(super) struct Turn {
    at: Option<Instant>,
    earliest: Instant,
}

impl Turn {
    /// Due at once.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            at: Some(now),
            earliest: now,
        }
    }

    /// Something changed that should be looked at within `wait`.
    pub(super) fn due(&mut self, wait: Duration) {
        let at = (Instant::now() + wait).max(self.earliest);
        self.at = Some(self.at.map_or(at, |before| before.min(at)));
    }

    /// Returns when it is time; never if nothing changed.
    pub(super) async fn reached(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// A comparison that `began` then is done.
    pub(super) fn done(&mut self, began: Instant) {
        self.at = None;
        self.earliest = Instant::now() + debounce::INTERVAL.max(began.elapsed() * SHARE);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    async fn waited(turn: &Turn) -> Duration {
        let start = Instant::now();
        turn.reached().await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_at_once_and_the_next_an_interval_later() {
        let mut turn = Turn::new();
        assert_eq!(waited(&turn).await, Duration::ZERO);
        turn.done(Instant::now());
        turn.due(Duration::ZERO);
        assert_eq!(waited(&turn).await, debounce::INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_comparison_leaves_time_for_writes() {
        let mut turn = Turn::new();
        let began = Instant::now();
        advance(Duration::from_secs(1)).await;
        turn.done(began);
        turn.due(Duration::ZERO);
        assert_eq!(waited(&turn).await, Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn the_sooner_one_counts() {
        let mut turn = Turn::new();
        turn.done(Instant::now());
        turn.due(Duration::from_secs(2));
        turn.due(Duration::from_secs(1));
        turn.due(Duration::from_secs(2));
        assert_eq!(waited(&turn).await, Duration::from_secs(1));
    }
}
