//! Two controllers that both believe they lead: the dataplane follows the later term, refuses the earlier one, and keeps
//! its table meanwhile.
//!
//! A leader steps down well before anybody may follow it, and counts time by a clock that runs on while it is stopped. Two
//! leaders at once therefore need an administrator who gives the Lease away behind the holder's back, and a network that
//! keeps the holder from hearing of it.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::kubernetes::cluster::{Cluster, shared};
use tests::kubernetes::controller::Controller;
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::front::Front;
use tests::kubernetes::impostor::{Impostor, material};
use tests::kubernetes::installed::ROUTES;
use tests::kubernetes::request::Patch;
use tests::kubernetes::site::{RECOVERY, Site, TAKEOVER, condition, counts, leads, says};
use tests::kubernetes::traffic::Traffic;
use tests::wait;

/// The host that has traffic all the time.
const NAME: &str = "chat";

/// A host that the later leader takes away, and the earlier one still has.
const LEAVING: &str = "leaving";

/// What a dataplane logs for each leader that it follows, and says of one that it does not.
const FOLLOWS: &str = "following the leader address=";
const REFUSES: &str = "an earlier leader than the one that was followed last";
const REFUSED: &str = "only an earlier leader answers";

/// How often the story of two leaders is tried: it has to happen within the 6 s that a Lease is proven for.
const TRIES: usize = 4;

/// Two controllers, the first with a network of its own to the API server, and a dataplane with clients.
struct Scene {
    site: Site,
    /// Between the first controller and the API server.
    network: Front,
    first: Controller,
    second: Controller,
    dataplane: Dataplane,
    traffic: Traffic,
    programmed: Value,
}

impl Scene {
    /// The first controller leads and the dataplane follows it.
    async fn start(cluster: &Arc<Cluster>) -> Self {
        let site = Site::install(cluster).await;
        let network = Front::start().await;
        network.lead_to(&[cluster.server.admin().server]);
        let pod = site.release.controller_pod("controller-0").await;
        let first = Controller::start_through(&site.release, pod, network.address, &[]).await;
        site.front.lead_to(&[first.push]);
        leads(&first).await;
        let dataplane = site.dataplane("dataplane-0").await;
        site.serves_new(&dataplane, NAME).await;
        let second = Controller::start(&site.release, "controller-1", &[]).await;
        says(&second, "ready, follows").await;
        Self {
            traffic: Traffic::start(&site.client(&dataplane, NAME)).await,
            programmed: programmed_since(&site).await,
            site,
            network,
            first,
            second,
            dataplane,
        }
    }

    /// From here on the dataplane reaches this controller only.
    fn reach_only(&self, controller: &Controller) {
        self.site.front.lead_to(&[controller.push]);
        self.site.front.cut();
    }

    /// Waits until the dataplane has followed so many leaders.
    async fn followed(&self, leaders: usize) {
        let what = format!("the dataplane follows leader {leaders}");
        wait::until_limit(&what, RECOVERY, async || {
            (self.dataplane.log().count(FOLLOWS) == leaders).then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` of the dataplane says this of the controllers, and sees that it is ready and serves.
    async fn dataplane_says(&self, words: &str) {
        wait::until_limit(words, RECOVERY, async || {
            let (status, page) = self.dataplane.readiness().await?;
            assert_eq!(status, 200, "{page}");
            page.contains(words).then_some(())
        })
        .await;
        let client = self.site.client(&self.dataplane, NAME);
        assert_eq!(client.status().await, Some(101));
    }

    async fn generation(&self) -> u64 {
        let metrics = self.dataplane.metrics().await;
        metrics.sum("ws_ingress_table_generation", &[])
    }

    /// What is true at the end of each of these stories.
    async fn nobody_noticed(self) {
        let Self {
            site,
            network,
            first,
            second,
            dataplane,
            traffic,
            programmed,
        } = self;
        network.thaw();
        says(&first, "ready, follows").await;
        site.front.lead_to(&[first.push, second.push]);
        let before = brought_about(&first).await;
        site.serves_new(&dataplane, "after").await;
        traffic.undisturbed().await;
        assert_eq!(
            brought_about(&first).await,
            before,
            "it writes or is followed again"
        );
        // It would be another time if the route had said anything else in between.
        assert_eq!(programmed_since(&site).await, programmed);
    }
}

async fn programmed_since(site: &Site) -> Value {
    let route = site.route(NAME).await;
    let programmed = condition(&route, "Programmed").expect("the condition");
    programmed["lastTransitionTime"].clone()
}

/// Whether it leads, as far as it knows.
async fn believes(controller: &Controller) -> bool {
    let readiness = controller.readiness().await;
    readiness.is_some_and(|(_, body)| body.contains("ready, leads"))
}

/// What a controller has brought about so far: statuses that it wrote, and updates that a dataplane answered. One that a
/// dataplane has left alone is none.
async fn brought_about(controller: &Controller) -> [u64; 2] {
    let counts = counts(controller).await;
    let [written, sent] = ["status_writes", "push_updates"]
        .map(|family| format!("ws_ingress_controller_{family}_total"));
    let alone = counts.sum(&sent, &[("outcome", "unanswered")]);
    [counts.sum(&written, &[]), counts.sum(&sent, &[]) - alone]
}

/// Waits until the holder has just renewed the Lease: the longest time to the next renewal.
async fn a_renewal(site: &Site) {
    let renewed = async || site.lease().await["spec"]["renewTime"].clone();
    let before = renewed().await;
    wait::until("the Lease is renewed", async || {
        (renewed().await != before).then_some(())
    })
    .await;
}

/// Brings about two leaders and leads the dataplane from the later one to the earlier one. The scene, once the dataplane has
/// refused it; nothing if the earlier one had given up before it could be asked.
async fn meets_an_earlier_leader(cluster: &Arc<Cluster>) -> Option<Scene> {
    let scene = Scene::start(cluster).await;
    scene.site.serves_new(&scene.dataplane, LEAVING).await;
    a_renewal(&scene.site).await;
    scene.network.freeze();
    let before = brought_about(&scene.first).await;
    let api = cluster.api();
    let nobody = json!({ "spec": { "holderIdentity": "" } });
    let path = scene.site.lease_path();
    let (code, answer) = api.patch(&path, Patch::Merge, &nobody).await;
    assert!(code.is_success(), "{answer}");
    // From here on the table of the first is out of date.
    let path = scene.site.namespace.path(ROUTES, LEAVING);
    assert!(api.delete(&path).await.0.is_success());

    leads(&scene.second).await;
    scene.reach_only(&scene.second);
    scene.followed(2).await;
    let leaving = scene.site.client(&scene.dataplane, LEAVING);
    wait::until("the second has taken a host away", async || {
        leaving.status().await.is_none().then_some(())
    })
    .await;
    let generation = scene.generation().await;
    scene.reach_only(&scene.first);
    // It refuses, or the first has found out that its Lease is not proven any more.
    wait::until("the dataplane has met the first", async || {
        let refused = scene.dataplane.log().find(REFUSES).is_some();
        let followed = scene.dataplane.log().count(FOLLOWS);
        assert_eq!(followed, 2, "it follows the earlier leader");
        (refused || !believes(&scene.first).await).then_some(())
    })
    .await;
    scene.dataplane.log().find(REFUSES)?;
    scene.dataplane_says(REFUSED).await;
    assert_eq!(scene.generation().await, generation);
    assert_eq!(leaving.status().await, None, "it came back");
    assert_eq!(
        brought_about(&scene.first).await,
        before,
        "it wrote, or its update was taken"
    );
    Some(scene)
}

#[tokio::test]
async fn a_dataplane_refuses_the_earlier_of_two_leaders_and_keeps_its_table() {
    let Some(cluster) = shared().await else {
        return;
    };
    for _ in 0..TRIES {
        if let Some(scene) = meets_an_earlier_leader(&cluster).await {
            // The next one is served by the second alone, though the first is there again.
            scene.nobody_noticed().await;
            return;
        }
    }
    panic!("two leaders at once did not come about in {TRIES} tries");
}

/// Not the API server but its own clock tells it.
#[tokio::test]
async fn a_leader_that_was_stopped_knows_that_it_does_not_lead_before_it_hears_of_it() {
    let Some(cluster) = shared().await else {
        return;
    };
    let scene = Scene::start(&cluster).await;
    let before = brought_about(&scene.first).await;
    let generation = scene.generation().await;
    scene.first.signal(Signal::STOP);
    wait::until_limit("the other leads", TAKEOVER, async || {
        believes(&scene.second).await.then_some(())
    })
    .await;
    scene.reach_only(&scene.second);
    scene.followed(2).await;

    // The dataplane knocks at the stopped one, which then goes on without an API server.
    scene.network.freeze();
    scene.reach_only(&scene.first);
    scene.dataplane_says("no controller can be reached").await;
    scene.first.signal(Signal::CONT);
    scene.dataplane_says("no controller leads").await;
    assert!(!believes(&scene.first).await);
    let counted = counts(&scene.first).await.sum(
        "ws_ingress_controller_push_refusals_total",
        &[("reason", "not_leader")],
    );
    assert!(counted > 0, "it is not counted");
    assert_eq!(brought_about(&scene.first).await, before);
    assert_eq!(scene.generation().await, generation);
    scene.nobody_noticed().await;
}

/// A played leader of a later term comes first, so that the real one is the earlier one: no time to be missed.
#[tokio::test]
async fn a_dataplane_never_goes_back_within_one_lease() {
    let Some(cluster) = shared().await else {
        return;
    };
    let site = Site::install(&cluster).await;
    let real = site.leader("controller-0").await;
    let dataplane = site.dataplane("dataplane-0").await;
    site.serves_new(&dataplane, NAME).await;
    let traffic = Traffic::start(&site.client(&dataplane, NAME)).await;
    let lease = site.lease().await;
    let uid = lease["metadata"]["uid"].as_str().expect("a uid");
    let term = lease["spec"]["leaseTransitions"].as_u64();
    let term = term.expect("a count");
    let mut later = Impostor::start(&material(&site.release).await).await;

    let reach_only = |address| {
        site.front.lead_to(&[address]);
        site.front.cut();
    };
    reach_only(later.address);
    let stream = later.next().await;
    assert!(!stream.hello.held.is_empty(), "it says what it holds");
    stream.welcome(uid, term + 1).await;
    let log = dataplane.log();
    let follows_the_later = format!(" transitions={}", term + 1);
    log.with(&follows_the_later).await;

    let sent = brought_about(&real).await[1];
    reach_only(real.push);
    wait::until_limit(REFUSES, RECOVERY, async || log.find(REFUSES)).await;
    wait::until(REFUSED, async || {
        let (status, page) = dataplane.readiness().await?;
        assert_eq!(status, 200, "{page}");
        page.contains(REFUSED).then_some(())
    })
    .await;
    assert_eq!(brought_about(&real).await[1], sent, "its update was taken");

    // The same from whoever plays it, and the term that was followed last is taken again.
    reach_only(later.address);
    let mut stream = later.next().await;
    stream.welcome(uid, term).await;
    stream.left().await;
    let stream = later.next().await;
    stream.welcome(uid, term + 1).await;
    wait::until("it follows again", async || {
        (log.count(&follows_the_later) == 2).then_some(())
    })
    .await;

    // A process that is started again in its pod begins a term of its own: now the real one is not earlier any more.
    let pod = real.kill().await;
    let real = Controller::start_in(&site.release, pod, &[]).await;
    leads(&real).await;
    reach_only(real.push);
    site.serves_new(&dataplane, "after").await;
    traffic.undisturbed().await;
}
