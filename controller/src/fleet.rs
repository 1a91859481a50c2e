//! The dataplane as the cluster sees it: which of its pods count, and where clients reach it.
//!
//! In: the dataplane's Service and its EndpointSlices, watched apart from those of routes, because they may lie in a namespace that
//! is not watched otherwise. Out: a [`Fleet`]. Nothing that is compiled depends on it, so it holds nothing up: what is not known
//! yet is absent here, and what was known stays while the API server gives no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crds::{AddressType, MAX_ADDRESSES, StatusAddress};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::DynamicObject;
use tokio::sync::{mpsc, watch};

use crate::decode::typed;
use crate::freshness::Answers;
use crate::health::Health;
use crate::watch::Event;

/// What is known of the dataplane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The uids of its Ready, non-terminating pods.
    pub pods: Option<BTreeSet<Arc<str>>>,
    /// The addresses of its load balancer.
    pub addresses: Option<Vec<StatusAddress>>,
}

/// What a watcher of the dataplane watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Service,
    EndpointSlice,
}

/// One object of the dataplane.
#[derive(Debug)]
pub(crate) struct Found {
    name: String,
    /// Nothing if it does not decode; then it counts for nothing.
    content: Option<Content>,
}

#[derive(Debug)]
enum Content {
    Addresses(Vec<StatusAddress>),
    Pods(BTreeSet<Arc<str>>),
}

pub(crate) fn decode(part: Part, object: DynamicObject) -> Found {
    let name = object.metadata.name.clone().unwrap_or_default();
    let content = match part {
        Part::Service => {
            typed::<Service>(object).map(|service| Content::Addresses(addresses(&service)))
        }
        Part::EndpointSlice => {
            typed::<EndpointSlice>(object).map(|slice| Content::Pods(pods(&slice)))
        }
    };
    if let Err(error) = &content {
        tracing::warn!(
            ?part,
            name,
            error,
            "an object of the dataplane cannot be decoded"
        );
    }
    Found {
        name,
        content: content.ok(),
    }
}

/// Follows the dataplane until its watchers end.
pub(crate) async fn follow(
    mut events: mpsc::Receiver<(Part, Event<Found>)>,
    fleet: watch::Sender<Arc<Fleet>>,
    mut answers: Answers<Part>,
    health: Arc<Health>,
) {
    let mut known = Known::default();
    while let Some((part, event)) = events.recv().await {
        health.watched(part.label(), &event);
        if let Event::Answered(epoch) = event {
            answers.answered(&part, epoch);
        }
        known.take(part, event);
        let now = known.fleet();
        fleet.send_if_modified(|fleet| {
            let changes = **fleet != now;
            if changes {
                *fleet = Arc::new(now);
            }
            changes
        });
        answers.acted();
    }
}

impl Part {
    fn label(self) -> &'static str {
        match self {
            Self::Service => "Service of the dataplane",
            Self::EndpointSlice => "EndpointSlice of the dataplane",
        }
    }
}

/// By name; absent until they were listed.
#[derive(Debug, Default)]
struct Known {
    services: Option<BTreeMap<String, Found>>,
    slices: Option<BTreeMap<String, Found>>,
}

impl Known {
    fn take(&mut self, part: Part, event: Event<Found>) {
        let objects = match part {
            Part::Service => &mut self.services,
            Part::EndpointSlice => &mut self.slices,
        };
        match event {
            Event::Listed(listed) => {
                let named = listed.into_iter().map(|found| (found.name.clone(), found));
                *objects = Some(named.collect());
            }
            Event::Applied(found) => {
                objects
                    .get_or_insert_default()
                    .insert(found.name.clone(), found);
            }
            Event::Deleted(found) => {
                objects.get_or_insert_default().remove(&found.name);
            }
            Event::Watching | Event::Failed(_) | Event::Answered(_) => {}
        }
    }

    fn fleet(&self) -> Fleet {
        let pods = contents(self.slices.as_ref()).map(|slices| {
            let pods = slices.into_iter().filter_map(|content| match content {
                Content::Pods(pods) => Some(pods),
                Content::Addresses(_) => None,
            });
            pods.flatten().cloned().collect()
        });
        let addresses = contents(self.services.as_ref()).map(|services| {
            let addresses = services.into_iter().filter_map(|content| match content {
                Content::Addresses(addresses) => Some(addresses),
                Content::Pods(_) => None,
            });
            addresses.flatten().cloned().collect()
        });
        Fleet { pods, addresses }
    }
}

fn contents(objects: Option<&BTreeMap<String, Found>>) -> Option<Vec<&Content>> {
    let contents = objects?.values().filter_map(|found| found.content.as_ref());
    Some(contents.collect())
}

/// The pods of a slice that take new connections (KEP-1672: absent means ready, and not terminating).
fn pods(slice: &EndpointSlice) -> BTreeSet<Arc<str>> {
    let counts = |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true);
        let terminating = conditions
            .and_then(|conditions| conditions.terminating)
            .unwrap_or(false);
        ready && !terminating
    };
    let endpoints = slice.endpoints.iter().filter(counts);
    let pods = endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref());
    pods.filter(|pod| pod.kind.as_deref() == Some("Pod"))
        .filter_map(|pod| pod.uid.as_deref().map(Arc::from))
        .collect()
}

fn addresses(service: &Service) -> Vec<StatusAddress> {
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let mut addresses = Vec::new();
    for ingress in ingress.into_iter().flatten() {
        let given = |text: &Option<String>| {
            text.clone()
                .filter(|text| !text.is_empty() && text.len() <= 253)
        };
        let ip = given(&ingress.ip).filter(|ip| ip.parse::<IpAddr>().is_ok());
        addresses.extend(ip.map(|value| StatusAddress {
            address_type: AddressType::IpAddress,
            value,
        }));
        addresses.extend(given(&ingress.hostname).map(|value| StatusAddress {
            address_type: AddressType::Hostname,
            value,
        }));
    }
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(part: Part, object: Value) -> Found {
        decode(part, serde_json::from_value(object).unwrap())
    }

    fn slice(name: &str, endpoints: &Value) -> Found {
        let slice =
            json!({ "metadata": { "name": name }, "addressType": "IPv4", "endpoints": endpoints });
        found(Part::EndpointSlice, slice)
    }

    fn endpoint(uid: &str, conditions: &Value) -> Value {
        json!({ "addresses": ["10.0.0.1"], "conditions": conditions, "targetRef": { "kind": "Pod", "uid": uid } })
    }

    fn pods(known: &Known) -> Option<Vec<String>> {
        let pods = known.fleet().pods?;
        Some(pods.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn ready_pods_that_do_not_terminate_count() {
        let mut known = Known::default();
        assert_eq!(pods(&known), None);
        let endpoints = json!([
            endpoint("a", &json!({})),
            endpoint("b", &json!({ "ready": true, "terminating": false })),
            endpoint("c", &json!({ "ready": false })),
            endpoint("d", &json!({ "ready": true, "terminating": true })),
            { "addresses": ["10.0.0.2"], "targetRef": { "kind": "Node", "uid": "e" } },
            { "addresses": ["10.0.0.3"] },
        ]);
        known.take(
            Part::EndpointSlice,
            Event::Listed(vec![slice("one", &endpoints)]),
        );
        assert_eq!(pods(&known).unwrap(), ["a", "b"]);
        let more = json!([endpoint("b", &json!({})), endpoint("f", &json!({}))]);
        known.take(Part::EndpointSlice, Event::Applied(slice("two", &more)));
        assert_eq!(pods(&known).unwrap(), ["a", "b", "f"]);
        known.take(
            Part::EndpointSlice,
            Event::Deleted(slice("one", &json!([]))),
        );
        assert_eq!(pods(&known).unwrap(), ["b", "f"]);
        known.take(Part::EndpointSlice, Event::Listed(Vec::new()));
        assert_eq!(pods(&known).unwrap(), <[&str; 0]>::default());
    }

    #[test]
    fn addresses_are_those_of_the_load_balancer() {
        let service = |ingress: Value| json!({ "metadata": { "name": "dataplane" }, "status": { "loadBalancer": { "ingress": ingress } } });
        let mut known = Known::default();
        assert_eq!(known.fleet().addresses, None);
        let ingress = json!([{ "ip": "203.0.113.7" }, { "hostname": "lb.example.net" }, { "ip": "no address" }]);
        known.take(
            Part::Service,
            Event::Listed(vec![found(Part::Service, service(ingress))]),
        );
        let addresses = serde_json::to_value(known.fleet().addresses.unwrap()).unwrap();
        let expected = json!([
            { "type": "IPAddress", "value": "203.0.113.7" },
            { "type": "Hostname", "value": "lb.example.net" },
        ]);
        assert_eq!(addresses, expected);
        let pending = found(Part::Service, service(Value::Null));
        known.take(Part::Service, Event::Applied(pending));
        assert_eq!(known.fleet().addresses.unwrap(), []);
    }
}
