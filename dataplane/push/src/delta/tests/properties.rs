//! Whatever the resources: a dataplane comes to the same by deltas, by full sets, and after breaks.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use prost::Message as _;
use route_table::{Destination, Hostname, PathMatch, RequestParts, RouteTable};

use super::super::*;
use super::{apply, connect, encode};
use crate::samples::any_resources;
use crate::{Held, Progress, Verdict, ack};

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
        for found in rules().flat_map(|rule| &rule.matches) {
            let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = &found.path;
            let request = RequestParts::of_path(path);
            served.push(format!("{path} {:?}", host.find(&request)));
        }
    }
    for key in rules().flat_map(|rule| &rule.backends) {
        served.push(match &key.backend {
            Destination::Service(service) => format!("{key:?} {:?}", table.backend(service)),
            Destination::External(external) => format!("{key:?} {:?}", table.external(external)),
        });
    }
    for key in resources.certificates.keys() {
        served.push(format!("{key} {:?}", table.certificate(key)));
    }
    served
}

/// Limits that a few resources are over now and then.
const NARROW: SetLimits = SetLimits {
    body_bytes: 150,
    resources: 7,
    bytes: 6 * PAGE_BYTES,
};

/// How a dataplane comes to a set.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// On the stream that brought the one before.
    Follows,
    /// On a new stream, holding what it took last.
    Reconnects,
    /// Not at all: it is away.
    Misses,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop::sample::select(&[Step::Follows, Step::Reconnects, Step::Misses][..])
}

/// What a dataplane should have of `resources`: what is in the set, and of what is held there, the form that it had.
fn due(resources: &Resources, had: &Resources, set: &EncodedSet) -> Resources {
    fn pick<K: Ord + Clone, V: Clone>(
        now: &BTreeMap<K, V>,
        had: &BTreeMap<K, V>,
        set: &EncodedSet,
        name: impl Fn(K) -> ResourceKey,
    ) -> BTreeMap<K, V> {
        let due = now.iter().filter_map(|(key, value)| {
            let entry = set.entries.get(&*key_text(&name(key.clone())))?;
            let value = if entry.holds { had.get(key)? } else { value };
            Some((key.clone(), value.clone()))
        });
        due.collect()
    }
    let certificates = |key| ResourceKey::Certificate(key);
    Resources {
        routes: pick(&resources.routes, &had.routes, set, ResourceKey::Route),
        backends: pick(
            &resources.backends,
            &had.backends,
            set,
            ResourceKey::Backend,
        ),
        externals: pick(
            &resources.externals,
            &had.externals,
            set,
            ResourceKey::External,
        ),
        certificates: pick(
            &resources.certificates,
            &had.certificates,
            set,
            certificates,
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn deltas_lead_where_the_full_path_leads(
        states in proptest::collection::vec((any_resources(), any_step()), 1..8)
    ) {
        let [mut by_delta, mut by_full] = [Held::default(), Held::default()];
        let [mut table_by_delta, mut table_by_full] = [RouteTable::empty(), RouteTable::empty()];
        let mut set = EncodedSet::empty();
        let mut taken = set.digests().clone();
        let mut expected = Resources::default();
        for (resources, step) in states {
            let (next, left_out) = EncodedSet::encode_within(NARROW, &resources, &set);
            let (fresh, again) = EncodedSet::encode_within(NARROW, &resources, &EncodedSet::empty());
            prop_assert_eq!((next.version(), &left_out), (fresh.version(), &again));
            set = next;
            let update = match step {
                Step::Misses => continue,
                Step::Reconnects => connect(&mut by_delta, &set),
                Step::Follows => set.delta(&taken).collect(),
            };
            apply(&mut by_delta, update);
            apply(&mut by_full, fresh.full());
            taken = set.digests().clone();
            expected = due(&resources, &expected, &set);
            prop_assert_eq!(by_delta.resources(), &expected);
            prop_assert_eq!(by_full.resources(), &expected);
            prop_assert_eq!(by_delta.version(), set.version());
            prop_assert_eq!(by_full.version(), set.version());
            prop_assert!(by_delta.rejected().eq(by_full.rejected()));
            let held = left_out.iter().filter(|left_out| left_out.why == OverLimit::Body);
            let held = held.map(|held| key_text(&held.key)).collect::<BTreeSet<_>>();
            prop_assert_eq!(by_delta.rejected().map(|(key, _)| key.to_owned()).collect::<BTreeSet<_>>(), held);
            let (table, rejected) = RouteTable::build(by_delta.resources(), &table_by_delta);
            let (full, full_rejected) = RouteTable::build(by_full.resources(), &table_by_full);
            prop_assert_eq!(&rejected, &full_rejected);
            prop_assert_eq!(served(&table, &resources), served(&full, &resources));
            prop_assert_eq!(table.generation(), full.generation());
            let verdict = Verdict::from_ack(ack(&by_delta, &rejected)).unwrap();
            let Verdict::Applied { version, .. } = verdict else { panic!("not an Ack") };
            prop_assert_eq!(version, set.version());
            (table_by_delta, table_by_full) = (table, full);
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
        let mut update = set.full().collect::<Vec<_>>();
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
        let mut bytes = connect(&mut held, &set)[0].encode_to_vec();
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
