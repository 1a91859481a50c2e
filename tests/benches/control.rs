//! The way of a change: an endpoint is written to a real API server, the controller compiles and pushes, the dataplane
//! swaps its table. How long that takes, how many bytes it costs on the wire, and how much memory both programs hold, by
//! the number of routes. `make bench-control` runs it; nothing here passes or fails, a figure that misses its aim is marked.
//!
//! The clock starts before the request to the API server leaves and stops when the dataplane's own count of swaps is seen to
//! have grown; it is asked every [`LOOK`]. Beside it stands the part that the API server took to answer. Every route has its
//! own hostname, Service and slice; a hundred routes share a certificate, as a wildcard makes them.
//!
//! `BENCH_ROUTES="10 1000"` picks other sizes.
#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench prints what it measured, and ends where it cannot go on"
)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::kubernetes::cluster::own;
use tests::kubernetes::controller::Controller;
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::installed::ROUTES;
use tests::kubernetes::request::{Api, Patch};
use tests::kubernetes::site::{Site, condition};
use tests::manifests::SERVICE_PORT;
use tests::process::proportional_bytes;
use tests::wait;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How many routes there are in each round, without `BENCH_ROUTES`.
const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// Changes that are measured at each size: enough for two beyond the 99th percentile.
const CHANGES: usize = 200;

/// Time between two changes, and the range of the part that varies, so that no clock of the product keeps step with the
/// bench: longer than the 100 ms in which the controller gathers changes, because a change alone is measured.
const PAUSE: Duration = Duration::from_millis(150);
const JITTER_MILLIS: u64 = 100;

/// Time between two looks at the dataplane: the resolution of what is measured.
const LOOK: Duration = Duration::from_millis(2);

/// Requests at a time while the objects are written.
const WRITERS: usize = 8;

/// Routes under one certificate.
const ROUTES_OF_A_CERTIFICATE: usize = 100;

/// Longest time until all routes of a round are programmed: the controller writes at most 100 statuses a second.
const SETTLING: Duration = Duration::from_mins(10);

/// What is aimed at, per figure.
const P50_MILLIS: f64 = 20.0;
const P99_MILLIS: f64 = 100.0;
const PROCESS_BYTES: f64 = 150e6;
const ROUTE_BYTES: f64 = 2_000.0;

const SLICES: &str = "discovery.k8s.io/v1/endpointslices";

/// An installation and the routes that it has so far.
struct Bench {
    site: Site,
    controller: Controller,
    dataplane: Dataplane,
    routes: usize,
    /// Bytes of both programs before the first route.
    empty: Memory,
}

#[derive(Clone, Copy)]
struct Memory {
    controller: u64,
    dataplane: u64,
}

/// One round.
struct Figures {
    routes: usize,
    /// From the request to the swap, and to the API server's answer; milliseconds, ascending.
    swapped: Vec<f64>,
    answered: Vec<f64>,
    /// Between the programs in both directions, TLS included, for one change.
    wire_bytes: u64,
    memory: Memory,
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let Some(cluster) = own().await else {
        panic!("bench-control needs kube-apiserver: see tests/tools/install");
    };
    let site = Site::install(&cluster).await;
    let controller = site.leader("controller-0").await;
    let dataplane = site.dataplane("dataplane-0").await;
    let mut bench = Bench {
        empty: memory(&controller, &dataplane),
        site,
        controller,
        dataplane,
        routes: 0,
    };
    let mut rounds = Vec::new();
    for size in sizes() {
        println!("{size} routes: writing them, and waiting until all are programmed");
        bench.grow(size).await;
        println!("{size} routes: {CHANGES} changes of one endpoint");
        let figures = bench.measure().await;
        println!("{}", figures.line(bench.empty));
        rounds.push(figures);
    }
    println!("\n{}", table(&rounds, bench.empty));
}

fn sizes() -> Vec<usize> {
    let Ok(text) = std::env::var("BENCH_ROUTES") else {
        return SIZES.to_vec();
    };
    let sizes: Result<Vec<usize>, _> = text.split_whitespace().map(str::parse).collect();
    let mut sizes = sizes.expect("BENCH_ROUTES holds numbers");
    sizes.sort_unstable();
    sizes
}

fn memory(controller: &Controller, dataplane: &Dataplane) -> Memory {
    Memory {
        controller: proportional_bytes(controller.id()),
        dataplane: proportional_bytes(dataplane.id()),
    }
}

impl Bench {
    /// Adds routes up to this number, and waits until all are programmed.
    async fn grow(&mut self, size: usize) {
        let api = self.site.namespace.cluster.api();
        let mut objects = Vec::new();
        for number in self.routes..size {
            objects.extend(self.objects(number));
        }
        // What is referred to comes first: a route before its certificate is compiled twice.
        let (routes, others): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .partition(|(path, _)| path.ends_with("/websocketroutes"));
        for objects in [others, routes].map(Arc::new) {
            let mut writers = JoinSet::new();
            for writer in 0..WRITERS {
                writers.spawn(write(api.clone(), Arc::clone(&objects), writer));
            }
            while let Some(ended) = writers.join_next().await {
                ended.expect("a writer ends");
            }
        }
        self.routes = size;
        let path = self.site.namespace.collection(ROUTES);
        wait::until_limit("all routes are programmed", SETTLING, async || {
            // A list of 10,000 is dear: only asked once the youngest is there.
            sleep(PAUSE).await;
            let (_, youngest) = api.get(&format!("{path}/{}", name(size - 1))).await;
            if !is_programmed(&youngest) {
                return None;
            }
            let (_, list) = api.get(&path).await;
            let routes = list["items"].as_array()?;
            (routes.len() == size && routes.iter().all(is_programmed)).then_some(())
        })
        .await;
    }

    /// The objects of one route, and every hundredth time the certificate of the next hundred.
    fn objects(&self, number: usize) -> Vec<(String, Value)> {
        let namespace = &self.site.namespace;
        let (name, group) = (name(number), number / ROUTES_OF_A_CERTIFICATE);
        let secret = format!("tls-{group}");
        let mut objects = Vec::new();
        if number.is_multiple_of(ROUTES_OF_A_CERTIFICATE) {
            let wildcard = format!("*.z{group}.example.com");
            let issued = self.site.authority.issue(&[&wildcard]);
            objects.push((
                namespace.collection("v1/secrets"),
                json!({
                    "type": "kubernetes.io/tls",
                    "metadata": { "name": secret },
                    "data": {
                        "tls.crt": STANDARD.encode(&issued.chain_pem),
                        "tls.key": STANDARD.encode(&issued.key_pem),
                    },
                }),
            ));
        }
        objects.push((
            namespace.collection("v1/services"),
            json!({
                "metadata": { "name": name },
                "spec": { "clusterIP": "None", "ports": [{ "name": "ws", "port": SERVICE_PORT }] },
            }),
        ));
        objects.push((namespace.collection(SLICES), slice(&name, number)));
        objects.push((
            namespace.collection(ROUTES),
            json!({
                "apiVersion": "ws-ingress.dev/v1alpha1",
                "kind": "WebSocketRoute",
                "metadata": { "name": name },
                "spec": {
                    "className": self.site.release.class(),
                    "hostnames": [format!("{name}.z{group}.example.com")],
                    "tls": { "certificateRefs": [{ "name": secret }] },
                    "rules": [{ "backendRefs": [{ "name": name, "port": SERVICE_PORT }] }],
                },
            }),
        ));
        objects
    }

    async fn measure(&self) -> Figures {
        let api = self.site.namespace.cluster.api();
        let (mut swapped, mut answered) = (Vec::new(), Vec::new());
        let passed = self.site.front.passed_bytes();
        let changed = self.routes / 2;
        let path = self.site.namespace.path(SLICES, &name(changed));
        for change in 0..CHANGES {
            sleep(PAUSE + Duration::from_millis(change as u64 * 37 % JITTER_MILLIS)).await;
            let before = swaps(&self.dataplane).await;
            let object = slice(&name(changed), self.routes + change);
            let started = Instant::now();
            let write = async {
                let (code, answer) = api.patch(&path, Patch::Merge, &object).await;
                assert!(code.is_success(), "{path}: {code} {answer}");
                started.elapsed()
            };
            let seen = async {
                while swaps(&self.dataplane).await == before {
                    assert!(started.elapsed() < wait::LIMIT, "no swap after a change");
                    sleep(LOOK).await;
                }
                started.elapsed()
            };
            let (write, seen) = tokio::join!(write, seen);
            answered.push(millis(write));
            swapped.push(millis(seen));
        }
        swapped.sort_by(f64::total_cmp);
        answered.sort_by(f64::total_cmp);
        let passed = self.site.front.passed_bytes() - passed;
        Figures {
            routes: self.routes,
            swapped,
            answered,
            wire_bytes: passed / CHANGES as u64,
            memory: memory(&self.controller, &self.dataplane),
        }
    }
}

fn name(number: usize) -> String {
    format!("r{number:05}")
}

/// The slice of a Service: one pod, whose address is another for every `number`.
fn slice(service: &str, number: usize) -> Value {
    // 198.18.0.0/15 is for benchmarks (RFC 2544).
    let address = format!(
        "198.{}.{}.{}",
        18 + number / 62_500 % 2,
        number / 250 % 250,
        number % 250 + 1
    );
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "name": "ws", "port": 8080, "protocol": "TCP" }],
    })
}

/// Creates every [`WRITERS`]th object, beginning with this one.
async fn write(api: Api, objects: Arc<Vec<(String, Value)>>, first: usize) {
    for (path, object) in objects.iter().skip(first).step_by(WRITERS) {
        api.create(path, object).await;
    }
}

fn is_programmed(route: &Value) -> bool {
    condition(route, "Programmed").is_some_and(|condition| condition["status"] == "True")
}

async fn swaps(dataplane: &Dataplane) -> u64 {
    let metrics = dataplane.metrics().await;
    metrics.sum("ws_ingress_table_swaps_total", &[])
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that this part of all does not pass; `sorted` is ascending and not empty.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index below the length of a short list"
    )]
    let index = (sorted.len() as f64 * part).ceil() as usize;
    sorted[index.saturating_sub(1).min(sorted.len() - 1)]
}

impl Figures {
    fn cells(&self, empty: Memory) -> [String; 9] {
        #[expect(clippy::cast_precision_loss, reason = "bytes below 2^52")]
        let [controller, dataplane, of_route] = {
            let grown = self.memory.dataplane.saturating_sub(empty.dataplane);
            [
                self.memory.controller as f64,
                self.memory.dataplane as f64,
                grown as f64 / self.routes as f64,
            ]
        };
        let swapped = |part| percentile(&self.swapped, part);
        [
            self.routes.to_string(),
            format!("{:.1}", percentile(&self.answered, 0.5)),
            judged(swapped(0.5), P50_MILLIS, 1.0),
            judged(swapped(0.99), P99_MILLIS, 1.0),
            format!("{:.1}", swapped(1.0)),
            self.wire_bytes.to_string(),
            judged(controller, PROCESS_BYTES, 1e6),
            judged(dataplane, PROCESS_BYTES, 1e6),
            judged(of_route, ROUTE_BYTES, 1e3),
        ]
    }

    fn line(&self, empty: Memory) -> String {
        let cells = self.cells(empty);
        HEADINGS
            .iter()
            .zip(&cells)
            .fold(String::new(), |mut line, (heading, cell)| {
                let _ = writeln!(line, "  {heading}: {cell}");
                line
            })
    }
}

const HEADINGS: [&str; 9] = [
    "routes",
    "API server's answer p50, ms",
    "swapped p50, ms",
    "swapped p99, ms",
    "swapped max, ms",
    "bytes on the wire",
    "controller, MB",
    "dataplane, MB",
    "dataplane a route, kB",
];

/// A figure in its unit, marked when it is above its aim.
fn judged(value: f64, aim: f64, unit: f64) -> String {
    let shown = format!("{:.1}", value / unit);
    if value > aim {
        format!("{shown} (aim {})", aim / unit)
    } else {
        shown
    }
}

/// All rounds, as the documents show them.
fn table(rounds: &[Figures], empty: Memory) -> String {
    let mut text = format!(
        "| {} |\n|{}\n",
        HEADINGS.join(" | "),
        "---|".repeat(HEADINGS.len())
    );
    for figures in rounds {
        let _ = writeln!(text, "| {} |", figures.cells(empty).join(" | "));
    }
    text
}
