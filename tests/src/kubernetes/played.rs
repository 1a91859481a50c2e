//! A real dataplane that follows a controller which a test plays: for what no real controller says.

use rustls::pki_types::CertificateDer;

use super::cluster::Cluster;
use super::controller::{Controller, authority_bundle};
use super::dataplane::Dataplane;
use super::impostor::{Impostor, Served, material};
use super::names::AUDIENCE;
use super::push::{Set, backend, certificate, route};
use super::release::{Release, Scope};
use crate::certificate::{Authority, Issued};
use crate::client::{Dial, certificate_shown, talk};
use crate::echo_process::EchoProcess;
use std::io;
use std::sync::Arc;

/// The backend of every route.
pub const BACKEND: &str = "echo";

/// The real one has made the keys of the push and does nothing else: nobody dials it.
pub struct Played {
    pub release: Release,
    pub impostor: Impostor,
    pub dataplane: Dataplane,
    pub authority: Authority,
    echo: EchoProcess,
    _real: Controller,
}

/// The host of the route of this name.
pub fn host(name: &str) -> String {
    format!("{name}.example.com")
}

impl Played {
    /// With the dataplane's first stream, which has been welcomed.
    pub async fn start(cluster: &Arc<Cluster>) -> (Self, Served) {
        let release = Release::install(cluster, Scope::Cluster).await;
        let real = Controller::start(&release, "controller-0", &[]).await;
        let bundle = authority_bundle(&release).await;
        let mut impostor = Impostor::start(&material(&release).await).await;
        let pod = release.dataplane_pod("dataplane-0").await;
        let token = release.dataplane_token(&pod, AUDIENCE).await;
        let address = impostor.address;
        let dataplane = Dataplane::start_with(&release, pod, address, &bundle, &token, &[]).await;
        let stream = impostor.next().await;
        stream.welcome("lease", 1).await;
        let played = Self {
            release,
            impostor,
            dataplane,
            authority: Authority::new(),
            echo: EchoProcess::start_reachable("echo").await,
            _real: real,
        };
        (played, stream)
    }

    pub fn issue(&self, name: &str) -> Issued {
        self.authority.issue(&[&host(name)])
    }

    /// Hosts of these names, each with its route and certificate.
    pub fn hosts(&self, names: &[&str]) -> Set {
        let set = Set::default().with(backend(BACKEND, self.echo.address));
        names.iter().fold(set, |set, name| {
            set.with(certificate(name, &self.issue(name))).with(route(
                name,
                &host(name),
                &[],
                BACKEND,
            ))
        })
    }

    pub fn client(&self, name: &str) -> Dial {
        Dial::wss(self.dataplane.https, &host(name), self.authority.root())
    }

    /// A new handshake leads to the backend.
    pub async fn serves(&self, name: &str) {
        let mut socket = self.client(name).connect().await;
        talk(&mut socket, "a new one").await;
    }

    /// The certificate that a new handshake shows.
    pub async fn shown(&self, name: &str) -> io::Result<CertificateDer<'static>> {
        certificate_shown(self.dataplane.https, &host(name), self.authority.root()).await
    }

    /// One of the dataplane's own counts.
    pub async fn count(&self, family: &str) -> u64 {
        let metrics = self.dataplane.metrics().await;
        metrics.sum(&format!("ws_ingress_{family}"), &[])
    }
}
