//! New handshakes at a steady rate; every one must succeed at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::eventually;
use crate::client::Dial;

/// 20 in a second.
const PACE: Duration = Duration::from_millis(50);

/// Handshakes all along, until they are counted.
pub struct Newcomers {
    taken: Arc<AtomicU64>,
    stop: CancellationToken,
    task: JoinHandle<Vec<String>>,
}

impl Newcomers {
    /// Begins, and returns once the first was taken.
    pub async fn begin(dial: &Dial) -> Self {
        let (taken, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        #[expect(clippy::disallowed_methods, reason = "a test ends with its tasks")]
        let task = tokio::spawn(come(dial.clone(), Arc::clone(&taken), stop.clone()));
        let newcomers = Self { taken, stop, task };
        newcomers.more(1).await;
        newcomers
    }

    /// Waits until this many more were taken.
    pub async fn more(&self, count: u64) {
        let target = self.taken.load(Ordering::SeqCst) + count;
        eventually("newcomers are taken", async || {
            (self.taken.load(Ordering::SeqCst) >= target || self.task.is_finished()).then_some(())
        })
        .await;
    }

    /// Ends; how many came. Panics when any was not taken, and says when.
    pub async fn all_were_taken(self) -> u64 {
        self.stop.cancel();
        let failed = self.task.await.expect("newcomers are counted");
        let taken = self.taken.load(Ordering::SeqCst);
        assert!(
            failed.is_empty(),
            "{} of {} new handshakes failed:\n{}",
            failed.len(),
            failed.len() as u64 + taken,
            failed.join("\n")
        );
        taken
    }
}

/// One after the other, whether the one before is done or not. What failed, and when.
async fn come(dial: Dial, taken: Arc<AtomicU64>, stop: CancellationToken) -> Vec<String> {
    let start = Instant::now();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut underway = JoinSet::new();
    let mut failed = Vec::new();
    loop {
        tokio::select! {
            _ = pace.tick(), if !stop.is_cancelled() => {
                let dial = dial.clone();
                underway.spawn(async move {
                    let since = start.elapsed();
                    let result = dial.try_connect().await;
                    (since, result.map(|_| ()).map_err(|error| error.to_string()))
                });
            }
            () = stop.cancelled(), if underway.is_empty() => return failed,
            Some(done) = underway.join_next(), if !underway.is_empty() => match done {
                Ok((_, Ok(()))) => {
                    taken.fetch_add(1, Ordering::SeqCst);
                }
                Ok((since, Err(error))) => failed.push(format!("after {since:?}: {error}")),
                Err(panic) => failed.push(panic.to_string()),
            },
        }
    }
}
