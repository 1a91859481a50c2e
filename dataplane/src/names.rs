//! The addresses behind the names of external backends.
//!
//! In: the tables, for the names that some route needs, and DNS. Out: addresses that may be connected to. One task a name looks it up
//! again and again, by its TTL; requests only read what is known, and where nothing else can take them the first ones wait for the first
//! answer, all for the same look-up. A failure keeps the last answer for a while; the evidence that there is no address withdraws it at once. What no route may
//! reach is taken out here, after DNS, and what is left is what gets connected to: a name that changes its mind between check and
//! connect (DNS rebinding) gains nothing.

mod course;
mod dns;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use route_table::{
    Destination, External, Hostname, Loopback, RouteTable, Rule, WeightedBackend, is_off_limits,
};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::course::Course;
pub(crate) use self::dns::has_route;
use self::dns::{Answer, Dns, prefer_reachable};
use crate::metrics::Metrics;

/// Look-ups at once: a thousand names are through in seconds, and no name server is flooded. As many again for names whose last look-up
/// was slow: a zone whose name servers are silent keeps only itself waiting.
const LOOK_UPS: usize = 16;
/// A look-up that takes this long is slow; through the caches of a cluster most take milliseconds.
const SLOW: Duration = Duration::from_secs(1);

/// What is known of a name; nothing before the first answer. Empty: it has no address.
type Known = Option<Arc<[IpAddr]>>;

/// The names that routes need, and their addresses.
#[derive(Debug)]
pub(crate) struct Names {
    resolving: Arc<Resolving>,
    known: Mutex<HashMap<Hostname, watch::Receiver<Known>>>,
    /// Told when there are other names in `known`.
    changed: Notify,
}

/// What all look-ups share.
#[derive(Debug)]
struct Resolving {
    dns: Dns,
    loopback: Loopback,
    permits: Semaphore,
    slow_permits: Semaphore,
    metrics: Arc<Metrics>,
}

impl Names {
    /// Asks `server`, or those of the system.
    pub(crate) fn new(
        server: Option<SocketAddr>,
        loopback: Loopback,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            resolving: Arc::new(Resolving {
                dns: Dns::new(server),
                loopback,
                permits: Semaphore::new(LOOK_UPS),
                slow_permits: Semaphore::new(LOOK_UPS),
                metrics,
            }),
            known: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Looks up what each table needs, and nothing else, until there are no more tables.
    pub(crate) async fn follow(self: Arc<Self>, mut table: watch::Receiver<Arc<RouteTable>>) {
        let tasks = TaskTracker::new();
        let mut running = HashMap::<Hostname, AbortOnDropHandle<()>>::new();
        table.mark_changed();
        while table.changed().await.is_ok() {
            let needed = needed(&table.borrow_and_update());
            running.retain(|host, _| needed.contains(host));
            let mut begun = Vec::new();
            for host in needed.iter().filter(|host| !running.contains_key(*host)) {
                begun.push((host.clone(), watch::channel(None)));
            }
            {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|host, _| needed.contains(host));
                for (host, (_, receiver)) in &begun {
                    known.insert(host.clone(), receiver.clone());
                }
            }
            for (host, (sender, _)) in begun {
                let resolving = self.resolving.clone();
                let task = tasks.spawn(resolving.keep_up(host.clone(), sender));
                running.insert(host, AbortOnDropHandle::new(task));
            }
            self.changed.notify_waiters();
        }
    }

    /// Waits until a name that `rule` may lead to has an address for it, or each has had a first answer, at most for `limit`.
    pub(crate) async fn ready(&self, table: &RouteTable, rule: &Rule, limit: Duration) {
        let externals = rule.backends.iter().filter_map(|weighted| {
            let WeightedBackend {
                backend,
                weight,
                proxy_protocol: _,
            } = weighted;
            match backend {
                Destination::External(key) if *weight > 0 => table.external(key),
                Destination::External(_) | Destination::Service(_) => None,
            }
        });
        let mut asked = externals
            .map(|external| async {
                self.first_answer(&external.host).await;
                !self.endpoints(external).is_empty()
            })
            .collect::<FuturesUnordered<_>>();
        let any = async { while let Some(false) = asked.next().await {} };
        // Too late is the same as nothing: the caller finds no endpoint.
        let _ = timeout(limit, any).await;
    }

    async fn first_answer(&self, host: &Hostname) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no notice is missed.
            changed.as_mut().enable();
            match self.receiver(host) {
                // An error: no route needs the name any more.
                Some(mut known) => {
                    let _ = known.wait_for(Option::is_some).await;
                    return;
                }
                // The table that needs it came a moment ago.
                None => changed.await,
            }
        }
    }

    /// Where connections to `external` may go at this moment.
    pub(crate) fn endpoints(&self, external: &External) -> Vec<SocketAddr> {
        let Some(known) = self.receiver(&external.host) else {
            return Vec::new();
        };
        let addresses = known.borrow().clone().unwrap_or_default();
        let permitted = addresses
            .iter()
            .filter(|ip| !external.denies(**ip))
            .map(|ip| SocketAddr::new(*ip, external.port.get()))
            .collect::<Vec<_>>();
        if permitted.is_empty() && !addresses.is_empty() {
            tracing::debug!(name = %external.host, "the operator denies all addresses of this name");
        }
        permitted
    }

    fn receiver(&self, host: &Hostname) -> Option<watch::Receiver<Known>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(host).cloned()
    }
}

fn needed(table: &RouteTable) -> HashSet<Hostname> {
    table
        .externals()
        .map(|(_, external)| external.host.clone())
        .collect()
}

impl Resolving {
    /// Looks a name up again and again; never ends by itself.
    async fn keep_up(self: Arc<Self>, host: Hostname, known: watch::Sender<Known>) {
        let mut course = Course::default();
        let mut permits = &self.permits;
        loop {
            // Never closed; without a permit the look-up would merely not be counted.
            let permit = permits.acquire().await;
            let begun = Instant::now();
            let mut found = self.dns.look_up(&host).await;
            drop(permit);
            permits = if begun.elapsed() < SLOW {
                &self.permits
            } else {
                &self.slow_permits
            };
            for answer in &mut found {
                match answer {
                    Answer::Addresses { addresses, .. } => {
                        addresses.retain(|ip| self.permits(&host, *ip));
                    }
                    Answer::Nothing => {}
                    Answer::Failed(failure) => {
                        tracing::debug!(name = %host, %failure, cause = ?failure, "the look-up of a name failed");
                    }
                }
            }
            let mut step = course.step(found, Instant::now());
            self.metrics.name_lookup(step.outcome);
            prefer_reachable(&mut step.known);
            known.send_replace(Some(step.known.into()));
            sleep(step.pause).await;
        }
    }

    /// Whether anything may lead to an address that DNS gave.
    fn permits(&self, host: &Hostname, address: IpAddr) -> bool {
        let refused = is_off_limits(address, self.loopback);
        if refused {
            tracing::debug!(name = %host, %address, "DNS leads to an address that no route may reach");
        }
        !refused
    }
}
