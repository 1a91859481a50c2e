//! What streams do when all is well, and how they end.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use push::Held;
use push::wire::{Ack, from_dataplane};
use route_table::ResourceKey;
use serde_json::json;
use tokio::time::timeout;
use tonic::Code;

use super::super::Limits;
use super::super::fake_api::{claims, token};
use super::limits::large_certificates;
use super::scene::{Dataplane, PATIENCE, Scene, backend_key, backends, limits, sent_keys, wait};

/// How often an update of this kind had this outcome.
fn updates(kind: &str, outcome: &str, count: usize) -> String {
    format!(r#"push_updates_total{{kind="{kind}",outcome="{outcome}"}} {count}"#)
}

fn ended(cause: &str) -> String {
    format!(r#"push_streams_ended_total{{cause="{cause}"}} 1"#)
}

#[tokio::test]
async fn full_set_then_deltas_each_acknowledged() {
    let scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1), ("b", 1)]));
    let mut dataplane = scene.dataplane("uid-1").await;
    let fence = dataplane.welcome().await;
    assert!(fence.lease_uid.contains("leases/lease"), "{fence:?}");
    let parts = dataplane.update().await;
    assert_eq!(parts[0].base, None);
    assert_eq!(
        sent_keys(&parts),
        ["backend/default/a/1", "backend/default/b/1"]
    );
    dataplane.ack().await;
    wait(|| {
        scene
            .deliveries
            .borrow()
            .get("uid-1")
            .is_some_and(|it| it.sequence == 1)
    })
    .await;

    scene.publish(2, backends([("b", 2), ("c", 1)]));
    let parts = dataplane.update().await;
    assert!(parts[0].base.is_some());
    assert_eq!(
        sent_keys(&parts),
        ["backend/default/b/1", "backend/default/c/1"]
    );
    assert_eq!(parts[0].removals, ["backend/default/a/1"]);
    assert_eq!(*dataplane.held.resources(), backends([("b", 2), ("c", 1)]));
    dataplane.ack().await;
    wait(|| scene.deliveries.borrow()["uid-1"].sequence == 2).await;
    let delivery = scene.deliveries.borrow()["uid-1"].clone();
    assert!(delivery.rejected.is_empty() && delivery.complete);
    scene.metric(&updates("full", "applied", 1)).await;
    scene.metric(&updates("delta", "applied", 1)).await;
    scene.metric("dataplanes_connected 1").await;
    assert!(!scene.metrics().contains("push_sent_bytes_total 0"));
}

#[tokio::test]
async fn a_dataplane_that_comes_back_gets_only_what_it_lacks() {
    let scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1)]));
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.update().await;
    dataplane.ack().await;
    wait(|| !scene.deliveries.borrow().is_empty()).await;
    let held = std::mem::take(&mut dataplane.held);
    drop(dataplane);
    scene.metric("dataplanes_connected 0").await;
    // It serves what it took all the same.
    assert_eq!(scene.deliveries.borrow()["uid-1"].sequence, 1);

    let mut dataplane = scene.dial_with("uid-1", held).await;
    dataplane.welcome().await;
    let parts = dataplane.update().await;
    assert!(parts[0].base.is_some());
    assert_eq!(sent_keys(&parts), [""; 0]);
    assert_eq!(scene.deliveries.borrow()["uid-1"].sequence, 1);
}

#[tokio::test]
async fn a_dataplane_that_comes_back_empty_has_taken_nothing() {
    let scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1)]));
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.update().await;
    dataplane.ack().await;
    wait(|| !scene.deliveries.borrow().is_empty()).await;

    let mut dataplane = scene.dial_with("uid-1", Held::default()).await;
    dataplane.welcome().await;
    assert!(scene.deliveries.borrow().is_empty());
    assert_eq!(dataplane.update().await[0].base, None);
    dataplane.ack().await;
    wait(|| !scene.deliveries.borrow().is_empty()).await;
}

#[tokio::test]
async fn rejections_are_delivered() {
    let scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1)]));
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.update().await;
    let mut ack = push::ack(&dataplane.held, &[]);
    ack.rejected.push(push::wire::Rejected {
        key: "backend/default/a/1".into(),
        reason: "no".into(),
    });
    ack.rejected_total = 2;
    dataplane.send(from_dataplane::Message::Ack(ack)).await;
    wait(|| !scene.deliveries.borrow().is_empty()).await;
    let delivery = scene.deliveries.borrow()["uid-1"].clone();
    assert!(!delivery.complete);
    let key = ResourceKey::Backend(backend_key("a"));
    assert_eq!(delivery.rejected[&key], "no");
    scene.metric(&updates("full", "rejected", 1)).await;
}

#[tokio::test]
async fn after_a_nack_the_full_set_comes() {
    let scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1)]));
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.update().await;
    dataplane.ack().await;
    scene.publish(2, backends([("a", 1), ("b", 1)]));
    let delta = dataplane.part().await;
    assert!(delta.base.is_some());
    dataplane.nack().await;
    let full = dataplane.part().await;
    assert_eq!(full.base, None);
    assert_eq!(full.upserts.len(), 2);
    dataplane.nack().await;
    assert_eq!(dataplane.update().await[0].base, None);
    dataplane.ack().await;
    wait(|| scene.deliveries.borrow()["uid-1"].sequence == 2).await;
    scene.metric(&updates("delta", "refused", 1)).await;
    scene.metric(&updates("full", "refused", 1)).await;
}

#[tokio::test]
async fn after_an_unreadable_answer_the_full_set_comes() {
    let scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1)]));
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.part().await;
    dataplane
        .send(from_dataplane::Message::Ack(Ack::default()))
        .await;
    dataplane.part().await;
    // Of a set that was never sent.
    dataplane.ack().await;
    dataplane.part().await;
    dataplane.send_unknown().await;
    assert_eq!(dataplane.update().await[0].base, None);
    assert!(scene.deliveries.borrow().is_empty());
    dataplane.ack().await;
    wait(|| !scene.deliveries.borrow().is_empty()).await;
    scene.metric(&updates("full", "unreadable", 3)).await;
}

#[tokio::test]
async fn a_slow_reader_gets_the_latest_and_nothing_between() {
    let mut scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1)]));
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.update().await;
    for sequence in 2..=50 {
        let endpoints = u16::try_from(sequence).unwrap();
        scene.publish(sequence, backends([("a", endpoints)]));
        // Each of them could have been sent.
        scene.encoded.reaches(sequence).await;
    }
    scene.publish(51, backends([("z", 1)]));
    let mut other = scene.dataplane("uid-2").await;
    other.welcome().await;
    while *other.held.resources() != backends([("z", 1)]) {
        other.update().await;
        other.ack().await;
    }
    // Everything that the slow one is ever sent is the last set.
    dataplane.ack().await;
    let parts = dataplane.update().await;
    assert_eq!(sent_keys(&parts), ["backend/default/z/1"]);
    dataplane.ack().await;
    wait(|| scene.deliveries.borrow()["uid-1"].sequence == 51).await;
}

#[tokio::test]
async fn a_message_of_a_later_build_is_let_pass_between_updates() {
    let scene = Scene::leader().await;
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.send_unknown().await;
    scene.publish(1, backends([("a", 1)]));
    dataplane.update().await;
}

#[tokio::test]
async fn leadership_lost_ends_all_streams_and_forgets_what_was_taken() {
    let scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1)]));
    let mut idle = scene.dataplane("uid-1").await;
    idle.welcome().await;
    idle.update().await;
    idle.ack().await;
    wait(|| !scene.deliveries.borrow().is_empty()).await;
    let mut busy = scene.dataplane("uid-2").await;
    busy.welcome().await;
    busy.part().await;
    scene.resign.cancel();
    for dataplane in [&mut idle, &mut busy] {
        let status = dataplane.end().await;
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "not the leader")
        );
    }
    scene.publish(2, backends([("b", 1)]));
    wait(|| scene.deliveries.borrow().is_empty()).await;
    let token = scene.token("uid-1");
    let refused = Dataplane::call(scene.channel().await, Some(&token)).await;
    assert_eq!(refused.err().unwrap().message(), "not the leader");
    scene.metric("dataplanes_connected 0").await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let scene = Scene::leader().await;
    let mut claims = claims("uid-1");
    claims["exp"] = json!((Timestamp::now() + 2.seconds()).as_second());
    let token = token(&claims);
    scene.api.accept(&token, "uid-1");
    let mut dataplane = Dataplane::call(scene.channel().await, Some(&token))
        .await
        .unwrap();
    let hello = dataplane.held.hello("p", "test");
    dataplane.send(from_dataplane::Message::Hello(hello)).await;
    dataplane.welcome().await;
    let status = dataplane.end().await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    scene.metric(&ended("token_expired")).await;
}

#[tokio::test]
async fn a_second_stream_of_a_pod_ends_the_first() {
    let scene = Scene::leader().await;
    let mut first = scene.dataplane("uid-1").await;
    first.welcome().await;
    let mut second = scene.dataplane("uid-1").await;
    second.welcome().await;
    assert_eq!(first.end().await.code(), Code::Aborted);
    scene.metric(&ended("superseded")).await;
    scene.metric("dataplanes_connected 1").await;
    scene.publish(1, backends([("a", 1)]));
    second.update().await;
}

#[tokio::test]
async fn stopping_ends_streams_and_then_the_server() {
    let scene = Scene::leader().await;
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    // Nobody knows this one yet.
    let stranger = scene.channel().await;
    scene.stop.cancel();
    let status = dataplane.end().await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    timeout(PATIENCE, scene.server)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    drop(stranger);
}

#[tokio::test]
async fn who_reads_too_slowly_or_answers_too_late_is_left() {
    let scene = Scene::with(Limits {
        part: Duration::from_millis(500),
        ..limits()
    });
    let scene = scene.await.lead().await;
    // Many parts, and nobody reads.
    scene.publish(1, large_certificates(10));
    let mut dataplane = scene.reluctant_dataplane("uid-1").await;
    dataplane.welcome().await;
    scene.metric(&ended("too_slow")).await;

    let scene = Scene::with(Limits {
        answer: Duration::from_millis(50),
        farewell: PATIENCE,
        ..limits()
    });
    let scene = scene.await.lead().await;
    scene.publish(1, backends([("a", 1)]));
    let mut dataplane = scene.dataplane("uid-1").await;
    assert_eq!(dataplane.end().await.code(), Code::DeadlineExceeded);
    scene.metric(&ended("unanswered")).await;
    scene.metric(&updates("full", "unanswered", 1)).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_whoever_comes_next() {
    let scene = Scene::leader().await;
    let mut before = scene.dataplane("uid-1").await;
    before.welcome().await;
    let next = crate::ca::Material::renew(None, Timestamp::now());
    let next = next.unwrap().unwrap();
    let config = next.server_config().unwrap();
    scene.tls.send_replace(Some(config.into()));
    scene
        .try_channel(&scene.ca, push::SERVER_NAME)
        .await
        .unwrap_err();
    scene.try_channel(&next, push::SERVER_NAME).await.unwrap();
    // Open streams live on.
    scene.publish(1, backends([("a", 1)]));
    before.update().await;
}

#[tokio::test]
async fn many_streams_are_sent_one_encoding_and_all_take_it() {
    let scene = Scene::leader().await;
    scene.publish(1, backends([("a", 1)]));
    let mut dataplanes = Vec::new();
    for index in 0..20 {
        dataplanes.push(scene.dataplane(&format!("uid-{index}")).await);
    }
    for dataplane in &mut dataplanes {
        dataplane.welcome().await;
        dataplane.update().await;
        dataplane.ack().await;
    }
    wait(|| scene.deliveries.borrow().len() == 20).await;
    scene.metric("dataplanes_connected 20").await;
}
