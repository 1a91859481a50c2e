//! Which routes lose what they lead to when all resources together are over a limit of the push.
//!
//! In: resources, what each costs, the most that all may cost. Out: resources that fit, and the routes that were left out. The
//! namespace that uses the most loses its youngest route, with what no other route needs, again and again until the rest fits:
//! whoever fills the push loses what filled it, and a namespace within its even share loses nothing. A pure function of what it is
//! given, so that every replica leaves out the same routes.
//!
//! What is left out of a route stays in the set as its stub: its hostnames, its paths and nothing that they lead to. Without it,
//! requests for it would fall to another route, perhaps of another namespace. A stub goes only if nothing else helps: if a
//! namespace uses more than its even share with stubs alone, and no other that does has a route left to shorten. Then that
//! namespace's routes are left out whole, the youngest first, and as few as will do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use route_table::{HostTls, ResourceKey, Resources, Route, RouteKey, Rule};

/// What fits, and what does not.
pub(crate) struct Fitted {
    /// With stubs, which are closed.
    pub(crate) resources: Resources,
    /// In order.
    pub(crate) left_out: BTreeSet<RouteKey>,
}

/// What the resources cost.
pub(crate) trait Costs {
    fn of(&self, key: &ResourceKey) -> usize;
    fn of_stub(&self, key: &RouteKey, stub: &Arc<Route>) -> usize;
}

/// Resources that cost at most `most`; nothing if all of them do. What no route needs goes before any route does.
pub(crate) fn fit(resources: &Resources, most: usize, costs: &impl Costs) -> Option<Fitted> {
    if keys(resources).map(|key| costs.of(&key)).sum::<usize>() <= most {
        return None;
    }
    let mut fitting = Fitting::new(resources, costs);
    fitting.shorten(most);
    Some(fitting.finish(resources))
}

/// The route without what it leads to. As long as its names and paths are, of which the schema has a bounded number; its hostnames
/// keep their TLS, and if no open route needs the certificates any more these go, which fails the handshakes.
fn stub(route: &Route) -> Arc<Route> {
    let rules = route.rules.iter().map(|rule| Rule {
        backends: Vec::new(),
        ..rule.clone()
    });
    Arc::new(Route {
        rules: rules.collect(),
        closed: true,
        ..route.clone()
    })
}

/// The work on one set.
struct Fitting<'a, C> {
    costs: &'a C,
    cost: HashMap<ResourceKey, usize>,
    everybody: Use,
    namespaces: BTreeMap<&'a str, Namespace<'a>>,
}

#[derive(Default)]
struct Namespace<'a> {
    /// Those that are as they were. Oldest first, unknown age last, as the table orders them.
    open: Vec<Listed<'a>>,
    /// Youngest first.
    stubs: Vec<Stub<'a>>,
    /// Whether its routes are left out whole.
    whole: bool,
    gone: Vec<&'a RouteKey>,
    uses: Use,
}

type Listed<'a> = (&'a RouteKey, &'a Arc<Route>);

struct Stub<'a> {
    of: Listed<'a>,
    route: Arc<Route>,
    cost: usize,
}

/// By what a namespace uses, then by name.
type Ranked = BinaryHeap<(usize, Reverse<String>)>;

impl<'a, C: Costs> Fitting<'a, C> {
    fn new(resources: &'a Resources, costs: &'a C) -> Self {
        let cost = keys(resources).map(|key| (key.clone(), costs.of(&key)));
        let mut fitting = Self {
            costs,
            cost: cost.collect(),
            everybody: Use::default(),
            namespaces: BTreeMap::new(),
        };
        for (key, route) in &resources.routes {
            let namespace = fitting.namespaces.entry(&key.namespace).or_default();
            for needed in needs(key, route) {
                fitting.everybody.add(&needed, &fitting.cost);
                namespace.uses.add(&needed, &fitting.cost);
            }
            namespace.open.push((key, route));
        }
        for namespace in fitting.namespaces.values_mut() {
            let age = |(key, route): &Listed<'_>| {
                (route.created.is_none(), route.created, (*key).clone())
            };
            namespace.open.sort_by_cached_key(age);
        }
        fitting
    }

    fn rank(&self, name: &str) -> (usize, Reverse<String>) {
        let uses = self
            .namespaces
            .get(name)
            .map(|namespace| namespace.uses.total);
        (uses.unwrap_or_default(), Reverse(name.to_owned()))
    }

    fn shorten(&mut self, most: usize) {
        let number = self.namespaces.len();
        let over_share = |uses: usize| uses.saturating_mul(number) > most;
        let ranked = self.namespaces.keys().map(|name| self.rank(name));
        let mut greediest = ranked.collect::<Ranked>();
        let mut only_stubs = Ranked::new();
        while self.everybody.total > most {
            if let Some((uses, Reverse(name))) = pop_if(&mut greediest, over_share) {
                if self.shorten_youngest(&name) {
                    greediest.push(self.rank(&name));
                } else {
                    only_stubs.push((uses, Reverse(name)));
                }
                continue;
            }
            // Whoever is still over its share has nothing but stubs.
            let Some((_, Reverse(name))) = only_stubs.pop() else {
                break;
            };
            if self.leave_out_whole(&name) {
                greediest.push(self.rank(&name));
            }
        }
    }

    /// Makes the youngest open route a stub, or takes it out; whether there was one.
    fn shorten_youngest(&mut self, name: &str) -> bool {
        let Some(namespace) = self.namespaces.get_mut(name) else {
            return false;
        };
        let Some((key, route)) = namespace.open.pop() else {
            return false;
        };
        for needed in needs(key, route) {
            self.everybody.remove(&needed, &self.cost);
            namespace.uses.remove(&needed, &self.cost);
        }
        if namespace.whole {
            namespace.gone.push(key);
            return true;
        }
        let stub = stub(route);
        let cost = self.costs.of_stub(key, &stub);
        self.everybody.total += cost;
        namespace.uses.total += cost;
        namespace.stubs.push(Stub {
            of: (key, route),
            route: stub,
            cost,
        });
        true
    }

    /// Makes all routes what they were, to take the youngest out instead; once.
    fn leave_out_whole(&mut self, name: &str) -> bool {
        let Some(namespace) = self.namespaces.get_mut(name) else {
            return false;
        };
        if namespace.whole {
            return false;
        }
        namespace.whole = true;
        while let Some(Stub { of, cost, .. }) = namespace.stubs.pop() {
            self.everybody.total -= cost;
            namespace.uses.total -= cost;
            for needed in needs(of.0, of.1) {
                self.everybody.add(&needed, &self.cost);
                namespace.uses.add(&needed, &self.cost);
            }
            namespace.open.push(of);
        }
        true
    }

    fn finish(self, resources: &Resources) -> Fitted {
        let users = self.everybody.users;
        let mut resources = only(resources, |key| users.contains_key(key));
        let mut left_out = BTreeSet::new();
        for namespace in self.namespaces.into_values() {
            left_out.extend(namespace.gone.into_iter().cloned());
            for Stub { of, route, .. } in namespace.stubs {
                left_out.insert(of.0.clone());
                resources.routes.insert(of.0.clone(), route);
            }
        }
        Fitted {
            resources,
            left_out,
        }
    }
}

/// The first, if it uses enough.
fn pop_if(ranked: &mut Ranked, enough: impl Fn(usize) -> bool) -> Option<(usize, Reverse<String>)> {
    ranked.peek().filter(|(uses, _)| enough(*uses))?;
    ranked.pop()
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

/// The route and everything that it refers to, each once; of a stub nothing else.
fn needs(key: &RouteKey, route: &Route) -> BTreeSet<ResourceKey> {
    let mut needs = BTreeSet::from([ResourceKey::Route(key.clone())]);
    if route.closed {
        return needs;
    }
    for rule in &route.rules {
        let backends = rule.backends.iter();
        needs.extend(backends.map(|weighted| weighted.backend.resource()));
    }
    for hostname in &route.hostnames {
        match &hostname.tls {
            HostTls::Terminate { certificates, .. } => {
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
        externals,
        certificates,
    } = resources;
    let routes = routes.keys().cloned().map(ResourceKey::Route);
    let backends = backends.keys().cloned().map(ResourceKey::Backend);
    let externals = externals.keys().cloned().map(ResourceKey::External);
    let certificates = certificates.keys().cloned().map(ResourceKey::Certificate);
    let backends = backends.chain(externals);
    routes.chain(backends).chain(certificates)
}

fn only(resources: &Resources, keeps: impl Fn(&ResourceKey) -> bool) -> Resources {
    let Resources {
        mut routes,
        mut backends,
        mut externals,
        mut certificates,
    } = resources.clone();
    routes.retain(|key, _| keeps(&ResourceKey::Route(key.clone())));
    backends.retain(|key, _| keeps(&ResourceKey::Backend(key.clone())));
    externals.retain(|key, _| keeps(&ResourceKey::External(key.clone())));
    certificates.retain(|key, _| keeps(&ResourceKey::Certificate(key.clone())));
    Resources {
        routes,
        backends,
        externals,
        certificates,
    }
}

#[cfg(test)]
mod tests;
