//! Findings -> conditions, and the one table of which finding leads to which condition.
//!
//! In: what the other steps found, each with its [`Reason`]. Out: [`RouteStatus`], without times: when a condition last changed
//! is for who writes it. Pure, and the same whatever the order in which the findings were made.

use std::fmt;

use crds::HostnameClaim;
use crds::conditions::{ConditionReason, ConditionStatus, ConditionType};
use jiff::Timestamp;

use super::draft::Draft;

/// Most findings that the message of one condition holds; the API server takes 32 KiB.
const MAX_LISTED: usize = 8;

/// Why something is not as its author asked. Of several, the first here gives its condition the reason: what serves nothing before
/// what serves less, and what merely waits at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A field has a value that cannot be served.
    UnsupportedValue,
    /// A route of another namespace holds the hostname.
    HostnameConflict,
    /// An older route decides the hostname's TLS, and otherwise.
    TlsConflict,
    /// No route says how TLS is to be done on the hostname.
    NoTls,
    /// The Secret does not exist.
    CertificateNotFound,
    /// The Secret exists and cannot be used.
    CertificateInvalid,
    /// The certificate's validity is over.
    CertificateExpired,
    /// The certificate's validity has not begun.
    CertificateNotYetValid,
    /// None of the certificates is for the hostname.
    CertificateOtherName,
    /// The reference leads into another namespace, and nothing there grants it.
    RefNotPermitted,
    /// The Service does not exist.
    ServiceNotFound,
    /// The external backend does not exist.
    ExternalBackendNotFound,
    /// The external backend exists and cannot be used.
    ExternalBackendInvalid,
    /// The Service, or the external backend, has no such port.
    PortNotFound,
    /// The Service or its port cannot be spoken to.
    UnsupportedProtocol,
    /// An endpoint's address may not be reached.
    EndpointRefused,
    /// The Secret was not read yet.
    CertificateNotYetRead,
    /// The Service has more endpoints than a backend may have; the first of them serve.
    TooManyEndpoints,
    /// Nothing takes new connections. The reference itself is fine.
    NoReadyEndpoints,
}

/// One thing that the author of a route should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub reason: Reason,
    /// Names the field and the mend, in one line.
    pub message: String,
}

/// What is said of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteStatus {
    /// `metadata.generation` of the spec that this speaks of; absent outside a cluster.
    pub observed_generation: Option<i64>,
    /// One of each type, in the order of the types.
    pub conditions: Vec<Condition>,
    /// For `status.claims`: one for each valid hostname that the route lists.
    pub claims: Vec<HostnameClaim>,
    /// Sorted, each once.
    pub findings: Vec<Finding>,
}

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub condition_type: ConditionType,
    pub status: ConditionStatus,
    pub reason: ConditionReason,
    pub message: String,
}

impl Reason {
    /// Every reason, in order.
    pub const ALL: [Self; 19] = [
        Self::UnsupportedValue,
        Self::HostnameConflict,
        Self::TlsConflict,
        Self::NoTls,
        Self::CertificateNotFound,
        Self::CertificateInvalid,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateOtherName,
        Self::RefNotPermitted,
        Self::ServiceNotFound,
        Self::ExternalBackendNotFound,
        Self::ExternalBackendInvalid,
        Self::PortNotFound,
        Self::UnsupportedProtocol,
        Self::EndpointRefused,
        Self::CertificateNotYetRead,
        Self::TooManyEndpoints,
        Self::NoReadyEndpoints,
    ];

    /// For people and logs; a condition has its own word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedValue => "UnsupportedValue",
            Self::HostnameConflict => "HostnameConflict",
            Self::TlsConflict => "TLSConflict",
            Self::NoTls => "NoTLS",
            Self::CertificateNotFound => "CertificateNotFound",
            Self::CertificateInvalid => "CertificateInvalid",
            Self::CertificateExpired => "CertificateExpired",
            Self::CertificateNotYetValid => "CertificateNotYetValid",
            Self::CertificateOtherName => "CertificateOtherName",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::ServiceNotFound => "ServiceNotFound",
            Self::ExternalBackendNotFound => "ExternalBackendNotFound",
            Self::ExternalBackendInvalid => "ExternalBackendInvalid",
            Self::PortNotFound => "PortNotFound",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::EndpointRefused => "EndpointRefused",
            Self::CertificateNotYetRead => "CertificateNotYetRead",
            Self::TooManyEndpoints => "TooManyEndpoints",
            Self::NoReadyEndpoints => "NoReadyEndpoints",
        }
    }

    /// The condition that a finding leads to.
    pub fn condition(self) -> (ConditionType, ConditionStatus, ConditionReason) {
        use ConditionReason as To;
        use ConditionStatus::{False, True, Unknown};
        use ConditionType::{Accepted, ResolvedRefs};
        match self {
            Self::UnsupportedValue => (Accepted, False, To::UnsupportedValue),
            Self::HostnameConflict => (Accepted, False, To::HostnameConflict),
            Self::TlsConflict => (Accepted, False, To::TlsConflict),
            Self::NoTls
            | Self::CertificateNotFound
            | Self::CertificateInvalid
            | Self::CertificateExpired
            | Self::CertificateNotYetValid
            | Self::CertificateOtherName => (ResolvedRefs, False, To::InvalidCertificateRef),
            Self::RefNotPermitted => (ResolvedRefs, False, To::RefNotPermitted),
            Self::ServiceNotFound | Self::ExternalBackendNotFound | Self::PortNotFound => {
                (ResolvedRefs, False, To::BackendNotFound)
            }
            Self::ExternalBackendInvalid => (ResolvedRefs, False, To::UnsupportedValue),
            Self::UnsupportedProtocol => (ResolvedRefs, False, To::UnsupportedProtocol),
            Self::EndpointRefused => (ResolvedRefs, False, To::EndpointNotPermitted),
            Self::CertificateNotYetRead => (ResolvedRefs, Unknown, To::Pending),
            Self::TooManyEndpoints | Self::NoReadyEndpoints => {
                (ResolvedRefs, True, To::ResolvedRefs)
            }
        }
    }
}

impl Finding {
    pub(super) fn new(reason: Reason, field: &str, text: &str) -> Self {
        Self {
            reason,
            message: format!("{field}: {text}"),
        }
    }
}

/// The status of a route that all steps have seen.
pub(super) fn of(draft: Draft, now: Timestamp) -> RouteStatus {
    let mut findings = draft.findings;
    findings.sort();
    findings.dedup();
    let claims = draft.claims.into_iter().map(|claim| HostnameClaim {
        hostname: claim.pattern.to_string(),
        since: whole_seconds(claim.since.unwrap_or_else(|| after(now, claim.newest))).into(),
    });
    RouteStatus {
        observed_generation: draft.generation,
        conditions: conditions(&findings),
        claims: claims.collect(),
        findings,
    }
}

/// One condition of each type, from sorted findings.
fn conditions(findings: &[Finding]) -> Vec<Condition> {
    let fine = [
        (
            ConditionType::Accepted,
            ConditionReason::Accepted,
            "The route is valid and holds all its hostnames",
        ),
        (
            ConditionType::ResolvedRefs,
            ConditionReason::ResolvedRefs,
            "All references were found and can be used",
        ),
    ];
    fine.into_iter()
        .map(|(condition_type, reason, message)| {
            let mut about = findings
                .iter()
                .filter(|finding| finding.reason.condition().0 == condition_type)
                .peekable();
            let (_, status, reason) = about
                .peek()
                .map_or((condition_type, ConditionStatus::True, reason), |finding| {
                    finding.reason.condition()
                });
            let messages = about.map(|finding| finding.message.as_str());
            let message = match listed(messages) {
                Some(listed) => listed,
                None => message.to_owned(),
            };
            Condition {
                condition_type,
                status,
                reason,
                message,
            }
        })
        .collect()
}

fn listed<'a>(messages: impl Iterator<Item = &'a str>) -> Option<String> {
    let messages = messages.collect::<Vec<_>>();
    let shown = messages.get(..MAX_LISTED).unwrap_or(&messages);
    let text = shown.join(". ");
    match messages.len() - shown.len() {
        _ if messages.is_empty() => None,
        0 => Some(text),
        more => Some(format!("{text}. And {more} more")),
    }
}

/// The time of a claim of unknown age: now, but in a later second than `newest`, or whole seconds would make the two equal and a
/// name decide.
fn after(now: Timestamp, newest: Option<Timestamp>) -> Timestamp {
    let later = newest.and_then(|newest| Timestamp::from_second(newest.as_second() + 1).ok());
    later.map_or(now, |later| now.max(later))
}

/// As Kubernetes writes times; a claim that is read back must be the one that was written.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(findings: &[(Reason, &str)], expected: [&str; 2]) {
        let findings = findings
            .iter()
            .map(|(reason, text)| Finding::new(*reason, "spec", text))
            .collect::<Vec<_>>();
        let conditions = conditions(&findings);
        let conditions = conditions.iter().map(|condition| {
            let Condition {
                condition_type,
                status,
                reason,
                message,
            } = condition;
            format!("{condition_type}={status} {reason}: {message}")
        });
        assert_eq!(conditions.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn without_findings_everything_is_true() {
        check(
            &[],
            [
                "Accepted=True Accepted: The route is valid and holds all its hostnames",
                "ResolvedRefs=True ResolvedRefs: All references were found and can be used",
            ],
        );
    }

    #[test]
    fn the_gravest_finding_gives_the_reason_and_all_are_listed() {
        check(
            &[
                (Reason::HostnameConflict, "a"),
                (Reason::TlsConflict, "b"),
                (Reason::ServiceNotFound, "c"),
                (Reason::CertificateNotYetRead, "d"),
                (Reason::NoReadyEndpoints, "e"),
            ],
            [
                "Accepted=False HostnameConflict: spec: a. spec: b",
                "ResolvedRefs=False BackendNotFound: spec: c. spec: d. spec: e",
            ],
        );
    }

    #[test]
    fn a_note_leaves_the_condition_true() {
        check(
            &[(Reason::NoReadyEndpoints, "a")],
            [
                "Accepted=True Accepted: The route is valid and holds all its hostnames",
                "ResolvedRefs=True ResolvedRefs: spec: a",
            ],
        );
    }

    #[test]
    fn a_long_message_is_cut() {
        let findings = [(Reason::UnsupportedValue, "x"); MAX_LISTED + 2];
        let listed = ["spec: x"; MAX_LISTED].join(". ");
        check(
            &findings,
            [
                &format!("Accepted=False UnsupportedValue: {listed}. And 2 more"),
                "ResolvedRefs=True ResolvedRefs: All references were found and can be used",
            ],
        );
    }

    #[test]
    fn reasons_are_ordered_from_false_over_unknown_to_true() {
        assert!(Reason::ALL.is_sorted());
        for condition in [ConditionType::Accepted, ConditionType::ResolvedRefs] {
            let order = Reason::ALL
                .iter()
                .filter(|reason| reason.condition().0 == condition)
                .map(|reason| match reason.condition().1 {
                    ConditionStatus::False => 0,
                    ConditionStatus::Unknown => 1,
                    ConditionStatus::True => 2,
                });
            assert!(order.is_sorted(), "{condition}");
        }
    }
}
