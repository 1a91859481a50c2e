//! A controller that works has a right taken from it, and given back. What it cannot see stays as it was, what it cannot do
//! waits, and both are told; sockets and new handshakes go on throughout.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tests::client::certificate_shown;
use tests::kubernetes::installed::cluster;
use tests::kubernetes::names::AUDIENCE;
use tests::kubernetes::rights::{give_back, take};
use tests::kubernetes::serving::{NAME, Serving};
use tests::kubernetes::site::{
    RECOVERY, Site, condition, counts, host, leads, says, statuses_are_right,
};
use tests::manifests::secret;
use tests::wait;

/// Hosts that are added later.
const LATER: &str = "later";
const LAST: &str = "last";

/// How long the token of a dataplane holds, where its end is the behaviour. What has to happen before takes a few seconds.
const PROOF: Duration = Duration::from_secs(40);

/// The whole story of one kind that is watched: kept without the right to it, told, and followed again with it.
async fn kind_that_cannot_be_watched(scene: Serving, resource: &str, watched: &str) {
    let release = &scene.site.release;
    let own = Some(release.namespace.name.as_str());
    let taken = take(release, |right| {
        right.what == resource && right.namespace.as_deref() != own
    })
    .await;
    scene.grows_stale(watched, "403 Forbidden").await;
    // A list was refused by now, which is no reason to take anything back; and what is new is not known.
    scene.apply(LATER).await;
    scene.cannot_know(LATER).await;

    give_back(release, taken).await;
    scene.is_well_again(watched).await;
    scene.site.serves(&scene.dataplane, LATER).await;
    scene.site.statuses_are_right().await;
    scene.traffic.undisturbed().await;
}

/// A controller of two namespaces may do nothing any more in one of them.
async fn namespace_that_is_closed() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let closed = cluster.namespace().await;
    let scene = Serving::start_at(Site::install_beside(&closed).await).await;
    let (site, dataplane) = (&scene.site, &scene.dataplane);
    let echo = site.echo.address;
    let kubectl = &closed.kubectl;
    kubectl.apply(&site.manifests("closed", &[echo])).await;
    site.serves(dataplane, "closed").await;

    let there = Some(closed.name.as_str());
    let taken = take(&site.release, |right| right.namespace.as_deref() == there).await;
    for kind in ["WebSocketRoute", "Secret", "Service", "EndpointSlice"] {
        let watched = format!("{kind} in namespace {}", closed.name);
        scene.grows_stale(&watched, "403 Forbidden").await;
        let other = format!("{kind} in namespace {}", site.namespace.name);
        assert!(scene.is_fresh(&other).await, "{other}");
    }
    each_is_told_in_an_event(site, &closed.name).await;
    kubectl.apply(&site.manifests(LAST, &[echo])).await;
    // The other namespace goes on, and what was known of this one is served.
    site.serves_new(dataplane, LATER).await;
    site.serves(dataplane, "closed").await;
    scene.cannot_know(LAST).await;

    give_back(&site.release, taken).await;
    site.serves(dataplane, LAST).await;
    statuses_are_right(&closed).await;
    scene.traffic.undisturbed().await;
}

/// There is an event for each kind, about the Lease, with its own words.
async fn each_is_told_in_an_event(site: &Site, closed: &str) {
    let release = &site.release;
    let path = release.namespace.collection("events.k8s.io/v1/events");
    for kind in ["WebSocketRoute", "Secret", "Service", "EndpointSlice"] {
        let words = format!("{kind} in namespace {closed} cannot be watched");
        wait::until_limit(&words, RECOVERY, async || {
            let (_, list) = release.cluster().api().get(&path).await;
            let is_it = |event: &Value| {
                let note = event["note"].as_str().unwrap_or_default();
                event["regarding"]["kind"] == "Lease" && note.starts_with(&words)
            };
            let found = list["items"].as_array()?.iter().any(is_it);
            found.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_may_not_be_watched_any_more_stays_as_it_was_and_is_told_to_be_stale() {
    let Some(cluster) = cluster().await else {
        return;
    };
    // Installations of their own, which wait for the end of their watches at the same time.
    let kind = async |resource, watched| {
        let scene = Serving::start(&cluster).await;
        kind_that_cannot_be_watched(scene, resource, watched).await;
    };
    tokio::join!(
        kind("ws-ingress.dev/websocketroutes", "WebSocketRoute"),
        kind("discovery.k8s.io/endpointslices", "EndpointSlice"),
        kind("/services", "Service"),
        kind("/secrets", "Secret"),
        namespace_that_is_closed(),
    );
}

#[tokio::test]
async fn a_replaced_secret_that_may_not_be_read_keeps_the_certificate() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let scene = Serving::start(&cluster).await;
    let Site {
        namespace,
        authority,
        release,
        ..
    } = &scene.site;
    let (https, host) = (scene.dataplane.https, host(NAME));
    let shown = async || certificate_shown(https, &host, authority.root()).await.ok();
    let before = shown().await;

    let taken = take(release, |right| {
        right.what == "/secrets" && right.namespace.is_none()
    })
    .await;
    let next = authority.issue(&[&host]);
    // The watch still tells of it, but it cannot be read.
    namespace.kubectl.apply(&secret(NAME, &next)).await;
    says(&scene.controller, "warning: Secret: 1 stale: 403 Forbidden").await;
    let unread = counts(&scene.controller).await;
    assert_eq!(unread.sum("ws_ingress_controller_unread_secrets", &[]), 1);
    assert_eq!(shown().await, before);

    give_back(release, taken).await;
    wait::until_limit("the new certificate", RECOVERY, async || {
        (shown().await? == next.leaf).then_some(())
    })
    .await;
    scene.site.statuses_are_right().await;
    scene.traffic.undisturbed().await;
}

#[tokio::test]
async fn a_holder_that_may_not_renew_its_lease_steps_down_and_leads_again_with_the_right() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let scene = Serving::start(&cluster).await;
    let programmed = scene.programmed_since().await;
    let release = &scene.site.release;
    let taken = take(release, |right| right.what == "coordination.k8s.io/leases").await;
    says(&scene.controller, "warning: Lease: 403 Forbidden").await;
    says(&scene.controller, "ready, follows").await;
    scene.follows(false, RECOVERY).await;
    // It compiles this and tells nobody, neither dataplanes nor the API.
    scene.apply(LATER).await;
    scene.cannot_know(LATER).await;
    let later = scene.site.route(LATER).await;
    assert_eq!(condition(&later, "Accepted"), None);

    give_back(release, taken).await;
    leads(&scene.controller).await;
    scene.follows(true, RECOVERY).await;
    scene.site.serves(&scene.dataplane, LATER).await;
    scene.site.statuses_are_right().await;
    assert_eq!(scene.programmed_since().await, programmed);
    let (_, body) = scene.controller.readiness().await.expect("it answers");
    assert!(!body.contains("warning: "), "{body}");
    scene.traffic.undisturbed().await;
}

#[tokio::test]
async fn without_token_reviews_who_is_proved_stays_until_the_proof_ends() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let scene = Serving::start(&cluster).await;
    let (release, dataplane) = (&scene.site.release, &scene.dataplane);
    let reviews = async |outcome| {
        let labels = [("outcome", outcome)];
        let counts = counts(&scene.controller).await;
        counts.sum("ws_ingress_controller_token_reviews_total", &labels)
    };
    let streams = || {
        let log = scene.controller.log().all();
        let connected = log.iter().filter(|line| line.contains("has connected"));
        connected.count()
    };
    let connects_again = async || {
        let before = streams();
        scene.site.front.cut();
        wait::until_limit("another stream", RECOVERY, async || {
            (streams() > before).then_some(())
        })
        .await;
        scene.follows(true, RECOVERY).await;
    };
    let next = release.dataplane_token(&dataplane.pod, AUDIENCE).await;
    let short = cluster.token_for(&next, PROOF);
    fs::write(&dataplane.token_file, short).expect("write a token");
    connects_again().await;
    let proved = reviews("accepted").await;
    assert!(proved >= 2, "{proved}");

    let taken = take(release, |right| right.what.ends_with("/tokenreviews")).await;
    scene.apply(LATER).await;
    scene.site.serves(dataplane, LATER).await;
    // What was proved a moment ago need not be proved again.
    connects_again().await;
    assert_eq!(reviews("accepted").await, proved);

    // At the end of its proof it comes with the next token, as after the kubelet has renewed the file.
    fs::write(&dataplane.token_file, next).expect("write a token");
    scene.follows(false, PROOF + RECOVERY).await;
    let words = "tokens cannot be reviewed, dataplanes cannot connect";
    scene.controller.log().with(words).await;
    scene.apply(LAST).await;
    scene.cannot_know(LAST).await;
    let (_, body) = dataplane.readiness().await.expect("it answers");
    assert!(body.contains("no table from a controller for"), "{body}");
    assert_eq!(reviews("accepted").await, proved);

    give_back(release, taken).await;
    scene.follows(true, RECOVERY).await;
    let again = scene.controller.log();
    again.with("tokens can be reviewed again").await;
    scene.site.serves(dataplane, LAST).await;
    scene.site.statuses_are_right().await;
    scene.traffic.undisturbed().await;
}

#[tokio::test]
async fn a_status_that_may_not_be_written_waits_and_pushes_go_on() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let scene = Serving::start(&cluster).await;
    let programmed = scene.programmed_since().await;
    let release = &scene.site.release;
    let taken = take(release, |right| right.what.ends_with("/status")).await;
    scene.apply(LATER).await;
    scene.site.serves(&scene.dataplane, LATER).await;
    says(&scene.controller, "warning: statuses: 403 Forbidden").await;
    // It is tried again and again, and said once.
    wait::until_limit("the fourth refusal", RECOVERY, async || {
        let counts = counts(&scene.controller).await;
        let refused = [("outcome", "forbidden")];
        let refused = counts.sum("ws_ingress_controller_status_writes_total", &refused);
        (refused >= 4).then_some(())
    })
    .await;
    let log = scene.controller.log().all();
    let said = log.iter().filter(|line| line.contains("statuses cannot"));
    assert_eq!(said.count(), 1);
    says(&scene.controller, "ready, leads").await;
    let later = scene.site.route(LATER).await;
    assert_eq!(condition(&later, "Accepted"), None);

    give_back(release, taken).await;
    scene.site.statuses_are_right().await;
    assert_eq!(scene.programmed_since().await, programmed);
    let log = scene.controller.log();
    log.with("statuses can be written again").await;
    scene.traffic.undisturbed().await;
}
