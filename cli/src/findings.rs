//! Statuses -> the lines that a person reads: each finding once when it appears, and once when it ends. Pure.
//!
//! A finding may repeat what the author wrote where a name belongs. If that may be a private key, it is left out here.

use std::collections::{BTreeMap, BTreeSet};

use controller::compile::{Finding, RouteStatus};
use crds::conditions::ConditionStatus;
use route_table::{Rejected, RouteKey};

use crate::quoting::may_be_key;

/// What was found and has not ended.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    open: BTreeSet<String>,
}

impl Findings {
    /// The lines to print after a compile and the publish that followed. `nothing` says that no route is served, if so.
    pub(crate) fn update(
        &mut self,
        statuses: &BTreeMap<RouteKey, RouteStatus>,
        rejected: &[Rejected],
        nothing: Option<String>,
    ) -> Vec<String> {
        let found = statuses.iter().flat_map(|(route, status)| {
            status
                .findings
                .iter()
                .map(move |finding| format!("WebSocketRoute {route}: {}", describe(finding)))
        });
        let refused = rejected
            .iter()
            .map(|rejected| format!("{}: not taken: {}", rejected.key, rejected.reason));
        self.replace(found.chain(refused).chain(nothing).collect())
    }

    fn replace(&mut self, found: BTreeSet<String>) -> Vec<String> {
        let ended = self
            .open
            .difference(&found)
            .map(|text| format!("ended: {text}"));
        let begun = found
            .difference(&self.open)
            .map(|text| format!("finding: {text}"));
        let lines = ended.chain(begun).collect();
        self.open = found;
        lines
    }
}

/// As the condition would say it, except that a finding which changes no condition keeps its own reason.
fn describe(Finding { reason, message }: &Finding) -> String {
    let (condition, status, word) = reason.condition();
    let message = match message.split_once(": ") {
        Some((field, text)) if may_be_key(text) => &format!(
            "{field}: left out, because it may hold a private key; write what belongs there"
        ),
        Some(_) | None => message,
    };
    match status {
        ConditionStatus::True => format!("{condition}={status} {reason}: {message}"),
        ConditionStatus::False | ConditionStatus::Unknown => {
            format!("{condition}={status} {word}: {message}")
        }
    }
}

#[cfg(test)]
mod tests {
    use controller::compile::Reason;
    use route_table::{Invalid, ResourceKey};

    use super::*;

    fn chat() -> RouteKey {
        RouteKey {
            namespace: "default".into(),
            name: "chat".into(),
        }
    }

    fn statuses(findings: &[(Reason, &str)]) -> BTreeMap<RouteKey, RouteStatus> {
        let findings = findings.iter().map(|&(reason, message)| Finding {
            reason,
            message: message.to_owned(),
        });
        let status = RouteStatus {
            observed_generation: None,
            conditions: Vec::new(),
            claims: Vec::new(),
            findings: findings.collect(),
        };
        [(chat(), status)].into()
    }

    #[test]
    fn each_finding_is_told_when_it_appears_and_when_it_ends() {
        let mut findings = Findings::default();
        let missing = statuses(&[(Reason::ServiceNotFound, "spec.rules[0]: no Service chat")]);
        let text = "WebSocketRoute default/chat: ResolvedRefs=False BackendNotFound: spec.rules[0]: no Service chat";
        assert_eq!(
            findings.update(&missing, &[], None),
            [format!("finding: {text}")]
        );
        assert!(findings.update(&missing, &[], None).is_empty());
        let empty = statuses(&[(Reason::NoReadyEndpoints, "no endpoint")]);
        let other =
            "finding: WebSocketRoute default/chat: ResolvedRefs=True NoReadyEndpoints: no endpoint";
        assert_eq!(
            findings.update(&empty, &[], None),
            [format!("ended: {text}"), other.to_owned()]
        );
    }

    #[test]
    fn a_finding_ends_with_its_route() {
        let mut findings = Findings::default();
        findings.update(&statuses(&[(Reason::TlsConflict, "x")]), &[], None);
        let lines = findings.update(&BTreeMap::new(), &[], None);
        assert_eq!(
            lines,
            ["ended: WebSocketRoute default/chat: Accepted=False TLSConflict: x"]
        );
    }

    #[test]
    fn what_the_table_refused_is_told_too() {
        let rejected = Rejected {
            key: ResourceKey::Route(chat()),
            reason: Invalid::NoMatch { rule: "0".into() },
        };
        let lines = Findings::default().update(&BTreeMap::new(), &[rejected], None);
        assert_eq!(
            lines,
            ["finding: route default/chat: not taken: rule 0 has no path match"]
        );
    }

    #[test]
    fn that_nothing_is_served_is_told_until_something_is() {
        let mut findings = Findings::default();
        let nothing = || Some("no route".to_owned());
        let lines = findings.update(&BTreeMap::new(), &[], nothing());
        assert_eq!(lines, ["finding: no route"]);
        assert!(findings.update(&BTreeMap::new(), &[], nothing()).is_empty());
        let lines = findings.update(&statuses(&[]), &[], None);
        assert_eq!(lines, ["ended: no route"]);
    }

    #[test]
    fn a_private_key_in_the_place_of_a_name_is_left_out() {
        let field = "spec.tls.certificateRefs[0].name";
        let pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC";
        for key in [pem, "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"] {
            let message = format!("{field}: {key:?}... must hold only lower case letters");
            let found = statuses(&[(Reason::UnsupportedValue, &message)]);
            let lines = Findings::default().update(&found, &[], None);
            let expected = format!(
                "finding: WebSocketRoute default/chat: Accepted=False UnsupportedValue: {field}: left out, because it may hold a private key; write what belongs there"
            );
            assert_eq!(lines, [expected]);
        }
    }
}
