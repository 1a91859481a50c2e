//! A stranger who dials the push as often as it can: the API server is asked at a bounded rate, the controller stays
//! small, and dataplanes come and go as ever.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tests::kubernetes::cluster::{Cluster, shared};
use tests::kubernetes::controller::{Controller, authority_bundle};
use tests::kubernetes::names::AUDIENCE;
use tests::kubernetes::site::{Site, counts};
use tests::kubernetes::stranger::{Refused, Stranger};
use tests::kubernetes::traffic::Traffic;
use tests::metrics::Metrics;
use tests::wait;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// The host that has traffic all the time.
const NAME: &str = "chat";

/// Connections in all, and how many of them show no token at all: each tenth.
const CALLS: usize = 10_000;
const WITHOUT_TOKEN: usize = 10;

/// Connections at a time; half of what one address may have before it is proved.
const AT_ONCE: usize = 16;

/// Longest time for all of it; half a minute on two idle cores.
const FLOOD: Duration = Duration::from_mins(5);

/// Of a signature by P-256 (RFC 7518 §3.4).
const SIGNATURE_BYTES: usize = 64;

/// Where the stranger is: another address of this machine than the dataplanes'.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Reviews that one address may cost: so many at once, and so many a second.
const REVIEWS_AT_ONCE: u64 = 20;
const REVIEWS_PER_SECOND: u64 = 2;

/// Reviews for those who belong here: two dataplanes, and one again if it dialled twice.
const REVIEWS_OF_OTHERS: u64 = 4;

/// Resident memory that the flood may add at any time: 32 connections before their proof have at most 256 KiB of windows and
/// TLS each, and 4,096 verdicts a few hundred bytes. The rest is for an allocator that keeps what it had.
const MEMORY: u64 = 32 << 20;

/// Files that the flood may add at any time: 32 sockets are all that one address may have before its proof, and each may wait
/// for a review over one more.
const FILES: usize = 64;

/// How the controller counts who has not come to a call.
const WITHOUT_CONNECTION: &[&str] = &[
    "too_many_connections",
    "handshake_timeout",
    "handshake",
    "http",
    "evicted",
    "no_call",
];

/// Each so many calls somebody looks at the memory and the files.
const LOOK_EVERY: usize = 16;

/// What the kernel says of a process.
struct Process(u32);

impl Process {
    /// Resident memory in bytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        1024 * kib.and_then(|kib| kib.parse::<u64>().ok()).expect("VmRSS")
    }

    fn files(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.0));
        open.expect("it runs").count()
    }
}

/// Sockets of this machine's servers on `port` that a client at `from` has, or has left and the server has not closed yet.
fn open_from(from: Ipv4Addr, port: u16) -> usize {
    // proc_pid_net(5): number, local, remote, state; addresses in hexadecimal, as the processor has them in memory.
    let table = fs::read_to_string("/proc/self/net/tcp").expect("the kernel lists sockets");
    let from = format!("{:08X}:", u32::from_ne_bytes(from.octets()));
    let port = format!(":{port:04X}");
    let open = table.lines().filter(|line| {
        let mut words = line.split_whitespace().skip(1);
        let mut word = || words.next().unwrap_or_default();
        let (local, remote, state) = (word(), word(), word());
        // ESTABLISHED and CLOSE_WAIT.
        local.ends_with(&port) && remote.starts_with(&from) && ["01", "08"].contains(&state)
    });
    open.count()
}

/// How the calls ended, by how the controller counts it.
#[derive(Default)]
struct Ends {
    missing: AtomicU64,
    denied: AtomicU64,
    throttled: AtomicU64,
    /// No connection: it had too many, or did not come to its call in time on a busy machine.
    kept_out: AtomicU64,
}

impl Ends {
    fn count(&self, refused: &Refused) {
        let said = refused.to_string();
        let counts = [
            ("there is no token", &self.missing),
            ("does not know the token", &self.denied),
            ("too many tokens wait", &self.throttled),
            // Its connection went to another newcomer while it called.
            ("h2 protocol error", &self.kept_out),
        ];
        let count = match refused {
            Refused::Connection(_) => Some(&self.kept_out),
            Refused::Call(_) => {
                let mut counts = counts.into_iter();
                counts
                    .find(|(words, _)| said.contains(words))
                    .map(|(_, count)| count)
            }
        };
        assert!(count.is_some(), "{said}");
        count.map(|count| count.fetch_add(1, Ordering::Relaxed));
    }

    /// Refused calls, with the controller's labels.
    fn calls(&self) -> [(&'static str, u64); 3] {
        [
            ("token_missing", &self.missing),
            ("token_denied", &self.denied),
            ("token_throttled", &self.throttled),
        ]
        .map(|(label, count)| (label, count.load(Ordering::Relaxed)))
    }

    fn kept_out(&self) -> u64 {
        self.kept_out.load(Ordering::Relaxed)
    }
}

/// The stranger: many connections at a time, each with a token that nobody has made.
struct Flood {
    stranger: Stranger,
    token: String,
    controller: Process,
    calls: AtomicUsize,
    /// Goes on as long as somebody has to get in beside it.
    enough: AtomicUsize,
    ends: Ends,
    most_memory: AtomicU64,
    most_files: AtomicUsize,
}

impl Flood {
    /// Claims that are right under a signature that is not, another one each time.
    fn forged(&self, number: usize) -> String {
        let (claims, _) = self
            .token
            .rsplit_once('.')
            .expect("a token has three parts");
        let mut signature = [0; SIGNATURE_BYTES];
        signature[..size_of::<usize>()].copy_from_slice(&number.to_le_bytes());
        format!("{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    async fn call_again_and_again(self: Arc<Self>) {
        loop {
            let number = self.calls.fetch_add(1, Ordering::Relaxed);
            if number >= self.enough.load(Ordering::Relaxed) {
                return;
            }
            let token = self.forged(number);
            let token = (!number.is_multiple_of(WITHOUT_TOKEN)).then_some(token);
            let refused = self.stranger.call(token.as_deref()).await.err();
            self.ends
                .count(&refused.expect("the stranger is not let in"));
            if number.is_multiple_of(LOOK_EVERY) {
                let (memory, files) = (self.controller.memory(), self.controller.files());
                self.most_memory.fetch_max(memory, Ordering::Relaxed);
                self.most_files.fetch_max(files, Ordering::Relaxed);
            }
        }
    }
}

/// `TokenReview`s so far, as the API server and as the controller count them.
async fn reviews(cluster: &Cluster, controller: &Controller) -> [u64; 2] {
    let (_, page) = cluster.api().get("/metrics").await;
    let page = page.as_str().expect("metrics are text");
    let labels = [("resource", "tokenreviews"), ("verb", "POST")];
    let asked = Metrics::parse(page).sum("apiserver_request_total", &labels);
    let counts = counts(controller).await;
    let name = "ws_ingress_controller_token_reviews_total";
    [asked, counts.sum(name, &[])]
}

async fn connected(controller: &Controller, dataplanes: u64) {
    let what = format!("{dataplanes} dataplanes are connected");
    wait::until(&what, async || {
        let counts = counts(controller).await;
        let connected = counts.sum("ws_ingress_controller_dataplanes_connected", &[]);
        (connected == dataplanes).then_some(())
    })
    .await;
}

/// What the API server and the kernel said before the flood.
struct Before {
    reviews: [u64; 2],
    memory: u64,
    files: usize,
}

impl Flood {
    async fn new(site: &Site, controller: &Controller) -> Self {
        let bundle = authority_bundle(&site.release).await;
        let mut stranger = Stranger::new(controller.push, &bundle);
        stranger.from = STRANGER;
        let pod = site.release.dataplane_pod("somebody").await;
        Self {
            stranger,
            token: site.release.dataplane_token(&pod, AUDIENCE).await,
            controller: Process(controller.id()),
            calls: AtomicUsize::new(0),
            enough: AtomicUsize::new(usize::MAX),
            ends: Ends::default(),
            most_memory: AtomicU64::new(0),
            most_files: AtomicUsize::new(0),
        }
    }

    /// Every call was turned away, and the controller has counted it as the stranger heard it. An answer may be lost with its
    /// connection on a busy machine: then the controller has counted a call, and the stranger heard of no connection.
    async fn all_were_counted(&self, controller: &Controller) {
        let kept_out = self.ends.kept_out();
        let heard = self.ends.calls().map(|(_, count)| count);
        let calls = heard.iter().sum::<u64>() + kept_out;
        assert!(calls >= CALLS as u64, "{heard:?} and {kept_out}");
        assert!(self.ends.denied.load(Ordering::Relaxed) > 0, "none asked");
        let counts = counts(controller).await;
        let counted = |label| {
            let name = "ws_ingress_controller_push_refusals_total";
            counts.sum(name, &[("reason", label)])
        };
        for (label, heard) in self.ends.calls() {
            let counted = counted(label);
            assert!(
                (heard..=heard + kept_out).contains(&counted),
                "the controller counts {counted} of {label}, the stranger {heard}, {kept_out} kept out"
            );
        }
        let refusals = self.ends.calls().map(|(label, _)| counted(label));
        let connections = WITHOUT_CONNECTION.iter().map(|label| counted(label));
        let counted = refusals.into_iter().chain(connections).sum::<u64>();
        // Both, if the connection breaks after its call was refused.
        assert!(
            (calls..=calls + kept_out).contains(&counted),
            "the controller counts {counted} of {calls} calls, {kept_out} kept out"
        );
    }

    fn cost_little(&self, before: &Before) {
        let memory = self.most_memory.load(Ordering::Relaxed);
        let files = self.most_files.load(Ordering::Relaxed);
        assert!(
            memory > 0 && memory < before.memory + MEMORY,
            "{memory} bytes of memory, from {}",
            before.memory
        );
        assert!(
            files > 0 && files < before.files + FILES,
            "{files} open files, from {}",
            before.files
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_of_a_stranger_cost_little_and_keep_nobody_out() {
    let Some(cluster) = shared().await else {
        return;
    };
    let site = Site::install(&cluster).await;
    let controller = site.leader("controller-0").await;
    let dataplane = site.dataplane("dataplane-0").await;
    site.serves_new(&dataplane, NAME).await;
    let traffic = Traffic::start(&site.client(&dataplane, NAME)).await;

    let flood = Arc::new(Flood::new(&site, &controller).await);
    let before = Before {
        reviews: reviews(&cluster, &controller).await,
        memory: flood.controller.memory(),
        files: flood.controller.files(),
    };
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        callers.spawn(Arc::clone(&flood).call_again_and_again());
    }

    // Somebody who belongs here comes in the midst of it.
    wait::until_limit("the flood is at its height", FLOOD, async || {
        (flood.calls.load(Ordering::Relaxed) > CALLS / 4).then_some(())
    })
    .await;
    wait::until("its sockets are seen", async || {
        (open_from(STRANGER, controller.push.port()) > 0).then_some(())
    })
    .await;
    let newcomer = site.dataplane("dataplane-1").await;
    site.serves(&newcomer, NAME).await;
    site.serves_new(&newcomer, "meanwhile").await;
    let so_far = flood.calls.load(Ordering::Relaxed);
    flood.enough.store(CALLS.max(so_far), Ordering::Relaxed);
    let over = timeout(FLOOD, callers.join_all()).await;
    over.expect("the flood ends");
    let took = began.elapsed();

    flood.all_were_counted(&controller).await;
    flood.cost_little(&before);
    let after = reviews(&cluster, &controller).await;
    let [asked, counted] = [0, 1].map(|at| after[at] - before.reviews[at]);
    assert_eq!(asked, counted, "the controller counts what it asks");
    let bound = REVIEWS_AT_ONCE + REVIEWS_PER_SECOND * (took.as_secs() + 1) + REVIEWS_OF_OTHERS;
    assert!(asked <= bound, "{asked} reviews in {took:?}, over {bound}");
    // What stays open beyond that are idle connections to the API server.
    wait::until("all sockets of the stranger are closed", async || {
        (open_from(STRANGER, controller.push.port()) == 0).then_some(())
    })
    .await;
    connected(&controller, 2).await;
    assert_eq!(dataplane.log().count("following the leader"), 1);
    traffic.undisturbed().await;
}
