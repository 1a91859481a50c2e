//! Wiring: what starts, in what order, what ends the process.
//!
//! ```text
//! watchers -> compiler -> outputs -> push, status writer        fleet, deliveries -> status writer
//!                ^  \--> Secrets to read -> reader -\            Lease -> who may push and write
//!                \----------------------------------/
//! ```
//!
//! Everything here is needed: if a task ends unasked, the process ends with an error. On SIGTERM and SIGINT the writers end first
//! and the Lease is released last, so that the next leader finds nobody writing.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kube::api::DynamicObject;
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use route_table::Loopback;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::args::{Args, ObjectName};
use crate::ca::{Authority, CaNames, ServerTls};
use crate::compile::{CompileConfig, compile};
use crate::compiler::{Compiler, QUEUE};
use crate::decode::decode;
use crate::delivery::Deliveries;
use crate::events::EventWriter;
use crate::fleet::{self, Fleet, Part};
use crate::freshness::{Answers, Epoch, Epochs};
use crate::health::Health;
use crate::intake::{Intake, Source};
use crate::leader::{Claim, Elector, Identity, Knowledge, Rivals, Standing, Terms};
use crate::metrics::Metrics;
use crate::observed::{ObservedSender, ObservedStatuses};
use crate::output::Output;
use crate::push_server::{self, Encoded, Limits, PushServer};
use crate::secret_reader::SecretReader;
use crate::sources::{fleet_listing, listing, sources};
use crate::status_listener::{self, Pages};
use crate::status_writer::{self, StatusWriter};
use crate::token::{ServiceAccount, Tokens};
use crate::watch as watcher;

/// Longest wait for writers to end, and for the Lease to be released; each is one request away from it.
const ENDING: Duration = Duration::from_secs(5);

/// The Secret that holds the CA of the push, and the `ConfigMap` with its public half, both in the namespace of the installation:
/// fixed, because RBAC names them and dataplanes mount the second.
const CA_SECRET: &str = "ws-ingress-push";
const CA_BUNDLE: &str = "ws-ingress-push-ca";

/// Tasks by name.
type Tasks = JoinSet<&'static str>;

/// Runs until a signal.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot take signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot take signals")?;
    let mut running = start(args).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = running.essential.join_next() => return Err(ended_unasked(ended)),
        ended = running.writers.join_next() => return Err(ended_unasked(ended)),
        ended = running.electing.join_next() => return Err(ended_unasked(ended)),
    }
    tracing::info!("signal received, ending");
    running.end().await;
    Ok(())
}

fn ended_unasked(ended: Option<Result<&'static str, JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(name)) => anyhow!("{name} ended unasked"),
        Some(Err(error)) => anyhow::Error::new(error).context("a task broke"),
        None => anyhow!("nothing runs"),
    }
}

/// Everything that runs.
#[derive(Default)]
struct Running {
    essential: Tasks,
    writers: Tasks,
    /// Ends `writers`.
    stop_writing: CancellationToken,
    electing: Tasks,
    /// Ends `electing`.
    resign: CancellationToken,
}

impl Running {
    /// Starts what runs until the process ends.
    fn need(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.essential.spawn(named(name, task));
    }

    /// Starts what has to end before the Lease is released.
    fn write<F>(&mut self, name: &'static str, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = start(self.stop_writing.clone());
        self.writers.spawn(named(name, task));
    }

    fn keep_authority(&mut self, client: Client, namespace: &str) -> ServerTls {
        let names = CaNames {
            namespace: namespace.to_owned(),
            secret: CA_SECRET.to_owned(),
            bundle: CA_BUNDLE.to_owned(),
        };
        let (authority, tls) = Authority::new(client, names);
        self.write("the CA", |stop| authority.run(stop));
        tls
    }

    fn push(
        &mut self,
        inputs: push_server::Inputs,
        registry: &mut Registry,
        listener: TcpListener,
    ) -> Encoded {
        // A token below ours: when the server ends by itself it cancels the one that it has.
        let server = PushServer::new(inputs, registry, self.stop_writing.child_token());
        let encoded = server.encoded();
        self.write("the push server", |_| async move {
            if let Err(error) = server.run(listener).await {
                tracing::error!(error = format!("{error:#}"), "the push server ended");
            }
        });
        encoded
    }

    /// Starts what writes statuses and events.
    fn tell(
        &mut self,
        client: Client,
        lease: &ObjectName,
        identity: &Identity,
        inputs: status_writer::Inputs,
        observed: ObservedSender,
        health: &Arc<Health>,
    ) {
        let (instance, standing) = (identity.to_string(), inputs.standing.clone());
        let namespace = &lease.namespace;
        let writer = StatusWriter::new(client.clone(), namespace, inputs, observed, health.clone());
        self.write("the status writer", |stop| writer.run(stop));
        let events = EventWriter::new(client, lease, instance, standing, health.clone());
        self.write("the event writer", |stop| events.run(stop));
    }

    /// Starts the pages for the kubelet and Prometheus; every family of metrics is registered by now.
    fn answer(
        &mut self,
        health: Arc<Health>,
        standing: Standing,
        registry: Registry,
        listener: TcpListener,
    ) {
        let pages = Pages {
            health,
            standing,
            registry,
        };
        let serving = status_listener::serve(Arc::new(pages), listener);
        self.need("the status listener", serving);
    }

    async fn end(mut self) {
        self.stop_writing.cancel();
        let writers = async { while self.writers.join_next().await.is_some() {} };
        if timeout(ENDING, writers).await.is_err() {
            // They look whether we lead before every write, so nothing more can begin.
            tracing::warn!("a writer did not end in time");
        }
        self.resign.cancel();
        let electing = async { while self.electing.join_next().await.is_some() {} };
        if timeout(ENDING, electing).await.is_err() {
            tracing::warn!("the Lease was not released in time");
        }
    }
}

/// The line on stdout that other programs read, as the dataplane's. Who does not read it is no reason to end.
fn announce(push: SocketAddr, status: SocketAddr) {
    let mut stdout = std::io::stdout().lock();
    let line = writeln!(stdout, "listening push={push} status={status}");
    let _nobody_reads = line.and_then(|()| stdout.flush());
}

/// Whose pods no route may reach: the dataplanes', and ours.
fn own_services(dataplane: &ObjectName, namespace: &str, controller: String) -> [ObjectName; 2] {
    let controller = ObjectName {
        namespace: namespace.to_owned(),
        name: controller,
    };
    [dataplane.clone(), controller]
}

async fn start(args: Args) -> anyhow::Result<Running> {
    let Args {
        log: _,
        class,
        watch_namespaces,
        push_address,
        status_address,
        lease_namespace,
        lease_name,
        dataplane_service,
        controller_service,
        dataplane_service_account,
        denied_backend_cidrs,
        pod_uid,
    } = args;
    let client = connect().await?;
    let mut registry = Registry::with_prefix("ws_ingress_controller");
    let own_services = own_services(&dataplane_service, &lease_namespace, controller_service);
    let sources = sources(&watch_namespaces, &own_services);
    let health = health(&sources, &mut registry);
    let identity = Identity::new(pod_uid.as_deref());
    let lease = ObjectName {
        namespace: lease_namespace,
        name: lease_name,
    };
    let claim = Claim::new(&lease, class.clone(), watch_namespaces);
    let rivals = Rivals::new(client.clone(), claim);
    let (elector, standing, opening) =
        Elector::new(&client, &lease, identity.clone(), health.clone());
    let status = listen("--status-address", status_address).await?;
    let push = listen("--push-address", push_address).await?;
    tracing::info!(status = %status.address, push = %push.address, %identity, "listening");
    announce(push.address, status.address);

    let mut running = Running::default();
    let config = CompileConfig {
        class,
        loopback_endpoints: Loopback::Refuse,
        denied_backends: denied_backend_cidrs,
        own_services: own_services.iter().map(ObjectName::key).collect(),
    };
    let (epochs, watchers) = Epochs::new();
    let compiled =
        compile_what_is_watched(&mut running, &client, sources, config, &health, &watchers);
    let (fleet, fleet_fresh) = follow_dataplane(
        &mut running,
        &client,
        &dataplane_service,
        &health,
        &watchers,
    );
    let (deliveries_sender, deliveries) = watch::channel(Arc::new(Deliveries::new()));
    let tokens = {
        let ObjectName { namespace, .. } = dataplane_service;
        let name = dataplane_service_account;
        Tokens::new(
            client.clone(),
            ServiceAccount { namespace, name },
            &mut registry,
        )
    };
    let tls = running.keep_authority(client.clone(), &lease.namespace);
    let pushing = push_server::Inputs {
        tls,
        tokens,
        standing: standing.clone(),
        outputs: compiled.outputs.clone(),
        deliveries: deliveries_sender,
        health: health.clone(),
        limits: Limits::default(),
    };
    let encoded = running.push(pushing, &mut registry, push.listener);
    let knowledge = Knowledge {
        epochs,
        fresh: vec![compiled.fresh, fleet_fresh],
        outputs: compiled.outputs.clone(),
        encoded,
    };
    let terms = Terms {
        standing: standing.clone(),
        opening,
        knowledge,
        rivals,
        health: health.clone(),
    };
    running.need("the terms", terms.run());
    let inputs = status_writer::Inputs {
        outputs: compiled.outputs.clone(),
        deliveries,
        fleet,
        observed: compiled.observed.clone(),
        standing: standing.clone(),
    };
    let observed = compiled.observed_sender;
    running.tell(client, &lease, &identity, inputs, observed, &health);
    let electing = elector.stand(compiled.outputs, compiled.observed, running.resign.clone());
    running.electing.spawn(named("the election", electing));
    running.answer(health, standing, registry, status.listener);
    Ok(running)
}

fn health(sources: &[Source], registry: &mut Registry) -> Arc<Health> {
    let watched = sources.iter().map(ToString::to_string);
    Arc::new(Health::new(watched, Metrics::new(registry)))
}

/// A listener and the address that it really got.
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

async fn listen(flag: &'static str, address: SocketAddr) -> anyhow::Result<Bound> {
    let bound = status_listener::bind(address).await;
    let listener = bound.with_context(|| format!("cannot listen on {flag} {address}"))?;
    let address = listener
        .local_addr()
        .with_context(|| format!("{flag} has no address"))?;
    Ok(Bound { listener, address })
}

/// What comes of watching and compiling.
struct Watched {
    outputs: watch::Receiver<Option<Arc<Output>>>,
    observed: watch::Receiver<ObservedStatuses>,
    observed_sender: ObservedSender,
    fresh: watch::Receiver<Epoch>,
}

fn compile_what_is_watched(
    running: &mut Running,
    client: &Client,
    sources: Vec<Source>,
    config: CompileConfig,
    health: &Arc<Health>,
    epochs: &watch::Receiver<Epoch>,
) -> Watched {
    let (events_sender, events) = mpsc::channel(QUEUE);
    for source in &sources {
        let kind = source.kind;
        let decode = move |object: DynamicObject| decode(kind, object);
        let listing = listing(client, source);
        let events = events_sender.clone();
        let watching = watcher::run(source.clone(), listing, decode, events, epochs.clone());
        running.need("a watcher", watching);
    }
    let (observed_sender, observed) = ObservedSender::new();
    let (outputs_sender, outputs) = watch::channel(None);
    let (answers, fresh) = Answers::new(sources.iter().cloned());
    let compiler = Compiler::new(
        Arc::new(move |snapshot, now| compile(snapshot, &config, now)),
        Intake::new(sources.into_iter(), observed_sender.clone()),
        SecretReader::new(client.clone()),
        outputs_sender,
        answers,
        health.clone(),
    );
    let compiling = compiler.run(events);
    running.need("the compiler", compiling);
    Watched {
        outputs,
        observed,
        observed_sender,
        fresh,
    }
}

fn follow_dataplane(
    running: &mut Running,
    client: &Client,
    service: &ObjectName,
    health: &Arc<Health>,
    epochs: &watch::Receiver<Epoch>,
) -> (watch::Receiver<Arc<Fleet>>, watch::Receiver<Epoch>) {
    let (sender, fleet) = watch::channel(Arc::new(Fleet::default()));
    let (events_sender, events) = mpsc::channel(QUEUE);
    let parts = [Part::Service, Part::EndpointSlice];
    for part in parts {
        let listing = fleet_listing(client, part, service);
        let decode = move |object: DynamicObject| fleet::decode(part, object);
        let watching = watcher::run(part, listing, decode, events_sender.clone(), epochs.clone());
        running.need("a watcher of the dataplane", watching);
    }
    let (answers, fresh) = Answers::new(parts);
    let following = fleet::follow(events, sender, answers, health.clone());
    running.need("the fleet", following);
    (fleet, fresh)
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn connect() -> anyhow::Result<Client> {
    let mut config = Config::infer()
        .await
        .context("cannot find the API server")?;
    // Everything here tries again by its own rules, and says so.
    config.default_retry = false;
    Client::try_from(config).context("cannot set up the connection to the API server")
}
