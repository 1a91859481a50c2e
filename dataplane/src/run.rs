//! Wiring: what starts, in what order, and how it all ends.
//!
//! Every task of the crate starts here or on the tracker in [`Shared`]. Drain is: readiness off, go on accepting for
//! `drain_delay`, stop accepting, order every relay to close, wait until nothing is left or `drain_timeout` is over.

use std::net::SocketAddr;
use std::sync::Arc;

use route_table::RouteTable;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::balance::Loads;
use crate::capacity::Capacity;
use crate::config::Config;
use crate::drain::{Drained, Relays};
use crate::forward;
use crate::listener::{self, BindError, Bound, Side};
use crate::local_http;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::pool::Pool;
use crate::receive::Link;
use crate::request_id::RequestIds;
use crate::seldom::Seldom;
use crate::status::Status;
use crate::tls::{Slots, Tls};
use crate::upstream::{AuthoritiesError, BackendTls, Dialer, SourceError};

/// What the process wants of the dataplane; it only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    Serve,
    /// Close everything in good order.
    Drain,
    /// End at once.
    Cut,
}

/// Why a dataplane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("TLS to backends cannot be set up")]
    BackendTls(#[from] AuthoritiesError),
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Why a dataplane could not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the source of route tables ended")]
    TableSource,
}

/// The addresses that are really listened on.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub status: SocketAddr,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    table: watch::Receiver<Arc<RouteTable>>,
    pub(crate) tls: Tls,
    pub(crate) tls_slots: Slots,
    pub(crate) capacity: Arc<Capacity>,
    /// Of the line about them in the log.
    pub(crate) refused_accepts: Seldom,
    pub(crate) loads: Loads,
    pub(crate) names: Arc<Names>,
    pub(crate) dialer: Dialer,
    pub(crate) relays: Relays,
    pub(crate) request_ids: RequestIds,
    pub(crate) pool: Pool<forward::Connection>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when accepting stops.
    pub(crate) stopping: CancellationToken,
}

impl Shared {
    /// The table of this moment. Hold it for one handshake, not for a connection.
    pub(crate) fn table(&self) -> Arc<RouteTable> {
        self.table.borrow().clone()
    }
}

/// A dataplane that listens already and serves once it runs.
pub struct Dataplane {
    config: Config,
    table: watch::Receiver<Arc<RouteTable>>,
    https: Bound,
    http: Bound,
    status: Bound,
    tls: Tls,
    dialer: Dialer,
    metrics: Arc<Metrics>,
    link: Option<watch::Receiver<Link>>,
}

impl Dataplane {
    /// Listens on all three addresses; inside the runtime that will run it. What can be refused of `config` is refused here.
    ///
    /// # Errors
    /// When TLS cannot be set up, when a source address is not this machine's, or the first address that is taken or that the system refuses.
    pub fn bind(
        config: Config,
        table: watch::Receiver<Arc<RouteTable>>,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let tls = Tls::new()?;
        let backend_tls = BackendTls::new(config.backend_ca_file.as_deref())?;
        let sources = &config.backend_source_addresses;
        let dialer = Dialer::new(sources, backend_tls, metrics.clone())?;
        let https = Bound::new("https", config.https_address)?;
        let http = Bound::new("http", config.http_address)?;
        let status = Bound::new("status", config.status_address)?;
        Ok(Self {
            config,
            table,
            https,
            http,
            status,
            tls,
            dialer,
            metrics,
            link: None,
        })
    }

    /// Shows how the connection to the controllers stands in `/readyz` and `/metrics`.
    #[must_use]
    pub fn show_link(mut self, link: watch::Receiver<Link>) -> Self {
        self.link = Some(link);
        self
    }

    pub fn addresses(&self) -> Addresses {
        Addresses {
            https: self.https.address,
            http: self.http.address,
            status: self.status.address,
        }
    }

    /// Serves until told to stop, then drains.
    ///
    /// # Errors
    /// When the sender of tables is gone while it should serve.
    pub async fn run(self, mut stop: watch::Receiver<Stop>) -> Result<Drained, RunError> {
        let Self {
            config,
            table,
            https,
            http,
            status,
            tls,
            dialer,
            metrics,
            link,
        } = self;
        let capacity = Capacity::new(config.limits.connections, metrics.clone());
        let state = Arc::new(Status::new(metrics.clone(), capacity.clone(), link));
        let shared = Arc::new(Shared {
            tls,
            tls_slots: Slots::new(&config.limits, metrics.clone()),
            capacity,
            refused_accepts: Seldom::new(listener::COMPLAIN_EVERY),
            loads: Loads::default(),
            names: Arc::new(Names::new(
                config.resolver,
                config.loopback,
                metrics.clone(),
            )),
            dialer,
            relays: Relays::new(metrics.clone()),
            request_ids: RequestIds::default(),
            pool: Pool::new(&config.limits, metrics.clone()),
            metrics,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            table: table.clone(),
            config,
        });
        // Apart from the tracker of the connections: it answers to the very end, and nothing waits for it.
        let background = TaskTracker::new();
        let answering = state.clone();
        let serving_status = background.spawn(local_http::serve(
            status.listener,
            shared.config.limits.status_connections,
            move |request| answering.answer(request),
        ));
        background.spawn(shared.pool.clone().sweep());
        background.spawn(shared.names.clone().follow(table.clone()));
        let accepting = [(https, Side::Tls), (http, Side::Plain)];
        for (bound, side) in accepting {
            background.spawn(listener::accept(shared.clone(), bound.listener, side));
        }
        tokio::select! {
            // A sender that is gone can ask for nothing more: the process is ending.
            _ = stop.wait_for(|stop| *stop >= Stop::Drain) => {}
            () = follow_tables(table, state.clone(), shared.pool.clone()) => return Err(RunError::TableSource),
        }
        let drained = drain(&shared, &state, &mut stop).await;
        serving_status.abort();
        Ok(drained)
    }
}

/// Shows each new table in metrics and readiness, and closes what waits for endpoints that left; returns when there will be no more.
async fn follow_tables(
    mut table: watch::Receiver<Arc<RouteTable>>,
    status: Arc<Status>,
    pool: Pool<forward::Connection>,
) {
    table.mark_changed();
    while table.changed().await.is_ok() {
        let current = table.borrow_and_update().clone();
        let generation = current.generation();
        pool.follow(current.backends().flat_map(|(_, backend)| backend.ready()));
        drop(current);
        if generation > 0 {
            status.table_swapped(generation);
            tracing::debug!(generation, "serving a new route table");
        }
    }
}

async fn drain(shared: &Shared, status: &Status, stop: &mut watch::Receiver<Stop>) -> Drained {
    status.begin_drain();
    let delay = shared.config.drain_delay;
    let window = shared.config.drain_timeout;
    tracing::info!(?delay, timeout = ?window, "draining");
    let in_order = async {
        sleep(delay).await;
        shared.stopping.cancel();
        shared.pool.close();
        let deadline = Instant::now() + window;
        let closing = async {
            shared.relays.close_all(window).await;
            shared.tasks.close();
            shared.tasks.wait().await;
        };
        tokio::select! {
            () = closing => {}
            // Each relay cuts itself at the deadline and is counted; this is for what is not a relay.
            () = sleep_until(deadline + shared.config.limits.close_linger) => {}
        }
    };
    tokio::select! {
        () = in_order => {}
        _ = stop.wait_for(|stop| *stop == Stop::Cut) => {
            shared.stopping.cancel();
            tracing::warn!("told to end at once");
        }
    }
    shared.relays.drained()
}
