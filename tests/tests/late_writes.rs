//! A write that was on its way for longer than its sender led: it must not replace what was written meanwhile.

use std::time::Duration;

use serde_json::json;
use tests::kubernetes::cluster::shared;
use tests::kubernetes::controller::Controller;
use tests::kubernetes::installed::ROUTES;
use tests::kubernetes::line::Line;
use tests::kubernetes::request::Patch;
use tests::kubernetes::site::{RECOVERY, Site, condition, counts, leads};
use tests::manifests::service;
use tests::wait;
use tokio::time::{Instant, sleep};

const NAME: &str = "chat";

/// The controller gives a status 3 s to be written; what is late by less still arrives.
const LATE: Duration = Duration::from_secs(2);

/// Looks in between; each takes one of the Lease's requests or none by chance.
const TRIES: usize = 10;

#[tokio::test]
async fn a_status_that_arrives_late_is_refused_and_written_anew() {
    let Some(cluster) = shared().await else {
        return;
    };
    let site = Site::install(&cluster).await;
    let line = Line::to(cluster.server.admin().server).await;
    let controller = Controller::start_behind(&site.release, "controller-0", &line).await;
    site.front.lead_to(&[controller.push]);
    leads(&controller).await;
    let dataplane = site.dataplane("dataplane-0").await;
    site.serves_new(&dataplane, NAME).await;

    for _ in 0..TRIES {
        be_late(&site, &line).await;
        says_what_is_missing(&site).await;
        let labels = [("outcome", "outdated")];
        let outdated = counts(&controller).await;
        let outdated = outdated.sum("ws_ingress_controller_status_writes_total", &labels);
        site.namespace.kubectl.apply(&service(NAME)).await;
        site.statuses_are_right().await;
        if outdated > 0 {
            return;
        }
    }
    panic!("no write was refused in {TRIES} tries");
}

/// Holds what the controller has to say about a Service that is gone until somebody else has written.
async fn be_late(site: &Site, line: &Line) {
    line.hold_requests();
    let held = Instant::now();
    let kubectl = &site.namespace.kubectl;
    kubectl.ok(&["delete", "service", NAME]).await;
    // One of them is the Lease's, most likely; if the status is not among them, the next try is. Between two looks at the line.
    while line.held() < 2 && held.elapsed() < LATE {
        sleep(Duration::from_millis(20)).await;
    }
    let manager = format!("ws-ingress.dev/controller/{}", site.release.namespace.name);
    let path = site.namespace.path(ROUTES, NAME) + "/status";
    let newer = json!({
        "apiVersion": "ws-ingress.dev/v1alpha1",
        "kind": "WebSocketRoute",
        "metadata": { "name": NAME },
        "status": { "conditions": [{
            "type": "ResolvedRefs",
            "status": "True",
            "reason": "ResolvedRefs",
            "message": format!("the next leader's, {held:?}"),
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] },
    });
    let api = site.namespace.cluster.api();
    let (code, answer) = api.patch(&path, Patch::Apply(&manager), &newer).await;
    assert!(code.is_success(), "{answer}");
    line.release_requests();
}

async fn says_what_is_missing(site: &Site) {
    wait::until_limit("the Service is missing", RECOVERY, async || {
        let route = site.route(NAME).await;
        let resolved = condition(&route, "ResolvedRefs")?;
        (resolved["reason"] == "BackendNotFound").then_some(())
    })
    .await;
}
