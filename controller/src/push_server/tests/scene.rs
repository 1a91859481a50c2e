//! A server with everything around it, and the dataplane's end of a stream.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::poll_fn;
use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use push::wire::{FromController, FromDataplane, Update, from_controller, from_dataplane};
use push::{Fence, Held, Progress, ack, nack};
use route_table::{Backend, BackendKey, Endpoint, EndpointState, Resources};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Address};
use tonic::{Request, Status, Streaming};

use super::super::fake_api::{ACCOUNT, FakeApi, NAMESPACE, claims, token};
use super::super::{Encoded, Inputs, Limits, PushServer};
use crate::args::ObjectName;
use crate::ca::Material;
use crate::delivery::Deliveries;
use crate::health::Health;
use crate::leader::{Elector, Identity, Leadership, Standing};
use crate::metrics::Metrics;
use crate::output::Output;
use crate::token::{ServiceAccount, Tokens};

/// Longest wait for anything; only a failure takes it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Scene {
    pub(super) api: Arc<FakeApi>,
    pub(super) health: Arc<Health>,
    pub(super) address: SocketAddr,
    pub(super) ca: Material,
    pub(super) tls: watch::Sender<Option<Arc<ServerConfig>>>,
    pub(super) outputs: watch::Sender<Option<Arc<Output>>>,
    pub(super) encoded: Encoded,
    pub(super) deliveries: watch::Receiver<Arc<Deliveries>>,
    pub(super) standing: Standing,
    pub(super) resign: CancellationToken,
    pub(super) stop: CancellationToken,
    pub(super) server: JoinHandle<anyhow::Result<()>>,
    elector: Option<Elector>,
    tasks: TaskTracker,
    registry: Registry,
}

pub(super) fn limits() -> Limits {
    Limits {
        retry: [Duration::from_millis(1), Duration::from_millis(4)],
        ..Limits::default()
    }
}

impl Scene {
    /// A replica that leads.
    pub(super) async fn leader() -> Self {
        Self::with(limits()).await.lead().await
    }

    pub(super) async fn with(limits: Limits) -> Self {
        let api = FakeApi::new();
        let ca = Material::renew(None, Timestamp::now()).unwrap().unwrap();
        let config = ca.server_config().unwrap();
        let (tls, tls_receiver) = watch::channel(Some(Arc::new(config)));
        let mut registry = Registry::default();
        let account = ServiceAccount {
            namespace: NAMESPACE.into(),
            name: ACCOUNT.into(),
        };
        let health = Arc::new(Health::new(std::iter::empty(), Metrics::new(&mut registry)));
        let identity = Identity::new(None);
        let lease = ObjectName {
            namespace: NAMESPACE.into(),
            name: "lease".into(),
        };
        let (elector, standing, opening) =
            Elector::new(&api.client(), &lease, identity, health.clone());
        let (outputs, outputs_receiver) = watch::channel(None);
        let (deliveries_sender, deliveries) = watch::channel(Arc::default());
        let inputs = Inputs {
            tls: tls_receiver,
            tokens: Tokens::new(api.client(), account, &mut registry),
            standing: standing.clone(),
            outputs: outputs_receiver,
            deliveries: deliveries_sender,
            health: health.clone(),
            limits,
        };
        let stop = CancellationToken::new();
        let server = PushServer::new(inputs, &mut registry, stop.clone());
        let encoded = server.encoded();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        tasks.spawn(opening.open_all(standing.clone()));
        Self {
            server: tasks.spawn(server.run(listener)),
            api,
            health,
            address,
            ca,
            tls,
            outputs,
            encoded,
            deliveries,
            standing,
            resign: CancellationToken::new(),
            stop,
            elector: Some(elector),
            tasks,
            registry,
        }
    }

    pub(super) async fn lead(mut self) -> Self {
        let elector = self.elector.take().unwrap();
        self.tasks.spawn(elector.run(self.resign.clone()));
        wait(|| self.standing.now() != Leadership::Follower).await;
        self
    }

    pub(super) fn publish(&self, sequence: u64, resources: Resources) {
        let output = Output {
            sequence,
            resources: Arc::new(resources),
            statuses: Arc::default(),
        };
        self.outputs.send_replace(Some(Arc::new(output)));
    }

    /// A connection that trusts the CA.
    pub(super) async fn channel(&self) -> Channel {
        self.try_channel(&self.ca, push::SERVER_NAME).await.unwrap()
    }

    pub(super) async fn try_channel(
        &self,
        ca: &Material,
        name: &str,
    ) -> Result<Channel, tonic::transport::Error> {
        self.server_as(ca, name).connect().await
    }

    fn server_as(&self, ca: &Material, name: &str) -> Address {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca.bundle_pem()))
            .domain_name(name);
        let address = format!("https://{}", self.address);
        let address = Address::from_shared(address).unwrap();
        address.tls_config(tls).unwrap()
    }

    /// A token that is accepted as the pod's.
    pub(super) fn token(&self, pod_uid: &str) -> String {
        let token = token(&claims(pod_uid));
        self.api.accept(&token, pod_uid);
        token
    }

    /// A stream of the pod, with its Hello sent.
    pub(super) async fn dataplane(&self, pod_uid: &str) -> Dataplane {
        self.dial_with(pod_uid, Held::default()).await
    }

    pub(super) async fn dial_with(&self, pod_uid: &str, held: Held) -> Dataplane {
        self.dial_over(self.channel().await, pod_uid, held).await
    }

    /// The same of one that takes hardly any byte which nobody reads.
    pub(super) async fn reluctant_dataplane(&self, pod_uid: &str) -> Dataplane {
        let server = self.server_as(&self.ca, push::SERVER_NAME);
        let channel = server.initial_stream_window_size(1024).connect().await;
        self.dial_over(channel.unwrap(), pod_uid, Held::default())
            .await
    }

    async fn dial_over(&self, channel: Channel, pod_uid: &str, mut held: Held) -> Dataplane {
        let hello = held.hello(pod_uid, "test");
        let token = self.token(pod_uid);
        let mut dataplane = Dataplane::call(channel, Some(&token)).await.unwrap();
        dataplane.held = held;
        dataplane.send(from_dataplane::Message::Hello(hello)).await;
        dataplane
    }

    pub(super) fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits until a metric has a value, such as `push_refusals_total{reason="not_tls"} 1`.
    pub(super) async fn metric(&self, line: &str) {
        let found = || self.metrics().lines().any(|metric| metric == line);
        let found = comes_true(found).await;
        assert!(found, "no {line} in\n{}", self.metrics());
    }
}

/// Waits until `condition` holds.
pub(super) async fn wait(condition: impl Fn() -> bool) {
    assert!(comes_true(condition).await, "waited in vain");
}

async fn comes_true(condition: impl Fn() -> bool) -> bool {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, holds).await.is_ok()
}

/// The dataplane's end of a stream.
pub(super) struct Dataplane {
    to: mpsc::Sender<FromDataplane>,
    from: Streaming<FromController>,
    pub(super) held: Held,
}

impl Dataplane {
    pub(super) async fn call(channel: Channel, token: Option<&str>) -> Result<Self, Status> {
        let (to, mut messages) = mpsc::channel(4);
        let mut request = Request::new(poll_fn(move |context| messages.poll_recv(context)));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let response = push::client(channel).connect(request).await?;
        Ok(Self {
            to,
            from: response.into_inner(),
            held: Held::default(),
        })
    }

    pub(super) async fn send(&self, message: from_dataplane::Message) {
        let message = Some(message);
        self.to.send(FromDataplane { message }).await.unwrap();
    }

    /// A message of a later build.
    pub(super) async fn send_unknown(&self) {
        self.to.send(FromDataplane { message: None }).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> Result<Option<from_controller::Message>, Status> {
        let next = timeout(PATIENCE, self.from.message()).await.unwrap()?;
        Ok(next.map(|next| next.message.unwrap()))
    }

    pub(super) async fn welcome(&mut self) -> Fence {
        match self.next().await.unwrap().unwrap() {
            from_controller::Message::Welcome(welcome) => Fence::from_welcome(welcome).unwrap(),
            from_controller::Message::Update(update) => panic!("{update:?} before the Welcome"),
        }
    }

    pub(super) async fn part(&mut self) -> Update {
        match self.next().await.unwrap().unwrap() {
            from_controller::Message::Update(update) => update,
            from_controller::Message::Welcome(_) => panic!("a second Welcome"),
        }
    }

    /// Applies an update and does not answer yet: its parts.
    pub(super) async fn update(&mut self) -> Vec<Update> {
        let mut parts = Vec::new();
        loop {
            let part = self.part().await;
            parts.push(part.clone());
            match self.held.receive(part).unwrap() {
                Progress::Pending => {}
                Progress::Applied(_) => return parts,
            }
        }
    }

    pub(super) async fn ack(&self) {
        let ack = ack(&self.held, &[]);
        self.send(from_dataplane::Message::Ack(ack)).await;
    }

    pub(super) async fn nack(&self) {
        let nack = nack(&self.held.version().to_bytes(), &push::Refused::MixedParts);
        self.send(from_dataplane::Message::Nack(nack)).await;
    }

    /// Reads to the end: the last word.
    pub(super) async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a word"),
                Err(status) => return status,
            }
        }
    }
}

pub(super) fn backend_key(service: &str) -> BackendKey {
    BackendKey {
        namespace: "default".into(),
        service: service.into(),
        port: NonZeroU16::MIN,
    }
}

/// A backend for each name, with as many endpoints as given.
pub(super) fn backends<'a>(services: impl IntoIterator<Item = (&'a str, u16)>) -> Resources {
    let backend = |endpoints: u16| Backend {
        endpoints: (1..=endpoints)
            .map(|port| Endpoint {
                address: SocketAddr::from(([10, 0, 0, 1], port)),
                state: EndpointState::Ready,
            })
            .collect(),
    };
    let backends = services.into_iter();
    Resources {
        backends: backends
            .map(|(service, endpoints)| (backend_key(service), Arc::new(backend(endpoints))))
            .collect(),
        ..Resources::default()
    }
}

pub(super) fn sent_keys(parts: &[Update]) -> Vec<&str> {
    let upserts = parts.iter().flat_map(|part| &part.upserts);
    upserts.map(|resource| &*resource.key).collect()
}
