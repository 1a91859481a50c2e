//! `WebSocketRoute` -> [`Draft`] -> `Route`: the fields, each checked here.
//!
//! The API server checks most of this by the schema; standalone has no API server, and an older schema may be installed. A field
//! that cannot be served is a finding, and a route with one is not served at all: half of what an author meant may be the
//! dangerous half. What is valid in it is still read, because its claims hold, its references are still looked up, and what it would have
//! taken is refused (`closed`).

mod closed;
mod filters;
mod forms;
mod matches;
mod origins;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{MAX_CERTIFICATE_REFS, MAX_HOSTNAMES, MAX_RULES, RouteTls, TlsMode, WebSocketRoute};
use jiff::Timestamp;
use route_table::{CertificateKey, HostPattern, HostTls, OnPlain, Route, RouteKey};

use self::forms::{Form, check_name, namespace_of, shown};
use self::rules::read_rule;
use super::draft::{Claim, Draft};
use crate::store::{ObjectKey, Snapshot};

/// Reads every route of `class`, in the order of namespace and name.
pub(super) fn read(snapshot: &Snapshot, class: &str) -> Vec<Draft> {
    snapshot
        .routes()
        .filter(|(_, route)| route.spec.class_name == class)
        .map(|(key, route)| read_route(key, route))
        .collect()
}

/// The routes that are served, and in their closed form those that are not but hold a hostname.
pub(super) fn finish(drafts: &[Draft]) -> BTreeMap<RouteKey, Arc<Route>> {
    let held = drafts.iter().filter(|draft| !draft.hostnames.is_empty());
    held.map(|draft| {
        let closed = draft.is_broken();
        let route = Route {
            created: draft.created.map(Timestamp::as_second),
            hostnames: draft.hostnames.clone(),
            rules: if closed {
                closed::rules(draft)
            } else {
                draft.rules.clone()
            },
            closed,
        };
        (draft.key.clone(), Arc::new(route))
    })
    .collect()
}

fn read_route(key: &ObjectKey, route: &WebSocketRoute) -> Draft {
    let created = route.metadata.creation_timestamp.as_ref();
    let mut draft = Draft {
        key: RouteKey {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        },
        generation: route.metadata.generation,
        created: created.map(|created| created.0),
        claims: Vec::new(),
        tls: None,
        tls_is_broken: false,
        tls_is_partial: false,
        certificate_refs: Vec::new(),
        rules: Vec::new(),
        backend_refs: Vec::new(),
        external_refs: Vec::new(),
        hostnames: Vec::new(),
        findings: Vec::new(),
    };
    read_hostnames(&mut draft, route);
    if let Some(tls) = &route.spec.tls {
        draft.tls = read_tls(&mut draft, tls);
        draft.tls_is_broken = draft.tls.is_none();
    }
    let mut names = BTreeSet::new();
    let rules = draft.bounded("spec.rules", &route.spec.rules, MAX_RULES);
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        if let Some(name) = &rule.name
            && !names.insert(name)
        {
            draft.refuse(
                &format!("{field}.name"),
                &format!(
                    "{} is the name of an earlier rule; give each its own",
                    shown(name)
                ),
            );
        }
        let rule = read_rule(&mut draft, &field, index, rule);
        draft.rules.push(rule);
    }
    draft
}

fn read_hostnames(draft: &mut Draft, route: &WebSocketRoute) {
    let recorded = route
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.claims);
    let listed = draft.bounded("spec.hostnames", &route.spec.hostnames, MAX_HOSTNAMES);
    for (index, text) in listed.iter().enumerate() {
        let field = format!("spec.hostnames[{index}]");
        let pattern = match HostPattern::parse(text) {
            Ok(pattern) => pattern,
            Err(error) => {
                draft.refuse(&field, &format!("{} {error}", shown(text)));
                continue;
            }
        };
        // One spelling only, as in the schema: claims are compared as text.
        if pattern.to_string() != *text {
            draft.refuse(
                &field,
                &format!("{} must be written {pattern}", shown(text)),
            );
            continue;
        }
        if draft.claims.iter().any(|claim| claim.pattern == pattern) {
            draft.refuse(&field, &format!("{pattern} is listed twice; remove one"));
            continue;
        }
        let own = recorded.iter().find(|claim| claim.hostname == *text);
        let since = match own {
            Some(claim) => Some(claim.since.0),
            // Added after others were recorded: last, or whoever edits an old route could take a name from those who hold it.
            None if !recorded.is_empty() => None,
            None => draft.created,
        };
        draft.claims.push(Claim {
            index,
            pattern,
            recorded: own.is_some(),
            since,
            newest: None,
        });
    }
}

fn read_tls(draft: &mut Draft, tls: &RouteTls) -> Option<HostTls> {
    let field = "spec.tls.certificateRefs";
    match (tls.mode, &tls.certificate_refs[..]) {
        (TlsMode::None, []) if tls.plain != crds::OnPlain::Redirect => {
            draft.refuse(
                "spec.tls.plain",
                "must be left out when tls.mode is None, which is served on the plain listener and nowhere else",
            );
            None
        }
        (TlsMode::None, []) => Some(HostTls::None),
        (TlsMode::None, _) => {
            draft.refuse(
                field,
                "must be left out when tls.mode is None; to end TLS here set tls.mode to Terminate",
            );
            None
        }
        (TlsMode::Terminate, []) => {
            draft.refuse(
                field,
                "must name at least one Secret when tls.mode is Terminate; to serve without TLS set tls.mode to None",
            );
            None
        }
        (TlsMode::Terminate, refs) => {
            let before = draft.findings.len();
            let refs = draft.bounded(field, refs, MAX_CERTIFICATE_REFS);
            for (index, reference) in refs.iter().enumerate() {
                let field = format!("{field}[{index}]");
                check_name(
                    draft,
                    &format!("{field}.name"),
                    &reference.name,
                    Form::Object,
                );
                let key = CertificateKey {
                    namespace: namespace_of(draft, &field, reference.namespace.as_deref()),
                    secret: reference.name.as_str().into(),
                };
                if draft
                    .certificate_refs
                    .iter()
                    .all(|(_, known)| *known != key)
                {
                    draft.certificate_refs.push((field, key));
                }
            }
            if draft.findings.len() > before {
                draft.certificate_refs.clear();
                return None;
            }
            let keys = draft.certificate_refs.iter().map(|(_, key)| key.clone());
            Some(HostTls::Terminate {
                certificates: keys.collect(),
                plain: match tls.plain {
                    crds::OnPlain::Redirect => OnPlain::Redirect,
                    crds::OnPlain::Refuse => OnPlain::Refuse,
                    crds::OnPlain::Serve => OnPlain::Serve,
                },
            })
        }
    }
}
