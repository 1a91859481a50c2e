//! A line of the log that clients can bring about: once, and then not again for a time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Says when the line may be written.
#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    told: Mutex<Option<Instant>>,
}

impl Seldom {
    /// At most one line in `every`.
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            every,
            told: Mutex::default(),
        }
    }

    /// Whether to write it now; if so, not again for the time.
    pub(crate) fn may_tell(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let may = told.is_none_or(|at| at.elapsed() >= self.every);
        if may {
            *told = Some(Instant::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_in_the_time() {
        let seldom = Seldom::new(Duration::from_mins(1));
        assert!(seldom.may_tell() && !seldom.may_tell());
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!seldom.may_tell());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(seldom.may_tell() && !seldom.may_tell());
    }
}
