use std::num::NonZeroU16;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use route_table::{Backend, BackendKey, NonUpgrade, PathMatch, Rule, Timeouts, WeightedBackend};

use super::*;

fn route_key(namespace: &str, name: &str) -> RouteKey {
    RouteKey {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn backend_key(name: &str) -> BackendKey {
    BackendKey {
        namespace: "shared".into(),
        service: name.into(),
        port: NonZeroU16::MIN,
    }
}

/// A route of this age that refers to these backends.
fn route(created: Option<i64>, backends: &[&str]) -> Arc<Route> {
    let second = Duration::from_secs(1);
    let backends = backends.iter().map(|name| WeightedBackend {
        backend: backend_key(name).into(),
        weight: 1,
        proxy_protocol: None,
    });
    Arc::new(Route {
        created,
        hostnames: Vec::new(),
        closed: false,
        rules: vec![Rule {
            name: "0".into(),
            matches: vec![PathMatch::prefix("/").unwrap().into()],
            non_upgrade: NonUpgrade::Reject,
            origins: route_table::OriginPolicy::default(),
            filters: Arc::default(),
            backends: backends.collect(),
            timeouts: Timeouts {
                connect: second,
                handshake: second,
                read: second,
                send: second,
            },
        }],
    })
}

/// Routes by namespace and name, each with its age and its backends, and all these backends.
fn resources(routes: &[(&str, &str, i64, &[&str])]) -> Resources {
    let empty = Arc::new(Backend {
        endpoints: Vec::new(),
    });
    let mut resources = Resources::default();
    for (namespace, name, created, backends) in routes {
        let route = route(Some(*created), backends);
        resources.routes.insert(route_key(namespace, name), route);
        let backends = backends
            .iter()
            .map(|name| (backend_key(name), empty.clone()));
        resources.backends.extend(backends);
    }
    resources
}

/// The same for every resource, stubs too.
struct Each(usize);

impl Costs for Each {
    fn of(&self, _: &ResourceKey) -> usize {
        self.0
    }

    fn of_stub(&self, _: &RouteKey, _: &Arc<Route>) -> usize {
        self.0
    }
}

const ONE: Each = Each(1);

/// Names of those of the routes that are stubs, or not.
fn names(resources: &Resources, stubs: bool) -> Vec<String> {
    let routes = resources.routes.iter();
    let routes = routes.filter(|(_, route)| route.closed == stubs);
    routes.map(|(key, _)| key.to_string()).collect()
}

#[track_caller]
fn check(resources: &Resources, most: usize, left_out: &[&str], backends: &[&str]) {
    let fitted = fit(resources, most, &ONE).unwrap();
    let named = fitted.left_out.iter().map(ToString::to_string);
    assert_eq!(named.collect::<Vec<_>>(), left_out);
    let kept = fitted.resources.backends.keys();
    let kept = kept.map(|key| key.service.to_string());
    assert_eq!(kept.collect::<Vec<_>>(), backends);
    assert_eq!(names(&fitted.resources, true), left_out);
    assert_eq!(fitted.resources.routes.len(), resources.routes.len());
}

#[test]
fn what_fits_is_left_alone() {
    let all = resources(&[("a", "x", 1, &["s"]), ("b", "y", 2, &["s"])]);
    assert!(fit(&all, 3, &ONE).is_none());
    assert!(fit(&all, 2, &ONE).is_some());
}

#[test]
fn the_youngest_routes_of_who_uses_most_go_with_what_only_they_need() {
    let all = resources(&[
        ("greedy", "z-oldest", 1, &["own", "common"]),
        ("greedy", "b", 20, &["of-b", "common"]),
        ("greedy", "a-youngest", 30, &["of-a", "own"]),
        ("modest", "younger-than-all", 99, &["common"]),
    ]);
    // Four routes and four backends.
    check(&all, 7, &["greedy/a-youngest"], &["common", "of-b", "own"]);
    check(
        &all,
        6,
        &["greedy/a-youngest", "greedy/b"],
        &["common", "own"],
    );
}

#[test]
fn one_more_route_of_who_uses_most_is_the_one_that_goes() {
    let mut routes = vec![("modest", "a", 50, &["m"][..]), ("modest", "b", 60, &["m"])];
    let names = (0..10).map(|index| format!("r{index}")).collect::<Vec<_>>();
    for (name, age) in names.iter().zip(0..) {
        routes.push(("greedy", name, age, &["g"]));
    }
    let before = fit(&resources(&routes), 10, &ONE).unwrap();
    routes.push(("greedy", "another", 100, &["g"]));
    let after = fit(&resources(&routes), 10, &ONE).unwrap();
    assert_eq!(before.resources, after.resources);
    assert_eq!(after.left_out.len(), before.left_out.len() + 1);
}

#[test]
fn a_route_of_unknown_age_counts_as_the_youngest() {
    let mut all = resources(&[("a", "x", i64::MAX, &[]), ("a", "y", i64::MAX, &[])]);
    let unknown = route(None, &[]);
    all.routes.insert(route_key("a", "b"), unknown);
    let fitted = fit(&all, 2, &ONE).unwrap();
    assert_eq!(names(&fitted.resources, false), ["a/x", "a/y"]);
}

#[test]
fn what_no_route_needs_goes_first() {
    let mut all = resources(&[("a", "x", 1, &["s"])]);
    let unused = resources(&[("a", "y", 1, &["unused"])]).backends;
    all.backends.extend(unused);
    check(&all, 2, &[], &["s"]);
}

#[test]
fn a_stub_keeps_names_and_paths_and_counts() {
    let all = resources(&[("a", "x", 1, &["s"]), ("a", "y", 2, &["t", "u"])]);
    let fitted = fit(&all, 3, &ONE).unwrap();
    let [kept, stub] = ["x", "y"].map(|name| &fitted.resources.routes[&route_key("a", name)]);
    assert_eq!(**kept, *all.routes[&route_key("a", "x")]);
    let mut expected = (*route(Some(2), &[])).clone();
    expected.closed = true;
    assert_eq!(**stub, expected);
    // Two stubs are as many as there may be.
    check(&all, 2, &["a/x", "a/y"], &[]);
}

#[test]
fn only_a_namespace_whose_stubs_are_too_many_loses_some_of_its_routes_whole() {
    let greedy = (0..12)
        .map(|index| format!("r{index:02}"))
        .collect::<Vec<_>>();
    let mut routes = vec![("modest", "a", 50, &["m"][..])];
    for (name, age) in greedy.iter().zip(0..) {
        routes.push(("greedy", name, age, &["g"]));
    }
    let fitted = fit(&resources(&routes), 10, &ONE).unwrap();
    assert_eq!(names(&fitted.resources, true), [""; 0]);
    let mut expected = greedy
        .iter()
        .take(7)
        .map(|name| format!("greedy/{name}"))
        .collect::<Vec<_>>();
    expected.push("modest/a".to_owned());
    assert_eq!(names(&fitted.resources, false), expected);
    assert_eq!(fitted.left_out.len(), 5);
    // What was within its share, or can be shortened, stays.
    routes.push(("third", "b", 1, &["x", "y", "z"]));
    let fitted = fit(&resources(&routes), 10, &ONE).unwrap();
    assert_eq!(names(&fitted.resources, true), ["third/b"]);
    assert!(names(&fitted.resources, false).contains(&"modest/a".to_owned()));
}

fn any_world() -> impl Strategy<Value = Resources> {
    let names = prop::sample::select(&["a", "b", "c", "d", "e"][..]);
    let key = (prop::sample::select(&["n", "o", "p"][..]), names.clone());
    let made = (option::of(0..4_i64), vec(names, 0..4));
    btree_map(key, made, 0..12).prop_map(|routes| {
        let mut all = Resources::default();
        for ((namespace, name), (created, backends)) in routes {
            let needed = resources(&[(namespace, name, 0, &backends)]);
            all.backends.extend(needed.backends);
            let key = route_key(namespace, name);
            all.routes.insert(key, route(created, &backends));
        }
        all
    })
}

proptest! {
    #[test]
    fn what_is_left_fits_and_is_whole_and_fair(all in any_world(), most in 0..12_usize) {
        struct Two;
        impl Costs for Two {
            fn of(&self, key: &ResourceKey) -> usize {
                match key {
                    ResourceKey::Route(_) => 1,
                    ResourceKey::Backend(_)
                    | ResourceKey::External(_)
                    | ResourceKey::Certificate(_) => 2,
                }
            }
            fn of_stub(&self, _: &RouteKey, _: &Arc<Route>) -> usize {
                1
            }
        }
        let cost = |key: &ResourceKey| Two.of(key);
        let Some(Fitted { resources: kept, left_out }) = fit(&all, most, &Two) else {
            prop_assert!(keys(&all).map(|key| cost(&key)).sum::<usize>() <= most);
            return Ok(());
        };
        prop_assert!(keys(&kept).map(|key| cost(&key)).sum::<usize>() <= most);
        // Every route is kept with all that it needs, or named.
        for (key, route) in &all.routes {
            let as_it_was = kept.routes.get(key) == Some(route);
            prop_assert_ne!(as_it_was, left_out.contains(key));
            let whole = needs(key, route).iter().all(|needed| keys(&kept).any(|key| key == *needed));
            prop_assert!(whole || left_out.contains(key));
        }
        let namespaces = all.routes.keys().map(|key| &key.namespace).collect::<BTreeSet<_>>();
        let mut at_least = 0;
        for namespace in &namespaces {
            let of = |key: &RouteKey| key.namespace == **namespace;
            let routes = || all.routes.iter().filter(|(key, _)| of(key));
            let uses = routes().flat_map(|(key, route)| needs(key, route)).collect::<BTreeSet<_>>();
            let uses = uses.iter().map(cost).sum::<usize>();
            let modest = uses * namespaces.len() <= most;
            // A namespace that is shortened stops at its share.
            at_least += if modest { uses } else { routes().count().max(most / namespaces.len()) };
            if modest {
                prop_assert!(!left_out.iter().any(of), "{namespace} is within its share");
            }
            // Nobody goes before a younger one of the same namespace.
            let age = |key: &RouteKey| {
                let created = all.routes[key].created;
                (created.is_none(), created, key.clone())
            };
            let open = kept.routes.keys().filter(|key| of(key) && !left_out.contains(key));
            let youngest_kept = open.map(age).max();
            let oldest_gone = left_out.iter().filter(|key| of(key)).map(age).min();
            if let (Some(kept), Some(gone)) = (youngest_kept, oldest_gone) {
                prop_assert!(kept < gone);
            }
        }
        // As long as stubs fit, they all stay.
        if at_least <= most {
            prop_assert!(all.routes.keys().all(|key| kept.routes.contains_key(key)));
        }
    }
}
