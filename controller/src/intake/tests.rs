use std::time::Duration;

use kube::api::DynamicObject;
use serde_json::json;

use super::*;
use crate::decode::decode;
use crate::failure::Failure;

fn source(kind: Kind) -> Source {
    Source {
        kind,
        namespace: None,
    }
}

fn all_sources() -> [Source; 5] {
    [
        Kind::WebSocketRoute,
        Kind::Secret,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::ReferenceGrant,
    ]
    .map(source)
}

fn intake() -> Intake {
    Intake::new(all_sources().into_iter(), ObservedSender::new().0)
}

fn route(name: &str, port: &serde_json::Value) -> Item {
    let route = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "resourceVersion": "1" },
        "spec": { "hostnames": ["a.example.com"], "rules": [{ "backendRefs": [{ "name": "chat", "port": port }] }] },
    });
    decode(Kind::WebSocketRoute, serde_json::from_value(route).unwrap())
}

fn good_route(name: &str) -> Item {
    route(name, &json!(80))
}

fn secret(version: &str) -> Item {
    let secret = json!({ "metadata": { "name": "tls", "namespace": "default", "uid": "u", "resourceVersion": version } });
    let secret = serde_json::from_value::<DynamicObject>(secret).unwrap();
    decode(Kind::Secret, secret)
}

fn secret_key() -> ObjectKey {
    secret("1").reference.key()
}

fn to_the_secret() -> References {
    References {
        secrets: [secret_key()].into(),
        ..References::default()
    }
}

fn failure() -> Failure {
    Failure::Timeout(Duration::ZERO)
}

fn routes(intake: &Intake) -> Vec<String> {
    let snapshot = intake.snapshot();
    snapshot
        .routes()
        .map(|(key, _)| key.name.to_string())
        .collect()
}

#[test]
fn a_list_without_an_object_withdraws_it_and_a_failure_does_not() {
    let mut intake = intake();
    let routes_source = source(Kind::WebSocketRoute);
    let listed = Event::Listed(vec![good_route("a"), good_route("b")]);
    assert!(intake.take(&routes_source, listed).changed);
    let failed = intake.take(&routes_source, Event::Failed(failure()));
    assert_eq!(failed, Taken::default());
    assert_eq!(routes(&intake), ["a", "b"]);
    let again = Event::Listed(vec![good_route("b")]);
    assert!(intake.take(&routes_source, again).changed);
    assert_eq!(routes(&intake), ["b"]);
    assert!(
        intake
            .take(&routes_source, Event::Deleted(good_route("b")))
            .changed
    );
    assert_eq!(routes(&intake), <[&str; 0]>::default());
}

#[test]
fn a_list_of_one_namespace_withdraws_nothing_in_another() {
    let of = |namespace: &str| Source {
        kind: Kind::WebSocketRoute,
        namespace: Some(namespace.into()),
    };
    let [first, second] = ["default", "other"].map(of);
    let mut intake = Intake::new(
        [first.clone(), second.clone()].into_iter(),
        ObservedSender::new().0,
    );
    intake.take(&first, Event::Listed(vec![good_route("a")]));
    assert!(!intake.is_listed());
    intake.take(&second, Event::Listed(Vec::new()));
    assert!(intake.is_listed());
    assert_eq!(routes(&intake), ["a"]);
}

#[test]
fn an_object_that_does_not_decode_is_withdrawn_alone_and_comes_back() {
    let mut intake = intake();
    let routes_source = source(Kind::WebSocketRoute);
    intake.take(
        &routes_source,
        Event::Listed(vec![good_route("a"), good_route("b")]),
    );
    let bad = route("a", &json!("80"));
    assert!(intake.take(&routes_source, Event::Applied(bad)).changed);
    assert_eq!(routes(&intake), ["b"]);
    assert_eq!(intake.undecodable().len(), 1);
    intake.take(&routes_source, Event::Applied(good_route("a")));
    assert_eq!(routes(&intake), ["a", "b"]);
    assert!(intake.undecodable().is_empty());
    intake.take(&routes_source, Event::Applied(route("a", &json!("80"))));
    intake.take(&routes_source, Event::Listed(vec![good_route("b")]));
    assert!(intake.undecodable().is_empty());
}

#[test]
fn the_gate_opens_when_all_kinds_are_listed_and_all_secrets_answered() {
    let mut intake = intake();
    for source in all_sources() {
        assert!(!intake.is_listed());
        intake.take(&source, Event::Failed(failure()));
        assert!(!intake.is_listed());
        assert!(intake.take(&source, Event::Listed(Vec::new())).changed);
    }
    assert!(intake.is_listed());
    assert_eq!(intake.refer(to_the_secret()), [secret_key()]);
    assert!(!intake.is_read());
    let answered = intake.answered(&secret_key(), Answer::Absent);
    assert!(answered.taken.changed);
    assert!(intake.is_read());
}

#[test]
fn a_refusal_opens_the_gate_and_is_tried_again() {
    let mut intake = intake();
    intake.refer(to_the_secret());
    let failed = |refused| Answer::Failed {
        failure: failure(),
        refused,
    };
    let answered = intake.answered(&secret_key(), failed(false));
    assert!(answered.retry.is_some() && !answered.taken.changed && !intake.is_read());
    let answered = intake.answered(&secret_key(), failed(true));
    assert!(answered.retry.is_some() && answered.taken.changed && intake.is_read());
}

#[test]
fn a_secret_is_read_when_it_changes_and_withdrawn_when_it_is_deleted() {
    let mut intake = intake();
    let secrets = source(Kind::Secret);
    assert_eq!(intake.take(&secrets, Event::Applied(secret("1"))).read, []);
    intake.refer(to_the_secret());
    let read = || {
        let read = k8s_openapi::api::core::v1::Secret {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some("tls".to_owned()),
                namespace: Some("default".to_owned()),
                ..Default::default()
            },
            ..Default::default()
        };
        Answer::Present(read.into())
    };
    assert!(intake.answered(&secret_key(), read()).taken.changed);
    let changed = intake.take(&secrets, Event::Applied(secret("2")));
    assert_eq!((changed.changed, changed.read), (false, vec![secret_key()]));
    let failed = Answer::Failed {
        failure: failure(),
        refused: true,
    };
    assert!(!intake.answered(&secret_key(), failed).taken.changed);
    assert!(matches!(
        intake.snapshot().secret(&secret_key()),
        crate::store::SecretState::Present(_)
    ));
    intake.answered(&secret_key(), read());
    let deleted = intake.take(&secrets, Event::Deleted(secret("3")));
    assert!(deleted.changed);
    assert_eq!(
        deleted.read,
        [secret_key()],
        "another type may have taken its place"
    );
    assert_eq!(
        intake.snapshot().secret(&secret_key()),
        crate::store::SecretState::Absent
    );
}

#[test]
fn what_nothing_refers_to_is_forgotten() {
    let mut intake = intake();
    intake.refer(to_the_secret());
    intake.answered(&secret_key(), Answer::Absent);
    intake.refer(References::default());
    assert_eq!(
        intake.snapshot().secret(&secret_key()),
        crate::store::SecretState::NotYetRead
    );
    let late = intake.answered(&secret_key(), Answer::Absent);
    assert_eq!(late, Answered::default());
}
