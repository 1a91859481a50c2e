//! What a new term waits for before it is opened: that what is known was looked at again, and that nobody else has the class.
//!
//! The watches of a replica that was cut off may lag behind by a minute when its Lease works again; what it would push and write
//! then is older than what the leader before it did, under a newer fence. So every watcher begins with a new list, which the API
//! server answers from its newest state, and the term is opened when each list was answered (or refused: what was known of that
//! kind stays), the Secrets that changed were read, and the result was compiled and encoded. That is certain, where comparing the
//! versions of lists and watches is not: a quiet kind shows its version only once a minute. Its price is one list a kind and term.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use push::Fence;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::class::{Rivals, Verdict};
use super::standing::{Opening, Standing};
use crate::freshness::{Epoch, Epochs};
use crate::health::Health;
use crate::output::Output;
use crate::push_server::Encoded;

/// How long a term waits for what is known to be fresh. Lists of 10,000 objects take a few seconds; a refusal is an answer, so only
/// an API server that gives none takes all of it. Then it is better to lead with what there is than to leave the class without
/// anybody: dataplanes without a table would wait.
const FRESH_WITHIN: Duration = Duration::from_secs(10);
/// How often to look for others with our class, and whether those that there were are gone: one small list.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What has to be fresh.
pub(crate) struct Knowledge {
    /// Makes the watchers list again.
    pub(crate) epochs: Epochs,
    /// What was listed again, taken in and acted upon.
    pub(crate) fresh: Vec<watch::Receiver<Epoch>>,
    pub(crate) outputs: watch::Receiver<Option<Arc<Output>>>,
    pub(crate) encoded: Encoded,
}

/// Opens terms.
pub(crate) struct Terms {
    pub(crate) standing: Standing,
    pub(crate) opening: Opening,
    pub(crate) knowledge: Knowledge,
    pub(crate) rivals: Rivals,
    pub(crate) health: Arc<Health>,
}

impl Terms {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut held = self.standing.held.clone();
        // Of the term in which everything was listed again last. One that is only interrupted needs no second look: as long as the
        // fence is the same, nobody else has led.
        let mut fresh = None;
        loop {
            let term = held.borrow_and_update().clone();
            tokio::select! {
                changed = held.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                never = self.lead(term.as_ref(), &mut fresh) => match never {},
            }
            self.health.class_held(None);
        }
    }

    async fn lead(&mut self, term: Option<&Fence>, fresh: &mut Option<Fence>) -> Infallible {
        let Some(term) = term else {
            return std::future::pending().await;
        };
        if fresh.as_ref() != Some(term) {
            if timeout(FRESH_WITHIN, self.knowledge.refresh())
                .await
                .is_err()
            {
                tracing::warn!(limit = ?FRESH_WITHIN, "not everything was listed again in time; the term begins with what is known");
            }
            *fresh = Some(term.clone());
        }
        loop {
            match self.rivals.look().await {
                Verdict::Held(text) => {
                    self.opening.close();
                    self.health.class_held(Some(text));
                }
                Verdict::Free => {
                    self.health.class_held(None);
                    if self.opening.open(term) {
                        tracing::info!("this replica leads");
                    }
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Knowledge {
    async fn refresh(&mut self) {
        let epoch = self.epochs.begin();
        for fresh in &mut self.fresh {
            // An error is the end of the process.
            let _ending = fresh.wait_for(|fresh| *fresh >= epoch).await;
        }
        let sequence = self.outputs.borrow().as_ref().map(|output| output.sequence);
        if let Some(sequence) = sequence {
            self.encoded.reaches(sequence).await;
        }
    }
}
