//! Programs die or hang without a word: probes say so, the kubelet starts them again, and who did not depend on them does
//! not notice. How long it takes is printed.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::node::crowd::{Crowd, Gone};
use tests::node::faults::{Fault, inflict};
use tests::node::newcomers::Newcomers;
use tests::node::objects::{Deployment, Pod};
use tests::node::site::{BACKEND, CONTROLLER, DATAPLANE, Site};
use tests::node::{Node, eventually, take};
use tests::scene::SERVICE;
use tokio::time::Instant;

const SOCKETS: usize = 100;

/// New handshakes that show that they are still taken.
const MORE: u64 = 20;

/// Waits until the container of a pod was started again and is ready; in between it must not have been.
async fn comes_back(node: &Node, deployment: Deployment, before: &Pod) {
    let what = format!("{} is started again and ready", before.name);
    let after = eventually(&what, async || {
        let pod = deployment.pod(node, &before.name).await?;
        (pod.restarts > before.restarts && pod.ready).then_some(pod)
    })
    .await;
    assert_ne!(
        after.ready_since, before.ready_since,
        "it was ready all the time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_is_replaced_and_nobody_notices() {
    let site = Site::serving(take().await).await;
    let (node, client) = (&site.node, site.client());
    let leader = leader(node).await;
    let crowd = Crowd::gather(&client, SOCKETS).await;
    let newcomers = Newcomers::begin(&client).await;

    let start = Instant::now();
    inflict(node, Fault::Kill, &leader, "/ws-ingress-controller").await;
    change_is_programmed(&site).await;
    let programmed = start.elapsed();
    comes_back(node, CONTROLLER, &leader).await;
    println!(
        "controller killed: a change is programmed after {programmed:.1?}, the pod is ready after {:.1?}",
        start.elapsed()
    );
    newcomers.all_were_taken().await;
    assert_eq!(crowd.only_these_were_told(&Gone::default()).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_dataplane_takes_its_own_sockets_only() {
    let site = Site::serving(take().await).await;
    let (node, client) = (&site.node, site.client());
    let pod = DATAPLANE.pods(node).await.remove(0);
    let crowd = Crowd::gather(&client, SOCKETS).await;

    let start = Instant::now();
    inflict(node, Fault::Kill, &pod, "/ws-ingress-dataplane").await;
    let mut gone = Gone::default();
    gone.dataplanes.insert(pod.ip.clone());
    let lost = crowd.only_these_ended(&gone).await.len();
    site.echoes().await;
    let taken = start.elapsed();
    comes_back(node, DATAPLANE, &pod).await;
    println!(
        "dataplane killed: {lost} of {SOCKETS} sockets lost, new ones are taken after {taken:.1?}, the pod is ready after {:.1?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backend_takes_its_own_sockets_only() {
    let site = Site::serving(take().await).await;
    let (node, client) = (&site.node, site.client());
    let pod = BACKEND.pods(node).await.remove(0);
    let crowd = Crowd::gather(&client, SOCKETS).await;

    let start = Instant::now();
    inflict(node, Fault::Kill, &pod, "/echo").await;
    let mut gone = Gone::default();
    gone.backends.insert(pod.name.clone());
    let lost = crowd.only_these_ended(&gone).await.len();
    site.echoes().await;
    let taken = start.elapsed();
    comes_back(node, BACKEND, &pod).await;
    println!(
        "backend killed: {lost} of {SOCKETS} sockets lost, new ones are taken after {taken:.1?}, the pod is ready after {:.1?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataplane_that_hangs_is_taken_out_and_then_started_again() {
    let site = Site::serving(take().await).await;
    let node = &site.node;
    let pod = DATAPLANE.pods(node).await.remove(0);

    let start = Instant::now();
    inflict(node, Fault::Stop, &pod, "/ws-ingress-dataplane").await;
    eventually("a pod that hangs is not ready", async || {
        (!DATAPLANE.pod(node, &pod.name).await?.ready).then_some(())
    })
    .await;
    site.echoes().await;
    let taken = start.elapsed();
    eventually("a pod that hangs is started again", async || {
        let now = DATAPLANE.pod(node, &pod.name).await?;
        (now.restarts > pod.restarts && now.ready).then_some(())
    })
    .await;
    println!(
        "dataplane stopped: new sockets are taken after {taken:.1?}, the pod is started again and ready after {:.1?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_controllers_old_dataplanes_serve_and_a_new_one_is_not_ready() {
    let site = Site::serving(take().await).await;
    let (node, client) = (&site.node, site.client());
    let crowd = Crowd::gather(&client, SOCKETS).await;
    let newcomers = Newcomers::begin(&client).await;
    CONTROLLER.scale(node, 0).await;
    CONTROLLER.settled(node).await;
    DATAPLANE.scale(node, 3).await;

    let fresh = eventually("a new pod says why it is not ready", async || {
        let pods = DATAPLANE.pods(node).await;
        let pod = pods.into_iter().find(|pod| !pod.ready)?;
        let namespace = DATAPLANE.namespace(node);
        let name = ["logs", "--namespace", namespace, &pod.name];
        let output = node.kubectl.run(&name, "").await;
        output.stderr.is_empty().then_some(())?;
        output.stdout.contains("listening ").then_some(pod)
    })
    .await;
    newcomers.more(MORE).await;
    let pods = DATAPLANE.pods(node).await;
    let ready: Vec<_> = pods.iter().map(|pod| pod.ready).collect();
    assert_eq!(ready.iter().filter(|ready| **ready).count(), 2, "{pods:?}");

    let start = Instant::now();
    CONTROLLER.scale(node, 2).await;
    site.settled().await;
    println!(
        "controllers gone and back: {} is ready {:.1?} after them",
        fresh.name,
        start.elapsed()
    );
    newcomers.all_were_taken().await;
    assert_eq!(crowd.only_these_were_told(&Gone::default()).await, 0);
}

/// The controller that holds the Lease.
async fn leader(node: &Node) -> Pod {
    eventually("a controller leads", async || {
        for pod in CONTROLLER.pods(node).await {
            let metrics = CONTROLLER.metrics(node, &pod).await;
            if metrics.sum("ws_ingress_controller_leader", &[]) == 1 {
                return Some(pod);
            }
        }
        None
    })
    .await
}

/// Changes the route and waits until that generation is programmed.
async fn change_is_programmed(site: &Site) {
    // Another value each time.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let read = 3600 + now.expect("a time after 1970").as_secs() % 3600;
    let patch = format!(
        "[{{\"op\": \"add\", \"path\": \"/spec/rules/0/timeouts\", \"value\": {{\"read\": \"{read}s\"}}}}]"
    );
    let arguments = [
        "--namespace",
        site.node.installation.chat,
        "patch",
        "wsr",
        SERVICE,
        "--type=json",
        "-p",
        &patch,
    ];
    site.node.kubectl.ok(&arguments).await;
    eventually("a changed route is programmed", async || {
        let route = site.route().await;
        let conditions = route["status"]["conditions"].as_array()?;
        let programmed = conditions.iter().any(|condition: &Value| {
            condition["type"] == "Programmed"
                && condition["status"] == "True"
                && condition["observedGeneration"] == route["metadata"]["generation"]
        });
        programmed.then_some(())
    })
    .await;
}
