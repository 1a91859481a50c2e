//! What the dataplanes have taken: the border between the push, which knows, and the statuses, which say so.
//!
//! The push server keeps one [`Delivery`] for each dataplane pod that it heard of in this term of leadership, and sends the whole
//! map through a `watch::Sender<Arc<Deliveries>>` whenever an answer changes it. A new term begins with an empty map: the numbers
//! of [`Output::sequence`](crate::output::Output) count in this process alone. A pod whose stream ended keeps its entry, because
//! what it took it still serves; the entries of pods that are gone for long may be dropped at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use push::OverLimit;
use route_table::ResourceKey;

/// By uid of the dataplane's pod, as its token proves it.
pub type Deliveries = BTreeMap<Arc<str>, Delivery>;

/// What one dataplane pod has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The highest [`Output::sequence`](crate::output::Output) that the pod acknowledged.
    pub sequence: u64,
    /// What of it was not sent as it is, and why.
    pub left_out: Arc<BTreeMap<ResourceKey, OverLimit>>,
    /// What of it the pod does not serve as it was sent, with the reason as text for people.
    pub rejected: Arc<BTreeMap<ResourceKey, String>>,
    /// Whether `rejected` is all. If not, none of the resources may be taken for served.
    pub complete: bool,
}
