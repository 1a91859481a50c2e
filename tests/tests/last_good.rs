//! What a dataplane does with what it cannot use: one resource keeps its last good form, a whole update changes nothing.
//!
//! A real controller checks what it sends, so the test plays one, with the certificate of the real one.

use bytes::Bytes;
use prost::Message as _;
use tests::certificate::Issued;
use tests::client::alert;
use tests::kubernetes::controller::authority_bundle;
use tests::kubernetes::impostor::Answer;
use tests::kubernetes::installed::cluster;
use tests::kubernetes::names::AUDIENCE;
use tests::kubernetes::played::{BACKEND, Played, host};
use tests::kubernetes::push::wire::{Resource, Route, Update};
use tests::kubernetes::push::{
    backend_key, certificate, certificate_key, certificate_of, resource, route, route_key,
};
use tests::kubernetes::site::{Site, counts};
use tests::kubernetes::stranger::Stranger;
use tests::wait;

const NAME: &str = "chat";

/// Body of a resource that nobody can read.
const GARBAGE: &[u8] = b"\xff\xff\xff";

/// A route that can be read and not be served.
fn route_without_a_match() -> Resource {
    let mut unusable = route(NAME, &host(NAME), &[], BACKEND);
    let mut message = Route::decode(unusable.body).expect("our own bytes");
    message.rules[0].matches.clear();
    unusable.body = message.encode_to_vec().into();
    unusable
}

/// What takes the place of something good and cannot be used, and words of the reason.
fn unusable(played: &Played, shown: &Issued) -> Vec<(Resource, &'static str)> {
    let other = played.issue(NAME);
    vec![
        (resource(route_key(NAME), &[], GARBAGE), "body"),
        (route_without_a_match(), "rule 0 has no path match"),
        (resource(certificate_key(NAME), &[], GARBAGE), "body"),
        (certificate_of(NAME, &other, shown), "key"),
        (resource(backend_key(BACKEND), &[], GARBAGE), "body"),
    ]
}

#[tokio::test]
async fn new_handshakes_have_the_last_good_form_of_what_cannot_be_used() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let (played, mut stream) = Played::start(&cluster).await;
    let shown = played.issue(NAME);
    let good = played
        .hosts(&[NAME, "other"])
        .with(certificate(NAME, &shown));
    assert_eq!(stream.taken(good.full()).await, []);
    for (unusable, words) in unusable(&played, &shown) {
        let key = unusable.key.clone();
        let bad = good.clone().with(unusable);
        let rejected = stream.taken(bad.since(&good)).await;
        let [(named, reason)] = &rejected[..] else {
            panic!("{key} alone is rejected, and not {rejected:?}");
        };
        assert_eq!(*named, key);
        assert!(reason.contains(words), "{key}: {reason}");
        assert_eq!(played.count("push_rejected_resources").await, 1);
        // A new handshake, by the form before.
        assert_eq!(played.shown(NAME).await.expect("TLS"), shown.leaf);
        played.serves(NAME).await;

        // It is still so for who asks later, and everything else goes on.
        let late = played.hosts(&["late"]);
        let grown = bad.clone().and(&late);
        assert_eq!(stream.taken(grown.since(&bad)).await, rejected);
        played.serves(NAME).await;
        played.serves("late").await;
        played.serves("other").await;

        // A removal is never kept out by it.
        let gone = grown.clone().without(&key);
        assert_eq!(stream.taken(gone.since(&grown)).await, []);
        is_gone(&played, &key).await;

        // Without a last good form it is closed.
        let back = gone.clone().with(bad.get(&key));
        assert_eq!(stream.taken(back.since(&gone)).await, rejected);
        is_gone(&played, &key).await;

        assert_eq!(stream.taken(good.since(&back)).await, []);
        assert_eq!(played.shown(NAME).await.expect("TLS"), shown.leaf);
        played.serves(NAME).await;
    }
}

/// What a client sees without this resource.
async fn is_gone(played: &Played, key: &str) {
    if key == backend_key(BACKEND) {
        assert_eq!(played.client(NAME).status().await, Some(503), "{key}");
        return;
    }
    let error = played.shown(NAME).await.expect_err("a handshake");
    assert!(alert(&error).is_some(), "{key}: {error}");
    played.serves("other").await;
}

#[tokio::test]
async fn an_update_that_does_not_come_to_its_version_is_refused_whole() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let (played, mut stream) = Played::start(&cluster).await;
    let good = played.hosts(&[NAME]);
    assert_eq!(stream.taken(good.full()).await, []);
    // Told after the swap, by another task than the one that acknowledges.
    let generation = wait::until("the first table is told of", async || {
        Some(played.count("table_generation").await).filter(|generation| *generation > 0)
    })
    .await;
    let more = good.clone().and(&played.hosts(&["more"]));

    let digest = Bytes::from_static(&[7; 32]);
    let mut wrong = more.since(&good);
    wrong.version = digest.clone();
    let mut full = more.full();
    full.version = digest.clone();
    let mut short = more.since(&good);
    short.version = digest.slice(..31);
    let mut elsewhere = more.since(&good);
    elsewhere.base = Some(digest);
    for (update, words) in [
        (wrong, "as it says"),
        (full, "as it says"),
        (short, "a version is not 32 bytes long"),
        (elsewhere, "is held"),
    ] {
        match stream.update(update).await {
            Answer::Nack(nack) => {
                assert!(nack.reason.contains(words), "{}", nack.reason);
            }
            Answer::Ack(ack) => panic!("it was taken: {ack:?}"),
        }
        played
            .dataplane
            .log()
            .with("the controller sent an update that cannot be applied")
            .await;
        assert_eq!(played.count("table_generation").await, generation);
        played.serves(NAME).await;
        played.shown("more").await.expect_err("it was not taken");
    }
    // The stream goes on, and the right one is taken.
    assert_eq!(stream.taken(more.since(&good)).await, []);
    played.serves("more").await;
}

/// The other end of the same: a real controller, and a dataplane that refuses.
#[tokio::test]
async fn an_update_that_was_refused_is_counted_and_all_is_sent_again() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let site = Site::install(&cluster).await;
    let controller = site.leader("controller-0").await;
    let dataplane = site.dataplane("dataplane-0").await;
    site.serves_new(&dataplane, NAME).await;

    let pod = site.release.dataplane_pod("refuses").await;
    let token = site.release.dataplane_token(&pod, AUDIENCE).await;
    let bundle = authority_bundle(&site.release).await;
    let stranger = Stranger::new(controller.push, &bundle);
    let stream = stranger.call(Some(&token)).await;
    let mut stream = stream.expect("it is let in");
    stream.welcome().await;
    let all = stream.update().await;
    stream.ack(&all, &[]).await;
    site.namespace
        .kubectl
        .apply(&site.manifests("later", &[site.echo.address]))
        .await;
    let delta = stream.update().await;
    assert!(delta[0].base.is_some(), "only what is new");
    stream.nack(&delta, "it comes to another version").await;
    let again = stream.update().await;
    assert_eq!(again[0].base, None, "everything");
    let upserts = |parts: &[Update]| parts.iter().map(|part| part.upserts.len()).sum::<usize>();
    assert!(upserts(&again) > upserts(&all));
    stream.ack(&again, &[]).await;

    let labels = [("kind", "delta"), ("outcome", "refused")];
    let counts = counts(&controller).await;
    let refused = counts.sum("ws_ingress_controller_push_updates_total", &labels);
    assert_eq!(refused, 1);
    let words = "a dataplane refused an update; it gets the full set";
    let line = controller.log().with(words).await;
    assert!(line.contains("it comes to another version"), "{line}");
    // The other one saw nothing of it.
    site.serves(&dataplane, "later").await;
    site.serves(&dataplane, NAME).await;
    assert_eq!(dataplane.log().count("following the leader"), 1);
}
