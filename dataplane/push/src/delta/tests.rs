use std::num::NonZeroU16;

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use route_table::{
    BackendKey, Endpoint, EndpointState, Hostname, PathMatch, PrivateKey, RouteTable,
};

use super::*;
use crate::samples::any_resources;
use crate::{Greeting, Held, Progress, Verdict, ack};

fn encode(resources: &Resources) -> EncodedSet {
    let (set, too_large) = EncodedSet::encode(resources, &EncodedSet::empty()).unwrap();
    assert_eq!(too_large, []);
    set
}

/// Takes an update whole.
#[track_caller]
fn apply(held: &mut Held, update: Vec<wire::Update>) {
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
    set.delta(&Greeting::read(hello).unwrap().held)
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
    let parts = set.full();
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
fn resource_too_large_is_left_out_and_named() {
    let mut resources = backends(1, 1);
    let key = resources.backends.keys().next().unwrap().clone();
    let large = BackendKey {
        service: "large".into(),
        ..key
    };
    resources.backends.insert(large.clone(), backend(100_000));
    let (set, too_large) = EncodedSet::encode(&resources, &EncodedSet::empty()).unwrap();
    assert_eq!(too_large.len(), 1);
    assert_eq!(too_large[0].key, ResourceKey::Backend(large));
    assert_eq!(set.digests().len(), 1);
}

#[test]
fn set_too_large_is_refused() {
    let refused = EncodedSet::encode(&backends(MAX_RESOURCES + 1, 0), &EncodedSet::empty());
    let count = MAX_RESOURCES + 1;
    assert_eq!(refused.unwrap_err(), LimitExceeded::Resources { count });
    let bytes = MAX_SET_BYTES + 1;
    assert_eq!(check_limits(1, bytes), Err(LimitExceeded::Bytes { bytes }));
}

#[test]
fn unchanged_bytes_are_taken_over() {
    let first = encode(&backends(1, 3));
    let (second, _) = EncodedSet::encode(&backends(1, 3), &first).unwrap();
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
    let update = set.full().remove(0);
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

/// What a table answers for everything that the resources name.
fn served(table: &RouteTable, resources: &Resources) -> Vec<String> {
    let mut served = Vec::new();
    let rules = || resources.routes.values().flat_map(|route| &route.rules);
    for name in [
        "a.example.com",
        "b.example.com",
        "c.d.example.com",
        "x.a.org",
        "a.org",
    ] {
        let Some(host) = table.host(&Hostname::parse(name).unwrap()) else {
            served.push(format!("{name} is not served"));
            continue;
        };
        served.push(format!("{name} {:?} {:?}", host.pattern(), host.tls()));
        for path in rules().flat_map(|rule| &rule.matches) {
            let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = path;
            served.push(format!("{path} {:?}", host.find(path)));
        }
    }
    for key in rules().flat_map(|rule| &rule.backends) {
        served.push(format!("{key:?} {:?}", table.backend(&key.backend)));
    }
    for key in resources.certificates.keys() {
        served.push(format!("{key} {:?}", table.certificate(key)));
    }
    served
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn deltas_lead_where_the_full_path_leads(
        states in proptest::collection::vec((any_resources(), any::<bool>()), 1..8)
    ) {
        let mut by_delta = Held::default();
        let mut table_by_delta = RouteTable::empty();
        let mut table_by_full = RouteTable::empty();
        let mut set = EncodedSet::empty();
        for (resources, reconnects) in states {
            let (next, _) = EncodedSet::encode(&resources, &set).unwrap();
            let update = if reconnects {
                connect(&mut by_delta, &next)
            } else {
                next.delta(set.digests())
            };
            apply(&mut by_delta, update);
            let mut by_full = Held::default();
            apply(&mut by_full, encode(&resources).full());
            prop_assert_eq!(by_delta.resources(), &resources);
            prop_assert_eq!(by_delta.resources(), by_full.resources());
            prop_assert_eq!(by_delta.version(), by_full.version());
            prop_assert_eq!(by_delta.version(), next.version());
            let (table, rejected) = RouteTable::build(by_delta.resources(), &table_by_delta);
            let (full, full_rejected) = RouteTable::build(by_full.resources(), &table_by_full);
            prop_assert_eq!(&rejected, &full_rejected);
            prop_assert_eq!(served(&table, &resources), served(&full, &resources));
            prop_assert_eq!(table.generation(), full.generation());
            let verdict = Verdict::from_ack(ack(&by_delta, &rejected)).unwrap();
            let Verdict::Applied { version, .. } = verdict else { panic!("not an Ack") };
            prop_assert_eq!(version, next.version());
            (table_by_delta, table_by_full, set) = (table, full, next);
        }
    }

    #[test]
    fn old_and_partial_sets_are_brought_up_to_date(old in any_resources(), new in any_resources()) {
        let mut held = Held::default();
        apply(&mut held, encode(&old).full());
        let set = encode(&new);
        // A stream that broke after the first part leaves nothing behind.
        let mut broken = connect(&mut held, &set).remove(0);
        broken.more = true;
        let _ = held.receive(broken).unwrap();
        let update = connect(&mut held, &set);
        apply(&mut held, update);
        prop_assert_eq!(held.resources(), &new);
        prop_assert_eq!(held.version(), set.version());
    }

    #[test]
    fn order_of_the_resources_does_not_matter(
        resources in any_resources(), order in subsequence((0..20).collect::<Vec<_>>(), 20).prop_shuffle()
    ) {
        let set = encode(&resources);
        let mut update = set.full();
        let upserts = &mut update[0].upserts;
        let count = upserts.len();
        upserts.sort_by_key(|resource| {
            let index = set.entries.keys().position(|key| **key == *resource.key).unwrap();
            order.get(index).copied()
        });
        prop_assert_eq!(upserts.len(), count);
        let mut held = Held::default();
        apply(&mut held, update);
        prop_assert_eq!(held.version(), set.version());
        prop_assert_eq!(held.resources(), &resources);
    }

    #[test]
    fn a_changed_byte_is_noticed(
        old in any_resources(), new in any_resources(), at in any::<Index>(), flip in 1_u8..
    ) {
        let mut held = Held::default();
        apply(&mut held, encode(&old).full());
        let (version, before) = (held.version(), held.resources().clone());
        let set = encode(&new);
        let mut bytes = set.delta(&Greeting::read(held.hello("", "")).unwrap().held)[0].encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let Ok(update) = wire::Update::decode(&bytes[..]) else { return Ok(()) };
        match held.receive(update) {
            // The change was in what means nothing, such as another spelling of `true`.
            Ok(Progress::Applied(applied)) => {
                prop_assert_eq!(applied.version, set.version());
                prop_assert_eq!(held.resources(), &new);
            }
            Ok(Progress::Pending) | Err(_) => {
                prop_assert_eq!(held.version(), version);
                prop_assert_eq!(held.resources(), &before);
            }
        }
    }
}
