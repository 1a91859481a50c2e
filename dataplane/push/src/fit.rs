//! Which routes go when all resources together are over a limit of the push.
//!
//! In: resources, what each costs, the most that all may cost. Out: the resources that fit, and the routes that were left out. The
//! namespace that uses the most loses its youngest route, with what no other route needs, again and again until the rest fits:
//! whoever fills the push loses what filled it, and a namespace within its even share loses nothing. A pure function of what it is
//! given, so that every replica leaves out the same routes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use route_table::{HostTls, ResourceKey, Resources, Route, RouteKey};

/// What fits, and what does not.
pub(crate) struct Fitted {
    pub(crate) resources: Resources,
    /// In order.
    pub(crate) left_out: BTreeSet<RouteKey>,
}

/// Resources that cost at most `most`; nothing if all of them do. What no route needs goes before any route does.
pub(crate) fn fit(
    resources: &Resources,
    most: usize,
    cost: impl Fn(&ResourceKey) -> usize,
) -> Option<Fitted> {
    let costs = keys(resources).map(|key| (key.clone(), cost(&key)));
    let costs = costs.collect::<HashMap<_, _>>();
    if costs.values().sum::<usize>() <= most {
        return None;
    }
    let mut everybody = Use::default();
    let mut namespaces = BTreeMap::<&str, Namespace<'_>>::new();
    for (key, route) in &resources.routes {
        let namespace = namespaces.entry(&key.namespace).or_default();
        for needed in needs(key, route) {
            everybody.add(&needed, &costs);
            namespace.uses.add(&needed, &costs);
        }
        namespace.routes.push((key, route));
    }
    for namespace in namespaces.values_mut() {
        let age = |(key, route): &(&RouteKey, &Arc<Route>)| {
            (route.created.is_none(), route.created, (*key).clone())
        };
        namespace.routes.sort_by_cached_key(age);
    }
    let rank =
        |name: &str, namespace: &Namespace<'_>| (namespace.uses.total, Reverse(name.to_owned()));
    let ranked = namespaces
        .iter()
        .map(|(name, namespace)| rank(name, namespace));
    let mut greediest = ranked.collect::<BinaryHeap<_>>();
    let mut left_out = BTreeSet::new();
    while everybody.total > most {
        let Some((_, Reverse(name))) = greediest.pop() else {
            break;
        };
        let Some(namespace) = namespaces.get_mut(&*name) else {
            continue;
        };
        let Some((key, route)) = namespace.routes.pop() else {
            continue;
        };
        for needed in needs(key, route) {
            everybody.remove(&needed, &costs);
            namespace.uses.remove(&needed, &costs);
        }
        left_out.insert(key.clone());
        greediest.push(rank(&name, namespace));
    }
    let resources = only(resources, |key| everybody.users.contains_key(key));
    Some(Fitted {
        resources,
        left_out,
    })
}

#[derive(Default)]
struct Namespace<'a> {
    /// Oldest first, unknown age last, as the table orders them.
    routes: Vec<(&'a RouteKey, &'a Arc<Route>)>,
    uses: Use,
}

/// What some routes need, each resource once.
#[derive(Default)]
struct Use {
    /// How many of the routes need it.
    users: HashMap<ResourceKey, usize>,
    total: usize,
}

impl Use {
    fn add(&mut self, key: &ResourceKey, costs: &HashMap<ResourceKey, usize>) {
        let Some(cost) = costs.get(key) else {
            return;
        };
        let users = self.users.entry(key.clone()).or_default();
        if *users == 0 {
            self.total += cost;
        }
        *users += 1;
    }

    fn remove(&mut self, key: &ResourceKey, costs: &HashMap<ResourceKey, usize>) {
        let (Some(cost), Some(users)) = (costs.get(key), self.users.get_mut(key)) else {
            return;
        };
        *users -= 1;
        if *users == 0 {
            self.users.remove(key);
            self.total -= cost;
        }
    }
}

/// The route and everything that it refers to, each once.
fn needs(key: &RouteKey, route: &Route) -> BTreeSet<ResourceKey> {
    let mut needs = BTreeSet::from([ResourceKey::Route(key.clone())]);
    for rule in &route.rules {
        let backends = rule.backends.iter();
        needs.extend(backends.map(|weighted| ResourceKey::Backend(weighted.backend.clone())));
    }
    for hostname in &route.hostnames {
        match &hostname.tls {
            HostTls::Terminate { certificates } => {
                needs.extend(certificates.iter().cloned().map(ResourceKey::Certificate));
            }
            HostTls::None => {}
        }
    }
    needs
}

fn keys(resources: &Resources) -> impl Iterator<Item = ResourceKey> + '_ {
    let Resources {
        routes,
        backends,
        certificates,
    } = resources;
    let routes = routes.keys().cloned().map(ResourceKey::Route);
    let backends = backends.keys().cloned().map(ResourceKey::Backend);
    let certificates = certificates.keys().cloned().map(ResourceKey::Certificate);
    routes.chain(backends).chain(certificates)
}

fn only(resources: &Resources, keeps: impl Fn(&ResourceKey) -> bool) -> Resources {
    let Resources {
        mut routes,
        mut backends,
        mut certificates,
    } = resources.clone();
    routes.retain(|key, _| keeps(&ResourceKey::Route(key.clone())));
    backends.retain(|key, _| keeps(&ResourceKey::Backend(key.clone())));
    certificates.retain(|key, _| keeps(&ResourceKey::Certificate(key.clone())));
    Resources {
        routes,
        backends,
        certificates,
    }
}

#[cfg(test)]
mod tests;
