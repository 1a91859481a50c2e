//! `ws-ingress-dataplane` as a process: it has no credentials for the API, only a token for the controller. Its pod is an
//! object, and its place in the Service an `EndpointSlice` that the test writes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::controller::authority_bundle;
use super::names::{AUDIENCE, CONTROLLER_HOST, DATAPLANE_ADDRESSES, LISTENING};
use super::release::{DATAPLANE, Pod, PodState, Release};
use crate::gateway::address;
use crate::metrics::{self, Metrics};
use crate::process::{Lines, Process, guarded, program};
use crate::wait;

/// A pod of the dataplane and its process.
pub struct Dataplane {
    process: Process,
    pub pod: Pod,
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub status: SocketAddr,
    pub admin: SocketAddr,
    /// Re-read by the dataplane at every dial; a test may replace them.
    pub authority_file: PathBuf,
    pub token_file: PathBuf,
}

impl Dataplane {
    /// Starts one that dials these controllers' port, with the right token and bundle, and waits until it listens. It is
    /// not a pod of the Service before [`Self::publish`].
    pub async fn start(release: &Release, name: &str, controller: SocketAddr) -> Self {
        let bundle = authority_bundle(release).await;
        let pod = release.dataplane_pod(name).await;
        let token = release.dataplane_token(&pod, AUDIENCE).await;
        Self::start_with(release, pod, controller, &bundle, &token, &[]).await
    }

    /// The same with whatever token and bundle; `flags` come last.
    pub async fn start_with(
        release: &Release,
        pod: Pod,
        controller: SocketAddr,
        bundle: &str,
        token: &str,
        flags: &[&str],
    ) -> Self {
        let cluster = release.cluster();
        let authority_file = cluster.new_file("ca.crt", bundle);
        let token_file = cluster.new_file("token", token);
        let mut command = guarded(&program(DATAPLANE, "WS_INGRESS_DATAPLANE_BIN"));
        command
            .envs(Release::pod_environment(&pod))
            .arg("--controller")
            .arg(format!("{CONTROLLER_HOST}:{}", controller.port()))
            .arg("--ca-file")
            .arg(&authority_file)
            .arg("--token-file")
            .arg(&token_file);
        for flag in [
            "--https-address",
            "--http-address",
            "--status-address",
            "--admin-address",
        ] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command
            .args(["--drain-delay", "0s", "--drain-timeout", "5s"])
            .args(flags);
        let process = Process::spawn(&pod.name, command);
        let line = process.stdout.with(LISTENING).await;
        let [https, http, status, admin] = DATAPLANE_ADDRESSES.map(|key| address(&line, key));
        Self {
            process,
            pod,
            https,
            http,
            status,
            admin,
            authority_file,
            token_file,
        }
    }

    /// Waits until it is ready, and makes it a pod of the Service: what kubelet and controller-manager would do.
    pub async fn ready(&self, release: &Release) {
        wait::until("the dataplane is ready", async || {
            (self.readiness().await?.0 == 200).then_some(())
        })
        .await;
        self.publish(release, PodState::Ready).await;
    }

    /// Says so in the Service's slices.
    pub async fn publish(&self, release: &Release, state: PodState) {
        release.publish(&self.pod, self.https.port(), state).await;
    }

    /// Status and body of `/readyz`; `None` when nobody answers.
    pub async fn readiness(&self) -> Option<(u16, String)> {
        metrics::get(self.status, "/readyz").await
    }

    pub async fn metrics(&self) -> Metrics {
        wait::until("/metrics answers", async || {
            metrics::scrape(self.status).await
        })
        .await
    }

    /// All that it printed so far, stdout first.
    pub fn printed(&self) -> Vec<String> {
        [self.process.stdout.all(), self.process.stderr.all()].concat()
    }

    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the end that a signal asked for; the last line it printed.
    pub async fn drained(&mut self, limit: Duration) -> String {
        let status = self.process.exit(limit).await;
        assert!(status.success(), "the dataplane ended with {status}");
        self.process.stdout.all().pop().unwrap_or_default()
    }
}
