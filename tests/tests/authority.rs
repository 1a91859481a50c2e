//! The CA of the push, changed by hand while controllers run: its Secret is deleted.

use std::time::Duration;

use tests::kubernetes::cluster::shared;
use tests::kubernetes::controller::{Controller, authority_bundle};
use tests::kubernetes::site::{RECOVERY, Site, TAKEOVER, leads, says};
use tests::kubernetes::traffic::Traffic;
use tests::wait;

const NAME: &str = "chat";
const SECRET: &str = "secret/ws-ingress-push";

/// The replicas look every minute.
const NOTICED: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_deleted_secret_leads_to_one_new_ca_and_every_dataplane_finds_a_leader() {
    let Some(cluster) = shared().await else {
        return;
    };
    let site = Site::install(&cluster).await;
    let first = site.leader("controller-0").await;
    let second = Controller::start(&site.release, "controller-1", &[]).await;
    says(&second, "ready, follows").await;
    site.front.lead_to(&[first.push, second.push]);
    let dataplane = site.dataplane("dataplane-0").await;
    site.serves_new(&dataplane, NAME).await;
    let traffic = Traffic::start(&site.client(&dataplane, NAME)).await;
    let before = authority_bundle(&site.release).await;

    let kubectl = &site.release.namespace.kubectl;
    kubectl.ok(&["delete", SECRET]).await;
    let after = wait::until_limit("a bundle of both", NOTICED, async || {
        let bundle = authority_bundle(&site.release).await;
        (bundle != before).then_some(bundle)
    })
    .await;
    assert!(after.ends_with(&before), "the old one is still trusted");
    assert_eq!(after.matches("BEGIN CERTIFICATE").count(), 2);

    // The dataplane that runs knows the old bundle only, as a pod whose kubelet has not written the new one yet; it dials
    // the other replica and is served.
    first.kill().await;
    wait::until_limit("the other replica leads", TAKEOVER, async || {
        let (_, body) = second.readiness().await?;
        body.contains("ready, leads").then_some(())
    })
    .await;
    site.serves_new(&dataplane, "later").await;
    // And a replica and a dataplane that start now agree with it.
    let third = Controller::start(&site.release, "controller-2", &[]).await;
    says(&third, "ready, follows").await;
    site.front.lead_to(&[second.push, third.push]);
    let next = site.dataplane("dataplane-1").await;
    second.terminate(RECOVERY).await;
    leads(&third).await;
    site.serves_new(&next, "after").await;
    assert_eq!(authority_bundle(&site.release).await, after, "one new CA");
    traffic.undisturbed().await;
}
