//! Who serves a hostname, and whose TLS it has.
//!
//! In: drafts with their claims. Out: the hostnames that each may serve, and findings for those it lost. Between namespaces the
//! oldest claim takes the name, and the loser learns nothing about the winner. Within the namespace that has it, the oldest claim
//! with a tls block decides the TLS; the others leave it out or say the same. Neither asks whether the rest of the route is valid:
//! a mistake in one rule must not hand a name, or its TLS, to someone else for as long as it takes to mend. If the tls block itself is
//! the mistake, another route's certificates may serve on, but never plain text.

use std::collections::{BTreeMap, BTreeSet};

use route_table::{CertificateKey, HostPattern, HostTls, OnPlain, RouteHostname, RouteKey};

use super::draft::Draft;
use super::{Finding, Reason};

/// What is decided about one hostname.
#[derive(Debug)]
struct Decision<'a> {
    /// The only one whose routes serve it.
    namespace: &'a str,
    /// Whose TLS it has.
    tls: Option<(&'a RouteKey, &'a HostTls)>,
    /// An older tls block is broken. What it meant is not known, so nobody may serve the hostname without TLS until it is mended.
    plain_is_barred: bool,
}

impl Decision<'_> {
    fn bars(&self, tls: &HostTls) -> bool {
        self.plain_is_barred && tls.serves_plain()
    }
}

/// What a draft may serve, and what it learns about the rest.
#[derive(Debug, Default)]
struct Settled {
    hostnames: Vec<RouteHostname>,
    findings: Vec<Finding>,
}

/// Decides every hostname, and tells every draft.
pub(super) fn settle(drafts: &mut [Draft]) {
    yield_to_recorded(drafts);
    let settled = {
        let decisions = decide(drafts);
        let of = |draft| settle_draft(draft, &decisions);
        drafts.iter().map(of).collect::<Vec<_>>()
    };
    for (draft, settled) in drafts.iter_mut().zip(settled) {
        draft.hostnames = settled.hostnames;
        draft.findings.extend(settled.findings);
    }
}

/// A claim that is not recorded comes after every one that is, however old its route: an old route of another class, edited, would
/// otherwise take a name from those who hold it. It is recorded as later than all of them, so that it stays behind.
fn yield_to_recorded(drafts: &mut [Draft]) {
    let mut recorded = BTreeSet::new();
    let mut newest = BTreeMap::new();
    for claim in drafts.iter().flat_map(|draft| &draft.claims) {
        if claim.recorded {
            recorded.insert(claim.pattern.clone());
        }
        let newest = newest.entry(claim.pattern.clone()).or_insert(claim.since);
        *newest = (*newest).max(claim.since);
    }
    for claim in drafts.iter_mut().flat_map(|draft| &mut draft.claims) {
        claim.newest = newest.get(&claim.pattern).copied().flatten();
        if !claim.recorded && recorded.contains(&claim.pattern) {
            claim.since = None;
        }
    }
}

fn decide(drafts: &[Draft]) -> BTreeMap<&HostPattern, Decision<'_>> {
    let mut claims = drafts
        .iter()
        .flat_map(|draft| draft.claims.iter().map(move |claim| (claim, draft)))
        .collect::<Vec<_>>();
    // Oldest first, unknown times last (`false` sorts before `true`), then by namespace and name.
    claims.sort_by_key(|(claim, draft)| (claim.since.is_none(), claim.since, &draft.key));
    let mut decisions = BTreeMap::new();
    for (claim, draft) in claims {
        let decision = decisions.entry(&claim.pattern).or_insert(Decision {
            namespace: &draft.key.namespace,
            tls: None,
            plain_is_barred: false,
        });
        if decision.namespace == &*draft.key.namespace && decision.tls.is_none() {
            decision.plain_is_barred |= draft.tls_is_broken;
            let tls = draft.tls.as_ref().filter(|tls| !decision.bars(tls));
            decision.tls = tls.map(|tls| (&draft.key, tls));
        }
    }
    decisions
}

fn settle_draft(draft: &Draft, decisions: &BTreeMap<&HostPattern, Decision<'_>>) -> Settled {
    let mut settled = Settled::default();
    let mut lost = Vec::new();
    for claim in &draft.claims {
        let pattern = &claim.pattern;
        let Some(decision) = decisions.get(pattern) else {
            continue;
        };
        if decision.namespace != &*draft.key.namespace {
            lost.push((
                Reason::HostnameConflict,
                format!("spec.hostnames[{}]", claim.index),
                format!(
                    "{pattern} was claimed earlier in another namespace; remove it here, or use another name"
                ),
            ));
            continue;
        }
        let tls = match (decision.tls, &draft.tls) {
            (Some((owner, tls)), Some(own)) if !is_same(tls, own) => {
                lost.push((
                    Reason::TlsConflict,
                    "spec.tls".to_owned(),
                    format!(
                        "{pattern} has the TLS of route {owner}, which comes first and differs; leave tls out, or repeat the tls of {owner}"
                    ),
                ));
                continue;
            }
            (None, Some(own)) if decision.bars(own) => {
                lost.push((
                    Reason::TlsConflict,
                    "spec.tls".to_owned(),
                    format!(
                        "the tls block of an older route on {pattern} cannot be used, and until it is mended the hostname is not served without TLS"
                    ),
                ));
                continue;
            }
            (Some((_, tls)), _) => tls.clone(),
            (None, _) => {
                // A broken route has worse to mend first, perhaps this very block.
                if !draft.is_broken() {
                    settled.findings.push(no_tls(pattern));
                }
                HostTls::Terminate {
                    certificates: Vec::new(),
                    // A redirect would lead to a handshake that fails.
                    plain: OnPlain::Refuse,
                }
            }
        };
        settled.hostnames.push(RouteHostname {
            pattern: pattern.clone(),
            tls,
        });
    }
    let rest = rest(draft, &settled.hostnames);
    for (reason, field, text) in lost {
        let finding = Finding::new(reason, &field, &format!("{text}; {rest}"));
        settled.findings.push(finding);
    }
    settled
}

fn no_tls(pattern: &HostPattern) -> Finding {
    let text = format!(
        "no route on {pattern} has a tls block, so every handshake fails; name a certificate in tls.certificateRefs, or set tls.mode to None"
    );
    Finding::new(Reason::NoTls, "spec.tls", &text)
}

/// What becomes of the hostnames that were not lost.
fn rest(draft: &Draft, served: &[RouteHostname]) -> String {
    if draft.is_broken() || served.is_empty() {
        return "this route serves no hostname now".to_owned();
    }
    let names = served.iter().map(|hostname| hostname.pattern.to_string());
    format!("still served: {}", names.collect::<Vec<_>>().join(", "))
}

/// Whether two routes ask for the same TLS; the order of certificates does not count.
fn is_same(a: &HostTls, b: &HostTls) -> bool {
    let set = |certificates: &[CertificateKey]| -> BTreeSet<CertificateKey> {
        certificates.iter().cloned().collect()
    };
    match (a, b) {
        (HostTls::None, HostTls::None) => true,
        (
            HostTls::Terminate {
                certificates: a,
                plain: a_plain,
            },
            HostTls::Terminate {
                certificates: b,
                plain: b_plain,
            },
        ) => a_plain == b_plain && set(a) == set(b),
        (HostTls::None, HostTls::Terminate { .. }) | (HostTls::Terminate { .. }, HostTls::None) => {
            false
        }
    }
}
