//! Debounce with a leading edge: the first change after quiet acts at once, a burst acts at most once in an interval.
//!
//! It keeps no task and no queue. Who waits for changes calls [`Debounce::turn`] before it acts; changes that come in the
//! meantime are part of what it then reads. On tokio's clock, so that tests can pause it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Least time between two publishes: below what a person notices, and a rollout of hundreds of pods costs ten compiles a second.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Spaces out the turns of one loop.
#[derive(Debug)]
pub struct Debounce {
    interval: Duration,
    earliest: Option<Instant>,
}

impl Debounce {
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            earliest: None,
        }
    }

    /// Returns at once when the last turn is an interval ago, else as soon as it is. Cancelled, it takes no turn.
    pub async fn turn(&mut self) {
        if let Some(earliest) = self.earliest {
            sleep_until(earliest).await;
        }
        self.earliest = Some(Instant::now() + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn elapsed(debounce: &mut Debounce) -> Duration {
        let start = Instant::now();
        debounce.turn().await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn first_turn_is_at_once() {
        let mut debounce = Debounce::new(INTERVAL);
        assert_eq!(elapsed(&mut debounce).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_takes_one_turn_in_an_interval() {
        let mut debounce = Debounce::new(INTERVAL);
        let start = Instant::now();
        for _ in 0..11 {
            debounce.turn().await;
        }
        assert_eq!(start.elapsed(), INTERVAL * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_after_quiet_is_at_once_again() {
        let mut debounce = Debounce::new(INTERVAL);
        debounce.turn().await;
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(elapsed(&mut debounce).await, Duration::ZERO);
        tokio::time::sleep(INTERVAL / 4).await;
        assert_eq!(elapsed(&mut debounce).await, INTERVAL * 3 / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_turn_is_not_taken() {
        let mut debounce = Debounce::new(INTERVAL);
        debounce.turn().await;
        let cancelled = tokio::time::timeout(INTERVAL / 2, debounce.turn()).await;
        assert!(cancelled.is_err());
        assert_eq!(elapsed(&mut debounce).await, INTERVAL / 2);
    }
}
