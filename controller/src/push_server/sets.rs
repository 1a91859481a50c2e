//! The newest output, encoded once for all streams.
//!
//! Every replica encodes, also those that do not lead: a new leader then has the bytes at once. Only what changed is encoded anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use push::{EncodedSet, LimitExceeded, TooLarge};
use route_table::ResourceKey;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;
use crate::output::Output;

/// A set that can be sent.
#[derive(Debug)]
pub(super) struct Published {
    /// Of the output.
    pub(super) sequence: u64,
    pub(super) set: EncodedSet,
    /// What is too large to be sent, and why; no dataplane serves it as it is.
    pub(super) left_out: BTreeMap<ResourceKey, String>,
}

/// Encodes every output that it sees; of several that come at once, the last. Returns only if that is broken.
pub(super) async fn encode(
    mut outputs: watch::Receiver<Option<Arc<Output>>>,
    published: watch::Sender<Option<Arc<Published>>>,
    metrics: Metrics,
    tasks: &TaskTracker,
) -> anyhow::Error {
    let mut sequence = None;
    let mut refused = false;
    loop {
        let newest = outputs.borrow_and_update().clone();
        if let Some(output) = newest.filter(|output| Some(output.sequence) != sequence) {
            sequence = Some(output.sequence);
            let previous = published.borrow().clone();
            // Tens of milliseconds for a first set of 10,000 routes; connections go on meanwhile.
            let encoding = tasks.spawn_blocking(move || encode_one(&output, previous.as_deref()));
            match encoding.await.context("encoding the set to push") {
                Ok(Ok(set)) => {
                    refused = false;
                    metrics.set_encoded(set.set.digests().len(), set.left_out.len());
                    published.send_replace(Some(Arc::new(set)));
                }
                Ok(Err(error)) => {
                    metrics.set_refused();
                    // Once, and not for each of the sets that follow.
                    if !std::mem::replace(&mut refused, true) {
                        tracing::error!(%error, "the set cannot be pushed; dataplanes keep what they have");
                    }
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

fn encode_one(output: &Output, previous: Option<&Published>) -> Result<Published, LimitExceeded> {
    let empty = EncodedSet::empty();
    let set = previous.map_or(&empty, |previous| &previous.set);
    let (set, too_large) = EncodedSet::encode(&output.resources, set)?;
    let mut left_out = BTreeMap::new();
    for too_large in too_large {
        let reason = too_large.to_string();
        let TooLarge { key, bytes: _ } = too_large;
        let known = previous.is_some_and(|previous| previous.left_out.contains_key(&key));
        if !known {
            tracing::warn!(reason, "a resource is too large to be pushed");
        }
        left_out.insert(key, reason);
    }
    Ok(Published {
        sequence: output.sequence,
        set,
        left_out,
    })
}
