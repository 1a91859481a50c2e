//! An installation that serves hosts, for tests that take something away from it: routes in a namespace of their own, an
//! echo backend, and a front for the controllers that come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::controller::Controller;
use super::dataplane::Dataplane;
use super::front::Front;
use super::installed::ROUTES;
use super::names::LEASE;
use super::namespace::Namespace;
use super::release::{Release, Scope};
use crate::certificate::Authority;
use crate::client::{Dial, talk};
use crate::echo_process::EchoProcess;
use crate::manifests::{Rule, Tls, endpoints, in_class, route, secret, service};
use crate::metrics::{Metrics, scrape};
use crate::wait;

/// Longest time from a controller that leads to its table on every dataplane and its statuses. A dataplane dials at least
/// every 10 s and may meet a replica that does not lead, or one that does not answer for 5 s, before the one that does.
pub const RECOVERY: Duration = Duration::from_secs(45);

/// Longest time until a replica leads after another was killed, or after another installation gave up the class: a Lease ends after
/// 11 s and the lists of a new term may take 10 s, and what another installation does is looked at every 10 s. The rest is for a
/// loaded machine.
pub const TAKEOVER: Duration = Duration::from_secs(35);

/// What serves. The controllers and dataplanes are the test's own.
pub struct Site {
    pub release: Release,
    /// Where the routes are.
    pub namespace: Namespace,
    pub front: Front,
    pub authority: Authority,
    pub echo: EchoProcess,
}

/// The host of the route of this name.
pub fn host(name: &str) -> String {
    format!("{name}.example.com")
}

impl Site {
    pub async fn install(cluster: &Arc<Cluster>) -> Self {
        Self::of_release(Release::install(cluster, Scope::Cluster).await).await
    }

    /// Of this installation.
    pub async fn of_release(release: Release) -> Self {
        let namespace = release.cluster().namespace().await;
        Self::of(release, namespace).await
    }

    /// With a controller that watches only the namespace of the site and this one.
    pub async fn install_beside(other: &Namespace) -> Self {
        let cluster = &other.cluster;
        let namespace = cluster.namespace().await;
        let watched = [&namespace, other].map(|namespace| namespace.name.clone());
        let release = Release::install(cluster, Scope::Namespaces(watched.to_vec())).await;
        Self::of(release, namespace).await
    }

    async fn of(release: Release, namespace: Namespace) -> Self {
        Self {
            release,
            namespace,
            front: Front::start().await,
            authority: Authority::new(),
            echo: EchoProcess::start_reachable("echo").await,
        }
    }

    /// A controller, waited for until it leads. It is the only one behind the front.
    pub async fn leader(&self, name: &str) -> Controller {
        let controller = Controller::start(&self.release, name, &[]).await;
        self.front.lead_to(&[controller.push]);
        leads(&controller).await;
        controller
    }

    /// A dataplane behind the front, ready and part of its Service.
    pub async fn dataplane(&self, name: &str) -> Dataplane {
        let dataplane = Dataplane::start(&self.release, name, self.front.address).await;
        dataplane.ready(&self.release).await;
        dataplane
    }

    /// The objects of a host that leads to these addresses: Secret, Service, slices, route, all of this name.
    pub fn manifests(&self, name: &str, backends: &[SocketAddr]) -> String {
        let host = host(name);
        let routes = route(name, &[&host], &Tls::Terminate(name), &[Rule::to(name)]);
        [
            secret(name, &self.authority.issue(&[&host])),
            service(name),
            endpoints(name, backends),
            in_class(self.release.class(), &routes),
        ]
        .concat()
    }

    /// A client of the host of this name.
    pub fn client(&self, dataplane: &Dataplane, name: &str) -> Dial {
        Dial::wss(dataplane.https, &host(name), self.authority.root())
    }

    /// A change of all that is watched, and its way to clients and back into the status.
    pub async fn serves_new(&self, dataplane: &Dataplane, name: &str) {
        let manifests = self.manifests(name, &[self.echo.address]);
        self.namespace.kubectl.apply(&manifests).await;
        self.serves(dataplane, name).await;
        self.statuses_are_right().await;
    }

    /// Waits until a new handshake leads to the backend.
    pub async fn serves(&self, dataplane: &Dataplane, name: &str) {
        let client = self.client(dataplane, name);
        let what = format!("{} is served", host(name));
        let mut socket = wait::until_limit(&what, RECOVERY, async || {
            client.try_connect().await.ok().map(|(socket, _)| socket)
        })
        .await;
        talk(&mut socket, "after the change").await;
    }

    /// Waits until every condition of every route is true of its present generation.
    pub async fn statuses_are_right(&self) {
        statuses_are_right(&self.namespace).await;
    }

    /// Where the Lease of the controllers is.
    pub fn lease_path(&self) -> String {
        let namespace = &self.release.namespace;
        namespace.path("coordination.k8s.io/v1/leases", LEASE)
    }

    /// The Lease of the controllers, which must be there.
    pub async fn lease(&self) -> Value {
        let (status, lease) = self.namespace.cluster.api().get(&self.lease_path()).await;
        assert!(status.is_success(), "{status} {lease}");
        lease
    }

    /// The route of this name, as it is in the API.
    pub async fn route(&self, name: &str) -> Value {
        let path = self.namespace.path(ROUTES, name);
        self.namespace.cluster.api().get(&path).await.1
    }
}

/// [`Site::statuses_are_right`] of the routes in this namespace.
pub async fn statuses_are_right(namespace: &Namespace) {
    let path = namespace.collection(ROUTES);
    wait::until_limit("every status is right", RECOVERY, async || {
        let (_, list) = namespace.cluster.api().get(&path).await;
        let routes = list["items"].as_array()?;
        let right = !routes.is_empty() && routes.iter().all(is_right);
        right.then_some(())
    })
    .await;
}

fn is_right(route: &Value) -> bool {
    ["Accepted", "ResolvedRefs", "Programmed"]
        .iter()
        .all(|kind| {
            condition(route, kind).is_some_and(|condition| {
                condition["status"] == "True"
                    && condition["observedGeneration"] == route["metadata"]["generation"]
            })
        })
}

/// One condition of a route.
pub fn condition<'a>(route: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = route["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Waits until this controller says that it leads.
pub async fn leads(controller: &Controller) {
    says(controller, "ready, leads").await;
}

/// Waits until `/readyz` of this controller is 200 and holds these words.
pub async fn says(controller: &Controller, words: &str) {
    let what = format!("/readyz of a controller says {words:?}");
    wait::until_limit(&what, RECOVERY, async || {
        let (status, body) = controller.readiness().await?;
        (status == 200 && body.contains(words)).then_some(())
    })
    .await;
}

/// The metrics of a controller.
pub async fn counts(controller: &Controller) -> Metrics {
    wait::until("/metrics answers", async || scrape(controller.status).await).await
}
