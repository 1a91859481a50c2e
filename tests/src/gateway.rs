//! The product as a process: `ws-ingress standalone` on ports that the kernel chose.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;

use crate::metrics::{self, Metrics};
use crate::process::{Lines, Process, program};
use crate::wait;

/// Flags that some tests change.
pub struct Settings {
    pub drain_delay: &'static str,
    pub drain_timeout: &'static str,
    /// Its limit of open files (`ulimit -n`), from which it derives how many connections it takes; none is this process's.
    pub open_files: Option<u32>,
    /// What it has of that at first (`ulimit -Sn`); none is all.
    pub open_files_at_first: Option<u32>,
    /// More flags of `standalone`.
    pub flags: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            drain_delay: "0s",
            drain_timeout: "5s",
            open_files: None,
            open_files_at_first: None,
            flags: Vec::new(),
        }
    }
}

impl Settings {
    /// The usual ones with these flags.
    pub fn with(flags: &[&str]) -> Self {
        Self {
            flags: flags.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }
}

/// A running gateway and where it listens.
pub struct Gateway {
    process: Process,
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub status: SocketAddr,
}

impl Gateway {
    /// Starts it on these manifests and returns once it says that it is ready.
    pub async fn start(manifests: &[&Path], settings: &Settings) -> Self {
        let binary = program("ws-ingress", "WS_INGRESS_BIN");
        let limits = [
            ("-n", settings.open_files),
            ("-Sn", settings.open_files_at_first),
        ];
        let limits = limits
            .iter()
            .filter_map(|(which, limit)| Some(format!("ulimit {which} {}; ", (*limit)?)));
        let limits = limits.collect::<String>();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limits}exec \"$0\" \"$@\"")]);
        command.arg(binary).arg("standalone");
        for path in manifests {
            command.arg("--manifests").arg(path);
        }
        for flag in ["--https-address", "--http-address", "--status-address"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command.args([
            "--drain-delay",
            settings.drain_delay,
            "--drain-timeout",
            settings.drain_timeout,
        ]);
        command.args(&settings.flags);
        let process = Process::spawn("ws-ingress", command);

        let line = process.stdout.with("listening ").await;
        let gateway = Self {
            https: address(&line, "https="),
            http: address(&line, "http="),
            status: address(&line, "status="),
            process,
        };
        wait::until("/readyz answers 200", async || {
            (gateway.readiness().await?.0 == 200).then_some(())
        })
        .await;
        gateway
    }

    /// Status and body of `/readyz`; `None` when nobody answers.
    pub async fn readiness(&self) -> Option<(u16, String)> {
        metrics::get(self.status, "/readyz").await
    }

    /// What `/metrics` says now; `None` when nobody answers.
    pub async fn try_metrics(&self) -> Option<Metrics> {
        metrics::scrape(self.status).await
    }

    /// [`Self::try_metrics`] of a gateway that must answer.
    pub async fn metrics(&self) -> Metrics {
        wait::until("/metrics answers", async || self.try_metrics().await).await
    }

    /// Waits until so many sockets are relayed.
    pub async fn open_sockets(&self, count: u64) {
        let what = format!("{count} open sockets");
        wait::until(&what, async || {
            let open = self
                .try_metrics()
                .await?
                .sum("ws_ingress_open_sockets", &[]);
            (open == count).then_some(())
        })
        .await;
    }

    /// Logs, findings and errors in manifests.
    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until so many upstream connections wait for their next request.
    pub async fn idle_upstreams(&self, count: u64) {
        let what = format!("{count} idle upstream connections");
        wait::until(&what, async || {
            let metrics = self.try_metrics().await?;
            let idle = metrics.sum("ws_ingress_upstream_idle_connections", &[]);
            (idle == count).then_some(())
        })
        .await;
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// Waits for the end that a signal asked for: exit code 0, and the last line says what became of the sockets.
    pub async fn drained(&mut self, limit: Duration) -> String {
        let status = self.process.exit(limit).await;
        assert!(status.success(), "ws-ingress ended with {status}");
        let last = self.process.stdout.all().pop().unwrap_or_default();
        assert!(last.starts_with("drained "), "the last line is {last:?}");
        last
    }

    /// No line of the log is a warning or worse.
    #[track_caller]
    pub fn assert_quiet_log(&self) {
        for line in self.log().all() {
            let loud = ["WARN", "ERROR", "panicked"]
                .iter()
                .any(|level| line.contains(level));
            assert!(!loud, "a client must not be able to write this: {line}");
        }
    }
}

pub(crate) fn address(line: &str, key: &str) -> SocketAddr {
    let value = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key));
    let value = value.and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no address for {key} in {line:?}"))
}
