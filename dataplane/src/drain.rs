//! Every open relay by number, and how they are told to close.
//!
//! A relay registers with its route and opening time when it starts and says how it ended. Drain reaches relays only through
//! this register: it spreads the orders evenly over half of its window, so that the clients do not come back all at once, and
//! leaves the other half for the closing handshakes. A relay that starts while drain runs gets its order at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use route_table::RouteKey;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::metrics::Metrics;
use crate::relay::Ended;

/// Close codes of RFC 6455 §7.4.1.
const GOING_AWAY: u16 = 1001;

/// Tells a relay to close: a Close to both sides at the next boundary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloseOrder {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    /// Until then a Close waits for the end of a message; after that, the end of a frame will do.
    pub(crate) patience: Instant,
    /// Then the relay is cut.
    pub(crate) deadline: Instant,
}

/// What became of the sockets that were open when drain began to close them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    pub sockets: usize,
    /// Ended by a closing handshake or by their peers.
    pub closed: usize,
    /// Still open at the deadline.
    pub cut: usize,
}

/// One open relay.
#[derive(Debug)]
#[expect(
    dead_code,
    reason = "`closeOpenedBefore` of a route's drain will select by these"
)]
struct Entry {
    route: RouteKey,
    opened: Instant,
    signal: Option<oneshot::Sender<CloseOrder>>,
}

#[derive(Debug, Default)]
struct Register {
    next: u64,
    open: BTreeMap<u64, Entry>,
    draining: Option<CloseOrder>,
    drained: Drained,
}

/// All open relays of the process.
#[derive(Debug, Clone)]
pub(crate) struct Relays {
    register: Arc<Mutex<Register>>,
    metrics: Arc<Metrics>,
}

/// A relay's entry, removed when it ends.
#[derive(Debug)]
pub(crate) struct Registered {
    number: u64,
    relays: Relays,
    ended: Option<Ended>,
}

impl Relays {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            register: Arc::default(),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a new relay; it must listen to the signal.
    pub(crate) fn register(&self, route: RouteKey) -> (Registered, oneshot::Receiver<CloseOrder>) {
        let (signal, signalled) = oneshot::channel();
        let mut entry = Entry {
            route,
            opened: Instant::now(),
            signal: Some(signal),
        };
        let mut register = self.lock();
        if let Some(order) = register.draining {
            register.drained.sockets += 1;
            entry.order(order);
        }
        let number = register.next;
        register.next += 1;
        register.open.insert(number, entry);
        self.metrics.set_open_sockets(register.open.len());
        (
            Registered {
                number,
                relays: self.clone(),
                ended: None,
            },
            signalled,
        )
    }

    /// Orders every relay to close within `window` and returns when the last order is given.
    pub(crate) async fn close_all(&self, window: Duration) {
        let start = Instant::now();
        let order = CloseOrder {
            code: GOING_AWAY,
            reason: "the server is going away",
            patience: start + window * 3 / 4,
            deadline: start + window,
        };
        let numbers = {
            let mut register = self.lock();
            register.draining = Some(order);
            register.drained = Drained {
                sockets: register.open.len(),
                ..Drained::default()
            };
            register.open.keys().copied().collect::<Vec<_>>()
        };
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX).max(1);
        for (index, number) in (0_u32..).zip(numbers) {
            // Times before multiplying by the share would round a short window of many sockets to nothing.
            sleep_until(start + (window / 2).mul_f64(f64::from(index) / f64::from(count))).await;
            if let Some(entry) = self.lock().open.get_mut(&number) {
                entry.order(order);
            }
        }
    }

    /// What became of the sockets; those that are still open count as cut.
    pub(crate) fn drained(&self) -> Drained {
        let register = self.lock();
        let Drained {
            sockets, closed, ..
        } = register.drained;
        Drained {
            sockets,
            closed,
            cut: sockets - closed,
        }
    }
}

impl Entry {
    fn order(&mut self, order: CloseOrder) {
        if let Some(signal) = self.signal.take() {
            // A relay that just ended does not listen any more, and need not.
            let _ = signal.send(order);
        }
    }
}

impl Registered {
    /// Says how the relay ended.
    pub(crate) fn end(mut self, ended: Ended) {
        self.ended = Some(ended);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut register = self.relays.lock();
        register.open.remove(&self.number);
        self.relays.metrics.set_open_sockets(register.open.len());
        if register.draining.is_some() {
            // A relay that was dropped without a word was aborted.
            let cut = matches!(self.ended, None | Some(Ended::Cut));
            if !cut {
                register.drained.closed += 1;
            }
            self.relays.metrics.drained_socket(cut);
        }
    }
}
