//! References into other namespaces, which need a `ReferenceGrant` there.
//!
//! In: drafts as they were read. Out: the same without the references that nobody granted, and a finding for each. It says nothing
//! about the other namespace, not even whether the object exists, and nothing later looks at the reference again: it is taken out
//! before any lookup, so that what another route refers to rightly is not served to this one.

use std::collections::BTreeSet;

use route_table::{CertificateKey, Destination, HostTls};

use super::draft::Draft;
use super::{Finding, Reason};
use crate::store::Snapshot;

/// What a route may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Secret,
    Service,
    ExternalBackend,
}

impl Target {
    fn kind(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::Service => crds::SERVICE,
            Self::ExternalBackend => crds::EXTERNAL_BACKEND,
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Secret | Self::Service => "",
            Self::ExternalBackend => crds::GROUP,
        }
    }
}

/// Takes out what is not granted.
pub(super) fn enforce(snapshot: &Snapshot, drafts: &mut [Draft]) {
    for draft in drafts {
        let own = draft.key.namespace.clone();
        let permitted = |target, namespace: &str, name: &str| {
            *namespace == *own || is_granted(snapshot, &own, target, namespace, name)
        };
        let mut refused = Vec::new();
        let mut secrets = BTreeSet::<CertificateKey>::new();
        draft.certificate_refs.retain(|(field, key)| {
            let keep = permitted(Target::Secret, &key.namespace, &key.secret);
            if !keep {
                secrets.insert(key.clone());
                refused.push(finding(Target::Secret, field, &key.namespace));
            }
            keep
        });
        draft.tls_is_partial = !secrets.is_empty();
        let mut backends = BTreeSet::<Destination>::new();
        draft.backend_refs.retain(|(field, key)| {
            let keep = permitted(Target::Service, &key.namespace, &key.service);
            if !keep {
                backends.insert(key.clone().into());
                refused.push(finding(Target::Service, field, &key.namespace));
            }
            keep
        });
        draft.external_refs.retain(|named| {
            let key = &named.key;
            let keep = permitted(Target::ExternalBackend, &key.namespace, &key.name);
            if !keep {
                backends.insert(key.clone().into());
                refused.push(finding(
                    Target::ExternalBackend,
                    &named.field,
                    &key.namespace,
                ));
            }
            keep
        });
        if let Some(HostTls::Terminate { certificates, .. }) = &mut draft.tls {
            certificates.retain(|key| !secrets.contains(key));
        }
        for rule in &mut draft.rules {
            rule.backends
                .retain(|weighted| !backends.contains(&weighted.backend));
        }
        draft.findings.extend(refused);
    }
}

fn is_granted(
    snapshot: &Snapshot,
    from: &str,
    target: Target,
    namespace: &str,
    name: &str,
) -> bool {
    snapshot.grants(namespace).any(|grant| {
        let mut froms = grant.from.iter();
        let mut tos = grant.to.iter();
        froms.any(|by| {
            by.group == crds::GROUP && by.kind == "WebSocketRoute" && by.namespace == from
        }) && tos.any(|to| {
            let named = to.name.as_deref().is_none_or(|granted| granted == name);
            to.group == target.group() && to.kind == target.kind() && named
        })
    })
}

fn finding(target: Target, field: &str, namespace: &str) -> Finding {
    let kind = target.kind();
    let a = match target {
        Target::Secret | Target::Service => "a",
        Target::ExternalBackend => "an",
    };
    let text = format!(
        "namespace {namespace} does not permit references to this {kind} from WebSocketRoutes here; ask for a ReferenceGrant there, or use {a} {kind} of your own namespace"
    );
    Finding::new(Reason::RefNotPermitted, field, &text)
}
