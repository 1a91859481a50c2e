//! External backends in a cluster: watched, judged, pushed, and looked up by a dataplane where no loopback address is a backend.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tests::dns::Dns;
use tests::echo_process::{EchoProcess, common_port, own_address};
use tests::kubernetes::cluster::{Cluster, definition, own, shared};
use tests::kubernetes::controller::{Controller, authority_bundle};
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::names::AUDIENCE;
use tests::kubernetes::site::{Site, condition, host, leads};
use tests::manifests::{Rule, Security, Tls, external, in_class, route, secret};
use tests::wait;

const NAME: &str = "outer";
const BACKEND: &str = "inner";
const INNER: &str = "inner.example.com";

/// An installation with a controller and a dataplane that asks this name server.
struct Scene {
    site: Site,
    dns: Dns,
    _controller: Controller,
    dataplane: Dataplane,
}

impl Scene {
    async fn start(flags: &[&str]) -> Option<Self> {
        Some(Self::start_in(&shared().await?, flags).await)
    }

    async fn start_in(cluster: &Arc<Cluster>, flags: &[&str]) -> Self {
        let site = Site::install(cluster).await;
        let controller = Controller::start(&site.release, "controller-0", flags).await;
        site.front.lead_to(&[controller.push]);
        leads(&controller).await;
        let dns = Dns::start().await;
        let pod = site.release.dataplane_pod("dataplane-0").await;
        let token = site.release.dataplane_token(&pod, AUDIENCE).await;
        let bundle = authority_bundle(&site.release).await;
        let resolver = dns.address.to_string();
        let flags = ["--resolver", &resolver];
        let front = site.front.address;
        let dataplane =
            Dataplane::start_with(&site.release, pod, front, &bundle, &token, &flags).await;
        dataplane.ready(&site.release).await;
        Self {
            site,
            dns,
            _controller: controller,
            dataplane,
        }
    }

    /// A route that refers to the external backend, which is not there yet.
    async fn apply_route(&self) {
        let host = host(NAME);
        let rules = [Rule::to_external(BACKEND)];
        let routes = route(NAME, &[&host], &Tls::Terminate(NAME), &rules);
        let routes = in_class(self.site.release.class(), &routes);
        let certificate = secret(NAME, &self.site.authority.issue(&[&host]));
        let kubectl = &self.site.namespace.kubectl;
        kubectl.apply(&(certificate + &routes)).await;
    }

    async fn apply_backend(&self, port: u16) {
        let backend = external(BACKEND, INNER, port, &Security::Plain);
        self.site.namespace.kubectl.apply(&backend).await;
    }

    async fn resolved_refs_becomes(&self, status: &str, reason: &str) {
        wait::until(&format!("ResolvedRefs={status} {reason}"), async || {
            let route = self.site.route(NAME).await;
            let found = condition(&route, "ResolvedRefs")?;
            let is = |field: &str, word: &str| found[field] == *word;
            (is("status", status) && is("reason", reason)).then_some(())
        })
        .await;
    }

    /// Waits until clients get this status.
    async fn answers(&self, status: u16) {
        let client = self.site.client(&self.dataplane, NAME);
        wait::until(&format!("an answer of {status}"), async || {
            (client.status().await? == status).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_external_backend_that_comes_goes_and_changes_is_followed() {
    let Some(scene) = Scene::start(&[]).await else {
        return;
    };
    let reachable = scene.site.echo.address;
    let ip = reachable.ip().to_string();
    scene.dns.leads(INNER, &[&ip], 1);
    scene.apply_route().await;
    scene
        .resolved_refs_becomes("False", "BackendNotFound")
        .await;
    scene.answers(503).await;

    scene.apply_backend(reachable.port()).await;
    scene.resolved_refs_becomes("True", "ResolvedRefs").await;
    scene.site.serves(&scene.dataplane, NAME).await;
    scene.site.statuses_are_right().await;

    let kubectl = &scene.site.namespace.kubectl;
    kubectl.ok(&["delete", "externalbackend", BACKEND]).await;
    scene
        .resolved_refs_becomes("False", "BackendNotFound")
        .await;
    scene.answers(503).await;
}

#[tokio::test]
async fn dns_leads_neither_into_the_dataplanes_own_pod_nor_where_the_operator_denies() {
    let (reachable, loopback) = (own_address(), IpAddr::from([127, 0, 0, 1]));
    let port = common_port(&[reachable, loopback]);
    let other = EchoProcess::start_at(SocketAddr::new(reachable, port), "denied", &[]).await;
    let range = format!("{reachable}/32");
    let flags = ["--denied-backend-cidr", range.as_str()];
    let Some(scene) = Scene::start(&flags).await else {
        return;
    };
    let on_loopback = SocketAddr::new(loopback, port);
    let on_loopback = EchoProcess::start_at(on_loopback, "loopback", &[]).await;
    let denied = reachable.to_string();
    scene.dns.leads(INNER, &["127.0.0.1", "::1"], 1);
    scene.apply_route().await;
    scene.apply_backend(port).await;
    scene.resolved_refs_becomes("True", "ResolvedRefs").await;
    let count = async |outcome: &str| {
        let metrics = scene.dataplane.metrics().await;
        metrics.sum("ws_ingress_name_lookups_total", &[("outcome", outcome)])
    };
    wait::until("loopback addresses are refused", async || {
        (count("denied").await > 0).then_some(())
    })
    .await;
    scene.answers(503).await;
    scene.dns.leads(INNER, &[&denied], 1);
    wait::until("the answer is the denied address", async || {
        (count("found").await > 0).then_some(())
    })
    .await;
    scene.answers(503).await;
    assert_eq!(on_loopback.handshakes().await, 0);
    assert_eq!(other.handshakes().await, 0);
}

#[tokio::test]
async fn without_the_kind_everything_else_is_served_and_once_it_comes_so_is_it() {
    // Its own: the others need the kind.
    let Some(cluster) = own().await else {
        return;
    };
    let kind = "crd/externalbackends.ws-ingress.dev";
    cluster.kubectl.ok(&["delete", kind]).await;
    let scene = Scene::start_in(&cluster, &[]).await;
    scene.site.serves_new(&scene.dataplane, "chat").await;
    scene.apply_route().await;
    scene
        .resolved_refs_becomes("False", "BackendNotFound")
        .await;
    let route = scene.site.route(NAME).await;
    let told = condition(&route, "ResolvedRefs").expect("a condition")["message"].to_string();
    assert!(told.contains("no such kind; apply"), "{told}");
    scene.answers(503).await;

    // The same words as in any cluster, as soon as it has the kind.
    cluster.kubectl.apply(&definition("externalbackends")).await;
    cluster.kubectl.wait(kind, "condition=Established").await;
    wait::until("the kind is noticed", async || {
        let route = scene.site.route(NAME).await;
        let told = condition(&route, "ResolvedRefs")?["message"].to_string();
        told.contains("does not exist; create it").then_some(())
    })
    .await;
    let reachable = scene.site.echo.address;
    let ip = reachable.ip().to_string();
    scene.dns.leads(INNER, &[&ip], 1);
    scene.apply_backend(reachable.port()).await;
    scene.resolved_refs_becomes("True", "ResolvedRefs").await;
    scene.site.serves(&scene.dataplane, NAME).await;
}
