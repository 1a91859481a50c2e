use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn us() -> Identity {
    Identity {
        pod: "pod-1".into(),
        full: "pod-1_b".into(),
    }
}

fn lease(holder: Option<&str>, transitions: i32) -> Lease {
    Lease {
        metadata: ObjectMeta {
            uid: Some("uid-1".into()),
            resource_version: Some("5".into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: holder.map(ToOwned::to_owned),
            lease_transitions: Some(transitions),
            lease_duration_seconds: Some(10),
            ..LeaseSpec::default()
        }),
    }
}

fn seen(holder: Option<&str>, now: Instant) -> Seen {
    Seen::new(lease(holder, 3), None, now).unwrap()
}

/// What is decided `after` a Lease of that holder was first seen: the transitions that are written, or nothing.
#[track_caller]
fn check(holder: Option<&str>, after: Duration, expected: Option<i32>) {
    let now = Instant::now();
    let written = match decide(Some(&seen(holder, now)), &us(), now + after) {
        Decision::Wait => None,
        Decision::Create(_) => panic!("there is a Lease"),
        Decision::Write(lease) => {
            assert_eq!(lease.metadata.resource_version.as_deref(), Some("5"));
            assert_eq!(lease.metadata.uid.as_deref(), Some("uid-1"));
            let spec = lease.spec.unwrap();
            assert_eq!(spec.holder_identity.as_deref(), Some("pod-1_b"));
            spec.lease_transitions
        }
    };
    assert_eq!(written, expected);
}

#[test]
fn a_deleted_lease_keeps_others_waiting_as_long_as_its_holder_may_lead() {
    let now = Instant::now();
    let until = |holder| seen(holder, now).occupied_until(&us());
    assert_eq!(until(Some("pod-2_a")), Some(now + 10 * SECOND));
    for free in [None, Some("pod-1_b"), Some("pod-1_a")] {
        assert_eq!(until(free), None, "{free:?}");
    }
}

#[test]
fn a_missing_lease_is_created_with_the_first_term() {
    let Decision::Create(lease) = decide(None, &us(), Instant::now()) else {
        panic!("not created");
    };
    let spec = lease.spec.unwrap();
    assert_eq!(spec.lease_transitions, Some(0));
    assert_eq!(spec.lease_duration_seconds, Some(10));
}

#[test]
fn a_held_lease_is_waited_for_until_it_ends() {
    check(Some("pod-2_a"), Duration::ZERO, None);
    check(Some("pod-2_a"), Duration::from_millis(9_999), None);
    check(Some("pod-2_a"), 10 * SECOND, Some(4));
}

#[test]
fn a_lease_without_holder_is_taken_at_once() {
    check(None, Duration::ZERO, Some(4));
    check(Some(""), Duration::ZERO, Some(4));
}

#[test]
fn a_lease_of_an_earlier_process_of_the_pod_is_taken_at_once() {
    check(Some("pod-1_a"), Duration::ZERO, Some(4));
    check(Some("pod-1"), Duration::ZERO, None);
    check(Some("pod-11_a"), Duration::ZERO, None);
}

#[test]
fn our_own_lease_is_renewed_in_the_same_term() {
    check(Some("pod-1_b"), Duration::ZERO, Some(3));
    check(Some("pod-1_b"), 60 * SECOND, Some(3));
}

#[test]
fn only_what_the_holder_writes_counts_as_life() {
    let start = Instant::now();
    let first = seen(Some("pod-2_a"), start);
    let mut labelled = lease(Some("pod-2_a"), 3);
    labelled.metadata.resource_version = Some("6".into());
    let later = start + 5 * SECOND;
    let again = Seen::new(labelled, Some(first.clone()), later).unwrap();
    assert_eq!(again.expires(), start + 10 * SECOND);
    let renewed = lease(Some("pod-2_a"), 4);
    let renewed = Seen::new(renewed, Some(first.clone()), later).unwrap();
    assert_eq!(renewed.expires(), later + 10 * SECOND);
    let mut other = lease(Some("pod-2_a"), 3);
    other.metadata.uid = Some("uid-2".into());
    let other = Seen::new(other, Some(first), later).unwrap();
    assert_eq!(other.expires(), later + 10 * SECOND);
}

#[test]
fn an_absurd_duration_is_not_believed() {
    let now = Instant::now();
    let expires = |seconds| {
        let mut lease = lease(Some("pod-2_a"), 3);
        lease.spec.as_mut().unwrap().lease_duration_seconds = seconds;
        Seen::new(lease, None, now).unwrap().expires() - now
    };
    assert_eq!(expires(Some(i32::MAX)), LONGEST_BELIEVED);
    assert_eq!(expires(Some(-1)), LEASE_DURATION);
    assert_eq!(expires(None), LEASE_DURATION);
    assert_eq!(expires(Some(30)), 30 * SECOND);
}

#[test]
fn a_released_lease_keeps_its_term_and_has_no_holder() {
    let released = seen(Some("pod-1_b"), Instant::now()).released();
    let spec = released.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some(""));
    assert_eq!(spec.lease_transitions, Some(3));
}

#[test]
fn each_process_has_its_own_identity() {
    let [a, b] = [(); 2].map(|()| Identity::new(Some("pod-1")));
    assert_ne!(a, b);
    assert!(a.succeeds(&b.to_string()) && !a.succeeds(&a.to_string()));
    assert!(!Identity::new(None).succeeds(&Identity::new(None).to_string()));
}

#[test]
fn the_fence_is_the_uid_and_the_transitions() {
    let fence = seen(None, Instant::now()).fence();
    assert_eq!(fence.lease_uid, "uid-1");
    assert_eq!(fence.transitions, 3);
}
