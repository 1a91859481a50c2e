//! Hands resources over to the dataplane, and only if they make another table.
//!
//! Standalone: straight across, through a watch channel. What the table refuses is returned with the reason, so that whoever
//! publishes can say so; refused resources keep their last accepted form (`route_table`).

use std::sync::Arc;

use route_table::{Rejected, Resources, RouteTable};
use tokio::sync::watch;

/// Builds tables and sends those that differ from the last.
#[derive(Debug)]
pub struct Publisher {
    tables: watch::Sender<Arc<RouteTable>>,
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub outcome: Outcome,
    /// What cannot be served, at every publish as long as that is so.
    pub rejected: Vec<Rejected>,
}

/// Whether a new table was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The table would be the same; nothing was sent.
    Unchanged,
    /// A table of this generation was sent.
    Sent { generation: u64 },
}

impl Publisher {
    /// The channel's present value is what the first table is compared with: `RouteTable::empty()` at the start.
    pub fn new(tables: watch::Sender<Arc<RouteTable>>) -> Self {
        Self { tables }
    }

    /// Sends the table made of `resources`, unless it is the one already there. Receivers may be absent.
    pub fn publish(&mut self, resources: &Resources) -> Published {
        let previous = self.tables.borrow().clone();
        let (table, rejected) = RouteTable::build(resources, &previous);
        let generation = table.generation();
        let outcome = if generation == previous.generation() {
            Outcome::Unchanged
        } else {
            self.tables.send_replace(Arc::new(table));
            Outcome::Sent { generation }
        };
        Published { outcome, rejected }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use route_table::{Backend, BackendKey, Endpoint, EndpointState};

    use super::*;

    fn one_backend(address: &str) -> Resources {
        let key = BackendKey {
            namespace: "default".into(),
            service: "chat".into(),
            port: 80.try_into().unwrap(),
        };
        let endpoint = Endpoint {
            address: address.parse::<SocketAddr>().unwrap(),
            state: EndpointState::Ready,
        };
        let backend = Arc::new(Backend {
            endpoints: vec![endpoint],
        });
        Resources {
            backends: [(key, backend)].into(),
            ..Resources::default()
        }
    }

    #[test]
    fn first_publish_is_sent_even_if_empty() {
        let (sender, receiver) = watch::channel(Arc::new(RouteTable::empty()));
        let published = Publisher::new(sender).publish(&Resources::default());
        assert_eq!(published.outcome, Outcome::Sent { generation: 1 });
        assert_eq!(receiver.borrow().generation(), 1);
    }

    #[test]
    fn equal_resources_are_not_sent_again() {
        let (sender, mut receiver) = watch::channel(Arc::new(RouteTable::empty()));
        let mut publisher = Publisher::new(sender);
        publisher.publish(&one_backend("10.0.0.1:80"));
        receiver.mark_unchanged();
        let again = publisher.publish(&one_backend("10.0.0.1:80"));
        assert_eq!(again.outcome, Outcome::Unchanged);
        assert!(!receiver.has_changed().unwrap());
        let other = publisher.publish(&one_backend("10.0.0.2:80"));
        assert_eq!(other.outcome, Outcome::Sent { generation: 2 });
        assert!(receiver.has_changed().unwrap());
    }
}
