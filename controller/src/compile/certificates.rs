//! Certificates of the hostnames that are served, and what is wrong with those that routes refer to.
//!
//! In: drafts that know their hostnames. Out: a resource for each Secret that a served hostname uses, findings, and the next time
//! at which one begins or ceases to be valid. A Secret that is absent gives no resource: it was withdrawn. One that is there but
//! cannot be used, or was not read yet, gives `Hold`: who has its last good form serves on. One out of its time is served: whether
//! to trust it is the client's decision, and refusing would only make a bad day worse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use route_table::{Certificate, CertificateKey, CertificateResource, HostTls};

use super::draft::Draft;
use super::{Finding, Reason};
use crate::store::{ObjectKey, SecretState, Snapshot};

/// What the certificates come to.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) resources: BTreeMap<CertificateKey, Arc<CertificateResource>>,
    /// Every Secret that a route names, whether it is there or not.
    pub(super) named: BTreeSet<ObjectKey>,
    pub(super) recheck_at: Option<Timestamp>,
}

/// Looks up every certificate that a route names or a hostname uses.
pub(super) fn resolve(snapshot: &Snapshot, drafts: &mut [Draft], now: Timestamp) -> Certificates {
    let mut secrets = BTreeMap::new();
    let named = drafts.iter().flat_map(|draft| &draft.certificate_refs);
    for (_, key) in named {
        secrets
            .entry(key.clone())
            .or_insert_with(|| snapshot.secret(&object(key)));
    }
    for draft in drafts.iter_mut() {
        let findings = check(draft, &secrets, now);
        draft.findings.extend(findings);
    }
    let used = drafts
        .iter()
        .flat_map(|draft| &draft.hostnames)
        .flat_map(|hostname| certificates(&hostname.tls));
    let used = used.cloned().collect::<BTreeSet<_>>();
    let crossings = secrets
        .values()
        .filter_map(usable)
        .filter_map(|certificate| next_crossing(certificate, now));
    Certificates {
        recheck_at: crossings.min(),
        named: secrets.keys().map(object).collect(),
        resources: used
            .into_iter()
            .filter_map(|key| {
                let resource = resource(secrets.get(&key)?)?;
                Some((key, resource))
            })
            .collect(),
    }
}

fn certificates(tls: &HostTls) -> &[CertificateKey] {
    match tls {
        HostTls::Terminate { certificates, .. } => certificates,
        HostTls::None => &[],
    }
}

fn object(key: &CertificateKey) -> ObjectKey {
    ObjectKey {
        namespace: key.namespace.clone(),
        name: key.secret.clone(),
    }
}

fn usable(state: &SecretState) -> Option<&Arc<Certificate>> {
    match state {
        SecretState::Present(secret) => secret.certificate.as_ref().ok(),
        SecretState::Absent | SecretState::NotYetRead => None,
    }
}

fn resource(state: &SecretState) -> Option<Arc<CertificateResource>> {
    match state {
        SecretState::Present(secret) => Some(match &secret.certificate {
            Ok(certificate) => certificate.resource().clone(),
            Err(_) => Arc::new(CertificateResource::Hold),
        }),
        SecretState::NotYetRead => Some(Arc::new(CertificateResource::Hold)),
        SecretState::Absent => None,
    }
}

/// What is wrong with the certificates that a route names itself.
fn check(
    draft: &Draft,
    secrets: &BTreeMap<CertificateKey, SecretState>,
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = Vec::new();
    for (field, key) in &draft.certificate_refs {
        let state = secrets.get(key).unwrap_or(&SecretState::Absent);
        let problem = match state {
            SecretState::Absent => Some((
                Reason::CertificateNotFound,
                "does not exist; create it, or correct the name".to_owned(),
            )),
            SecretState::NotYetRead => Some((
                Reason::CertificateNotYetRead,
                "was not read yet; nothing needs to be done unless this stays".to_owned(),
            )),
            SecretState::Present(secret) => match &secret.certificate {
                Err(error) => Some((
                    Reason::CertificateInvalid,
                    format!(
                        "{error}; mend it; until then the last good certificate serves on, if there was one"
                    ),
                )),
                Ok(certificate) => {
                    found.push(certificate);
                    check_validity(certificate, now)
                }
            },
        };
        if let Some((reason, text)) = problem {
            let text = format!("Secret {key} {text}");
            findings.push(Finding::new(reason, field, &text));
        }
    }
    // If one is missing, it may be the one with the name.
    if !draft.tls_is_partial && !found.is_empty() && found.len() == draft.certificate_refs.len() {
        findings.extend(check_names(draft, &found));
    }
    findings
}

fn check_validity(certificate: &Certificate, now: Timestamp) -> Option<(Reason, String)> {
    let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
    if now.as_second() > not_after {
        let text = format!(
            "expired after {}; renew it, clients refuse it",
            time(not_after)
        );
        Some((Reason::CertificateExpired, text))
    } else if now.as_second() < not_before {
        let text = format!(
            "is not valid before {}; use one that is, clients refuse it until then",
            time(not_before)
        );
        Some((Reason::CertificateNotYetValid, text))
    } else {
        None
    }
}

fn check_names(draft: &Draft, found: &[&Arc<Certificate>]) -> Vec<Finding> {
    let unnamed = draft.hostnames.iter().filter(|hostname| {
        found
            .iter()
            .all(|certificate| !certificate.serves(&hostname.pattern))
    });
    unnamed
        .map(|hostname| {
            Finding::new(
                Reason::CertificateOtherName,
                "spec.tls.certificateRefs",
                &format!(
                    "no certificate is for {}, so clients refuse it; add one whose subjectAltName has that name",
                    hostname.pattern
                ),
            )
        })
        .collect()
}

/// The next moment at which a certificate begins or ceases to be valid. `notAfter` is its last second (RFC 5280 §4.1.2.5).
fn next_crossing(certificate: &Certificate, now: Timestamp) -> Option<Timestamp> {
    [
        certificate.not_before(),
        certificate.not_after().saturating_add(1),
    ]
    .into_iter()
    // What is beyond the end of jiff's calendar (the year 9999) never comes.
    .filter_map(|second| Timestamp::from_second(second).ok())
    .filter(|crossing| *crossing > now)
    .min()
}

fn time(second: i64) -> String {
    match Timestamp::from_second(second) {
        Ok(time) => time.to_string(),
        Err(_) => format!("second {second} since 1970"),
    }
}
