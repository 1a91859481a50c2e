//! Tokens against scripted reviews, on a paused clock.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::ToSpan;
use serde_json::{Value, json};
use tokio::time::advance;

use super::*;
use crate::push_server::fake_api::{ACCOUNT, FakeApi, NAMESPACE, claims, token};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn tokens(api: &Arc<FakeApi>) -> Tokens {
    let expected = ServiceAccount {
        namespace: NAMESPACE.into(),
        name: ACCOUNT.into(),
    };
    Tokens::new(api.client(), expected, &mut Registry::default())
}

fn metadata(value: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", value.parse().unwrap());
    metadata
}

async fn prove(tokens: &Tokens, token: &str) -> Result<Pod, TokenError> {
    tokens
        .prove(&metadata(&format!("Bearer {token}")), PEER)
        .await
}

fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims("uid-1");
    change(&mut claims);
    token(&claims)
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_proved_until_its_token_ends() {
    let api = FakeApi::new();
    let shown = token(&claims("uid-1"));
    api.accept(&shown, "uid-1");
    let tokens = tokens(&api);
    let pod = prove(&tokens, &shown).await.unwrap();
    assert_eq!((&*pod.uid, &*pod.name), ("uid-1", "name-of-uid-1"));
    let left = pod.proven_until - Instant::now();
    assert!(left > Duration::from_secs(3500) && left <= Duration::from_hours(1));
    // The scheme in any case (RFC 9110 §11.1).
    let lower = metadata(&format!("bearer {shown}"));
    assert_eq!(tokens.prove(&lower, PEER).await.unwrap().uid, pod.uid);
}

/// Strangers who are turned away without a question to the API server.
#[tokio::test(start_paused = true)]
async fn what_a_token_says_itself_is_enough_to_turn_it_away() {
    let api = FakeApi::new();
    let tokens = tokens(&api);
    let check = async |metadata: MetadataMap, expected: TokenError| {
        let refused = tokens.prove(&metadata, PEER).await.unwrap_err();
        assert_eq!(refused, expected);
    };
    let bearer = |token: String| metadata(&format!("Bearer {token}"));
    check(MetadataMap::new(), TokenError::Missing).await;
    check(metadata("Basic dTpw"), TokenError::Malformed).await;
    check(metadata("Bearer"), TokenError::Malformed).await;
    check(bearer("a.b".into()), TokenError::Malformed).await;
    check(bearer("a.!.c".into()), TokenError::Malformed).await;
    check(bearer("a.e30.c".into()), TokenError::Malformed).await;
    check(bearer("a".repeat(MAX_TOKEN_BYTES)), TokenError::Malformed).await;
    let mut twice = bearer(token(&claims("uid-1")));
    twice.append("authorization", "Bearer x".parse().unwrap());
    check(twice, TokenError::Malformed).await;

    let set =
        |name: &'static str, value: Value| bearer(changed(move |claims| claims[name] = value));
    check(
        set("aud", json!(["https://kubernetes"])),
        TokenError::Audience,
    )
    .await;
    check(set("aud", json!("other")), TokenError::Audience).await;
    check(set("sub", json!("admin")), TokenError::NoServiceAccount).await;
    let other_namespace = json!(format!("system:serviceaccount:default:{ACCOUNT}"));
    check(set("sub", other_namespace), TokenError::Namespace).await;
    let other_account = json!(format!("system:serviceaccount:{NAMESPACE}:default"));
    check(set("sub", other_account), TokenError::ServiceAccount).await;
    check(set("kubernetes.io", json!({})), TokenError::NoPod).await;
    let past = (Timestamp::now() - 1.second()).as_second();
    check(set("exp", json!(past)), TokenError::Expired).await;
    assert_eq!(api.reviews(), 0);
}

/// Tokens that say the right things, and what the API server says of them.
#[tokio::test(start_paused = true)]
async fn the_review_decides() {
    let api = FakeApi::new();
    let tokens = tokens(&api);
    let mut serial = 0;
    let mut check = async |status: Value, expected: TokenError| {
        serial += 1;
        let shown = changed(|claims| claims["jti"] = json!(serial));
        api.answer(&shown, status);
        assert_eq!(prove(&tokens, &shown).await.unwrap_err(), expected);
        advance(Duration::from_secs(1)).await;
    };
    let user = |name: &str, extra: Value| json!({ "username": name, "extra": extra });
    let accepted = |user: Value| json!({ "authenticated": true, "audiences": [push::TOKEN_AUDIENCE], "user": user });
    let ours = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
    let bound = json!({
        "authentication.kubernetes.io/pod-uid": ["uid-1"],
        "authentication.kubernetes.io/pod-name": ["pod-1"],
    });
    check(json!({}), TokenError::Denied).await;
    check(json!({ "error": "signature" }), TokenError::Denied).await;
    for gone in [
        "service account token has been invalidated",
        "service account ws-ingress/ws-ingress-dataplane has been deleted",
        "pod UID (b) does not match service account pod ref claim (a)",
    ] {
        check(json!({ "error": gone }), TokenError::Revoked).await;
    }
    check(json!({ "error": "token has expired" }), TokenError::Expired).await;
    // An API server that knows nothing of audiences.
    let unaware = json!({ "authenticated": true, "user": user(&ours, bound.clone()) });
    check(unaware, TokenError::Audience).await;
    check(
        accepted(user("admin", bound.clone())),
        TokenError::NoServiceAccount,
    )
    .await;
    check(accepted(user(&ours, json!({}))), TokenError::NoPod).await;
    let another = json!({
        "authentication.kubernetes.io/pod-uid": ["uid-2"],
        "authentication.kubernetes.io/pod-name": ["pod-2"],
    });
    check(accepted(user(&ours, another)), TokenError::NoPod).await;
    assert_eq!(api.reviews(), 10);
}

#[tokio::test(start_paused = true)]
async fn verdicts_are_kept_for_a_minute_or_less() {
    let api = FakeApi::new();
    let tokens = tokens(&api);
    let good = token(&claims("uid-1"));
    let bad = token(&claims("uid-2"));
    api.accept(&good, "uid-1");
    let ask = async || {
        prove(&tokens, &good).await.unwrap();
        assert_eq!(prove(&tokens, &bad).await.unwrap_err(), TokenError::Denied);
        api.reviews()
    };
    assert_eq!(ask().await, 2);
    advance(Duration::from_secs(9)).await;
    assert_eq!(ask().await, 2);
    // The denied one again.
    advance(Duration::from_secs(2)).await;
    assert_eq!(ask().await, 3);
    // Both.
    advance(Duration::from_secs(50)).await;
    assert_eq!(ask().await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_does_not_outlive_its_token() {
    let api = FakeApi::new();
    let tokens = tokens(&api);
    let ends = (Timestamp::now() + 5.seconds()).as_second();
    let shown = changed(|claims| claims["exp"] = json!(ends));
    api.accept(&shown, "uid-1");
    prove(&tokens, &shown).await.unwrap();
    advance(Duration::from_secs(5)).await;
    // The wall clock stands still here, so the claims still pass; the verdict is asked for anew.
    prove(&tokens, &shown).await.unwrap();
    assert_eq!(api.reviews(), 2);
}

#[tokio::test(start_paused = true)]
async fn streams_that_show_one_token_at_once_cost_one_review() {
    let api = FakeApi::new();
    let tokens = tokens(&api);
    let shown = token(&claims("uid-1"));
    api.accept(&shown, "uid-1");
    let all = join_all((0..100).map(|_| prove(&tokens, &shown))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(api.reviews(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_asks_when_the_one_who_asked_is_gone() {
    let api = FakeApi::new();
    let tokens = tokens(&api);
    let shown = token(&claims("uid-1"));
    api.accept(&shown, "uid-1");
    let mut first = Box::pin(prove(&tokens, &shown));
    let mut second = Box::pin(prove(&tokens, &shown));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_forged_tokens_leave_the_reviews_bounded_and_dataplanes_welcome() {
    let api = FakeApi::new();
    let tokens = tokens(&api);
    let forged = |serial: usize| changed(|claims| claims["jti"] = json!(serial));
    let asked = (0..10_000).map(|serial| {
        let forged = forged(serial);
        let tokens = &tokens;
        async move { prove(tokens, &forged).await.unwrap_err() }
    });
    let refused = join_all(asked).await;
    let throttled = refused
        .iter()
        .filter(|error| **error == TokenError::Throttled);
    assert_eq!((api.reviews(), throttled.count()), (20, 9_980));

    let good = token(&claims("uid-1"));
    api.accept(&good, "uid-1");
    let elsewhere = IpAddr::from([10, 0, 0, 1]);
    let metadata = metadata(&format!("Bearer {good}"));
    tokens.prove(&metadata, elsewhere).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_reviews_nobody_gets_in_and_then_they_do() {
    let api = FakeApi::new();
    let tokens = tokens(&api);
    let shown = token(&claims("uid-1"));
    api.accept(&shown, "uid-1");
    api.failing.store(true, Ordering::Relaxed);
    let failed = prove(&tokens, &shown).await.unwrap_err();
    assert_eq!(failed.label(), "token_unreviewed");
    assert_eq!(failed.status().message(), "the token could not be reviewed");
    api.failing.store(false, Ordering::Relaxed);
    advance(Duration::from_secs(1)).await;
    prove(&tokens, &shown).await.unwrap();
}

#[test]
fn no_error_repeats_the_token() {
    let shown = token(&claims("canary"));
    let metadata = metadata(&format!("Bearer {shown}.x"));
    let error = Claims::read(bearer(&metadata).unwrap()).unwrap_err();
    let text = format!("{error} {error:?} {:?}", error.status());
    assert!(!text.contains(&shown[..16]));
}
