//! What the status of a route should be, whether it is so already, and the patch that makes it so. Pure.
//!
//! Times do not count: a condition keeps its `lastTransitionTime` as long as its status stays, and a claim that is recorded keeps its
//! `since` for ever. Only our own conditions are compared; others may write theirs beside them.

use std::sync::Arc;

use crds::conditions::ConditionStatus;
use crds::{HostnameClaim, StatusAddress};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self, Time};
use route_table::RouteKey;
use serde_json::{Value, json};

use crate::compile::Condition;
use crate::decode::Observed;
use crate::output::Report;

/// What the status of one route should be.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) uid: Arc<str>,
    generation: Option<i64>,
    conditions: Vec<Condition>,
    claims: Vec<HostnameClaim>,
    /// Nothing while they are not known; then those that are there stay.
    addresses: Option<Vec<StatusAddress>>,
}

impl Desired {
    pub(crate) fn new(
        report: &Report,
        programmed: Option<Condition>,
        addresses: Option<&Vec<StatusAddress>>,
    ) -> Self {
        let mut conditions = report.status.conditions.clone();
        conditions.extend(programmed);
        Self {
            uid: report.uid.clone(),
            generation: report.status.observed_generation,
            conditions,
            claims: report.status.claims.clone(),
            addresses: addresses.cloned(),
        }
    }

    /// Whether both ask for the same, whenever they say it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let Self {
            uid,
            generation,
            conditions,
            claims,
            addresses,
        } = self;
        *uid == other.uid
            && *generation == other.generation
            && *conditions == other.conditions
            && same_claims(claims, &other.claims)
            && *addresses == other.addresses
    }

    /// Whether the API says something else.
    pub(crate) fn differs(&self, observed: &Observed) -> bool {
        let status = &observed.status;
        let condition_stands = |condition: &Condition| {
            find(&status.conditions, condition).is_some_and(|stands| {
                stands.status == condition.status.as_str()
                    && stands.reason == condition.reason.as_str()
                    && stands.message == condition.message
                    && stands.observed_generation == self.generation
            })
        };
        let addresses = self.addresses.as_ref();
        !self.conditions.iter().all(condition_stands)
            || !same_claims(&self.claims, &status.claims)
            || addresses.is_some_and(|addresses| *addresses != status.addresses)
    }

    /// For a merge patch (RFC 7386): what stands there as ours and must not, taken away; nothing if there is no such thing. An apply
    /// would remove it only if nobody else owns it, and whoever may write a route may make anybody its owner: `managedFields` is
    /// metadata. A claim that stayed would win its hostname back whenever the route lists it again. It holds for the version that was
    /// observed and for no other, so what stands afterwards is known.
    pub(crate) fn removal(&self, observed: &Observed) -> Option<Value> {
        let wanted = |claim: &&HostnameClaim| holds(&self.claims, claim);
        let standing = &observed.status;
        let claims = standing.claims.iter().filter(wanted).collect::<Vec<_>>();
        let mut status = serde_json::Map::new();
        if claims.len() < standing.claims.len() {
            let claims = (!claims.is_empty()).then_some(claims);
            status.insert("claims".to_owned(), json!(claims));
        }
        // The list is atomic, so that only none at all leaves what was there.
        let none = self.addresses.as_ref().is_some_and(Vec::is_empty);
        if none && !standing.addresses.is_empty() {
            status.insert("addresses".to_owned(), Value::Null);
        }
        let version = observed.version.to_string();
        (!status.is_empty()).then(|| {
            json!({
                "metadata": { "uid": &*observed.uid, "resourceVersion": version },
                "status": status,
            })
        })
    }

    /// For server-side apply: everything that is ours, so that what we do not want any more goes. It holds for the version that was
    /// observed and for no other: a write that was on its way for long must not replace what was written meanwhile.
    pub(crate) fn patch(&self, key: &RouteKey, observed: &Observed, now: Timestamp) -> Value {
        let conditions = self.conditions.iter().map(|condition| {
            let status = condition.status.as_str();
            let stands = find(&observed.status.conditions, condition);
            let since = stands.filter(|stands| stands.status == status);
            let since = since.map_or(Time(now), |stands| stands.last_transition_time.clone());
            v1::Condition {
                type_: condition.condition_type.as_str().to_owned(),
                status: status.to_owned(),
                reason: condition.reason.as_str().to_owned(),
                message: condition.message.clone(),
                observed_generation: self.generation,
                last_transition_time: since,
            }
        });
        let claims = self.claims.iter().map(|claim| {
            let mut recorded = observed.status.claims.iter();
            let recorded = recorded.find(|recorded| recorded.hostname == claim.hostname);
            recorded.unwrap_or(claim).clone()
        });
        let addresses = self
            .addresses
            .as_ref()
            .unwrap_or(&observed.status.addresses);
        json!({
            "apiVersion": format!("{}/{}", crds::GROUP, crds::VERSION),
            "kind": "WebSocketRoute",
            "metadata": {
                "name": &*key.name,
                "namespace": &*key.namespace,
                "uid": &*self.uid,
                "resourceVersion": observed.version.to_string(),
            },
            "status": crds::WebSocketRouteStatus {
                conditions: conditions.collect(),
                claims: claims.collect(),
                addresses: addresses.clone(),
            },
        })
    }
}

/// Whether the API says that `generation` is programmed.
pub(crate) fn is_recorded_programmed(observed: &Observed, generation: Option<i64>) -> bool {
    let programmed = crds::conditions::ConditionType::Programmed.as_str();
    observed.status.conditions.iter().any(|condition| {
        condition.type_ == programmed
            && condition.status == ConditionStatus::True.as_str()
            && condition.observed_generation == generation
    })
}

fn find<'a>(conditions: &'a [v1::Condition], wanted: &Condition) -> Option<&'a v1::Condition> {
    let wanted = wanted.condition_type.as_str();
    conditions
        .iter()
        .find(|condition| condition.type_ == wanted)
}

/// Whether the same hostnames are claimed; the order is the API server's.
fn same_claims(a: &[HostnameClaim], b: &[HostnameClaim]) -> bool {
    a.len() == b.len() && a.iter().all(|claim| holds(b, claim))
}

fn holds(claims: &[HostnameClaim], claim: &HostnameClaim) -> bool {
    claims.iter().any(|other| other.hostname == claim.hostname)
}

#[cfg(test)]
mod tests {
    use crds::conditions::{ConditionReason, ConditionType};
    use crds::{AddressType, WebSocketRouteStatus};

    use super::*;
    use crate::compile::RouteStatus;

    const EARLIER: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-11-22T12:00:00Z";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn desired(status: ConditionStatus, hostnames: &[&str]) -> Desired {
        let claims = hostnames.iter().map(|hostname| HostnameClaim {
            hostname: (*hostname).to_owned(),
            since: Time(time(NOW)),
        });
        let report = Report {
            uid: "u".into(),
            status: RouteStatus {
                observed_generation: Some(2),
                conditions: vec![Condition {
                    condition_type: ConditionType::Accepted,
                    status,
                    reason: ConditionReason::Accepted,
                    message: "fine".to_owned(),
                }],
                claims: claims.collect(),
                findings: Vec::new(),
            },
        };
        let address = StatusAddress {
            address_type: AddressType::IpAddress,
            value: "203.0.113.7".to_owned(),
        };
        Desired::new(&report, None, Some(&vec![address]))
    }

    fn key() -> RouteKey {
        RouteKey {
            namespace: "default".into(),
            name: "chat".into(),
        }
    }

    /// The status after a patch was applied to nothing.
    fn after(patch: &Value) -> Observed {
        Observed {
            uid: "u".into(),
            version: 1,
            status: serde_json::from_value(patch["status"].clone()).unwrap(),
        }
    }

    fn nothing() -> Observed {
        Observed {
            uid: "u".into(),
            version: 1,
            status: WebSocketRouteStatus::default(),
        }
    }

    #[test]
    fn what_was_written_does_not_differ() {
        let desired = desired(ConditionStatus::True, &["a.example.com", "b.example.com"]);
        assert!(desired.differs(&nothing()));
        let mut written = after(&desired.patch(&key(), &nothing(), time(EARLIER)));
        assert!(!desired.differs(&written));
        written.status.claims.reverse();
        assert!(!desired.differs(&written));
    }

    #[test]
    fn what_others_write_beside_ours_does_not_differ() {
        let desired = desired(ConditionStatus::True, &["a.example.com"]);
        let mut written = after(&desired.patch(&key(), &nothing(), time(EARLIER)));
        let mut other = written.status.conditions[0].clone();
        other.type_ = "Other".to_owned();
        written.status.conditions.insert(0, other);
        assert!(!desired.differs(&written));
    }

    #[test]
    fn every_part_counts_but_times() {
        let desired = desired(ConditionStatus::True, &["a.example.com"]);
        let written = after(&desired.patch(&key(), &nothing(), time(EARLIER)));
        let changed = |change: &dyn Fn(&mut WebSocketRouteStatus)| {
            let mut other = written.clone();
            change(&mut other.status);
            desired.differs(&other)
        };
        assert!(changed(
            &|status| status.conditions[0].status = "False".to_owned()
        ));
        assert!(changed(
            &|status| status.conditions[0].reason = "Other".to_owned()
        ));
        assert!(changed(&|status| status.conditions[0].message.clear()));
        assert!(changed(
            &|status| status.conditions[0].observed_generation = Some(1)
        ));
        assert!(changed(&|status| status.claims.clear()));
        assert!(changed(&|status| status.addresses.clear()));
        assert!(!changed(&|status| status.conditions[0]
            .last_transition_time =
            Time(time(NOW))));
        assert!(!changed(
            &|status| status.claims[0].since = Time(time(EARLIER))
        ));
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let yes = desired(ConditionStatus::True, &[]);
        let no = desired(ConditionStatus::False, &[]);
        let first = after(&yes.patch(&key(), &nothing(), time(EARLIER)));
        let since = |patch: Value| after(&patch).status.conditions[0].last_transition_time.0;
        assert_eq!(since(yes.patch(&key(), &first, time(NOW))), time(EARLIER));
        assert_eq!(since(no.patch(&key(), &first, time(NOW))), time(NOW));
    }

    #[test]
    fn a_recorded_claim_keeps_its_time() {
        let desired = desired(ConditionStatus::True, &["a.example.com", "b.example.com"]);
        let mut observed = nothing();
        observed.status.claims = vec![HostnameClaim {
            hostname: "a.example.com".to_owned(),
            since: Time(time(EARLIER)),
        }];
        let claims = after(&desired.patch(&key(), &observed, time(NOW)))
            .status
            .claims;
        let since = claims.iter().map(|claim| claim.since.0).collect::<Vec<_>>();
        assert_eq!(since, [time(EARLIER), time(NOW)]);
    }

    #[test]
    fn only_what_is_not_wanted_is_removed_and_only_of_the_version_that_was_observed() {
        let both = desired(ConditionStatus::True, &["a.example.com", "b.example.com"]);
        let standing = after(&both.patch(&key(), &nothing(), time(EARLIER)));
        assert_eq!(both.removal(&standing), None);
        assert_eq!(both.removal(&nothing()), None);
        let metadata = json!({ "uid": "u", "resourceVersion": "1" });
        let one = desired(ConditionStatus::True, &["b.example.com"]);
        let kept = json!([{ "hostname": "b.example.com", "since": NOW }]);
        assert_eq!(
            one.removal(&standing),
            Some(json!({ "metadata": metadata, "status": { "claims": kept } }))
        );
        let none = desired(ConditionStatus::True, &[]);
        assert_eq!(
            none.removal(&standing),
            Some(json!({ "metadata": metadata, "status": { "claims": null } }))
        );
        let mut nowhere = both.clone();
        nowhere.addresses = Some(Vec::new());
        assert_eq!(
            nowhere.removal(&standing),
            Some(json!({ "metadata": metadata, "status": { "addresses": null } }))
        );
    }

    #[test]
    fn unknown_addresses_stay_as_they_are() {
        let mut desired = desired(ConditionStatus::True, &[]);
        let observed = after(&desired.patch(&key(), &nothing(), time(EARLIER)));
        desired.addresses = None;
        assert!(!desired.differs(&observed));
        let patched = after(&desired.patch(&key(), &observed, time(NOW)));
        assert_eq!(patched.status.addresses.len(), 1);
    }

    #[test]
    fn the_patch_names_the_very_object_and_its_version() {
        let patch = desired(ConditionStatus::True, &[]).patch(&key(), &nothing(), time(NOW));
        assert_eq!(patch["metadata"]["uid"], "u");
        assert_eq!(patch["metadata"]["resourceVersion"], "1");
        assert_eq!(patch["apiVersion"], "ws-ingress.dev/v1alpha1");
    }
}
