use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

fn claim(installation: &str, class: &str, namespaces: &[&str]) -> Claim {
    let lease = ObjectName {
        namespace: installation.to_owned(),
        name: "lease".to_owned(),
    };
    let namespaces = namespaces.iter().map(ToString::to_string).collect();
    Claim::new(&lease, class.to_owned(), namespaces)
}

/// A mark that was created at this second.
fn mark(claim: &Claim, created: i64) -> ObjectMeta {
    let namespaces: Vec<_> = claim.namespaces.iter().cloned().collect();
    let annotations = [
        (LEASE, claim.lease.clone()),
        (CLASS, claim.class.clone()),
        (NAMESPACES, namespaces.join(",")),
    ];
    ObjectMeta {
        name: Some(format!("role-of-{}", claim.lease)),
        uid: Some(claim.lease.clone()),
        creation_timestamp: Some(Time(Timestamp::from_second(created).unwrap())),
        annotations: Some(
            annotations
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        ),
        ..ObjectMeta::default()
    }
}

/// Whether a mark of theirs keeps us, whose mark is of second 5, from the class x in the namespaces a and b.
#[track_caller]
fn check(theirs: &Claim, created: i64, held: bool) {
    let ours = claim("ours", "x", &["a", "b"]);
    let marks = [mark(&ours, 5), mark(theirs, created)];
    match ours.judge(&marks) {
        Verdict::Free => assert!(!held),
        Verdict::Held(text) => {
            assert!(held, "{text}");
            assert!(text.contains("namespace they (Lease lease)"), "{text}");
            assert!(text.contains("ClusterRole role-of-they/lease"), "{text}");
            assert!(!text.contains("comes last"), "{text}");
        }
    }
}

#[test]
fn the_older_of_two_marks_that_overlap_has_the_class() {
    check(&claim("they", "x", &[]), 4, true);
    check(&claim("they", "x", &["b", "c"]), 4, true);
    check(&claim("they", "x", &["c"]), 4, false);
    check(&claim("they", "y", &[]), 4, false);
    check(&claim("they", "x", &[]), 6, false);
    // In one second the uid decides, for both alike.
    check(&claim("they", "x", &[]), 5, false);
    let [they, ours] = [claim("they", "x", &[]), claim("ours", "x", &["a"])];
    let marks = [mark(&they, 5), mark(&ours, 5)];
    assert!(matches!(they.judge(&marks), Verdict::Held(_)));
}

#[test]
fn who_has_no_mark_comes_last_and_alone_has_the_class() {
    let ours = claim("ours", "x", &[]);
    let theirs = mark(&claim("they", "x", &[]), 9);
    for other in [claim("ours", "y", &[]), claim("ours", "x", &["a"])] {
        // Who reads this does not learn what we really serve.
        let misleading = mark(&other, 1);
        assert_eq!(ours.judge(std::slice::from_ref(&misleading)), Verdict::Free);
        let Verdict::Held(text) = ours.judge(&[misleading, theirs.clone()]) else {
            panic!("they have a mark");
        };
        assert!(text.contains("comes last"), "{text}");
    }
    let mut nobody = theirs;
    nobody.annotations = None;
    assert_eq!(ours.judge(&[nobody]), Verdict::Free);
}

/// Rivals that find these answers, one a request; none is an error. What was asked comes too.
fn rivals(answers: Vec<Option<Value>>) -> (Rivals, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (asks, answers) = (asked.clone(), Arc::new(Mutex::new(answers.into_iter())));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        asks.lock().unwrap().push(request.uri().to_string());
        let answer = answers.lock().unwrap().next().expect("no more requests");
        async move {
            let answer = answer.ok_or_else(|| std::io::Error::other("cut off"))?;
            Ok::<_, std::io::Error>(http::Response::new(Body::from(
                answer.to_string().into_bytes(),
            )))
        }
    });
    let client = Client::new(service, "default");
    (Rivals::new(client, claim("ours", "x", &[])), asked)
}

fn page(marks: &[ObjectMeta], next: &str) -> Value {
    let item = |mark| json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": mark });
    let items: Vec<_> = marks.iter().map(item).collect();
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadataList",
        "metadata": { "resourceVersion": "1", "continue": next },
        "items": items,
    })
}

#[tokio::test]
async fn what_cannot_be_seen_is_as_it_was() {
    let theirs = mark(&claim("they", "x", &[]), 4);
    let (mut rivals, _) = rivals(vec![
        None,
        Some(page(&[theirs], "")),
        None,
        Some(page(&[], "")),
        None,
    ]);
    // Nobody was ever seen.
    assert_eq!(rivals.look().await, Verdict::Free);
    let held = rivals.look().await;
    assert!(matches!(held, Verdict::Held(_)));
    assert_eq!(rivals.look().await, held);
    assert_eq!(rivals.look().await, Verdict::Free);
    assert_eq!(rivals.look().await, Verdict::Free);
}

#[tokio::test]
async fn a_rival_on_a_later_page_is_found() {
    let theirs = mark(&claim("they", "x", &[]), 4);
    let others = mark(&claim("others", "y", &[]), 1);
    let (mut rivals, asked) = rivals(vec![
        Some(page(&[others], "more")),
        Some(page(&[theirs], "")),
    ]);
    assert!(matches!(rivals.look().await, Verdict::Held(_)));
    let asked = asked.lock().unwrap().clone();
    assert!(asked[1].contains("continue=more"), "{asked:?}");
    assert!(asked.iter().all(|uri| uri.contains("labelSelector=")));
}

#[tokio::test]
async fn marks_without_end_are_no_answer() {
    let pages = (0..MOST_PAGES).map(|_| Some(page(&[], "more"))).collect();
    let (mut rivals, asked) = rivals(pages);
    rivals.last = Some(Verdict::Held("they".to_owned()));
    assert!(matches!(rivals.look().await, Verdict::Held(_)));
    assert_eq!(asked.lock().unwrap().len(), MOST_PAGES);
}
