use proptest::prelude::*;
use prost::Message as _;
use route_table::{
    BackendKey, CertificateKey, Host, HostTls, Hostname, Matched, OnPlain, RequestParts, RouteKey,
    RouteTable,
};

use super::*;
use crate::samples::{self, resource, update_to};
use crate::{Greeting, HOLD_BODY, encode};

const ROUTE: &str = "route/default/chat";
const BACKEND: &str = "backend/default/chat/80";
const CERTIFICATE: &str = "certificate/default/tls";
const NO_HANDSHAKE: HostTls = HostTls::Terminate {
    certificates: Vec::new(),
    plain: OnPlain::Refuse,
};

fn route(requires: &[&str]) -> wire::Resource {
    resource(ROUTE, requires, &encode::route(&samples::route()).body)
}

/// A route that only a later version can read.
fn unreadable_route() -> wire::Resource {
    let body = encode::route(&samples::route()).body;
    let mut message = wire::Route::decode(body).unwrap();
    message.rules[0].non_upgrade = 99;
    resource(ROUTE, &[], &message.encode_to_vec())
}

fn hold() -> wire::Resource {
    let body = encode::certificate(&route_table::CertificateResource::Hold).body;
    resource(CERTIFICATE, &[], &body)
}

fn empty_backend() -> wire::Resource {
    resource(BACKEND, &[], b"")
}

#[track_caller]
fn apply(held: &mut Held, set: &[wire::Resource]) {
    let progress = held.receive(update_to(set)).unwrap();
    assert!(matches!(progress, Progress::Applied(_)));
}

#[track_caller]
fn rejected(held: &Held) -> Vec<&str> {
    held.rejected().map(|(key, _)| key).collect()
}

fn held_route(held: &Held) -> Option<&Arc<route_table::Route>> {
    let key = RouteKey {
        namespace: "default".into(),
        name: "chat".into(),
    };
    held.resources().routes.get(&key)
}

fn find<'a>(host: &'a Host, path: &str) -> Option<Matched<'a>> {
    host.find(&RequestParts::of_path(path))
}

#[track_caller]
fn assert_closed(held: &Held, tls: &HostTls) {
    let closed = held_route(held).unwrap();
    assert_eq!(closed.hostnames[0].tls, *tls);
    assert!(closed.closed);
    assert!(closed.rules.iter().all(|rule| rule.backends.is_empty()));
    // The table takes it, and answers for the same requests.
    let (table, rejected) = RouteTable::build(held.resources(), &RouteTable::empty());
    assert_eq!(rejected, []);
    let host = table.host(&Hostname::parse("chat.example.com").unwrap());
    assert!(find(host.unwrap(), "/ws").is_some());
}

#[test]
fn lacking_route_feature_closes_the_route_even_if_it_was_open() {
    let mut held = Held::new(&["route/known"]);
    apply(&mut held, &[route(&["route/known"])]);
    assert_eq!(**held_route(&held).unwrap(), samples::route());
    apply(&mut held, &[route(&["route/known", "route/new"])]);
    assert_eq!(rejected(&held), [ROUTE]);
    assert_closed(&held, &samples::route().hostnames[0].tls);
    // It stays closed if the next form cannot be read at all: what is held was never accepted.
    apply(&mut held, &[unreadable_route()]);
    assert_closed(&held, &samples::route().hostnames[0].tls);
    apply(&mut held, &[route(&[])]);
    assert_eq!(rejected(&held), [""; 0]);
    assert_eq!(**held_route(&held).unwrap(), samples::route());
}

#[test]
fn lacking_host_feature_refuses_the_handshakes() {
    for feature in ["host/new", "of an unknown kind"] {
        let mut held = Held::default();
        apply(&mut held, &[route(&["route/new", feature])]);
        assert_closed(&held, &NO_HANDSHAKE);
    }
}

#[test]
fn unreadable_route_keeps_its_last_accepted_form() {
    let mut held = Held::default();
    apply(&mut held, &[route(&[]), hold()]);
    apply(&mut held, &[unreadable_route()]);
    assert_eq!(**held_route(&held).unwrap(), samples::route());
    assert_eq!(rejected(&held), [ROUTE]);
    // The rest of the update was applied.
    assert!(held.resources().certificates.is_empty());
    // And still if it comes again, alike or not.
    apply(&mut held, &[resource(ROUTE, &[], b"\xff")]);
    apply(&mut held, &[resource(ROUTE, &[], b"\xff")]);
    assert_eq!(**held_route(&held).unwrap(), samples::route());
    apply(&mut held, &[]);
    assert!(held_route(&held).is_none());
}

#[test]
fn unreadable_route_without_an_accepted_form_is_closed() {
    let mut held = Held::default();
    apply(&mut held, &[unreadable_route()]);
    assert_closed(&held, &samples::route().hostnames[0].tls);
    // It stays closed when less can be read of it, and goes when it is removed.
    for garbage in [HOLD_BODY, b"\x07"] {
        apply(&mut held, &[resource(ROUTE, &[], garbage)]);
        assert_closed(&held, &samples::route().hostnames[0].tls);
    }
    apply(&mut held, &[resource(ROUTE, &["host/new"], HOLD_BODY)]);
    assert_closed(&held, &NO_HANDSHAKE);
    apply(&mut held, &[]);
    assert!(held_route(&held).is_none());
    // Of nothing, nothing is known.
    apply(&mut held, &[resource(ROUTE, &[], HOLD_BODY)]);
    assert!(held_route(&held).is_none());
}

#[test]
fn an_accepted_route_closes_as_it_was_if_nothing_can_be_read_of_what_it_lacks() {
    for (feature, tls) in [
        ("route/new", samples::route().hostnames[0].tls.clone()),
        ("host/new", NO_HANDSHAKE),
    ] {
        let mut held = Held::default();
        apply(&mut held, &[route(&[])]);
        apply(&mut held, &[resource(ROUTE, &[feature], HOLD_BODY)]);
        assert_closed(&held, &tls);
        assert_eq!(rejected(&held), [ROUTE]);
    }
}

#[test]
fn tls_of_a_later_kind_refuses_the_handshakes() {
    let body = encode::route(&samples::route()).body;
    let mut message = wire::Route::decode(body).unwrap();
    message.hostnames[0].tls = None;
    let unreadable = resource(ROUTE, &[], &message.encode_to_vec());
    let mut held = Held::default();
    apply(&mut held, &[unreadable]);
    assert_closed(&held, &NO_HANDSHAKE);
    let [_, other] = &*held_route(&held).unwrap().hostnames else {
        panic!("a hostname is missing");
    };
    assert_eq!(other.tls, HostTls::None);
}

#[test]
fn open_form_is_gone_even_if_no_match_of_the_closed_form_can_be_read() {
    let mut held = Held::default();
    apply(&mut held, &[route(&[])]);
    let (open, _) = RouteTable::build(held.resources(), &RouteTable::empty());
    let mut message = wire::Route::decode(encode::route(&samples::route()).body).unwrap();
    for path in &mut message.rules[0].matches {
        path.path = None;
    }
    let body = message.encode_to_vec();
    apply(&mut held, &[resource(ROUTE, &["route/new"], &body)]);
    let (closed, rejected) = RouteTable::build(held.resources(), &open);
    assert_eq!(rejected, []);
    let host = closed.host(&Hostname::parse("chat.example.com").unwrap());
    assert!(find(host.unwrap(), "/ws").is_none());
}

#[test]
fn backend_and_certificate_are_closed_by_absence() {
    let mut held = Held::default();
    apply(&mut held, &[empty_backend(), hold()]);
    let closed = [
        resource(BACKEND, &["route/new"], b""),
        resource(CERTIFICATE, &["host/new"], &hold().body),
    ];
    assert_eq!(held.resources().backends.len(), 1);
    apply(&mut held, &closed);
    assert_eq!(held.resources(), &Resources::default());
    assert_eq!(rejected(&held), [BACKEND, CERTIFICATE]);
}

#[test]
fn unreadable_backend_and_certificate_keep_their_last_accepted_form() {
    let mut held = Held::default();
    apply(&mut held, &[empty_backend(), hold()]);
    let accepted = held.resources().clone();
    let unreadable = [
        resource(BACKEND, &[], b"\xff"),
        resource(CERTIFICATE, &[], b"\xff"),
    ];
    apply(&mut held, &unreadable);
    assert_eq!(held.resources(), &accepted);
    assert_eq!(rejected(&held), [BACKEND, CERTIFICATE]);
    let mut fresh = Held::default();
    apply(&mut fresh, &unreadable);
    assert_eq!(fresh.resources(), &Resources::default());
}

#[test]
fn unknown_kind_is_held_and_reported() {
    let mut held = Held::default();
    apply(&mut held, &[resource("consumer/default/a", &[], b"x")]);
    assert_eq!(rejected(&held), ["consumer/default/a"]);
    assert_eq!(held.resources(), &Resources::default());
    let greeting = Greeting::read(held.hello("pod", "build")).unwrap();
    assert_eq!(greeting.held.version(), held.version());
    apply(&mut held, &[]);
    assert_eq!(rejected(&held), [""; 0]);
}

#[test]
fn removals_apply_beside_rejections() {
    let mut held = Held::default();
    apply(&mut held, &[route(&[]), hold()]);
    let after = [unreadable_route()];
    let update = wire::Update {
        base: Some(held.version().to_bytes()),
        removals: vec![CERTIFICATE.into(), "certificate/default/unknown".into()],
        ..update_to(&after)
    };
    held.receive(update).unwrap();
    assert!(held.resources().certificates.is_empty());
    assert_eq!(rejected(&held), [ROUTE]);
}

#[test]
fn hello_that_would_be_too_long_asks_for_a_full_set() {
    let mut held = Held::default();
    let name = "n".repeat(200);
    let set = (0..20_000).map(|index| resource(&format!("x/{name}/{index}"), &[], b""));
    apply(&mut held, &set.collect::<Vec<_>>());
    assert!(held.hello("pod", "build").held.is_empty());
    apply(&mut held, &[route(&[])]);
    assert_eq!(held.hello("pod", "build").held.len(), 1);
}

/// Refuses an update that replaces one hold by another set, and checks that nothing else happened.
#[track_caller]
fn refuse(change: impl Fn(&mut wire::Update), expected: &Refused) {
    let mut held = Held::default();
    apply(&mut held, &[hold()]);
    let before = (held.version(), held.resources().clone());
    let mut update = update_to(&[route(&[])]);
    change(&mut update);
    assert_eq!(held.receive(update).as_ref(), Err(expected));
    assert_eq!((held.version(), held.resources().clone()), before);
    apply(&mut held, &[route(&[])]);
}

#[test]
fn bad_envelope_is_refused_whole() {
    let key = || ROUTE.to_owned();
    refuse(
        |update| update.version.truncate(31),
        &Refused::VersionLength,
    );
    refuse(
        |update| update.base = Some(update.version.slice(..8)),
        &Refused::VersionLength,
    );
    let other = Version::of([]);
    let mut held = Held::default();
    apply(&mut held, &[hold()]);
    let of_hold = held.version();
    refuse(
        |update| update.base = Some(other.to_bytes()),
        &Refused::Base {
            base: other,
            held: of_hold,
        },
    );
    refuse(
        |update| update.removals.push("x".into()),
        &Refused::RemovalInFullSet,
    );
    refuse(
        |update| update.upserts.push(route(&[])),
        &Refused::Twice { key: key() },
    );
    refuse(
        |update| {
            update.base = Some(of_hold.to_bytes());
            update.removals.push(ROUTE.into());
        },
        &Refused::Twice { key: key() },
    );
    refuse(|update| update.upserts[0].key.clear(), &Refused::KeyLength);
    refuse(
        |update| update.upserts[0].key = "k".repeat(MAX_KEY_BYTES + 1),
        &Refused::KeyLength,
    );
    refuse(
        |update| update.upserts[0].requires = vec!["f".into(); MAX_REQUIRES + 1],
        &Refused::Requires { key: key() },
    );
    refuse(
        |update| update.upserts[0].requires = vec!["f".repeat(MAX_TEXT_BYTES + 1)],
        &Refused::Requires { key: key() },
    );
    let bytes = MAX_BODY_BYTES + 1;
    refuse(
        |update| update.upserts[0].body = vec![0; bytes].into(),
        &Refused::BodyLength { key: key(), bytes },
    );
}

#[test]
fn wrong_version_is_refused_whole() {
    let announced = Version::of([]);
    let update = update_to(&[route(&[])]);
    let computed = Version::from_bytes(&update.version).unwrap();
    refuse(
        |update| update.version = announced.to_bytes(),
        &Refused::Version {
            announced,
            computed,
        },
    );
}

#[test]
fn too_many_resources_are_refused_whole() {
    let many = (0..=MAX_RESOURCES)
        .map(|index| resource(&format!("x/{index}"), &[], b""))
        .collect::<Vec<_>>();
    refuse(
        |update| *update = update_to(&many),
        &Refused::TooManyResources,
    );
}

#[test]
fn too_many_bytes_are_refused_as_they_come() {
    let mut held = Held::default();
    let mut part = update_to(&[route(&[])]);
    part.more = true;
    let version = part.version.clone();
    assert_eq!(held.receive(part), Ok(Progress::Pending));
    let Incoming::Staged(staged) = &mut held.incoming else {
        panic!("nothing is staged");
    };
    staged.bytes = MAX_SET_BYTES;
    let next = |key: &str, more| wire::Update {
        version: version.clone(),
        upserts: vec![resource(key, &[], b"x")],
        more,
        ..wire::Update::default()
    };
    assert_eq!(held.receive(next("a", true)), Err(Refused::TooManyBytes));
    // One answer an update: the rest of it is let go.
    assert_eq!(held.receive(next("b", true)), Ok(Progress::Pending));
    assert_eq!(held.receive(next("c", false)), Ok(Progress::Pending));
    apply(&mut held, &[route(&[])]);
}

#[test]
fn deltas_cannot_grow_a_set_without_bound() {
    let mut held = Held::default();
    apply(&mut held, &[hold()]);
    for entry in held.entries.values_mut() {
        entry.bytes = MAX_SET_BYTES;
    }
    let update = wire::Update {
        base: Some(held.version().to_bytes()),
        ..update_to(&[route(&[])])
    };
    assert_eq!(held.receive(update), Err(Refused::TooManyBytes));
}

#[test]
fn parts_of_two_updates_do_not_mix() {
    let mut held = Held::default();
    let mut first = update_to(&[route(&[])]);
    first.more = true;
    assert_eq!(held.receive(first), Ok(Progress::Pending));
    let refused = held.receive(update_to(&[hold()]));
    assert_eq!(refused, Err(Refused::MixedParts));
    apply(&mut held, &[hold()]);
}

#[test]
fn keys_under_which_nothing_can_stand_close_nothing() {
    let mut held = Held::default();
    apply(
        &mut held,
        &[resource("route/default/", &["route/new"], b"")],
    );
    assert_eq!(held.resources(), &Resources::default());
}

#[test]
fn keys_in_the_table_are_those_of_the_wire() {
    let mut held = Held::default();
    apply(&mut held, &[route(&[]), empty_backend(), hold()]);
    let backend = BackendKey {
        namespace: "default".into(),
        service: "chat".into(),
        port: 80.try_into().unwrap(),
    };
    let certificate = CertificateKey {
        namespace: "default".into(),
        secret: "tls".into(),
    };
    assert!(held.resources().backends.contains_key(&backend));
    assert!(held.resources().certificates.contains_key(&certificate));
}

proptest! {
    #[test]
    fn any_bytes_are_applied_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut held = Held::default();
        if let Ok(update) = wire::Update::decode(&bytes[..]) {
            let _ = held.receive(update);
        }
        if let Ok(hello) = wire::Hello::decode(&bytes[..]) {
            let _ = Greeting::read(hello);
        }
    }

    #[test]
    fn any_body_is_accepted_or_rejected_alone(
        kind in prop::sample::select(vec![ROUTE, BACKEND, CERTIFICATE]),
        requires in prop::sample::subsequence(vec!["route/new", "host/new"], 0..=2),
        body in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut held = Held::default();
        let other = resource("certificate/other/tls", &[], &hold().body);
        apply(&mut held, &[resource(kind, &requires, &body), other]);
        prop_assert!(held.rejected().all(|(key, _)| key == kind));
        let _ = RouteTable::build(held.resources(), &RouteTable::empty());
    }
}
