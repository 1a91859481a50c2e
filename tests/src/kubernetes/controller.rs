//! `ws-ingress-controller` as a process, as its `ServiceAccount` and never as admin.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use super::line::Line;
use super::names::{
    AUTHORITY_CONFIG_MAP, AUTHORITY_KEY, CONTROLLER_ACCOUNT, CONTROLLER_ADDRESSES,
    DATAPLANE_SERVICE, KUBECONFIG, LEASE, LISTENING,
};
use super::release::{CONTROLLER, Pod, Release, Scope};
use crate::gateway::address;
use crate::metrics;
use crate::process::{Lines, Process, guarded, program};
use crate::wait;

/// A replica of the controller.
pub struct Controller {
    process: Process,
    pod: Pod,
    /// Where dataplanes dial it.
    pub push: SocketAddr,
    pub status: SocketAddr,
}

impl Controller {
    /// Starts a replica and returns once it listens. `name` is its pod's; `flags` come last.
    pub async fn start(release: &Release, name: &str, flags: &[&str]) -> Self {
        let pod = release.controller_pod(name).await;
        Self::start_in(release, pod, flags).await
    }

    /// The same in a pod that is there already, as the kubelet starts a container again.
    pub async fn start_in(release: &Release, pod: Pod, flags: &[&str]) -> Self {
        let server = release.cluster().server.admin().server;
        Self::start_through(release, pod, server, flags).await
    }

    /// One that reaches the API server by this line alone.
    pub async fn start_behind(release: &Release, name: &str, line: &Line) -> Self {
        let pod = release.controller_pod(name).await;
        Self::start_through(release, pod, line.address, &[]).await
    }

    /// The same with another way to the API server.
    pub async fn start_through(
        release: &Release,
        pod: Pod,
        server: SocketAddr,
        flags: &[&str],
    ) -> Self {
        let namespace = &release.namespace.name;
        let cluster = release.cluster();
        let mut access = cluster.account(namespace, CONTROLLER_ACCOUNT).await;
        access.server = server;
        let kubeconfig = cluster.new_file("kubeconfig", &access.kubeconfig(namespace));

        let mut command = guarded(&program(CONTROLLER, "WS_INGRESS_CONTROLLER_BIN"));
        command
            .env(KUBECONFIG, kubeconfig)
            .envs(Release::pod_environment(&pod))
            .args(["--push-address", "127.0.0.1:0"])
            .args(["--status-address", "127.0.0.1:0"])
            .args(["--lease-namespace", namespace])
            .args(["--lease-name", LEASE])
            .args([
                "--dataplane-service",
                &format!("{namespace}/{DATAPLANE_SERVICE}"),
            ]);
        command.args(["--class", release.class()]);
        if let Scope::Namespaces(watched) = &release.scope {
            for name in watched {
                command.args(["--watch-namespace", name]);
            }
        }
        command.args(flags);
        let process = Process::spawn(&pod.name, command);
        let line = process.stdout.with(LISTENING).await;
        let [push, status] = CONTROLLER_ADDRESSES.map(|key| address(&line, key));
        Self {
            process,
            pod,
            push,
            status,
        }
    }

    /// Status and body of `/readyz`; `None` when nobody answers.
    pub async fn readiness(&self) -> Option<(u16, String)> {
        metrics::get(self.status, "/readyz").await
    }

    /// All that it printed so far, stdout first.
    pub fn printed(&self) -> Vec<String> {
        [self.process.stdout.all(), self.process.stderr.all()].concat()
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills it and waits until it is gone. Its pod stays.
    pub async fn kill(mut self) -> Pod {
        self.process.signal(Signal::KILL);
        self.process.exit(wait::LIMIT).await;
        self.pod
    }

    /// Ends it as a rollout does.
    pub async fn terminate(mut self, limit: Duration) {
        self.process.signal(Signal::TERM);
        let status = self.process.exit(limit).await;
        assert!(status.success(), "the controller ended with {status}");
    }
}

/// The public bundle of the push, waited for: the controller writes it.
pub async fn authority_bundle(release: &Release) -> String {
    let path = release
        .namespace
        .path("v1/configmaps", AUTHORITY_CONFIG_MAP);
    wait::until("the controller publishes its authority", async || {
        let (_, map) = release.cluster().api().get(&path).await;
        Some(map["data"][AUTHORITY_KEY].as_str()?.to_owned())
    })
    .await
}
