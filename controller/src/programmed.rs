//! Which routes are `Programmed`: whether every dataplane that is ready has taken this generation of a route.
//!
//! In: what was compiled, what each dataplane pod acknowledged, and which pods count. Out: one condition for each route. Pure but
//! for [`Programmed`], the memory of what held once: a generation that every pod has taken stays programmed when more pods come,
//! because they are not ready before they have a table. A rejection ends that, and so does the last pod's end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::conditions::{ConditionReason, ConditionStatus, ConditionType};
use route_table::{HostTls, ResourceKey, Resources, Route, RouteKey};

use crate::compile::Condition;
use crate::delivery::{Deliveries, Delivery};

/// Most parts of a route that the message of a condition names.
const MAX_NAMED: usize = 3;

/// What is remembered of each route.
#[derive(Debug, Default)]
pub struct Programmed {
    routes: BTreeMap<RouteKey, Memory>,
}

#[derive(Debug, Clone)]
struct Memory {
    uid: Arc<str>,
    generation: Option<i64>,
    /// The first sequence that has this generation.
    sequence: u64,
    /// Whether every pod that counted has taken it.
    taken: bool,
}

/// A generation of a route, as it was compiled.
#[derive(Debug, Clone, Copy)]
pub struct Generation<'a> {
    pub key: &'a RouteKey,
    pub uid: &'a Arc<str>,
    pub generation: Option<i64>,
    /// Whether the route's status in the API says already that this generation is programmed; an earlier leader's proof.
    pub recorded: bool,
    /// Whether a certificate of it was not read yet, so that what the dataplanes took is not yet all of it.
    pub waits: bool,
}

/// What all routes are judged by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Of the output that the generations are from.
    pub sequence: u64,
    pub resources: &'a Resources,
    pub deliveries: &'a Deliveries,
    /// The Ready, non-terminating pods of the dataplane Service; nothing if they are not known yet.
    pub pods: Option<&'a BTreeSet<Arc<str>>>,
}

impl Programmed {
    /// The condition of each route, in the order of the routes. Forgets routes that are not among them.
    pub fn judge<'a>(
        &mut self,
        generations: impl Iterator<Item = Generation<'a>>,
        facts: Facts<'_>,
    ) -> BTreeMap<RouteKey, Condition> {
        let mut known = std::mem::take(&mut self.routes);
        let mut conditions = BTreeMap::new();
        for generation in generations {
            let key = generation.key;
            let mut memory = remember(known.remove(key), generation, facts.sequence);
            let condition = judge_route(key, &mut memory, facts);
            self.routes.insert(key.clone(), memory);
            conditions.insert(key.clone(), condition);
        }
        conditions
    }
}

/// What is known of this very generation, or a new memory of it.
fn remember(known: Option<Memory>, generation: Generation<'_>, sequence: u64) -> Memory {
    let Generation {
        key: _,
        uid,
        generation,
        recorded,
        waits,
    } = generation;
    let mut memory = known
        .filter(|known| known.uid == *uid && known.generation == generation)
        .unwrap_or_else(|| Memory {
            uid: uid.clone(),
            generation,
            sequence,
            taken: recorded,
        });
    // A later output than this one brings the certificate, unless it turns out to change nothing.
    memory.sequence = if waits && !memory.taken {
        sequence + 1
    } else {
        memory.sequence.min(sequence)
    };
    memory
}

fn judge_route(key: &RouteKey, memory: &mut Memory, facts: Facts<'_>) -> Condition {
    use ConditionStatus::{False, Unknown};
    let route = facts.resources.routes.get(key);
    let Some(route) = route.filter(|route| !route.closed) else {
        memory.taken = false;
        let text = "The route is not served; the condition Accepted says why";
        return condition(False, ConditionReason::Invalid, text);
    };
    let Some(pods) = facts.pods else {
        return if memory.taken {
            programmed()
        } else {
            let text = "The pods of the dataplane Service are not known yet";
            condition(Unknown, ConditionReason::Pending, text)
        };
    };
    if pods.is_empty() {
        memory.taken = false;
        let text = "No pod of the dataplane is ready; see its Deployment";
        return condition(False, ConditionReason::NoResources, text);
    }
    let answers = || pods.iter().map(|pod| facts.deliveries.get(pod));
    let left_out = left_out(key, route, answers().flatten());
    if !left_out.is_empty() {
        memory.taken = false;
        return condition(False, ConditionReason::OverLimit, &name_some(&left_out));
    }
    let rejections = rejections(key, route, answers().flatten());
    if !rejections.is_empty() {
        memory.taken = false;
        return condition(
            False,
            ConditionReason::Rejected,
            &format!("A dataplane rejects {}", name_some(&rejections)),
        );
    }
    let took = |delivery: &Delivery| delivery.complete && delivery.sequence >= memory.sequence;
    if answers().all(|delivery| delivery.is_some_and(took)) {
        memory.taken = true;
    }
    if memory.taken {
        return programmed();
    }
    let text = "Not every pod of the dataplane has taken this generation yet";
    condition(Unknown, ConditionReason::Pending, text)
}

/// What of a route and of what it refers to the pods were not sent as it is.
fn left_out<'a>(
    key: &RouteKey,
    route: &Route,
    answers: impl Iterator<Item = &'a Delivery>,
) -> BTreeSet<String> {
    find(key, route, answers.map(|delivery| &*delivery.left_out))
        .map(|(part, why)| format!("{part} {why}"))
        .collect()
}

/// What the pods reject of a route and of what it refers to, without the pods' names: a rolling update would rewrite the message
/// with each pod.
fn rejections<'a>(
    key: &RouteKey,
    route: &Route,
    answers: impl Iterator<Item = &'a Delivery>,
) -> BTreeSet<String> {
    find(key, route, answers.map(|delivery| &*delivery.rejected))
        .map(|(part, reason)| format!("{part}: {reason}"))
        .collect()
}

/// What is told of a route's parts. Each part is looked up, because what pods tell may be as long as all routes together.
fn find<'a, T: 'a>(
    key: &RouteKey,
    route: &Route,
    told: impl Iterator<Item = &'a BTreeMap<ResourceKey, T>>,
) -> impl Iterator<Item = (&'a ResourceKey, &'a T)> {
    let told = told.filter(|told| !told.is_empty()).collect::<Vec<_>>();
    let parts = if told.is_empty() {
        BTreeSet::new()
    } else {
        parts(key, route)
    };
    let told = move |part: ResourceKey| {
        let told = told.iter().filter_map(|told| told.get_key_value(&part));
        told.collect::<Vec<_>>()
    };
    parts.into_iter().flat_map(told)
}

/// The route and everything that it refers to.
fn parts(key: &RouteKey, route: &Route) -> BTreeSet<ResourceKey> {
    let mut parts = BTreeSet::from([ResourceKey::Route(key.clone())]);
    for rule in &route.rules {
        let backends = rule.backends.iter();
        parts.extend(backends.map(|weighted| weighted.backend.resource()));
    }
    for hostname in &route.hostnames {
        match &hostname.tls {
            HostTls::Terminate { certificates, .. } => {
                parts.extend(certificates.iter().cloned().map(ResourceKey::Certificate));
            }
            HostTls::None => {}
        }
    }
    parts
}

fn name_some(findings: &BTreeSet<String>) -> String {
    let named = findings.iter().take(MAX_NAMED).map(String::as_str);
    let text = named.collect::<Vec<_>>().join(". ");
    match findings.len().saturating_sub(MAX_NAMED) {
        0 => text,
        more => format!("{text}. And {more} more"),
    }
}

fn programmed() -> Condition {
    let text = "Every pod of the dataplane that was ready has taken this generation";
    condition(ConditionStatus::True, ConditionReason::Programmed, text)
}

fn condition(status: ConditionStatus, reason: ConditionReason, message: &str) -> Condition {
    Condition {
        condition_type: ConditionType::Programmed,
        status,
        reason,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
