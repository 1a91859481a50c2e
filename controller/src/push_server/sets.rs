//! The newest output, encoded once for all streams.
//!
//! Every replica encodes, also those that do not lead: a new leader then has the bytes at once. Only what changed is encoded anew.
//! What is over a limit of the push is told apart from the rest, and told to whoever watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use push::{EncodedSet, LeftOut, OverLimit, SetLimits};
use route_table::ResourceKey;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;
use crate::health::Health;
use crate::output::Output;

/// A set that can be sent.
#[derive(Debug)]
pub(super) struct Published {
    /// Of the output.
    pub(super) sequence: u64,
    pub(super) set: EncodedSet,
    /// What is not sent as it is, and why.
    pub(super) left_out: Arc<BTreeMap<ResourceKey, OverLimit>>,
}

/// Encodes every output that it sees; of several that come at once, the last. Returns only if that is broken.
pub(super) async fn encode(
    mut outputs: watch::Receiver<Option<Arc<Output>>>,
    published: watch::Sender<Option<Arc<Published>>>,
    limits: SetLimits,
    metrics: Metrics,
    health: &Health,
    tasks: &TaskTracker,
) -> anyhow::Error {
    let mut sequence = None;
    loop {
        let newest = outputs.borrow_and_update().clone();
        if let Some(output) = newest.filter(|output| Some(output.sequence) != sequence) {
            sequence = Some(output.sequence);
            let previous = published.borrow().clone();
            // Tens of milliseconds for a first set of 10,000 routes; connections go on meanwhile.
            let encoding =
                tasks.spawn_blocking(move || encode_one(&output, previous.as_deref(), limits));
            match encoding.await.context("encoding the set to push") {
                Ok(set) => {
                    metrics.set_encoded(set.set.digests().len(), &set.left_out);
                    health.left_out(set.left_out.len());
                    published.send_replace(Some(Arc::new(set)));
                }
                Err(error) => return error,
            }
        }
        if outputs.changed().await.is_err() {
            // Nothing is compiled any more: the process is ending, and that is not for us to say.
            std::future::pending::<()>().await;
        }
    }
}

fn encode_one(output: &Output, previous: Option<&Published>, limits: SetLimits) -> Published {
    let empty = EncodedSet::empty();
    let set = previous.map_or(&empty, |previous| &previous.set);
    let (set, left_out) = EncodedSet::encode_within(limits, &output.resources, set);
    let left_out = left_out.into_iter();
    Published {
        sequence: output.sequence,
        set,
        left_out: Arc::new(left_out.map(|LeftOut { key, why }| (key, why)).collect()),
    }
}
