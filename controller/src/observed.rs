//! The statuses of routes as they stand in the API: what is written is compared with them, and nothing else.
//!
//! Two see them: the watch, a little late, and the status writer in the answers to its own writes. The higher resourceVersion is the
//! newer one, so the order in which they tell does not matter.

use std::collections::BTreeMap;

use route_table::RouteKey;
use tokio::sync::watch;

use crate::decode::Observed;
use crate::store::ObjectKey;

/// By route.
pub(crate) type ObservedStatuses = BTreeMap<RouteKey, Observed>;

/// Both write; a receiver wakes up when a status became another one.
#[derive(Debug, Clone)]
pub(crate) struct ObservedSender(watch::Sender<ObservedStatuses>);

impl ObservedSender {
    pub(crate) fn new() -> (Self, watch::Receiver<ObservedStatuses>) {
        let (sender, receiver) = watch::channel(ObservedStatuses::new());
        (Self(sender), receiver)
    }

    pub(crate) fn saw(&self, key: &ObjectKey, observed: Observed) {
        self.0.send_if_modified(|all| {
            let known = all.get(&route_key(key));
            if known.is_some_and(|known| known.version >= observed.version && known.version != 0) {
                return false;
            }
            let changed = known
                .is_none_or(|known| known.status != observed.status || known.uid != observed.uid);
            all.insert(route_key(key), observed);
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
