use std::time::Duration;

use kube::api::DynamicObject;
use serde_json::json;

use super::*;
use crate::decode::decode;
use crate::failure::Failure;
use crate::store::SecretState;

fn source(kind: Kind) -> Source {
    Source {
        kind,
        namespace: None,
    }
}

fn all_sources() -> [Source; 6] {
    [
        Kind::WebSocketRoute,
        Kind::ExternalBackend,
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

fn refer(intake: &mut Intake, secrets: &[ObjectKey]) -> Vec<Read> {
    let references = References {
        secrets: secrets.iter().cloned().collect(),
        ..References::default()
    };
    intake.refer(references, Instant::now())
}

/// An answer to this read.
fn answer(read: &Read, answer: Answer) -> secret_reader::Answered {
    secret_reader::Answered {
        key: read.key.clone(),
        ticket: read.ticket,
        answer,
    }
}

fn present() -> Answer {
    let secret = k8s_openapi::api::core::v1::Secret {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("tls".to_owned()),
            namespace: Some("default".to_owned()),
            ..Default::default()
        },
        ..Default::default()
    };
    Answer::Present(secret.into())
}

fn failed(refused: bool) -> Answer {
    Answer::Failed {
        failure: failure(),
        refused,
    }
}

fn state(intake: &Intake) -> SecretState {
    intake.snapshot().secret(&secret_key())
}

#[test]
fn everything_is_listed_when_every_kind_was() {
    let mut intake = intake();
    for source in all_sources() {
        assert!(!intake.is_listed());
        intake.take(&source, Event::Failed(failure()));
        assert!(!intake.is_listed());
        assert!(intake.take(&source, Event::Listed(Vec::new())).changed);
    }
    assert!(intake.is_listed());
}

#[test]
fn a_failure_is_tried_again_and_a_refusal_is_an_answer_too() {
    let mut intake = intake();
    let unread = [secret_key()];
    let read = refer(&mut intake, &unread).remove(0);
    let answered = intake.answered(answer(&read, failed(false))).unwrap();
    assert!(answered.next.is_some() && !answered.changed);
    let due = |intake: &Intake| intake.unanswered(&unread, Instant::now()).due;
    assert!(due(&intake).is_some());
    let answered = intake.answered(answer(&read, failed(true))).unwrap();
    assert!(answered.next.is_some() && answered.changed);
    assert!(due(&intake).is_none());
}

#[test]
fn a_secret_is_read_when_it_changes_and_withdrawn_when_it_is_deleted() {
    let mut intake = intake();
    let secrets = source(Kind::Secret);
    assert_eq!(intake.take(&secrets, Event::Applied(secret("1"))).read, []);
    let read = refer(&mut intake, &[secret_key()]).remove(0);
    assert!(intake.answered(answer(&read, present())).unwrap().changed);
    let mut changed = intake.take(&secrets, Event::Applied(secret("2")));
    assert!(!changed.changed);
    let read = changed.read.remove(0);
    let kept = intake.answered(answer(&read, failed(false))).unwrap();
    assert!(!kept.changed);
    assert!(matches!(state(&intake), SecretState::Present(_)));
    intake.answered(answer(&read, present()));
    let deleted = intake.take(&secrets, Event::Deleted(secret("3")));
    assert!(deleted.changed);
    assert_eq!(deleted.read.len(), 1, "another type may be in its place");
    assert_eq!(state(&intake), SecretState::Absent);
}

#[test]
fn what_nothing_refers_to_is_kept_until_it_may_be_forgotten() {
    let mut intake = intake();
    let read = refer(&mut intake, &[secret_key()]).remove(0);
    intake.answered(answer(&read, present()));
    refer(&mut intake, &[]);
    assert!(matches!(state(&intake), SecretState::Present(_)));
    assert_eq!(intake.forget(), [secret_key()]);
    assert_eq!(state(&intake), SecretState::NotYetRead);
}

#[test]
fn an_answer_to_an_earlier_request_changes_nothing() {
    let mut intake = intake();
    let early = refer(&mut intake, &[secret_key()]).remove(0);
    refer(&mut intake, &[]);
    intake.forget();
    let late = refer(&mut intake, &[secret_key()]).remove(0);
    assert_eq!(intake.answered(answer(&early, Answer::Absent)), None);
    assert_eq!(state(&intake), SecretState::NotYetRead);
    intake.answered(answer(&late, present()));
    assert_eq!(intake.answered(answer(&early, Answer::Absent)), None);
    assert!(matches!(state(&intake), SecretState::Present(_)));
}
