//! The statuses of routes as they stand in the API: what is written is compared with them, and nothing else.
//!
//! Two see them: the watch, a little late, and the status writer in the answers to its own writes. Of one object the higher
//! resourceVersion is the newer one, so the order in which they tell does not matter. Of two objects of one name the watch knows
//! which is the one that is there; and a complete list is right whatever was known, because an API server whose data was restored
//! from a backup counts from there.

use std::collections::BTreeMap;
use std::sync::Arc;

use route_table::RouteKey;
use tokio::sync::watch;

use crate::decode::Observed;
use crate::store::ObjectKey;

/// By route; a copy of all of them is cheap.
pub(crate) type ObservedStatuses = BTreeMap<RouteKey, Arc<Observed>>;

/// Both write; a receiver wakes up when a status became another one.
#[derive(Debug, Clone)]
pub(crate) struct ObservedSender(watch::Sender<ObservedStatuses>);

impl ObservedSender {
    pub(crate) fn new() -> (Self, watch::Receiver<ObservedStatuses>) {
        let (sender, receiver) = watch::channel(ObservedStatuses::new());
        (Self(sender), receiver)
    }

    /// The watch shows it.
    pub(crate) fn saw(&self, key: &ObjectKey, observed: Observed) {
        self.replace(key, observed, |known, seen| {
            known.is_none_or(|known| {
                known.uid != seen.uid || known.version == 0 || known.version < seen.version
            })
        });
    }

    /// A complete list shows it.
    pub(crate) fn listed(&self, key: &ObjectKey, observed: Observed) {
        self.replace(key, observed, |_, _| true);
    }

    /// It was the answer to a write of ours.
    pub(crate) fn wrote(&self, key: &ObjectKey, observed: Observed) {
        self.replace(key, observed, |known, seen| {
            known.is_some_and(|known| known.uid == seen.uid && known.version < seen.version)
        });
    }

    fn replace(
        &self,
        key: &ObjectKey,
        seen: Observed,
        is_newer: impl FnOnce(Option<&Observed>, &Observed) -> bool,
    ) {
        self.0.send_if_modified(|all| {
            let known = all.get(&route_key(key)).map(|known| &**known);
            if !is_newer(known, &seen) {
                return false;
            }
            let changed =
                known.is_none_or(|known| known.status != seen.status || known.uid != seen.uid);
            all.insert(route_key(key), Arc::new(seen));
            changed
        });
    }

    pub(crate) fn gone(&self, key: &ObjectKey) {
        self.0
            .send_if_modified(|all| all.remove(&route_key(key)).is_some());
    }
}

fn route_key(key: &ObjectKey) -> RouteKey {
    RouteKey {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use crds::WebSocketRouteStatus;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "default".into(),
            name: "chat".into(),
        }
    }

    fn observed(uid: &str, version: u64) -> Observed {
        Observed {
            uid: uid.into(),
            version,
            status: WebSocketRouteStatus::default(),
        }
    }

    #[test]
    fn the_higher_version_stays() {
        let (sender, receiver) = ObservedSender::new();
        for (version, expected) in [(5, 5), (7, 7), (6, 7), (7, 7), (8, 8)] {
            sender.saw(&key(), observed("a", version));
            assert_eq!(receiver.borrow()[&route_key(&key())].version, expected);
        }
        sender.gone(&key());
        assert!(receiver.borrow().is_empty());
    }

    #[test]
    fn versions_are_compared_within_one_object_and_a_list_is_always_right() {
        let (sender, receiver) = ObservedSender::new();
        let now = || {
            let all = receiver.borrow();
            let observed = &all[&route_key(&key())];
            (observed.uid.to_string(), observed.version)
        };
        sender.saw(&key(), observed("a", 50));
        // Deleted and made again in a cluster that was restored: the watch is right, the late answer to a write is not.
        sender.saw(&key(), observed("b", 7));
        assert_eq!(now(), ("b".to_owned(), 7));
        sender.wrote(&key(), observed("a", 51));
        assert_eq!(now(), ("b".to_owned(), 7));
        sender.wrote(&key(), observed("b", 8));
        assert_eq!(now(), ("b".to_owned(), 8));
        sender.listed(&key(), observed("b", 3));
        assert_eq!(now(), ("b".to_owned(), 3));
        sender.gone(&key());
        sender.wrote(&key(), observed("b", 9));
        assert!(receiver.borrow().is_empty());
    }

    #[test]
    fn only_another_status_wakes_up() {
        let (sender, mut receiver) = ObservedSender::new();
        sender.saw(&key(), observed("a", 5));
        assert!(receiver.has_changed().unwrap());
        receiver.mark_unchanged();
        sender.saw(&key(), observed("a", 6));
        assert!(!receiver.has_changed().unwrap());
        sender.saw(&key(), observed("b", 7));
        assert!(receiver.has_changed().unwrap());
    }
}
