use std::time::Duration;

use push::OverLimit;
use route_table::{
    BackendKey, CertificateKey, HostPattern, NonUpgrade, OnPlain, OriginPolicy, PathMatch,
    RouteHostname, Rule, Timeouts, WeightedBackend,
};

use super::*;

fn key() -> RouteKey {
    RouteKey {
        namespace: "default".into(),
        name: "chat".into(),
    }
}

fn backend() -> BackendKey {
    BackendKey {
        namespace: "default".into(),
        service: "chat".into(),
        port: 80.try_into().unwrap(),
    }
}

fn certificate(secret: &str) -> ResourceKey {
    ResourceKey::Certificate(CertificateKey {
        namespace: "default".into(),
        secret: secret.into(),
    })
}

fn resources() -> Resources {
    let second = Duration::from_secs(1);
    let ResourceKey::Certificate(secret) = certificate("chat-tls") else {
        panic!("a certificate");
    };
    let certificates = vec![secret];
    let rule = Rule {
        name: "0".into(),
        matches: vec![PathMatch::prefix("/").unwrap().into()],
        non_upgrade: NonUpgrade::Reject,
        origins: OriginPolicy::default(),
        filters: Arc::default(),
        backends: vec![WeightedBackend {
            backend: backend().into(),
            weight: 1,
            proxy_protocol: None,
        }],
        timeouts: Timeouts {
            connect: second,
            handshake: second,
            read: second,
            send: second,
        },
    };
    let route = Route {
        created: None,
        hostnames: vec![RouteHostname {
            pattern: HostPattern::parse("chat.example.com").unwrap(),
            tls: HostTls::Terminate {
                certificates,
                plain: OnPlain::Redirect,
            },
        }],
        rules: vec![rule],
        closed: false,
    };
    Resources {
        routes: [(key(), Arc::new(route))].into(),
        ..Resources::default()
    }
}

/// One controller: what it compiled, what it heard, and what it remembers.
struct Scene {
    programmed: Programmed,
    uid: Arc<str>,
    generation: i64,
    recorded: bool,
    waits: bool,
    sequence: u64,
    resources: Resources,
    deliveries: Deliveries,
    pods: Option<BTreeSet<Arc<str>>>,
}

impl Scene {
    fn new(pods: &[&str]) -> Self {
        let mut scene = Self {
            programmed: Programmed::default(),
            uid: "uid-1".into(),
            generation: 1,
            recorded: false,
            waits: false,
            sequence: 7,
            resources: resources(),
            deliveries: Deliveries::new(),
            pods: None,
        };
        scene.pods(pods);
        scene
    }

    fn pods(&mut self, pods: &[&str]) {
        self.pods = Some(pods.iter().map(|pod| (*pod).into()).collect());
    }

    fn ack(&mut self, pod: &str, sequence: u64) {
        self.answer(pod, sequence, &[], true);
    }

    fn answer(&mut self, pod: &str, sequence: u64, rejected: &[ResourceKey], complete: bool) {
        let rejected = rejected.iter().map(|key| (key.clone(), "no".to_owned()));
        let delivery = Delivery {
            sequence,
            left_out: Arc::default(),
            rejected: Arc::new(rejected.collect()),
            complete,
        };
        self.deliveries.insert(pod.into(), delivery);
    }

    #[track_caller]
    fn check(&mut self, expected: &str) -> Condition {
        let key = key();
        let generation = Generation {
            key: &key,
            uid: &self.uid,
            generation: Some(self.generation),
            recorded: self.recorded,
            waits: self.waits,
        };
        let facts = Facts {
            sequence: self.sequence,
            resources: &self.resources,
            deliveries: &self.deliveries,
            pods: self.pods.as_ref(),
        };
        let mut conditions = self.programmed.judge([generation].into_iter(), facts);
        let condition = conditions.remove(&key).unwrap();
        assert_eq!(condition.condition_type, ConditionType::Programmed);
        let found = format!("{} {}", condition.status, condition.reason);
        assert_eq!(found, expected);
        condition
    }
}

#[test]
fn true_when_every_ready_pod_has_taken_the_generation() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.check("Unknown Pending");
    scene.ack("a", 7);
    scene.check("Unknown Pending");
    scene.ack("b", 6);
    scene.check("Unknown Pending");
    scene.ack("b", 7);
    scene.check("True Programmed");
}

#[test]
fn a_later_set_holds_the_generation_too() {
    let mut scene = Scene::new(&["a"]);
    scene.check("Unknown Pending");
    scene.sequence = 9;
    scene.ack("a", 8);
    scene.check("True Programmed");
}

#[test]
fn a_certificate_that_was_not_read_yet_is_waited_for() {
    let mut scene = Scene::new(&["a"]);
    scene.waits = true;
    scene.ack("a", 7);
    scene.check("Unknown Pending");
    // Read: the next output brings it.
    scene.waits = false;
    scene.sequence = 8;
    scene.check("Unknown Pending");
    scene.ack("a", 8);
    scene.check("True Programmed");
}

#[test]
fn a_certificate_that_changes_nothing_once_read_keeps_nobody_waiting() {
    let mut scene = Scene::new(&["a"]);
    scene.waits = true;
    scene.ack("a", 7);
    scene.check("Unknown Pending");
    scene.waits = false;
    scene.check("True Programmed");
}

#[test]
fn pods_that_are_not_ready_do_not_count() {
    let mut scene = Scene::new(&["a"]);
    scene.ack("a", 7);
    scene.answer("b", 7, &[ResourceKey::Route(key())], true);
    scene.check("True Programmed");
}

#[test]
fn later_pods_do_not_clear_it() {
    let mut scene = Scene::new(&["a"]);
    scene.ack("a", 7);
    scene.check("True Programmed");
    scene.pods(&["a", "b"]);
    scene.check("True Programmed");
    scene.sequence = 8;
    scene.check("True Programmed");
}

#[test]
fn a_rejection_clears_it_and_an_ack_without_one_brings_it_back() {
    for part in [
        ResourceKey::Route(key()),
        ResourceKey::Backend(backend()),
        certificate("chat-tls"),
    ] {
        let mut scene = Scene::new(&["a", "b"]);
        scene.ack("a", 7);
        scene.ack("b", 7);
        scene.check("True Programmed");
        scene.answer("b", 8, &[part], true);
        scene.check("False Rejected");
        scene.ack("b", 8);
        scene.check("True Programmed");
    }
}

#[test]
fn what_is_over_a_limit_is_said_with_the_limit_and_the_mend_until_it_is_sent() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.ack("a", 7);
    scene.ack("b", 7);
    scene.check("True Programmed");
    // The pod rejects it too: it holds the form before.
    scene.answer("b", 8, &[certificate("chat-tls")], true);
    let left_out = [
        (certificate("chat-tls"), OverLimit::Body),
        (certificate("other-tls"), OverLimit::Bytes),
    ];
    let delivery = scene.deliveries.get_mut("b").unwrap();
    delivery.left_out = Arc::new(left_out.into());
    let condition = scene.check("False OverLimit");
    let expected = "certificate default/chat-tls is longer than the 1572864 bytes";
    assert!(condition.message.starts_with(expected), "{condition:?}");
    assert!(
        condition.message.ends_with("Make it smaller"),
        "{condition:?}"
    );
    let left_out = [(ResourceKey::Route(key()), OverLimit::Resources)];
    scene.ack("b", 9);
    let delivery = scene.deliveries.get_mut("b").unwrap();
    delivery.left_out = Arc::new(left_out.into());
    let condition = scene.check("False OverLimit");
    let expected = "route default/chat is left out: all routes, Service ports and certificates";
    assert!(condition.message.starts_with(expected), "{condition:?}");
    assert!(condition.message.contains("60000"), "{condition:?}");
    scene.ack("b", 10);
    scene.check("True Programmed");
}

#[test]
fn a_rejection_of_something_else_is_nothing() {
    let mut scene = Scene::new(&["a"]);
    scene.answer("a", 7, &[certificate("other-tls")], true);
    scene.check("True Programmed");
}

#[test]
fn an_incomplete_list_of_rejections_proves_nothing() {
    let mut scene = Scene::new(&["a"]);
    scene.answer("a", 7, &[], false);
    scene.check("Unknown Pending");
}

#[test]
fn a_new_generation_begins_again() {
    let mut scene = Scene::new(&["a"]);
    scene.ack("a", 7);
    scene.check("True Programmed");
    scene.generation = 2;
    scene.sequence = 8;
    scene.check("Unknown Pending");
    scene.ack("a", 8);
    scene.check("True Programmed");
}

#[test]
fn a_route_made_again_begins_again() {
    let mut scene = Scene::new(&["a"]);
    scene.ack("a", 7);
    scene.check("True Programmed");
    scene.uid = "uid-2".into();
    scene.sequence = 8;
    scene.check("Unknown Pending");
}

#[test]
fn without_pods_there_are_no_resources() {
    let mut scene = Scene::new(&[]);
    scene.check("False NoResources");
    scene.pods(&["a"]);
    scene.ack("a", 7);
    scene.check("True Programmed");
    scene.pods(&[]);
    scene.check("False NoResources");
    scene.pods(&["b"]);
    scene.check("Unknown Pending");
}

#[test]
fn while_the_pods_are_unknown_nothing_is_claimed_and_nothing_taken_back() {
    let mut scene = Scene::new(&["a"]);
    scene.pods = None;
    scene.check("Unknown Pending");
    scene.pods(&["a"]);
    scene.ack("a", 7);
    scene.check("True Programmed");
    scene.pods = None;
    scene.check("True Programmed");
}

#[test]
fn what_an_earlier_leader_recorded_holds() {
    let mut scene = Scene::new(&["a"]);
    scene.recorded = true;
    scene.check("True Programmed");
    scene.recorded = false;
    scene.check("True Programmed");
}

#[test]
fn a_route_that_is_not_served_is_invalid() {
    let mut scene = Scene::new(&["a"]);
    scene.ack("a", 7);
    scene.check("True Programmed");
    // Its closed form is there, and was taken.
    for route in scene.resources.routes.values_mut() {
        Arc::make_mut(route).closed = true;
    }
    scene.check("False Invalid");
    scene.resources = Resources::default();
    scene.check("False Invalid");
}
