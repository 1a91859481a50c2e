//! The order of a run: round after round, load after load, and each load on one peer after the other, so that what changes on
//! the machine in the meantime changes all peers' figures alike.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::FutureExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::account::{Cpus, bind_to, raise_open_files};
use super::figure::{Figure, Load};
use super::loads::{Bulk, SHORT, Target};
use super::open_loop::{HANDSHAKES_PER_SECOND, Shown};
use super::options::Options;
use super::peer::Setting;
use super::results::{Place, Results};
use super::socket::Tickets;
use super::statistics::number;
use super::window::{Watched, Window};
use crate::gateway::address;
use crate::process::{Process, guarded};

/// Longest time for one load on one peer, beside its windows: 9,000 handshakes on a slow machine are most of it.
const LOAD_LIMIT: Duration = Duration::from_mins(4);

/// Open files that a proxy needs beside two for each socket; ws-ingress keeps one in 32 for idle connections and takes new ones up
/// to 95 % of what is left.
const SPARE_OPEN_FILES: u64 = 1_600;

/// The part of a storm's handshakes that has to come through: fewer would be an easier load.
const LEAST_STORM: f64 = 0.95;

const BYTES_A_GIGABYTE: f64 = 1e9;
const BYTES_A_KILOBYTE: f64 = 1e3;

/// Runs everything that was asked for and returns what came of it.
pub async fn run(options: &Options) -> anyhow::Result<Results> {
    let cpus = Cpus::pick()?;
    let open_files = raise_open_files()?;
    bind_to(cpus.load)?;
    let backend = start_backend().await?;
    let setting = Setting::new(cpus, backend.address);
    let mut results = Results::default();
    let mut peers = Vec::new();
    for peer in options.peers() {
        if let Some(version) = peer.version().await {
            results.versions.push((peer, version));
            peers.push(peer);
        } else {
            results.skip(format!("{}: not installed", peer.title()));
        }
    }
    let mut loads = options.loads();
    let needed = 2 * u64::from(options.sockets().1) + SPARE_OPEN_FILES;
    if loads.contains(&Load::Memory) && open_files < needed {
        loads.retain(|load| *load != Load::Memory);
        results.skip(format!(
            "memory: {needed} open files are needed, {open_files} allowed"
        ));
    }
    for round in 0..options.rounds {
        for load in &loads {
            // Another one begins each time: whoever follows a heavy load could inherit something of it.
            let first = usize::try_from(round)? % peers.len().max(1);
            for peer in peers[first..].iter().chain(&peers[..first]) {
                let place = Place {
                    load: *load,
                    peer: *peer,
                    round,
                };
                progress(place, options.rounds);
                let limit = LOAD_LIMIT + 4 * (options.window() + options.warm_up());
                let measured = measure(place, options, &setting, backend.process);
                // The harness of the tests panics where it cannot go on; the others can.
                let measured = AssertUnwindSafe(timeout(limit, measured)).catch_unwind();
                let measured = match Box::pin(measured).await {
                    Ok(in_time) => in_time.context("it took too long").flatten(),
                    Err(_) => Err(anyhow!("a panic, see above")),
                };
                results.add(place, measured);
            }
        }
    }
    Ok(results)
}

#[expect(clippy::print_stderr, reason = "a run takes most of an hour")]
fn progress(place: Place, rounds: u32) {
    let (load, peer) = (place.load, place.peer.title());
    eprintln!("round {} of {rounds}: {load:?}, {peer}", place.round + 1);
}

struct Backend {
    process: u32,
    address: SocketAddr,
    _owner: Process,
}

/// This program again, as `backend`; on the CPU that this one has.
async fn start_backend() -> anyhow::Result<Backend> {
    let own = std::env::current_exe()?;
    let mut command: Command = guarded(&own);
    command.arg("backend");
    let process = Process::spawn("backend", command);
    let line = process.stdout.with("listening ").await;
    Ok(Backend {
        process: process.id(),
        address: address(&line, "address="),
        _owner: process,
    })
}

/// What one load on one peer came to.
#[derive(Default)]
pub struct Measured {
    pub figures: Vec<(Figure, f64)>,
    /// Of loads whose CPU time counts.
    pub window: Option<Window>,
    /// What else is worth a line.
    pub note: Option<String>,
    /// Why the figures say less than they seem to.
    pub doubt: Option<String>,
}

/// Starts a fresh proxy and puts one load on it.
async fn measure(
    place: Place,
    options: &Options,
    setting: &Setting,
    backend: u32,
) -> anyhow::Result<Measured> {
    // Whatever went wrong before.
    bind_to(setting.cpus.load)?;
    let mut running = place.peer.start(setting).await?;
    let target = Target {
        address: running.address,
        root: setting.root().clone(),
        watched: Watched {
            proxy: running.id(),
            backend,
            cpus: setting.cpus,
        },
        warm_up: options.warm_up(),
        window: options.window(),
    };
    let measured = put(place.load, &target, options.sockets()).await;
    anyhow::ensure!(running.runs(), "the proxy ended by itself");
    measured
}

async fn put(load: Load, target: &Target, sockets: (u32, u32)) -> anyhow::Result<Measured> {
    let micros = |figure, window: Window| one(figure, window, window.per_one()? * 1e6);
    let bulk = |figure, window: Window| {
        let gigabytes = number(window.done) / BYTES_A_GIGABYTE;
        anyhow::ensure!(gigabytes > 0.0, "nothing came through");
        one(figure, window, window.proxy * 1e3 / gigabytes)
    };
    match load {
        Load::RoundTrip => micros(Figure::RoundTrip, target.round_trips(SHORT, 1).await?),
        Load::Pipelined => micros(Figure::Pipelined, target.round_trips(SHORT, 16).await?),
        Load::FourKib => micros(Figure::FourKib, target.round_trips(4096, 1).await?),
        Load::BulkUp => bulk(Figure::BulkUp, target.bulk(Bulk::Up).await?),
        Load::BulkDown => bulk(Figure::BulkDown, target.bulk(Bulk::Down).await?),
        Load::BulkEcho => bulk(Figure::BulkEcho, target.bulk(Bulk::Echo).await?),
        Load::Handshake => micros(Figure::Handshake, target.handshakes(Tickets::Ignore).await?),
        Load::Resumed => micros(Figure::Resumed, target.handshakes(Tickets::Use).await?),
        Load::OpenLoop => {
            let shown = target.open_loop().await?;
            let mut measured = micros(Figure::OpenLoop, shown.window)?;
            measured.note = Some(latencies("latency", &shown));
            Ok(measured)
        }
        Load::Storm => {
            let shown = target.storm().await?;
            let rate = number(shown.visits) / shown.storm.window.length;
            let note = format!(
                "{}, {}, {rate:.0} handshakes/s, {} without a place",
                latencies("quiet", &shown.quiet),
                latencies("storm", &shown.storm),
                shown.shed
            );
            let ratio = number(shown.storm.p99) / number(shown.quiet.p99);
            let is_storm = rate >= LEAST_STORM * f64::from(HANDSHAKES_PER_SECOND);
            Ok(Measured {
                figures: vec![(Figure::Storm, ratio)],
                window: Some(shown.storm.window),
                note: Some(note),
                doubt: (!is_storm).then(|| format!("only {rate:.0} handshakes/s came through")),
            })
        }
        Load::Memory => {
            let memory = target.memory(sockets.0, sockets.1).await?;
            let figures = [
                (Figure::IdleFew, memory.idle_few),
                (Figure::IdleMany, memory.idle_many),
                (Figure::AfterMessage, memory.after_message),
                (Figure::Kept, memory.kept),
            ];
            Ok(Measured {
                figures: figures
                    .map(|(figure, bytes)| (figure, bytes / BYTES_A_KILOBYTE))
                    .into(),
                ..Measured::default()
            })
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an arm of a match of results")]
fn one(figure: Figure, window: Window, value: f64) -> anyhow::Result<Measured> {
    Ok(Measured {
        figures: vec![(figure, value)],
        window: Some(window),
        ..Measured::default()
    })
}

fn latencies(what: &str, shown: &Shown) -> String {
    let [p50, p99] = [shown.p50, shown.p99].map(|nanoseconds| number(nanoseconds) / 1e3);
    format!("{what} p50 {p50:.0} µs p99 {p99:.0} µs")
}
