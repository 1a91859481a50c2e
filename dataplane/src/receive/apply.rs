//! One part of an update -> what it comes to: the work that is not for a worker of the runtime.
//!
//! Decoding and building a table of 10,000 routes takes tens of milliseconds and more; a worker relays sockets meanwhile. Nothing
//! here waits and nothing is shared: in goes what is held and the table that is served, out comes what to swap and to answer.

use std::sync::Arc;

use push::wire::{Ack, Nack, Update};
use push::{Applied, Held, Progress};
use route_table::RouteTable;

/// What became of a part.
pub(super) enum Step {
    /// More parts follow.
    Pending,
    Applied {
        built: Built,
        ack: Ack,
    },
    Refused(Nack),
}

/// The table made of what is held.
pub(super) struct Built {
    /// Absent if it would be the same.
    pub(super) table: Option<Arc<RouteTable>>,
    /// How many resources are not served as they were sent.
    pub(super) rejected: usize,
}

/// Takes one part; builds the table after the last one.
pub(super) fn apply(held: &mut Held, update: Update, previous: &RouteTable) -> Step {
    let version = update.version.clone();
    match held.receive(update) {
        Ok(Progress::Pending) => Step::Pending,
        Ok(Progress::Applied(Applied { version, changed })) => {
            let (table, rejected) = RouteTable::build(held.resources(), previous);
            let ack = push::ack(held, &rejected);
            tracing::debug!(%version, changed, rejected = rejected.len(), "update applied");
            let differs = table.generation() != previous.generation();
            let built = Built {
                table: differs.then(|| Arc::new(table)),
                rejected: rejected.len() + held.rejected().count(),
            };
            Step::Applied { built, ack }
        }
        Err(refused) => {
            tracing::error!(%refused, "the controller sent an update that cannot be applied; the last table is served on");
            Step::Refused(push::nack(&version, &refused))
        }
    }
}
