use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn claim(class: &str, namespaces: &[&str]) -> Claim {
    let namespaces = namespaces.iter().map(ToString::to_string).collect();
    Claim::new(class.to_owned(), namespaces)
}

/// A Lease that was created and renewed at these seconds.
fn lease(namespace: &str, claim: &Claim, created: i64, holder: &str, renewed: i64) -> Lease {
    let mut metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some("lease".to_owned()),
        uid: Some(format!("{namespace}-{created}")),
        resource_version: Some("1".to_owned()),
        creation_timestamp: Some(Time(Timestamp::from_second(created).unwrap())),
        ..ObjectMeta::default()
    };
    claim.note(&mut metadata);
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(10),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }),
    }
}

#[tokio::test]
async fn only_what_is_older_alive_and_serves_the_same_routes_is_a_rival() {
    let ours = claim("x", &["a", "b"]);
    // What the other one says of itself, when it was made, who holds it; whether that keeps us from leading.
    let check = |theirs: &Claim, created, holder, expected| {
        let name = ObjectName {
            namespace: "ours".to_owned(),
            name: "lease".to_owned(),
        };
        let service = tower::service_fn(async |_: http::Request<kube::client::Body>| {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody asks"))
        });
        let mut rivals = Rivals::new(Client::new(service, "ours"), name, ours.clone());
        let start = Instant::now();
        let mut look = |renewed, after| {
            let own = lease("ours", &ours, 5, "us", renewed);
            let other = lease("theirs", theirs, created, holder, renewed);
            rivals.judge(vec![own, other], start + after)
        };
        let first = look(10, Duration::ZERO);
        let second = look(12, SECOND);
        assert_eq!(first == Verdict::Unsure, expected, "{theirs:?} {created}");
        match second {
            Verdict::Held(text) => assert!(expected && text.contains("namespace theirs"), "{text}"),
            Verdict::Free => assert!(!expected, "{theirs:?} {created}"),
            Verdict::Unsure => panic!("it was renewed"),
        }
        // It is not renewed any more, as after SIGKILL; until its end it may come back.
        let third = look(12, 10 * SECOND);
        assert_eq!(third != Verdict::Free, expected);
        assert_eq!(look(12, 11 * SECOND), Verdict::Free);
    };
    check(&claim("x", &[]), 4, "they", true);
    check(&claim("x", &["b", "c"]), 4, "they", true);
    check(&claim("x", &["c"]), 4, "they", false);
    check(&claim("y", &[]), 4, "they", false);
    check(&claim("x", &[]), 6, "they", false);
    check(&claim("x", &[]), 5, "they", false);
    check(&claim("x", &[]), 4, "", false);
}

#[test]
fn a_claim_is_read_as_it_was_written() {
    for claim in [claim("x", &[]), claim("x", &["a", "b"])] {
        let mut metadata = ObjectMeta::default();
        claim.note(&mut metadata);
        assert_eq!(Claim::read(&metadata), Some(claim));
    }
    assert_eq!(Claim::read(&ObjectMeta::default()), None);
}
