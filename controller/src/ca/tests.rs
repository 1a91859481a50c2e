//! The Secret and the `ConfigMap` in a scripted API server, on a clock that stands still: a sleep lets the replicas' own waits run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::*;
use crate::push_server::fake_api::{FakeApi, NAMESPACE};

const SECRET: &str = "/api/v1/namespaces/ws-ingress/secrets/ca";
const BUNDLE: &str = "/api/v1/namespaces/ws-ingress/configmaps/ca-bundle";

fn authority(api: &Arc<FakeApi>) -> Authority {
    let names = CaNames {
        namespace: NAMESPACE.into(),
        secret: "ca".into(),
        bundle: "ca-bundle".into(),
    };
    Authority::new(api.client(), names).0
}

/// Looks until that succeeds, as `run` does.
async fn settle(authority: &mut Authority, now: Timestamp) {
    for _ in 0..20 {
        match authority.look(now).await {
            Ok(()) => return,
            Err(CaError::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("conflicts without end");
}

fn bundle(api: &FakeApi) -> String {
    let bundle = api.get(BUNDLE).unwrap();
    bundle["data"][BUNDLE_KEY].as_str().unwrap().to_owned()
}

/// The CA certificates in the Secret.
fn stored_authorities(api: &FakeApi) -> String {
    let secret = api.get(SECRET).unwrap();
    let encoded = secret["data"]["ca.crt"].as_str().unwrap();
    String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap()
}

#[tokio::test]
async fn three_replicas_that_start_at_once_make_one_ca() {
    let api = FakeApi::new();
    let now = Timestamp::now();
    let mut replicas = [(); 3].map(|()| authority(&api));
    futures_util::future::join_all(replicas.each_mut().map(|replica| settle(replica, now))).await;
    // Two created a Secret too late, and two a ConfigMap, or were at least once not the first.
    assert!(api.conflicts.load(Ordering::Relaxed) >= 2);
    let [first, second, third] = replicas.map(|replica| replica.held.unwrap());
    assert!(first == second && second == third);
    assert_eq!(bundle(&api), first.bundle_pem());
    assert_eq!(stored_authorities(&api), first.bundle_pem());
}

#[tokio::test]
async fn replicas_that_renew_at_once_agree() {
    let api = FakeApi::new();
    let now = Timestamp::now();
    let mut replicas = [(); 3].map(|()| authority(&api));
    futures_util::future::join_all(replicas.each_mut().map(|replica| settle(replica, now))).await;
    let later = now + (24 * 600).hours();
    futures_util::future::join_all(replicas.each_mut().map(|replica| settle(replica, later))).await;
    let [first, second, third] = replicas.map(|replica| replica.held.unwrap());
    assert!(first == second && second == third);
    assert_eq!(first.authorities(), 2);
    assert_eq!(bundle(&api), first.bundle_pem());
}

#[tokio::test]
async fn nothing_is_written_when_nothing_is_due() {
    let api = FakeApi::new();
    let now = Timestamp::now();
    let mut replica = authority(&api);
    settle(&mut replica, now).await;
    let written = [SECRET, BUNDLE].map(|path| api.get(path));
    let mut tls = replica.tls.subscribe();
    tls.mark_unchanged();
    settle(&mut replica, now).await;
    settle(&mut authority(&api), now).await;
    assert_eq!([SECRET, BUNDLE].map(|path| api.get(path)), written);
    assert!(!tls.has_changed().unwrap());
}

#[tokio::test]
async fn a_secret_that_is_deleted_or_damaged_makes_all_replicas_follow_one_new_ca() {
    let api = FakeApi::new();
    let now = Timestamp::now();
    let mut replicas = [(); 3].map(|()| authority(&api));
    futures_util::future::join_all(replicas.each_mut().map(|replica| settle(replica, now))).await;
    let first = bundle(&api);
    let shown = replicas[0].held.clone().unwrap();
    let change: [&dyn Fn(); 3] = [
        &|| api.remove(SECRET),
        &|| api.edit(SECRET, |secret| secret["data"]["tls.key"] = "".into()),
        &|| {
            api.remove(SECRET);
            api.remove(BUNDLE);
        },
    ];
    for change in change {
        let before = bundle(&api);
        change();
        let settling = replicas.each_mut().map(|replica| settle(replica, now));
        futures_util::future::join_all(settling).await;
        // One more, and the dataplanes know who signed the certificate that all replicas go on showing.
        let after = bundle(&api);
        assert!(after.ends_with(&before) && after != before);
        assert_eq!(stored_authorities(&api), after);
        for replica in &replicas {
            let held = replica.held.as_ref().unwrap();
            assert!(held.same_server(&shown));
            assert_eq!(held.bundle_pem(), after);
        }
    }
    assert!(bundle(&api).ends_with(&first));

    api.edit(BUNDLE, |bundle| bundle["data"][BUNDLE_KEY] = "?".into());
    settle(&mut replicas[1], now).await;
    assert_eq!(bundle(&api), stored_authorities(&api));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_nobody_remembers_is_replaced_after_a_while_and_the_old_bundle_stays() {
    let change: [&dyn Fn(&FakeApi); 2] = [
        &|api| api.edit(SECRET, |secret| secret["data"] = Value::Null),
        &|api| api.remove(SECRET),
    ];
    for change in change {
        let api = FakeApi::new();
        let now = Timestamp::now();
        settle(&mut authority(&api), now).await;
        let before = bundle(&api);
        change(&api);
        let mut replica = authority(&api);
        let left = replica.look(now).await.unwrap_err();
        assert!(matches!(left, CaError::Orphaned), "{left}");
        sleep(LOOK_EVERY + RETRY[1]).await;
        replica.look(now).await.unwrap_err();
        assert_eq!(bundle(&api), before);
        assert!(replica.tls.borrow().is_none());
        sleep(RETRY[1]).await;
        settle(&mut replica, now).await;
        let after = bundle(&api);
        assert!(after.ends_with(&before) && after != before);
        assert_eq!(stored_authorities(&api), after);
    }
}

#[tokio::test]
async fn a_replica_that_runs_goes_before_one_that_has_just_started() {
    let api = FakeApi::new();
    let now = Timestamp::now();
    let mut running = authority(&api);
    settle(&mut running, now).await;
    let shown = running.held.clone().unwrap();
    api.remove(SECRET);
    let mut started = authority(&api);
    started.look(now).await.unwrap_err();
    settle(&mut running, now).await;
    settle(&mut started, now).await;
    // Both show what every dataplane trusts.
    assert!(started.held.unwrap().same_server(&shown));
}

#[tokio::test]
async fn a_bundle_without_a_certificate_is_none() {
    let api = FakeApi::new();
    let now = Timestamp::now();
    settle(&mut authority(&api), now).await;
    api.remove(SECRET);
    api.edit(BUNDLE, |bundle| bundle["data"][BUNDLE_KEY] = "?".into());
    settle(&mut authority(&api), now).await;
    assert_eq!(stored_authorities(&api), bundle(&api));
    // One that has ended is none either.
    api.remove(SECRET);
    settle(&mut authority(&api), now + (24 * 800).hours()).await;
}

#[tokio::test]
async fn what_others_wrote_on_the_objects_stays() {
    let api = FakeApi::new();
    let mut replica = authority(&api);
    settle(&mut replica, Timestamp::now()).await;
    api.edit(SECRET, |secret| {
        secret["metadata"]["labels"] = json!({ "team": "a" });
    });
    api.edit(BUNDLE, |bundle| {
        bundle["metadata"]["labels"] = json!({ "team": "a" });
        bundle["data"]["other"] = "kept".into();
    });
    settle(&mut replica, Timestamp::now() + (24 * 600).hours()).await;
    let [secret, bundle] = [SECRET, BUNDLE].map(|path| api.get(path).unwrap());
    assert_eq!(secret["metadata"]["labels"]["team"], "a");
    assert_eq!(bundle["metadata"]["labels"]["team"], "a");
    assert_eq!(bundle["data"]["other"], "kept");
}

#[tokio::test]
async fn an_older_bundle_never_replaces_a_newer_one() {
    let api = FakeApi::new();
    let now = Timestamp::now();
    let mut slow = authority(&api);
    settle(&mut slow, now).await;
    // What the slow replica read just before another one renewed.
    let found = slow.api.bundle().await.unwrap();
    let old = slow.held.clone().unwrap().bundle_pem();
    settle(&mut authority(&api), now + (24 * 600).hours()).await;
    let newer = bundle(&api);
    assert_ne!(newer, old);
    let refused = slow.api.write_bundle(found, &old).await.unwrap_err();
    assert!(matches!(refused, CaError::Conflict(_)), "{refused}");
    assert_eq!(bundle(&api), newer);
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_until_it_is_stopped() {
    let api = FakeApi::new();
    api.failing.store(true, Ordering::Relaxed);
    let replica = authority(&api);
    let mut tls = replica.tls.subscribe();
    let stop = CancellationToken::new();
    let running = replica.run(stop.clone());
    let story = async {
        // The clock runs as far as anybody waits.
        sleep(Duration::from_mins(1)).await;
        assert!(tls.borrow().is_none());
        api.failing.store(false, Ordering::Relaxed);
        tls.wait_for(Option::is_some).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let before = bundle(&api);
        api.remove(BUNDLE);
        sleep(LOOK_EVERY).await;
        assert_eq!(bundle(&api), before);
        stop.cancel();
    };
    tokio::join!(running, story);
}

#[tokio::test]
async fn without_the_api_server_the_last_certificate_is_shown() {
    let api = FakeApi::new();
    api.failing.store(true, Ordering::Relaxed);
    let mut replica = authority(&api);
    let failed = replica.look(Timestamp::now()).await.unwrap_err();
    assert!(matches!(failed, CaError::Api { .. }), "{failed}");
    assert!(replica.tls.borrow().is_none());
    api.failing.store(false, Ordering::Relaxed);
    settle(&mut replica, Timestamp::now()).await;
    api.failing.store(true, Ordering::Relaxed);
    replica.look(Timestamp::now()).await.unwrap_err();
    assert!(replica.tls.borrow().is_some());
}
