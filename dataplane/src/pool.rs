//! Upstream connections of ordinary HTTP that wait for their next request.
//!
//! In: a connection whose last answer ended cleanly. Out: the one that was used last, for the same [`Key`]. One comes back only to
//! an endpoint that was ready all the time since it was made: what left the table or terminates is closed with the next table, and
//! an address that went and came again is another pod. No table follows the addresses of an external backend: a connection to one waits
//! on, but only a request that its name leads there gets it. The pool is bounded per key and in all, and nothing waits longer than
//! `Limits::upstream_idle`. Relays never come from here: an upgrade has a connection of its own.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use route_table::External;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::balance::Chosen;
use crate::config::Limits;
use crate::metrics::Metrics;

/// Time between two looks for connections that waited too long. It only decides when their files are closed: none is used late.
const SWEEP: Duration = Duration::from_secs(1);

/// What makes two upstream connections the same to a request: the address and, of an external backend, the name and whose signature
/// TLS was made with.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    address: SocketAddr,
    external: Option<Arc<External>>,
}

impl Key {
    /// Nothing for a connection that begins with a PROXY header: it is one client's alone.
    pub(crate) fn of(chosen: &Chosen) -> Option<Self> {
        chosen.preface.is_none().then(|| Self {
            address: chosen.place.address(),
            external: chosen.external.clone(),
        })
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let external = match (&self.external, &other.external) {
            (None, None) => true,
            // The ranges that it may not be in were asked when the address was chosen.
            (Some(one), Some(other)) => one.host == other.host && one.tls == other.tls,
            (None, Some(_)) | (Some(_), None) => false,
        };
        external && self.address == other.address
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
        self.external
            .as_ref()
            .map(|external| &external.host)
            .hash(state);
    }
}

/// A connection's way back: its key, and since when the endpoint has been ready without a break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    key: Key,
    since: u64,
}

/// What can wait here.
pub(crate) trait Reusable {
    /// Whether nothing ended it, and nothing came that nobody asked for.
    fn is_usable(&self) -> bool;
}

/// Idle connections by key.
#[derive(Debug)]
pub(crate) struct Pool<C> {
    waiting: Arc<Mutex<Waiting<C>>>,
    per_endpoint: usize,
    in_all: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Waiting<C> {
    idle: HashMap<Key, Vec<Idle<C>>>,
    count: usize,
    /// The endpoints that take requests, each with the number of the table since which it does.
    ready: HashMap<SocketAddr, u64>,
    tables: u64,
    closed: bool,
}

/// What stands for "always" of an external backend: no table follows its addresses, and who takes a connection has just been led to
/// its address by the name.
const ALWAYS: u64 = 0;

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: u64,
    until: Instant,
}

impl<C> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            waiting: self.waiting.clone(),
            per_endpoint: self.per_endpoint,
            in_all: self.in_all,
            metrics: self.metrics.clone(),
        }
    }
}

impl<C: Reusable> Pool<C> {
    pub(crate) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let waiting = Waiting {
            idle: HashMap::new(),
            count: 0,
            ready: HashMap::new(),
            tables: 0,
            closed: false,
        };
        Self {
            waiting: Arc::new(Mutex::new(waiting)),
            per_endpoint: limits.upstream_idle_per_endpoint,
            in_all: limits.upstream_idle_connections,
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<C>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the endpoints of a new table that are ready; idle connections of all others are closed.
    pub(crate) fn follow(&self, ready: impl IntoIterator<Item = SocketAddr>) {
        let closing = {
            let mut waiting = self.lock();
            waiting.tables += 1;
            let now = waiting.tables;
            let fresh = ready.into_iter().map(|address| {
                let since = waiting.ready.get(&address).copied();
                (address, since.unwrap_or(now))
            });
            waiting.ready = fresh.collect();
            let closing = waiting.retain(|ready, key, idle| {
                since(ready, key) == Some(idle.since) && idle.connection.is_usable()
            });
            self.show(&waiting);
            closing
        };
        // Closing is work of its own; nobody waits for the lock meanwhile.
        drop(closing);
    }

    /// The way back for a connection that is made now; nothing if none of its endpoint's are kept.
    pub(crate) fn home(&self, key: Key) -> Option<Home> {
        let waiting = self.lock();
        let since = since(&waiting.ready, &key)?;
        (!waiting.closed).then_some(Home { key, since })
    }

    /// The connection of this key that was used last: the others can so grow old and go.
    pub(crate) fn take(&self, key: &Key) -> Option<(C, Home)> {
        let mut unusable = Vec::new();
        let mut waiting = self.lock();
        let ready = since(&waiting.ready, key);
        let now = Instant::now();
        let idle = waiting.idle.get_mut(key)?;
        let mut found = None;
        while let Some(last) = idle.pop() {
            if last.until > now && Some(last.since) == ready && last.connection.is_usable() {
                found = Some(last);
                break;
            }
            unusable.push(last);
        }
        if idle.is_empty() {
            waiting.idle.remove(key);
        }
        waiting.count -= unusable.len() + usize::from(found.is_some());
        self.show(&waiting);
        drop(waiting);
        drop(unusable);
        found.map(|idle| {
            let since = idle.since;
            let key = key.clone();
            (idle.connection, Home { key, since })
        })
    }

    /// Keeps a connection for at most `keep`, unless there is no place or its endpoint is gone; then it is closed.
    pub(crate) fn put(&self, connection: C, home: Home, keep: Duration) {
        let mut waiting = self.lock();
        let still = since(&waiting.ready, &home.key) == Some(home.since);
        if waiting.closed || !still || keep.is_zero() || waiting.count >= self.in_all {
            return;
        }
        let idle = waiting.idle.entry(home.key).or_default();
        if idle.len() < self.per_endpoint {
            idle.push(Idle {
                connection,
                since: home.since,
                until: Instant::now() + keep,
            });
            waiting.count += 1;
        }
        self.show(&waiting);
    }

    /// Closes what waits, and keeps nothing any more.
    pub(crate) fn close(&self) {
        let closing = {
            let mut waiting = self.lock();
            waiting.closed = true;
            waiting.count = 0;
            let closing = std::mem::take(&mut waiting.idle);
            self.show(&waiting);
            closing
        };
        drop(closing);
    }

    /// Closes what has waited too long, for ever.
    pub(crate) async fn sweep(self) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let closing = {
                let mut waiting = self.lock();
                let closing =
                    waiting.retain(|_, _, idle| idle.until > now && idle.connection.is_usable());
                self.show(&waiting);
                closing
            };
            drop(closing);
        }
    }

    fn show(&self, waiting: &Waiting<C>) {
        self.metrics.set_upstream_idle(waiting.count);
    }
}

/// Since when an endpoint has been ready without a break.
fn since(ready: &HashMap<SocketAddr, u64>, key: &Key) -> Option<u64> {
    match &key.external {
        Some(_) => Some(ALWAYS),
        None => ready.get(&key.address).copied(),
    }
}

impl<C> Waiting<C> {
    /// Takes out whatever is not kept.
    fn retain(
        &mut self,
        keep: impl Fn(&HashMap<SocketAddr, u64>, &Key, &Idle<C>) -> bool,
    ) -> Vec<Idle<C>> {
        let mut taken = Vec::new();
        for (key, idle) in &mut self.idle {
            taken.extend(idle.extract_if(.., |idle| !keep(&self.ready, key, idle)));
        }
        self.idle.retain(|_, idle| !idle.is_empty());
        self.count -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests;
