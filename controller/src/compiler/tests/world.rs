//! A compiler that runs, and an API server that answers for Secrets as a test wants it to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use prometheus_client::registry::Registry;
use route_table::{CertificateResource, HostTls, Loopback};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::*;
use crate::compile::{CompileConfig, compile};
use crate::decode::decode;
use crate::freshness::Epoch;
use crate::metrics::Metrics;
use crate::observed::ObservedSender;
use crate::store::Kind;

const CERTIFICATE: [&str; 2] = [
    include_str!("../../../testdata/certificates/chat.crt"),
    include_str!("../../../testdata/certificates/chat.key"),
];
/// On a clock that stands still nothing takes long by itself.
pub(super) const LIMIT: Duration = Duration::from_mins(10);

const KINDS: [Kind; 6] = [
    Kind::ExternalBackend,
    Kind::Secret,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::ReferenceGrant,
    Kind::WebSocketRoute,
];

/// How the API server answers for a Secret; 404 if nothing is said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reply {
    Good,
    Status(u16),
    /// Only once it is told something else.
    Never,
    Panics,
    /// With what is no Secret.
    Garbled,
    /// With more than a Secret can hold.
    Giant,
}

/// The Secrets of an API server.
pub(super) struct Api {
    replies: watch::Sender<BTreeMap<String, Reply>>,
    requests: Mutex<Vec<String>>,
    under_way: AtomicUsize,
    pub(super) most_under_way: AtomicUsize,
}

impl Api {
    pub(super) fn set(&self, name: &str, reply: Reply) {
        self.replies.send_modify(|replies| {
            replies.insert(name.to_owned(), reply);
        });
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let api = api.clone();
            let name = request.uri().path().rsplit('/').next().unwrap().to_owned();
            async move {
                let (status, body, panics) = api.answer(&name).await;
                let frame = async move {
                    assert!(!panics, "as the test wants it");
                    Ok::<_, Infallible>(Frame::data(Bytes::from(body.to_string())))
                };
                let body = StreamBody::new(stream::once(frame));
                let response = http::Response::builder().status(status).body(body);
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, name: &str) -> (u16, Value, bool) {
        self.requests.lock().unwrap().push(name.to_owned());
        let _under_way = UnderWay::begin(self);
        let mut replies = self.replies.subscribe();
        let replies = replies.wait_for(|replies| replies.get(name) != Some(&Reply::Never));
        let reply = replies.await.unwrap().get(name).copied();
        let failure = |code: u16| json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code });
        match reply {
            None => (404, failure(404), false),
            Some(Reply::Status(code)) => (code, failure(code), false),
            Some(Reply::Panics | Reply::Never) => (200, json!({}), true),
            Some(Reply::Garbled) => (200, json!(["no Secret"]), false),
            Some(Reply::Giant) => {
                let filling = "x".repeat(5 << 20);
                (200, json!({ "metadata": { "name": filling } }), false)
            }
            Some(Reply::Good) => {
                let [chain, key] = CERTIFICATE.map(|text| BASE64_STANDARD.encode(text));
                let secret = json!({
                    "metadata": { "name": name, "namespace": "default" },
                    "type": "kubernetes.io/tls",
                    "data": { "tls.crt": chain, "tls.key": key },
                });
                (200, secret, false)
            }
        }
    }
}

/// Counts a request until it was answered or given up.
struct UnderWay<'a>(&'a Api);

impl<'a> UnderWay<'a> {
    fn begin(api: &'a Api) -> Self {
        let now = api.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        api.most_under_way.fetch_max(now, Ordering::SeqCst);
        Self(api)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A compiler that runs, and what comes out of it.
pub(super) struct World {
    events: mpsc::Sender<(Source, Event<Item>)>,
    pub(super) outputs: watch::Receiver<Option<Arc<Output>>>,
    /// The newest epoch that is over.
    pub(super) fresh: watch::Receiver<Epoch>,
    /// The certificates of each output that was published.
    pub(super) published: Arc<Mutex<Vec<String>>>,
    pub(super) health: Arc<Health>,
    pub(super) compiles: Arc<AtomicUsize>,
    pub(super) tasks: JoinSet<()>,
}

pub(super) fn usual_compile() -> Compile {
    let config = CompileConfig {
        class: "ws-ingress".to_owned(),
        loopback_endpoints: Loopback::Refuse,
        denied_backends: Vec::new(),
        own_services: Vec::new(),
    };
    Arc::new(move |snapshot, now| compile(snapshot, &config, now))
}

pub(super) fn api(replies: &[(&str, Reply)]) -> Arc<Api> {
    let replies = replies
        .iter()
        .map(|(name, reply)| ((*name).to_owned(), *reply));
    Arc::new(Api {
        replies: watch::Sender::new(replies.collect()),
        requests: Mutex::default(),
        under_way: AtomicUsize::default(),
        most_under_way: AtomicUsize::default(),
    })
}

fn source(kind: Kind) -> Source {
    Source {
        kind,
        namespace: None,
    }
}

fn item(kind: Kind, object: Value) -> Item {
    decode(kind, serde_json::from_value(object).unwrap())
}

/// Of a host of its own.
pub(super) fn route(name: &str, secrets: &[&str]) -> Item {
    let secrets = secrets.iter().map(|name| json!({ "name": name }));
    let route = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "resourceVersion": "1" },
        "spec": {
            "className": "ws-ingress",
            "hostnames": [format!("{name}.example.com")],
            "tls": { "certificateRefs": secrets.collect::<Vec<_>>() },
            "rules": [{ "backendRefs": [{ "name": "chat", "port": 80 }] }],
        },
    });
    item(Kind::WebSocketRoute, route)
}

fn secret(name: &str) -> Item {
    let metadata =
        json!({ "name": name, "namespace": "default", "uid": name, "resourceVersion": "1" });
    item(Kind::Secret, json!({ "metadata": metadata }))
}

pub(super) fn slice(service: &str, last_octet: usize) -> Item {
    let slice = json!({
        "metadata": { "name": service, "namespace": "default", "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [format!("10.0.0.{last_octet}")] }],
    });
    item(Kind::EndpointSlice, slice)
}

/// Each route with its certificates, such as `chat: one=Serve`.
fn certificates(output: &Output) -> String {
    let routes = output.resources.routes.iter().map(|(key, route)| {
        let used = route
            .hostnames
            .iter()
            .flat_map(|hostname| match &hostname.tls {
                HostTls::Terminate { certificates, .. } => &certificates[..],
                HostTls::None => &[],
            });
        let used = used.map(|key| {
            let resource = output.resources.certificates.get(key);
            let state = match resource.map(|resource| &**resource) {
                Some(CertificateResource::Serve { .. }) => "Serve",
                Some(CertificateResource::Hold) => "Hold",
                None => "Absent",
            };
            format!("{}={state}", key.secret)
        });
        format!("{}: {}", key.name, used.collect::<Vec<_>>().join(" "))
    });
    routes.collect::<Vec<_>>().join(", ")
}

impl World {
    /// Everything is listed: these Secrets, these routes, nothing else.
    pub(super) async fn start(api: &Arc<Api>, secrets: &[&str], routes: Vec<Item>) -> Self {
        Self::start_with(api, usual_compile(), secrets, routes).await
    }

    pub(super) async fn start_with(
        api: &Arc<Api>,
        compile: Compile,
        secrets: &[&str],
        routes: Vec<Item>,
    ) -> Self {
        let (events, queue) = mpsc::channel(QUEUE);
        let (sender, outputs) = watch::channel(None);
        let kinds = KINDS;
        let metrics = Metrics::new(&mut Registry::default());
        let labels = kinds.iter().map(ToString::to_string);
        let health = Arc::new(Health::new(labels, metrics));
        let (answers, fresh) = Answers::new(kinds.into_iter().map(source));
        let count = Arc::<AtomicUsize>::default();
        let counted = count.clone();
        let compiler = Compiler::new(
            Arc::new(move |snapshot, now| {
                counted.fetch_add(1, Ordering::SeqCst);
                compile(snapshot, now)
            }),
            Intake::new(kinds.into_iter().map(source), ObservedSender::new().0),
            SecretReader::new(api.client()),
            sender,
            answers,
            health.clone(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(compiler.run(queue));
        let published = Arc::<Mutex<Vec<String>>>::default();
        tasks.spawn(record(outputs.clone(), published.clone()));
        let world = Self {
            events,
            outputs,
            fresh,
            published,
            health,
            compiles: count,
            tasks,
        };
        for kind in kinds {
            let items = match kind {
                Kind::Secret => secrets.iter().map(|name| secret(name)).collect(),
                Kind::WebSocketRoute
                | Kind::ExternalBackend
                | Kind::Service
                | Kind::EndpointSlice
                | Kind::ReferenceGrant => Vec::new(),
            };
            world.tell(kind, Event::Listed(items)).await;
        }
        for item in routes {
            world.tell(Kind::WebSocketRoute, Event::Applied(item)).await;
        }
        world
    }

    async fn tell(&self, kind: Kind, event: Event<Item>) {
        self.events.send((source(kind), event)).await.unwrap();
    }

    pub(super) async fn apply(&self, item: Item) {
        self.tell(item.reference.kind, Event::Applied(item)).await;
    }

    /// Every watcher has listed everything in this epoch.
    pub(super) async fn listed_again(&self, epoch: Epoch) {
        for kind in KINDS {
            self.tell(kind, Event::Answered(epoch)).await;
        }
    }

    /// Waits until this epoch is over; returns how long that took.
    pub(super) async fn is_over(&self, epoch: Epoch) -> Duration {
        let start = Instant::now();
        let mut fresh = self.fresh.clone();
        let waited = timeout(LIMIT, fresh.wait_for(|fresh| *fresh >= epoch)).await;
        assert!(waited.is_ok(), "epoch {epoch} is never over");
        start.elapsed()
    }

    pub(super) fn now(&self) -> String {
        let output = self.outputs.borrow();
        output
            .as_ref()
            .map_or_else(String::new, |output| certificates(output))
    }

    pub(super) async fn becomes(&self, expected: &str) {
        let mut outputs = self.outputs.clone();
        let stands = |output: &Option<Arc<Output>>| {
            output
                .as_ref()
                .is_some_and(|output| certificates(output) == expected)
        };
        let waited = timeout(LIMIT, outputs.wait_for(stands)).await;
        assert!(
            waited.is_ok(),
            "{expected} never came; it is {}",
            self.now()
        );
    }
}

async fn record(
    mut outputs: watch::Receiver<Option<Arc<Output>>>,
    published: Arc<Mutex<Vec<String>>>,
) {
    while outputs.changed().await.is_ok() {
        let output = outputs.borrow_and_update().clone();
        let text = output.map_or_else(String::new, |output| certificates(&output));
        published.lock().unwrap().push(text);
    }
}
