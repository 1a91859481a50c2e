//! `ws-ingress standalone`: files -> Store -> debounce -> compile -> publish -> dataplane, in one process.
//!
//! The first table is published before anything listens, so that the first connection finds it. Two things then run until a
//! signal: the dataplane, and the loop that compiles what `manifests` reads. They share nothing but the channel of tables. If one
//! of them ends unasked, the process ends with an error.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use controller::compile::{CompileConfig, compile};
use controller::debounce::{self, Debounce};
use controller::publish::{Outcome, Publisher};
use controller::store::{ObjectRef, Store, UnlistedSecrets};
use dataplane::{Config, Dataplane, Drained, Signals, Stop};
use jiff::Timestamp;
use route_table::{Loopback, RouteTable};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::args::Standalone;
use crate::classes::Others;
use crate::findings::Findings;
use crate::manifests::{self, Change, Notice, Roots};
use crate::output::{announce, report};
use crate::quoting::printable;

/// Longest sleep towards a time on the wall clock, which may be set or stand still while the machine sleeps.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// Serves until a signal, and says what became of the open sockets.
pub async fn run(args: Standalone) -> anyhow::Result<()> {
    let Standalone {
        manifests,
        listeners,
        externals,
        bounds,
        proxies,
        status_address,
        drain_delay,
        drain_timeout,
        class,
    } = args;
    let signals = Signals::new().context("cannot take signals")?;
    let (first, changes) = read(manifests)?;
    let (tables, receiver) = watch::channel(Arc::new(RouteTable::empty()));
    let mut compiler = Compiler::new(class, tables);
    compiler.take(first);
    compiler.publish(Timestamp::now());

    let config = Config {
        https_address: listeners.https_address,
        http_address: listeners.http_address,
        https_public_port: listeners.https_public_port,
        status_address,
        drain_delay: drain_delay.duration(),
        drain_timeout: drain_timeout.duration(),
        trusted_proxies: proxies.trusted_proxy_cidrs,
        proxy_protocol_peers: proxies.proxy_protocol_cidrs,
        loopback: Loopback::Allow,
        resolver: externals.resolver,
        backend_ca_file: externals.backend_ca_file,
        limits: bounds.limits(),
        backend_source_addresses: bounds.backend_source_addresses,
    };
    let dataplane = Dataplane::bind(config, receiver)?;
    let addresses = dataplane.addresses();
    announce(&format!(
        "listening https={} http={} status={}",
        addresses.https, addresses.http, addresses.status
    ));

    let tasks = TaskTracker::new();
    let compiling = tasks.spawn(compiler.run(changes));
    let (stop, stopped) = watch::channel(Stop::Serve);
    let drained = tokio::select! {
        drained = dataplane.run(stopped) => drained?,
        ended = compiling => return Err(ended.unwrap_or_else(anyhow::Error::new)),
        never = signals.forward(&stop) => match never {},
    };
    let Drained {
        sockets,
        closed,
        cut,
    } = drained;
    announce(&format!(
        "drained sockets={sockets} closed={closed} cut={cut}"
    ));
    Ok(())
}

fn read(paths: Vec<PathBuf>) -> anyhow::Result<(Change, mpsc::Receiver<Change>)> {
    let roots = Roots::new(paths)?;
    manifests::watch(roots).context("cannot start the thread that reads manifests")
}

/// Turns what the files hold into tables.
struct Compiler {
    config: CompileConfig,
    store: Store,
    held: BTreeSet<ObjectRef>,
    publisher: Publisher,
    findings: Findings,
    others: Others,
    /// How many manifest files were read.
    files: usize,
    recheck_at: Option<Timestamp>,
}

impl Compiler {
    fn new(class: String, tables: watch::Sender<Arc<RouteTable>>) -> Self {
        Self {
            config: CompileConfig {
                class,
                loopback_endpoints: Loopback::Allow,
                denied_backends: Vec::new(),
                own_services: Vec::new(),
            },
            store: Store::new(UnlistedSecrets::Absent),
            held: BTreeSet::new(),
            publisher: Publisher::new(tables),
            findings: Findings::default(),
            others: Others::default(),
            files: 0,
            recheck_at: None,
        }
    }

    /// Compiles whenever the files changed or time alone changes the result. Ends only when nobody reads the files any more.
    async fn run(mut self, mut changes: mpsc::Receiver<Change>) -> anyhow::Error {
        let mut debounce = Debounce::new(debounce::INTERVAL);
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => if !self.take(change) { continue },
                    None => return anyhow!("the thread that reads manifests has ended"),
                },
                () = reached(self.recheck_at) => {}
            }
            debounce.turn().await;
            while let Ok(change) = changes.try_recv() {
                self.take(change);
            }
            self.publish(Timestamp::now());
        }
    }

    /// Brings the Store to what the files hold. Returns whether a compile could come out differently.
    fn take(&mut self, change: Change) -> bool {
        let Change {
            objects,
            files,
            notices,
        } = change;
        self.files = files;
        for notice in notices {
            match notice {
                Notice::Wrong { .. } | Notice::Mended { .. } => report(&notice.to_string()),
                Notice::Ignored { .. } => tracing::info!("{}", printable(&notice.to_string())),
            }
        }
        let now: BTreeSet<ObjectRef> = objects.keys().cloned().collect();
        let mut changed = false;
        for gone in self.held.difference(&now) {
            changed |= self.store.delete(gone);
        }
        for object in objects.into_values() {
            changed |= self.store.apply(object);
        }
        self.held = now;
        changed
    }

    fn publish(&mut self, now: Timestamp) {
        let snapshot = self.store.snapshot();
        let class = &self.config.class;
        for line in self.others.update(&snapshot, class) {
            tracing::info!("{line}");
        }
        let compiled = compile(&snapshot, &self.config, now);
        self.recheck_at = compiled.recheck_at;
        let published = self.publisher.publish(&compiled.resources);
        let nothing = compiled.statuses.is_empty();
        let nothing = nothing.then(|| self.others.nothing(class, self.files));
        for line in self
            .findings
            .update(&compiled.statuses, &published.rejected, nothing)
        {
            report(&line);
        }
        match published.outcome {
            Outcome::Sent { generation } => tracing::info!(
                generation,
                routes = compiled.resources.routes.len(),
                backends = compiled.resources.backends.len(),
                certificates = compiled.resources.certificates.len(),
                "new table"
            ),
            Outcome::Unchanged => tracing::debug!("the table is unchanged"),
        }
    }
}

/// Waits for a time on the wall clock; for ever if there is none.
async fn reached(time: Option<Timestamp>) {
    let Some(time) = time else {
        return std::future::pending().await;
    };
    loop {
        let left = Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

#[cfg(test)]
mod tests;
