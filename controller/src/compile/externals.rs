//! `ExternalBackend` -> the name that a dataplane looks up, for each that a route refers to.
//!
//! In: drafts, for the external backends that they refer to. Out: an [`External`] for each that is found and valid, and findings. Nothing
//! is looked up here: that would be I/O, and the controller may stand where names mean something else. What endpoints may not be
//! (`addresses`) travels with the name, and the dataplane asks it of every answer.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::num::NonZeroU16;
use std::sync::Arc;

use crds::{ExternalBackend, ExternalBackendTls, MAX_CA_CERTIFICATES};
use ipnet::IpNet;
use route_table::{
    Authorities, Destination, External, ExternalKey, ExternalTls, Hostname, MAX_AUTHORITIES,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::addresses::OffLimits;
use super::draft::{Draft, ExternalRef};
use super::{CompileConfig, Finding, Reason};
use crate::store::{ObjectKey, Snapshot};

/// What one reference comes to.
type Resolved = Result<Arc<External>, (Reason, String)>;

/// Looks up every external backend that a route names.
pub(super) fn resolve(
    snapshot: &Snapshot,
    drafts: &mut [Draft],
    config: &CompileConfig,
    off_limits: &OffLimits<'_>,
) -> BTreeMap<ExternalKey, Arc<External>> {
    let denied = denied(config, off_limits);
    let mut resolved = BTreeMap::new();
    let mut resources = BTreeMap::new();
    for draft in drafts {
        let served = draft.is_served();
        let mut mistaken = BTreeSet::new();
        for reference in &draft.external_refs {
            let ExternalRef {
                field,
                rule,
                key,
                port,
            } = reference;
            let resolved: &Resolved = match resolved.entry(key.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(resolve_one(snapshot, key, &denied)),
            };
            let (reason, text) = match resolved {
                Ok(external) if port.is_none_or(|port| port == external.port) => continue,
                Ok(external) => {
                    mistaken.insert((*rule, key.clone()));
                    let port = external.port;
                    let text = format!(
                        "ExternalBackend {key} has port {port}; leave the port out here, or say the same"
                    );
                    (Reason::PortNotFound, text)
                }
                Err((reason, text)) => (*reason, text.clone()),
            };
            draft.findings.push(Finding::new(reason, field, &text));
        }
        draft
            .external_refs
            .retain(|named| !mistaken.contains(&(named.rule, named.key.clone())));
        for (index, rule) in draft.rules.iter_mut().enumerate() {
            rule.backends.retain(|weighted| match &weighted.backend {
                Destination::External(key) => !mistaken.contains(&(index, key.clone())),
                Destination::Service(_) => true,
            });
        }
        for ExternalRef { key, .. } in draft.external_refs.iter().filter(|_| served) {
            if let Some(Ok(external)) = resolved.get(key) {
                resources.insert(key.clone(), external.clone());
            }
        }
    }
    resources
}

fn denied(config: &CompileConfig, off_limits: &OffLimits<'_>) -> Vec<IpNet> {
    let own = off_limits.own().map(IpNet::from);
    let ranges = config.denied_backends.iter().copied();
    let mut denied = ranges.chain(own).collect::<Vec<_>>();
    denied.sort();
    denied.dedup();
    denied
}

fn resolve_one(snapshot: &Snapshot, key: &ExternalKey, denied: &[IpNet]) -> Resolved {
    let object = ObjectKey {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    };
    let Some(external) = snapshot.external(&object) else {
        let text = if snapshot.has_externals() {
            format!("ExternalBackend {object} does not exist; create it, or correct the name")
        } else {
            format!(
                "ExternalBackend {object} does not exist, and this cluster has no such kind; apply crds/externalbackends.yaml, then create it"
            )
        };
        return Err((Reason::ExternalBackendNotFound, text));
    };
    read(external, denied)
        .map(Arc::new)
        .map_err(|(field, problem)| {
            let text = format!("ExternalBackend {object} cannot be used: spec.{field} {problem}");
            (Reason::ExternalBackendInvalid, text)
        })
}

/// The same checks as in the schema, for standalone and for a schema that is older.
fn read(external: &ExternalBackend, denied: &[IpNet]) -> Result<External, (&'static str, String)> {
    let spec = &external.spec;
    let host = Hostname::parse(&spec.host).map_err(|error| ("host", error.to_string()))?;
    if host.as_str() != spec.host {
        let problem = format!("must be written {host}");
        return Err(("host", problem));
    }
    let port = u16::try_from(spec.port).ok().and_then(NonZeroU16::new);
    let port = port.ok_or_else(|| ("port", "must be from 1 to 65535".to_owned()))?;
    let tls = spec.tls.as_ref().map(read_tls).transpose();
    let tls = tls.map_err(|problem| ("tls.caCertificates", problem.to_owned()))?;
    Ok(External {
        host,
        port,
        tls,
        denied: denied.to_vec(),
    })
}

/// An error repeats nothing of the text: it may be a key.
fn read_tls(tls: &ExternalBackendTls) -> Result<ExternalTls, &'static str> {
    let Some(text) = &tls.ca_certificates else {
        let authorities = Authorities::System;
        return Ok(ExternalTls { authorities });
    };
    if text.len() > MAX_CA_CERTIFICATES {
        return Err("is longer than 65536 bytes; name only the authorities of this backend");
    }
    if text.contains("PRIVATE KEY-----") {
        return Err(
            "must hold certificates only; take the private key out, and make a new one, because this one was stored in the clear",
        );
    }
    let not_pem = "must hold certificates in PEM, each of which can be used; for the system's authorities leave it out";
    let listed = CertificateDer::pem_slice_iter(text.as_bytes());
    let listed = listed.collect::<Result<Vec<_>, _>>().map_err(|_| not_pem)?;
    let mut roots = RootCertStore::empty();
    let usable = listed.iter().all(|one| roots.add(one.clone()).is_ok());
    if listed.is_empty() || !usable {
        return Err(not_pem);
    }
    if listed.len() > MAX_AUTHORITIES {
        return Err("has more than 32 certificates; name only the authorities of this backend");
    }
    Ok(ExternalTls {
        authorities: Authorities::These(listed),
    })
}
