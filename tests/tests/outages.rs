//! What the product needs is taken away from it: the API server, the definition of routes, all controllers. For rights see
//! `rights.rs`.
//! Absence of evidence keeps what is served; only evidence withdraws.

use std::fs;
use std::time::Duration;

use tests::certificate::Authority;
use tests::client::talk;
use tests::kubernetes::cluster::{definitions, own};
use tests::kubernetes::controller::{Controller, authority_bundle};
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::installed::cluster;
use tests::kubernetes::names::AUDIENCE;
use tests::kubernetes::release::PodState;
use tests::kubernetes::serving::{NAME, Serving};
use tests::kubernetes::site::{RECOVERY, Site};
use tests::wait;
use tokio::time::sleep;

/// A host that is added while something is missing, or after it.
const LATER: &str = "later";

/// Longer than every state that there is: a leader stops leading 6 s after its last renewal, the Lease is over after 10 s, and
/// the pauses between tries reach their longest, 8 s, soon after. A minute is what an upgrade of a control plane takes.
const API_SERVER_GONE: Duration = Duration::from_mins(1);

/// Each of eight watches, the Lease, the term and the dataplane's stream are told of when they begin to fail, not at each
/// try.
const MOST_LINES: usize = 20;

const DEFINITION: &str = "crd/websocketroutes.ws-ingress.dev";

#[tokio::test]
async fn an_api_server_that_is_gone_for_a_while_is_not_noticed_by_clients() {
    let Some(cluster) = own().await else {
        return;
    };
    let scene = Serving::start(&cluster).await;
    let programmed = scene.programmed_since().await;
    let handshakes = scene.traffic.handshakes();
    let lines = scene.controller.log().all().len();
    cluster.server.stop_api().await;
    // The outage is the behaviour.
    sleep(API_SERVER_GONE).await;
    for watched in ["WebSocketRoute", "Secret", "Service", "EndpointSlice"] {
        scene.grows_stale(watched, "no connection").await;
    }
    assert!(scene.traffic.handshakes() > handshakes + 50, "too few came");
    let told = scene.controller.log().all().split_off(lines);
    assert!(told.len() < MOST_LINES, "{told:#?}");
    let (status, body) = scene.dataplane.readiness().await.expect("it answers");
    assert_eq!(status, 200, "{body}");

    cluster.server.start_api().await;
    scene.site.serves_new(&scene.dataplane, LATER).await;
    for watched in ["WebSocketRoute", "Secret", "Service", "EndpointSlice"] {
        scene.is_well_again(watched).await;
    }
    assert_eq!(scene.programmed_since().await, programmed);
    scene.traffic.undisturbed().await;
}

#[tokio::test]
async fn without_their_definition_routes_are_withdrawn_and_open_sockets_live() {
    let Some(cluster) = own().await else {
        return;
    };
    let mut scene = Serving::start(&cluster).await;
    // New handshakes are to fail from here on.
    scene.traffic.nobody_new_comes().await;
    let client = scene.site.client(&scene.dataplane, NAME);
    let mut open = client.connect().await;
    cluster.kubectl.ok(&["delete", DEFINITION]).await;
    wait::until_limit("the host is not served", RECOVERY, async || {
        client.status().await.is_none().then_some(())
    })
    .await;
    talk(&mut open, "the definition is gone").await;
    scene.grows_stale("WebSocketRoute", "404").await;
    let (status, body) = scene.dataplane.readiness().await.expect("it answers");
    assert_eq!(status, 200, "{body}");

    cluster.kubectl.apply(&definitions()).await;
    cluster
        .kubectl
        .wait(DEFINITION, "condition=Established")
        .await;
    scene.site.serves_new(&scene.dataplane, NAME).await;
    scene.is_well_again("WebSocketRoute").await;
    talk(&mut open, "and there again").await;
    scene.traffic.undisturbed().await;
}

#[tokio::test]
async fn a_dataplane_without_a_controller_is_unready_until_there_is_one() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let site = Site::install(&cluster).await;
    let pod = site.release.dataplane_pod("dataplane-0").await;
    let token = site.release.dataplane_token(&pod, AUDIENCE).await;
    // No controller was ever there, so the bundle is none of ours; the file is read anew at each dial.
    let foreign = Authority::new().root_pem();
    let front = site.front.address;
    let dataplane = Dataplane::start_with(&site.release, pod, front, &foreign, &token, &[]).await;
    wait::until("unready, with both reasons", async || {
        let (status, body) = dataplane.readiness().await?;
        assert_eq!(status, 503, "{body}");
        let told = body.contains("no route table yet") && body.contains("no controller can be");
        told.then_some(())
    })
    .await;
    let client = site.client(&dataplane, NAME);
    assert_eq!(client.status().await, None);

    let _controller = site.leader("controller-0").await;
    let bundle = authority_bundle(&site.release).await;
    fs::write(&dataplane.authority_file, bundle).expect("write the bundle");
    wait::until_limit("ready", RECOVERY, async || {
        (dataplane.readiness().await?.0 == 200).then_some(())
    })
    .await;
    dataplane.publish(&site.release, PodState::Ready).await;
    site.serves_new(&dataplane, NAME).await;
}

#[tokio::test]
async fn a_dataplane_whose_controllers_are_all_gone_serves_on_and_says_for_how_long() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let scene = Serving::start(&cluster).await;
    let Serving {
        site,
        controller,
        dataplane,
        traffic,
    } = scene;
    let second = Controller::start(&site.release, "controller-1", &[]).await;
    controller.kill().await;
    second.kill().await;
    let handshakes = traffic.handshakes();
    // The age itself is to grow, so time has to pass.
    let body = wait::until_limit("it has been alone for 3 s", RECOVERY, async || {
        let (status, body) = dataplane.readiness().await?;
        assert_eq!(status, 200, "{body}");
        (alone_for(&body)? >= 3).then_some(body)
    })
    .await;
    assert!(body.contains("no controller can be reached"), "{body}");
    let metrics = dataplane.metrics().await;
    assert_eq!(metrics.sum("ws_ingress_push_following", &[]), 0);
    assert!(metrics.sum("ws_ingress_push_state_age_seconds", &[]) >= 3);
    assert!(traffic.handshakes() > handshakes, "nobody new came");

    let _third = site.leader("controller-2").await;
    site.serves_new(&dataplane, LATER).await;
    traffic.undisturbed().await;
}

/// The seconds that `/readyz` of a dataplane tells.
fn alone_for(body: &str) -> Option<u64> {
    let (_, rest) = body.split_once("no table from a controller for ")?;
    rest.split_once(" s: ")?.0.parse().ok()
}
