//! The usual scene in a cluster: a controller and a dataplane of one installation, a namespace with routes, and what the
//! routes say of themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::cluster::Cluster;
pub use super::cluster::shared as cluster;
use super::controller::{Controller, authority_bundle};
use super::dataplane::Dataplane;
use super::names::AUDIENCE;
use super::namespace::Namespace;
use super::release::{Release, Scope};
use crate::certificate::Authority;
use crate::client::Dial;
use crate::manifests::{Rule, Tls, endpoints, in_class, route, secret, service};
use crate::scene::{HOST, SECRET, SERVICE};
use crate::wait;

/// The routes, as [`Namespace::path`] wants them.
pub const ROUTES: &str = "ws-ingress.dev/v1alpha1/websocketroutes";

/// The name of the usual route, of [`HOST`].
pub const ROUTE: &str = "chat";

/// An installation that is ready.
pub struct Installed {
    pub controller: Controller,
    pub dataplane: Dataplane,
    pub release: Release,
    /// Where the routes are.
    pub namespace: Namespace,
    pub authority: Authority,
}

impl Installed {
    pub async fn start(cluster: &Arc<Cluster>) -> Self {
        Self::start_with(cluster, &[]).await
    }

    /// With these flags for both programs.
    pub async fn start_with(cluster: &Arc<Cluster>, flags: &[&str]) -> Self {
        let release = Release::install(cluster, Scope::Cluster).await;
        let controller = Controller::start(&release, "controller-0", flags).await;
        let bundle = authority_bundle(&release).await;
        let pod = release.dataplane_pod("dataplane-0").await;
        let token = release.dataplane_token(&pod, AUDIENCE).await;
        let dataplane =
            Dataplane::start_with(&release, pod, controller.push, &bundle, &token, flags).await;
        dataplane.ready(&release).await;
        Self {
            controller,
            dataplane,
            namespace: cluster.namespace().await,
            authority: Authority::new(),
            release,
        }
    }

    /// Routes in the class of this installation.
    pub fn routes(&self, text: &str) -> String {
        in_class(self.release.class(), text)
    }

    /// The usual route, with these rules.
    pub fn usual_route(&self, rules: &[Rule]) -> String {
        self.routes(&route(ROUTE, &[HOST], &Tls::Terminate(SECRET), rules))
    }

    /// Applies the usual route, all of [`HOST`] to this backend, and waits until it is programmed.
    pub async fn serve(&self, backend: SocketAddr) {
        self.serve_by(&[Rule::to(SERVICE)], backend).await;
    }

    /// The same by these rules of [`SERVICE`].
    pub async fn serve_by(&self, rules: &[Rule], backend: SocketAddr) {
        let manifests = [
            secret(SECRET, &self.authority.issue(&[HOST])),
            service(SERVICE),
            endpoints(SERVICE, &[backend]),
            self.usual_route(rules),
        ];
        self.namespace.kubectl.apply(&manifests.concat()).await;
        is_programmed(&self.namespace, ROUTE).await;
        self.takes(HOST, "/").await;
    }

    /// Waits until a new socket of this host and path is taken.
    pub async fn takes(&self, host: &str, path: &str) {
        let dial = self.client_of(host).path(path);
        wait::until(&format!("{host}{path} is served"), async || {
            (dial.status().await == Some(101)).then_some(())
        })
        .await;
    }

    /// A wss client of [`HOST`].
    pub fn client(&self) -> Dial {
        self.client_of(HOST)
    }

    pub fn client_of(&self, host: &str) -> Dial {
        Dial::wss(self.dataplane.https, host, self.authority.root())
    }

    /// Tables that were swapped in so far.
    pub async fn swaps(&self) -> u64 {
        let metrics = self.dataplane.metrics().await;
        metrics.sum("ws_ingress_table_swaps_total", &[])
    }
}

/// A route as it stands in the API.
pub async fn read_route(namespace: &Namespace, name: &str) -> Value {
    let path = namespace.path(ROUTES, name);
    let (code, route) = namespace.cluster.api().get(&path).await;
    assert!(code.is_success(), "GET {path}: {code} {route}");
    route
}

/// One condition of a route.
pub fn condition<'a>(route: &'a Value, condition_type: &str) -> Option<&'a Value> {
    let conditions = route.pointer("/status/conditions")?.as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == condition_type)
}

/// Waits until a route says this of the generation that it has: type, status, reason. The whole route.
pub async fn says(namespace: &Namespace, name: &str, expected: [&str; 3]) -> Value {
    let [condition_type, status, reason] = expected;
    let what = format!("{}/{name}: {expected:?}", namespace.name);
    wait::until(&what, async || {
        let route = read_route(namespace, name).await;
        let condition = condition(&route, condition_type)?;
        let generation = &route["metadata"]["generation"];
        let holds = condition["status"] == status
            && condition["reason"] == reason
            && condition["observedGeneration"] == *generation;
        holds.then_some(route)
    })
    .await
}

/// [`says`] that it is programmed.
pub async fn is_programmed(namespace: &Namespace, name: &str) -> Value {
    says(namespace, name, ["Programmed", "True", "Programmed"]).await
}

/// Waits until a time that is written now differs from all that were written before: Kubernetes has whole seconds.
pub async fn a_later_second() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let since = now().expect("a time after 1970").as_secs();
    wait::until("a later second", async || {
        (now()?.as_secs() > since).then_some(())
    })
    .await;
}
