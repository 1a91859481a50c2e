//! What the product needs is taken away from it: the API server, rights, the definition of routes, all controllers.
//! Absence of evidence keeps what is served; only evidence withdraws.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tests::certificate::Authority;
use tests::client::{certificate_shown, talk};
use tests::kubernetes::assumed::AUDIENCE;
use tests::kubernetes::cluster::{Cluster, definition, own, shared};
use tests::kubernetes::controller::{Controller, authority_bundle};
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::release::{PodState, built};
use tests::kubernetes::request::Patch;
use tests::kubernetes::site::{RECOVERY, Site, condition, counts, host, says};
use tests::kubernetes::traffic::Traffic;
use tests::manifests::secret;
use tests::wait;
use tokio::time::sleep;

/// The host that has traffic all the time, and one that is added while something is missing.
const NAME: &str = "chat";
const LATER: &str = "later";

/// A watch goes on with the rights that it began with, and the controller asks for 60 s of it; 30 s more are for a loaded
/// machine. Nothing but time ends it sooner.
const WATCH_ENDS: Duration = Duration::from_secs(90);

/// Longer than every state that there is: a leader stops leading 6 s after its last renewal, the Lease is over after 10 s, and
/// the pauses between tries reach their longest, 8 s, soon after. A minute is what an upgrade of a control plane takes.
const API_SERVER_GONE: Duration = Duration::from_mins(1);

/// Each of seven watches, the Lease, the term and the dataplane's stream are told of when they begin to fail, not at each
/// try.
const MOST_LINES: usize = 20;

const DEFINITION: &str = "crd/websocketroutes.ws-ingress.dev";

/// A controller, a dataplane, and clients that talk through it.
struct Scene {
    site: Site,
    controller: Controller,
    dataplane: Dataplane,
    traffic: Traffic,
}

impl Scene {
    async fn start(cluster: &Arc<Cluster>) -> Self {
        let site = Site::install(cluster).await;
        let controller = site.leader("controller-0").await;
        let dataplane = site.dataplane("dataplane-0").await;
        site.serves_new(&dataplane, NAME).await;
        let traffic = Traffic::start(&site.client(&dataplane, NAME)).await;
        Self {
            site,
            controller,
            dataplane,
            traffic,
        }
    }

    /// Whether the controller's metrics say that this is watched.
    async fn is_fresh(&self, watched: &str) -> bool {
        let labels = [("watched", watched)];
        let counts = counts(&self.controller).await;
        counts.sum("ws_ingress_controller_watch_fresh", &labels) == 1
    }

    /// Waits until the controller says, in both places, that this grows stale, and for this reason. It stays ready.
    async fn grows_stale(&self, watched: &str, why: &str) {
        let words = format!("warning: {watched}: stale for ");
        wait::until_limit(&words, WATCH_ENDS, async || {
            let (status, body) = self.controller.readiness().await?;
            assert_eq!(status, 200, "{body}");
            let line = body.lines().find(|line| line.starts_with(&words))?;
            line.contains(why).then_some(())
        })
        .await;
        assert!(!self.is_fresh(watched).await, "{watched}");
    }

    /// Waits until it does not say so any more.
    async fn is_well_again(&self, watched: &str) {
        let words = format!("{watched} is watched again");
        wait::until_limit(&words, RECOVERY, async || {
            self.is_fresh(watched).await.then_some(())
        })
        .await;
        let (_, body) = self.controller.readiness().await.expect("it answers");
        assert!(!body.contains(&format!("warning: {watched}: ")), "{body}");
    }

    /// Takes the right to this resource from the controller and returns what it had.
    async fn take_right(&self, resource: &str) -> Value {
        let (_, role) = self.site.namespace.cluster.api().get(&self.role()).await;
        let rules = role["rules"].as_array().expect("rules").clone();
        let left: Vec<_> = rules
            .iter()
            .filter(|rule| rule["resources"] != json!([resource]))
            .cloned()
            .collect();
        assert_eq!(left.len() + 1, rules.len(), "one rule is for {resource}");
        self.give_rights(&Value::Array(left)).await;
        Value::Array(rules)
    }

    async fn give_rights(&self, rules: &Value) {
        let api = self.site.namespace.cluster.api();
        let patch = json!({ "rules": rules });
        let (status, answer) = api.patch(&self.role(), Patch::Merge, &patch).await;
        assert!(status.is_success(), "{answer}");
    }

    fn role(&self) -> String {
        let namespace = &self.site.release.namespace.name;
        format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{namespace}-watch")
    }

    async fn apply_later(&self) {
        let manifests = self.site.manifests(LATER, &[self.site.echo.address]);
        self.site.namespace.kubectl.apply(&manifests).await;
    }

    /// The whole story of one right: kept without it, told, and followed again with it.
    async fn without_right(self, resource: &str, watched: &str) {
        let rules = self.take_right(resource).await;
        self.grows_stale(watched, "403 Forbidden").await;
        // A list was refused by now, which is no reason to take anything back; and what is new is not known.
        self.apply_later().await;
        let client = self.site.client(&self.dataplane, LATER);
        let handshakes = self.traffic.handshakes();
        wait::until("more handshakes", async || {
            (self.traffic.handshakes() > handshakes + 10).then_some(())
        })
        .await;
        assert_ne!(client.status().await, Some(101), "it cannot be known");

        self.give_rights(&rules).await;
        self.is_well_again(watched).await;
        self.site.serves(&self.dataplane, LATER).await;
        self.site.statuses_are_right().await;
        self.traffic.undisturbed().await;
    }
}

/// A cluster that others use too, or one that only this test disturbs; `None` when something is missing, which is
/// recorded.
async fn cluster(alone: bool) -> Option<Arc<Cluster>> {
    match (built(), alone) {
        (false, _) => None,
        (true, true) => own().await,
        (true, false) => shared().await,
    }
}

async fn programmed_since(site: &Site) -> Value {
    let route = site.route(NAME).await;
    let programmed = condition(&route, "Programmed").expect("the condition");
    programmed["lastTransitionTime"].clone()
}

#[tokio::test]
async fn an_api_server_that_is_gone_for_a_while_is_not_noticed_by_clients() {
    let Some(cluster) = cluster(true).await else {
        return;
    };
    let scene = Scene::start(&cluster).await;
    let programmed = programmed_since(&scene.site).await;
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
    assert_eq!(programmed_since(&scene.site).await, programmed);
    scene.traffic.undisturbed().await;
}

#[tokio::test]
async fn without_a_right_what_it_showed_stays_and_is_told_to_be_stale() {
    let Some(cluster) = cluster(false).await else {
        return;
    };
    // Installations of their own, which wait for the end of their watches at the same time.
    let story = async |resource, watched| {
        let scene = Scene::start(&cluster).await;
        scene.without_right(resource, watched).await;
    };
    tokio::join!(
        story("websocketroutes", "WebSocketRoute"),
        story("endpointslices", "EndpointSlice"),
        story("secrets", "Secret"),
    );
}

#[tokio::test]
async fn a_replaced_secret_that_may_not_be_read_keeps_the_certificate() {
    let Some(cluster) = cluster(false).await else {
        return;
    };
    let scene = Scene::start(&cluster).await;
    let Site {
        namespace,
        authority,
        ..
    } = &scene.site;
    let (https, host) = (scene.dataplane.https, host(NAME));
    let shown = async || certificate_shown(https, &host, authority.root()).await.ok();
    let before = shown().await;

    let rules = scene.take_right("secrets").await;
    let next = authority.issue(&[&host]);
    // The watch still tells of it, but it cannot be read.
    namespace.kubectl.apply(&secret(NAME, &next)).await;
    let words = format!("warning: Secret {}/{NAME}: stale", namespace.name);
    says(&scene.controller, &words).await;
    let unread = counts(&scene.controller).await;
    assert_eq!(unread.sum("ws_ingress_controller_unread_secrets", &[]), 1);
    assert_eq!(shown().await, before);

    scene.give_rights(&rules).await;
    wait::until_limit("the new certificate", RECOVERY, async || {
        (shown().await? == next.leaf).then_some(())
    })
    .await;
    scene.site.statuses_are_right().await;
    scene.traffic.undisturbed().await;
}

#[tokio::test]
async fn without_their_definition_routes_are_withdrawn_and_open_sockets_live() {
    let Some(cluster) = cluster(true).await else {
        return;
    };
    let mut scene = Scene::start(&cluster).await;
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

    cluster.kubectl.apply(&definition()).await;
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
    let Some(cluster) = cluster(false).await else {
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
    let Some(cluster) = cluster(false).await else {
        return;
    };
    let scene = Scene::start(&cluster).await;
    let Scene {
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
