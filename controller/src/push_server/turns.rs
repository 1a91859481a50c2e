//! What streams may take of the memory together, and the turns that they wait for.
//!
//! Bodies are shared by all streams. What is not are the copy of a part that HTTP/2 keeps until its peer reads (`flight`), and what a
//! dataplane says that it holds; both are counted here over all streams. Turns come in the order in which they were asked for, and who has one
//! gives it back within a limit of its own.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use push::{MAX_BODY_BYTES, PART_BYTES};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::Limits;
use super::metrics::{Metrics, gauge};

/// Gives out turns.
#[derive(Debug)]
pub(super) struct Turns {
    greetings: Arc<Semaphore>,
    queued: Arc<Semaphore>,
    /// What a part may need of `queued`.
    part_bytes: u32,
    metrics: Metrics,
}

/// The turn of one dataplane to say what it holds, until this is dropped.
pub(super) type Greets = OwnedSemaphorePermit;

/// Room for one part, until this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    permit: OwnedSemaphorePermit,
    counted: i64,
    bytes: Gauge,
}

impl Turns {
    pub(super) fn new(limits: &Limits, metrics: Metrics) -> Self {
        let queued = limits.queued_bytes.min(Semaphore::MAX_PERMITS);
        Self {
            greetings: Arc::new(Semaphore::new(limits.greetings)),
            queued: Arc::new(Semaphore::new(queued)),
            // One resource of the largest size is a little more, with its key.
            part_bytes: u32::try_from(queued.min(PART_BYTES.max(MAX_BODY_BYTES)))
                .unwrap_or(u32::MAX),
            metrics,
        }
    }

    /// Waits for the turn to hear a Hello.
    pub(super) async fn greet(&self) -> Greets {
        self.wait(&self.greetings, 1).await
    }

    /// Waits for room for any part.
    pub(super) async fn part(&self) -> Room {
        let permit = self.wait(&self.queued, self.part_bytes).await;
        Room {
            permit,
            counted: 0,
            bytes: self.metrics.queued_bytes.clone(),
        }
    }

    async fn wait(&self, of: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
        let _waiting = Counted::one(&self.metrics.waiting);
        match of.clone().acquire_many_owned(permits).await {
            Ok(permit) => permit,
            // Nobody closes them.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Room {
    /// Gives back what a part of so many bytes does not need.
    pub(super) fn keep(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(surplus));
        self.counted = gauge(bytes);
        self.bytes.inc_by(self.counted);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.bytes.dec_by(self.counted);
    }
}

/// One more in a gauge, until this is dropped.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn one(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
