//! The push server: dataplanes dial it, and the replica that leads hands them the route table.
//!
//! In: the newest [`Output`], whether this replica leads, the TLS configuration of the CA, tokens that prove who calls. Out: what
//! every dataplane has taken ([`Deliveries`]), and metrics. A connection goes gate -> TLS 1.3 -> HTTP/2 (`connection`), its one
//! stream leader? -> token -> Hello (`service`), then Welcome and one update at a time (`session`). There is no insecure mode.
//!
//! Every stream sends from the same encoded set (`sets`) and keeps no queue: when an update is answered, the next one goes from what
//! is held to what is newest by then. What HTTP/2 copies of it is bounded over all streams (`turns`). A stream ends at once when leadership does, and no part is handed to HTTP/2 after that; what is
//! on its way already, the dataplane's fence and the missing last part take care of. HTTP/2 is driven by hyper and not by tonic's
//! server, whose tasks nobody could wait for and whose connections nobody could end.

mod arrivals;
mod connection;
mod ended;
#[cfg(test)]
pub(crate) mod fake_api;
mod flight;
mod gate;
mod ledger;
mod limits;
mod metrics;
mod refusal;
mod service;
mod session;
mod sets;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ca::ServerTls;
use crate::delivery::Deliveries;
use crate::health::Health;
use crate::leader::Standing;
use crate::output::Output;
use crate::token::Tokens;
use arrivals::Arrivals;
use gate::Gate;
use ledger::Ledger;
use metrics::Metrics;
use sets::Published;
use turns::Turns;

pub use limits::Limits;

/// Pause after the system refused a connection: out of file descriptors, most often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server works with.
pub struct Inputs {
    pub tls: ServerTls,
    pub tokens: Tokens,
    pub standing: Standing,
    /// The newest result; nothing before the first.
    pub outputs: watch::Receiver<Option<Arc<Output>>>,
    pub deliveries: watch::Sender<Arc<Deliveries>>,
    pub(crate) health: Arc<Health>,
    pub limits: Limits,
}

/// Serves dataplanes.
pub struct PushServer {
    shared: Arc<Shared>,
    outputs: watch::Receiver<Option<Arc<Output>>>,
    published: watch::Sender<Option<Arc<Published>>>,
}

/// Shows how far the encoding is.
pub struct Encoded(watch::Receiver<Option<Arc<Published>>>);

/// What all connections share.
struct Shared {
    tls: ServerTls,
    tokens: Tokens,
    standing: Standing,
    published: watch::Receiver<Option<Arc<Published>>>,
    ledger: Arc<Ledger>,
    health: Arc<Health>,
    gate: Arc<Gate>,
    arrivals: Arrivals,
    turns: Turns,
    metrics: Metrics,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl PushServer {
    /// `stop` ends every stream and then [`PushServer::run`].
    pub fn new(inputs: Inputs, registry: &mut Registry, stop: CancellationToken) -> Self {
        let Inputs {
            tls,
            tokens,
            standing,
            outputs,
            deliveries,
            health,
            limits,
        } = inputs;
        let metrics = Metrics::new(registry);
        let (published, receiver) = watch::channel(None);
        let shared = Shared {
            tls,
            tokens,
            standing,
            published: receiver,
            ledger: Arc::new(Ledger::new(deliveries, metrics.clone())),
            health,
            gate: Arc::new(Gate::new(limits)),
            arrivals: Arrivals::default(),
            turns: Turns::new(&limits, metrics.clone()),
            metrics,
            limits,
            tasks: TaskTracker::new(),
            stop,
        };
        Self {
            shared: Arc::new(shared),
            outputs,
            published,
        }
    }

    pub fn encoded(&self) -> Encoded {
        Encoded(self.shared.published.clone())
    }

    /// Serves until stopped. When this returns, every connection has ended and nothing is pushed any more. It returns early, and
    /// with an error, only if the sets can no longer be encoded.
    pub async fn run(self, listener: TcpListener) -> anyhow::Result<()> {
        let Self {
            shared,
            outputs,
            published,
        } = self;
        let encoding = sets::encode(
            outputs,
            published,
            shared.limits.set,
            shared.metrics.clone(),
            &shared.health,
            &shared.tasks,
        );
        let result = tokio::select! {
            () = shared.stop.cancelled() => Ok(()),
            () = accept(&shared, &listener) => Ok(()),
            () = follow_terms(&shared) => Ok(()),
            error = encoding => Err(error),
        };
        drop(listener);
        shared.stop.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
        result
    }
}

impl Encoded {
    /// Waits until the output of this sequence, or a later one, is what streams send. Never returns if it cannot be encoded.
    pub async fn reaches(&mut self, sequence: u64) {
        let there = |published: &Option<Arc<Published>>| {
            published
                .as_ref()
                .is_some_and(|published| published.sequence >= sequence)
        };
        if self.0.wait_for(there).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let connection = connection::serve(shared.clone(), tcp, peer.ip().to_canonical());
                shared.tasks.spawn(connection);
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the push server could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What was taken in one term says nothing in the next, so it is forgotten as soon as a term ends.
async fn follow_terms(shared: &Shared) {
    let mut standing = shared.standing.clone();
    loop {
        shared.ledger.follow(&standing);
        standing.changed().await;
    }
}
