use std::num::NonZeroU16;
use std::time::Duration;

use prost::Message as _;
use route_table::{
    BackendKey, Endpoint, EndpointState, HostPattern, HostTls, Hostname, NonUpgrade, OnPlain,
    PathMatch, PrivateKey, RequestParts, RouteHostname, RouteKey, RouteTable, Rule, Timeouts,
    WeightedBackend,
};

use super::*;
use crate::{Greeting, Held, PART_BYTES, Progress, ack};

fn encode(resources: &Resources) -> EncodedSet {
    let (set, left_out) = EncodedSet::encode(resources, &EncodedSet::empty());
    assert_eq!(left_out, []);
    set
}

/// Takes an update whole.
#[track_caller]
fn apply(held: &mut Held, update: impl IntoIterator<Item = wire::Update>) {
    let update = update.into_iter().collect::<Vec<_>>();
    let last = update.len() - 1;
    for (index, part) in update.into_iter().enumerate() {
        let progress = held.receive(part).unwrap();
        assert_eq!(matches!(progress, Progress::Applied(_)), index == last);
    }
}

/// What a stream begins with: Hello over the wire, and the update that follows.
fn connect(held: &mut Held, set: &EncodedSet) -> Vec<wire::Update> {
    let hello = held.hello("pod", "build").encode_to_vec();
    let hello = wire::Hello::decode(&hello[..]).unwrap();
    let held = Greeting::read(hello).unwrap().held;
    set.delta(&Arc::new(held)).collect()
}

fn backend(endpoints: u32) -> Arc<Backend> {
    let endpoint = |index: u32| Endpoint {
        address: (index.to_be_bytes(), 80).into(),
        state: EndpointState::Ready,
    };
    Arc::new(Backend {
        endpoints: (0..endpoints).map(endpoint).collect(),
    })
}

fn backends(count: usize, endpoints: u32) -> Resources {
    let key = |index| BackendKey {
        namespace: "default".into(),
        service: format!("s{index}").into(),
        port: NonZeroU16::MIN,
    };
    let backend = backend(endpoints);
    let entries = (0..count).map(|index| (key(index), backend.clone()));
    Resources {
        backends: entries.collect(),
        ..Resources::default()
    }
}

#[test]
fn large_update_travels_in_parts_that_fit() {
    let set = encode(&backends(200, 1000));
    let parts = set.full().collect::<Vec<_>>();
    assert!(parts.len() > 2);
    for part in &parts {
        assert!(part.encoded_len() <= PART_BYTES + 100);
    }
    let mut held = Held::default();
    apply(&mut held, parts);
    assert_eq!(held.version(), set.version());
    let removals = encode(&backends(1, 1)).delta(set.digests());
    apply(&mut held, removals);
    assert_eq!(held.resources(), &backends(1, 1));
}

#[test]
fn nothing_to_change_is_still_an_update() {
    let set = encode(&backends(2, 1));
    let mut held = Held::default();
    apply(&mut held, set.full());
    let update = connect(&mut held, &set);
    assert_eq!(update.len(), 1);
    assert!(update[0].upserts.is_empty() && update[0].removals.is_empty());
    apply(&mut held, update);
    let empty = EncodedSet::empty();
    let update = connect(&mut held, &empty);
    apply(&mut held, update);
    assert_eq!(held.resources(), &Resources::default());
    assert_eq!(held.version(), empty.version());
}

#[test]
fn resource_that_grew_too_large_is_held_and_named() {
    let mut resources = backends(1, 1);
    let key = resources.backends.keys().next().unwrap().clone();
    let large = BackendKey {
        service: "large".into(),
        ..key
    };
    resources.backends.insert(large.clone(), backend(2));
    let before = encode(&resources);
    let [mut by_delta, mut by_full] = [Held::default(), Held::default()];
    for held in [&mut by_delta, &mut by_full] {
        apply(held, before.full());
    }
    // No endpoint takes less than eight bytes.
    let too_large = u32::try_from(MAX_BODY_BYTES / 8).unwrap();
    resources.backends.insert(large.clone(), backend(too_large));
    let (set, left_out) = EncodedSet::encode(&resources, &before);
    let named = LeftOut {
        key: ResourceKey::Backend(large.clone()),
        why: OverLimit::Body,
    };
    assert_eq!(left_out, [named]);
    apply(&mut by_delta, set.delta(before.digests()));
    // After a Nack, or from a controller that never saw it smaller.
    let (restarted, _) = EncodedSet::encode(&resources, &EncodedSet::empty());
    assert_eq!(restarted.version(), set.version());
    apply(&mut by_full, restarted.full());
    for held in [by_delta, by_full] {
        assert_eq!(held.resources().backends[&large], backend(2));
        let rejected = held.rejected().collect::<Vec<_>>();
        let expected = ("backend/default/large/1", "is too large to be pushed");
        assert_eq!(rejected, [expected]);
    }
    let mut later = Held::default();
    apply(&mut later, set.full());
    assert_eq!(later.resources(), &backends(1, 1));
    resources.backends.insert(large, backend(3));
    let (set, left_out) = EncodedSet::encode(&resources, &set);
    assert_eq!(left_out, []);
    let update = connect(&mut later, &set);
    apply(&mut later, update);
    assert_eq!(later.resources(), &resources);
}

#[test]
fn set_over_a_limit_loses_what_does_not_fit_and_nothing_else() {
    let mut resources = backends(3, 1);
    let keys = resources.backends.keys().cloned().collect::<Vec<_>>();
    let hour = Duration::from_hours(1);
    for (age, key) in (0..).zip(keys) {
        let rule = Rule {
            name: "0".into(),
            matches: vec![PathMatch::prefix("/").unwrap().into()],
            non_upgrade: NonUpgrade::Reject,
            origins: route_table::OriginPolicy::default(),
            filters: Arc::default(),
            timeouts: Timeouts {
                connect: hour,
                handshake: hour,
                read: hour,
                send: hour,
            },
            backends: vec![WeightedBackend {
                backend: key.clone().into(),
                weight: 1,
                proxy_protocol: None,
            }],
        };
        let route = Route {
            created: Some(age),
            hostnames: Vec::new(),
            rules: vec![rule],
            closed: false,
        };
        let key = RouteKey {
            namespace: key.namespace,
            name: key.service,
        };
        resources.routes.insert(key, route.into());
    }
    let none = EncodedSet::empty();
    let check = |limits: SetLimits, why: OverLimit| {
        let (set, left_out) = EncodedSet::encode_within(limits, &resources, &none);
        let youngest = resources.routes.last_key_value().unwrap().0.clone();
        let key = ResourceKey::Route(youngest);
        assert_eq!(left_out, [LeftOut { key, why }]);
        let mut held = Held::default();
        apply(&mut held, set.full());
        assert_eq!(held.resources().backends, backends(2, 1).backends);
        let [kept @ .., stub] = &*held.resources().routes.values().collect::<Vec<_>>() else {
            panic!("no routes");
        };
        let all = resources.routes.values().collect::<Vec<_>>();
        assert_eq!(kept, &all[..2]);
        assert!(stub.rules[0].backends.is_empty());
    };
    let fits = SetLimits {
        resources: 6,
        bytes: 6 * PAGE_BYTES,
        ..SetLimits::default()
    };
    let (_, left_out) = EncodedSet::encode_within(fits, &resources, &none);
    assert_eq!(left_out, []);
    let few = SetLimits {
        resources: 5,
        ..fits
    };
    check(few, OverLimit::Resources);
    let small = SetLimits {
        bytes: 6 * PAGE_BYTES - 1,
        ..fits
    };
    check(small, OverLimit::Bytes);
}

#[test]
fn what_is_left_out_falls_to_no_other_route() {
    let certificate = |secret: &str| route_table::CertificateKey {
        namespace: "victim".into(),
        secret: secret.into(),
    };
    let terminate = |secret| HostTls::Terminate {
        certificates: vec![certificate(secret)],
        plain: OnPlain::Redirect,
    };
    let mut resources = backends(0, 0);
    let mut add = |namespace: &str, created, hosts: &[(&str, HostTls)], paths: &[&str]| {
        let key = RouteKey {
            namespace: namespace.into(),
            name: format!("r{created}").into(),
        };
        let mut route = crate::samples::route();
        let service = |index: usize| BackendKey {
            namespace: namespace.into(),
            service: format!("s{created}-{index}").into(),
            port: NonZeroU16::MIN,
        };
        let rule = |(index, path): (usize, &&str)| Rule {
            matches: vec![PathMatch::prefix(path).unwrap().into()],
            backends: vec![WeightedBackend {
                backend: service(index).into(),
                weight: 1,
                proxy_protocol: None,
            }],
            ..route.rules[0].clone()
        };
        let rules = paths.iter().enumerate().map(rule).collect();
        let services = (0..paths.len()).map(|index| (service(index), backend(1)));
        resources.backends.extend(services);
        route.created = Some(created);
        route.rules = rules;
        let hostname = |(name, tls): &(&str, HostTls)| RouteHostname {
            pattern: HostPattern::parse(name).unwrap(),
            tls: tls.clone(),
        };
        route.hostnames = hosts.iter().map(hostname).collect();
        resources.routes.insert(key, route.into());
    };
    add("attacker", 9, &[("*.example.com", HostTls::None)], &["/"]);
    let shared = ("chat.example.com", terminate("chat"));
    add("victim", 1, std::slice::from_ref(&shared), &["/"]);
    let own = ("own.example.com", terminate("own"));
    add("victim", 2, &[shared, own], &["/a", "/b"]);
    for secret in ["chat", "own"] {
        let hold = Arc::new(CertificateResource::Hold);
        resources.certificates.insert(certificate(secret), hold);
    }
    // 9 in all; without what the youngest of the victim leads to, 6.
    for limits in [
        SetLimits {
            resources: 8,
            ..SetLimits::default()
        },
        SetLimits {
            bytes: 8 * PAGE_BYTES,
            ..SetLimits::default()
        },
    ] {
        let (set, left_out) = EncodedSet::encode_within(limits, &resources, &EncodedSet::empty());
        assert_eq!(left_out.len(), 1);
        assert_eq!(left_out[0].key.to_string(), "route victim/r2");
        let mut held = Held::default();
        apply(&mut held, set.full());
        let (table, _) = RouteTable::build(held.resources(), &RouteTable::empty());
        let host = |name| table.host(&Hostname::parse(name).unwrap()).unwrap();
        for (name, path) in [
            ("chat.example.com", "/a"),
            ("chat.example.com", "/b"),
            ("own.example.com", "/a"),
        ] {
            let found = host(name).find(&RequestParts::of_path(path)).unwrap();
            assert_eq!(&*found.key.name, "r2", "{name}{path}");
            assert!(found.rule.backends.is_empty());
        }
        assert!(
            host("own.example.com")
                .find(&RequestParts::of_path("/"))
                .is_none()
        );
        // No certificate, no handshake.
        assert_eq!(*host("own.example.com").tls(), terminate("own"));
        let held = held.resources().certificates.keys();
        assert_eq!(held.collect::<Vec<_>>(), [&certificate("chat")]);
        let elsewhere = host("chat.example.com").find(&RequestParts::of_path("/x"));
        assert_eq!(&*elsewhere.unwrap().key.name, "r1");
    }
}

#[test]
fn a_set_of_the_limits_is_one_that_a_dataplane_takes() {
    let pages = MAX_SET_BYTES / PAGE_BYTES;
    assert!(pages >= MAX_RESOURCES, "many small resources fit");
    let entry = |bytes| Entry {
        source: Source::Backend(backend(0)),
        digest: Digest::of(&wire::Resource::default()),
        encoded: Encoded {
            requires: Vec::new(),
            body: vec![0; bytes].into(),
        },
        holds: false,
    };
    for bytes in [0, 1, PAGE_BYTES, PAGE_BYTES + 1] {
        assert!(entry(bytes).pages() * PAGE_BYTES >= bytes.max(1));
    }
}

#[test]
fn unchanged_bytes_are_taken_over() {
    let first = encode(&backends(1, 3));
    let (second, _) = EncodedSet::encode(&backends(1, 3), &first);
    let body = |set: &EncodedSet| set.entries.values().next().unwrap().encoded.body.as_ptr();
    assert_eq!(body(&first), body(&second));
}

#[test]
fn canary_key_is_in_no_debug_output() {
    let canary = b"canary-key-bytes";
    let certificate = CertificateResource::Serve {
        chain: Vec::new(),
        key: PrivateKey::from_der(canary.to_vec()),
    };
    let key = route_table::CertificateKey {
        namespace: "default".into(),
        secret: "tls".into(),
    };
    let resources = Resources {
        certificates: [(key, Arc::new(certificate))].into(),
        ..Resources::default()
    };
    let set = encode(&resources);
    let update = set.full().next().unwrap();
    let body = update.upserts[0].body.clone();
    let mut held = Held::default();
    let mut unfinished = Held::default();
    let mut part = update.clone();
    part.more = true;
    unfinished.receive(part).unwrap();
    apply(&mut held, vec![update.clone()]);
    assert_eq!(held.resources(), &resources);
    let message = wire::FromController {
        message: Some(wire::from_controller::Message::Update(update.clone())),
    };
    let certificate = wire::Certificate::decode(body.clone()).unwrap();
    let shown = [
        format!("{set:?} {update:?} {message:?} {held:?} {unfinished:?}"),
        format!("{:?} {certificate:?}", update.upserts[0]),
        format!("{set:#?} {update:#?} {message:#?} {held:#?} {unfinished:#?}"),
        format!("{:?} {:?}", ack(&held, &[]), held.hello("pod", "build")),
    ]
    .concat();
    assert_no_canary(&shown, canary);
    assert!(shown.contains("<key>"));
    // The search finds the key where it is shown.
    let planted = std::panic::catch_unwind(|| assert_no_canary(&format!("{body:?}"), canary));
    assert!(planted.is_err());
}

#[track_caller]
fn assert_no_canary(shown: &str, canary: &[u8]) {
    let text = std::str::from_utf8(canary).unwrap();
    let hex = canary.iter().map(|byte| format!("{byte:02x}"));
    let hex = hex.collect::<String>();
    let list = format!("{canary:?}");
    let list = list.trim_matches(['[', ']']);
    for spelling in [text, &hex, list] {
        assert!(!shown.contains(spelling), "{spelling}");
    }
}

mod properties;
