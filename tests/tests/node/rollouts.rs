//! Pods are replaced while hundreds of sockets talk and new ones come: who was held by a pod that went away hears 1001,
//! nobody else hears anything, and every new handshake succeeds at once. No client tries twice.

use std::collections::BTreeSet;

use serde_json::json;
use tests::node::crowd::{Crowd, Gone};
use tests::node::helm::Helm;
use tests::node::newcomers::Newcomers;
use tests::node::objects::{Deployment, Pod};
use tests::node::site::{BACKEND, CONTROLLER, DATAPLANE, Site};
use tests::node::{Node, eventually, take};
use tokio::time::Instant;

const SOCKETS: usize = 300;

/// New handshakes after everything is in place: a node's proxy may be a second late.
const AFTERWARDS: u64 = 30;

/// Does something to the installation. Panics when a client saw what it should not; how many sockets were told to go.
pub(crate) async fn while_it_serves(
    site: &Site,
    what: &str,
    action: impl AsyncFnOnce(&Node),
) -> usize {
    let (node, client) = (&site.node, site.client());
    let (dataplanes, backends) = (DATAPLANE.pods(node).await, BACKEND.pods(node).await);
    let crowd = Crowd::gather(&client, SOCKETS).await;
    for pod in &dataplanes {
        let what = format!("{} counts the sockets that it holds", pod.name);
        eventually(&what, async || {
            let metrics = DATAPLANE.metrics(node, pod).await;
            let count = metrics.sum("ws_ingress_open_sockets", &[]);
            (count == crowd.through(&pod.ip)).then_some(())
        })
        .await;
    }
    let newcomers = Newcomers::begin(&client).await;

    let start = Instant::now();
    action(node).await;
    site.settled().await;
    let settled = start.elapsed();
    newcomers.more(AFTERWARDS).await;
    let taken = newcomers.all_were_taken().await;

    let (kept, kept_backends) = (DATAPLANE.uids(node).await, BACKEND.uids(node).await);
    let gone = |pods: Vec<Pod>, kept: &BTreeSet<String>| {
        let gone = pods.into_iter().filter(|pod| !kept.contains(&pod.uid));
        gone.collect::<Vec<_>>()
    };
    let dataplanes = gone(dataplanes, &kept).into_iter().map(|pod| pod.ip);
    let backends = gone(backends, &kept_backends)
        .into_iter()
        .map(|pod| pod.name);
    let gone = Gone {
        dataplanes: dataplanes.collect(),
        backends: backends.collect(),
    };
    let told = crowd.only_these_were_told(&gone).await;
    println!(
        "{what}: settled in {settled:.1?}, {told} of {SOCKETS} sockets heard 1001, {taken} new handshakes"
    );
    told
}

/// 1 -> 3, all three replaced, 3 -> 1. How many sockets each step told to go.
async fn one_three_one(site: &Site, deployment: Deployment) -> [usize; 3] {
    let name = deployment.name;
    deployment.scale(&site.node, 1).await;
    site.settled().await;
    let up = while_it_serves(site, &format!("{name} 1 -> 3"), async |node| {
        deployment.scale(node, 3).await;
    })
    .await;
    let restart = while_it_serves(site, &format!("{name} restarted"), async |node| {
        deployment.restart(node).await;
    })
    .await;
    let down = while_it_serves(site, &format!("{name} 3 -> 1"), async |node| {
        deployment.scale(node, 1).await;
    })
    .await;
    [up, restart, down]
}

#[tokio::test(flavor = "multi_thread")]
async fn dataplanes_come_and_go() {
    let site = Site::serving(take().await).await;
    let [up, restart, down] = one_three_one(&site, DATAPLANE).await;
    assert_eq!(up, 0);
    assert_eq!(restart, SOCKETS, "every pod was replaced");
    assert!(0 < down && down < SOCKETS, "{down}");
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_come_and_go_and_nobody_notices() {
    let site = Site::serving(take().await).await;
    assert_eq!(one_three_one(&site, CONTROLLER).await, [0; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_come_and_go_and_their_own_close_arrives() {
    let site = Site::serving(take().await).await;
    let [up, restart, down] = one_three_one(&site, BACKEND).await;
    assert_eq!(up, 0);
    assert_eq!(restart, SOCKETS, "every pod was replaced");
    assert!(0 < down && down < SOCKETS, "{down}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_replaces_the_pods_in_good_order() {
    let site = Site::serving(take().await).await;
    let told = while_it_serves(&site, "helm upgrade", async |_| {
        let values =
            "dataplane.podAnnotations.revision=next,controller.podAnnotations.revision=next";
        site.upgrade(Helm::Four, values).await;
    })
    .await;
    assert_eq!(told, SOCKETS, "every pod was replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_dataplane_drains() {
    let site = Site::serving(take().await).await;
    let told = while_it_serves(&site, "a dataplane evicted", async |node| {
        let pods = DATAPLANE.pods(node).await;
        let name = &pods.first().expect("a pod of the dataplane").name;
        let namespace = DATAPLANE.namespace(node);
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": name, "namespace": namespace },
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
        let arguments = ["create", "--raw", &path, "-f", "-"];
        let output = node.kubectl.run(&arguments, &eviction.to_string()).await;
        assert!(output.success, "{}", output.stderr);
    })
    .await;
    assert!(0 < told && told < SOCKETS, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_a_daemon_set_replaces_its_pods_in_good_order() {
    let site = Site::serving(take().await).await;
    // One pod a node, so that on one node nobody else can take its place.
    let kind = "dataplane.kind=DaemonSet";
    site.upgrade(Helm::Four, kind).await;
    site.settled().await;
    site.echoes().await;
    let told = while_it_serves(&site, "helm upgrade of a DaemonSet", async |_| {
        let values = format!("{kind},dataplane.podAnnotations.revision=next");
        site.upgrade(Helm::Four, &values).await;
    })
    .await;
    assert_eq!(told, SOCKETS, "every pod was replaced");
    // As the other tests have it.
    site.upgrade(Helm::Four, "").await;
    site.settled().await;
}
