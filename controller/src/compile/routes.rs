//! `WebSocketRoute` -> [`Draft`] -> `Route`: the fields, each checked here.
//!
//! The API server checks most of this by the schema; standalone has no API server, and an older schema may be installed. A field
//! that cannot be served is a finding, and a route with one is not served at all: half of what an author meant may be the
//! dangerous half. What is valid in it is still read, because its claims hold and its references are still looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use crds::{
    BackendRef, MAX_BACKEND_REFS, MAX_CERTIFICATE_REFS, MAX_HOSTNAMES, MAX_MATCHES, MAX_RULES,
    MAX_WEIGHT, PathType, RoutePath, RouteRule, RouteTimeouts, RouteTls, TlsMode, WebSocketRoute,
};
use jiff::Timestamp;
use route_table::{
    BackendKey, CertificateKey, HostPattern, HostTls, NonUpgrade, PathMatch, Route, RouteKey, Rule,
    Timeouts, WeightedBackend,
};

use super::draft::{Claim, Draft};
use crate::store::{ObjectKey, Snapshot};

/// Longest name of an object or a rule.
const MAX_NAME_BYTES: usize = 253;

/// Longest name of a Service or a namespace, which are labels of DNS names.
const MAX_LABEL_BYTES: usize = 63;

/// Most characters of a user's text that a finding repeats.
const MAX_SHOWN: usize = 64;

/// Reads every route of `class`, in the order of namespace and name.
pub(super) fn read(snapshot: &Snapshot, class: &str) -> Vec<Draft> {
    snapshot
        .routes()
        .filter(|(_, route)| route.spec.class_name == class)
        .map(|(key, route)| read_route(key, route))
        .collect()
}

/// The routes that are served.
pub(super) fn finish(drafts: &[Draft]) -> BTreeMap<RouteKey, Arc<Route>> {
    let served = drafts.iter().filter(|draft| draft.is_served());
    served
        .map(|draft| {
            let route = Route {
                created: draft.created.map(Timestamp::as_second),
                hostnames: draft.hostnames.clone(),
                rules: draft.rules.clone(),
                closed: false,
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
            let certificates = keys.collect();
            Some(HostTls::Terminate { certificates })
        }
    }
}

fn read_rule(draft: &mut Draft, field: &str, index: usize, rule: &RouteRule) -> Rule {
    if let Some(name) = &rule.name {
        check_name(draft, &format!("{field}.name"), name, Form::Object);
    }
    let name = rule.name.clone().unwrap_or_else(|| index.to_string());
    Rule {
        name: name.into(),
        matches: read_matches(draft, field, rule),
        non_upgrade: match rule.non_upgrade {
            crds::NonUpgrade::Reject => NonUpgrade::Reject,
            crds::NonUpgrade::Forward => NonUpgrade::Forward,
        },
        backends: read_backends(draft, field, rule),
        timeouts: read_timeouts(draft, &format!("{field}.timeouts"), &rule.timeouts),
    }
}

fn read_matches(draft: &mut Draft, field: &str, rule: &RouteRule) -> Vec<PathMatch> {
    let field = format!("{field}.matches");
    let mut matches = Vec::new();
    let listed = draft.bounded(&field, &rule.matches, MAX_MATCHES);
    for (index, listed) in listed.iter().enumerate() {
        let RoutePath { path_type, value } = &listed.path;
        let path = match path_type {
            PathType::Exact => PathMatch::exact(value),
            PathType::PathPrefix => PathMatch::prefix(value),
        };
        match path {
            Ok(path) => matches.push(path),
            Err(error) => draft.refuse(
                &format!("{field}[{index}].path.value"),
                &format!("{} {error}", shown(value)),
            ),
        }
    }
    matches
}

fn read_backends(draft: &mut Draft, field: &str, rule: &RouteRule) -> Vec<WeightedBackend> {
    let field = format!("{field}.backendRefs");
    let mut backends = Vec::new();
    let listed = draft.bounded(&field, &rule.backend_refs, MAX_BACKEND_REFS);
    for (index, reference) in listed.iter().enumerate() {
        let BackendRef {
            name,
            namespace,
            port,
            weight,
        } = reference;
        let field = format!("{field}[{index}]");
        let before = draft.findings.len();
        check_name(draft, &format!("{field}.name"), name, Form::Service);
        let namespace = namespace_of(draft, &field, namespace.as_deref());
        let number = u16::try_from(*port).ok().and_then(NonZeroU16::new);
        if number.is_none() {
            draft.refuse(
                &format!("{field}.port"),
                &format!("{port} must be a port of the Service, from 1 to 65535"),
            );
        }
        let share = u32::try_from(*weight)
            .ok()
            .filter(|_| *weight <= MAX_WEIGHT);
        if share.is_none() {
            draft.refuse(
                &format!("{field}.weight"),
                &format!("{weight} must be from 0 to {MAX_WEIGHT}; 0 takes no new connections"),
            );
        }
        let (Some(port), Some(weight)) = (number, share) else {
            continue;
        };
        if draft.findings.len() > before {
            continue;
        }
        let backend = BackendKey {
            namespace,
            service: name.as_str().into(),
            port,
        };
        draft.backend_refs.push((field, backend.clone()));
        backends.push(WeightedBackend { backend, weight });
    }
    backends
}

fn read_timeouts(draft: &mut Draft, field: &str, timeouts: &RouteTimeouts) -> Timeouts {
    let RouteTimeouts {
        connect,
        handshake,
        read,
        send,
    } = timeouts;
    for (name, value) in [("connect", connect), ("handshake", handshake)] {
        if value.duration().is_zero() {
            draft.refuse(
                &format!("{field}.{name}"),
                "must be more than 0s: this wait cannot be switched off; write how long it may last, such as 5s",
            );
        }
    }
    Timeouts {
        connect: connect.duration(),
        handshake: handshake.duration(),
        read: read.duration(),
        send: send.duration(),
    }
}

/// The namespace that a reference leads to: the route's own if it names none.
fn namespace_of(draft: &mut Draft, field: &str, named: Option<&str>) -> Arc<str> {
    let Some(named) = named else {
        return draft.key.namespace.clone();
    };
    check_name(draft, &format!("{field}.namespace"), named, Form::Namespace);
    named.into()
}

/// RFC 1123 labels joined by dots, as in the schema: names go into logs, metrics and conditions.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES && name.split('.').all(has_form_of_label)
}

fn is_label(name: &str) -> bool {
    name.len() <= MAX_LABEL_BYTES && has_form_of_label(name)
}

fn has_form_of_label(label: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !label.is_empty()
        && label.chars().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What a name may look like, as in the schema.
#[derive(Debug, Clone, Copy)]
enum Form {
    Object,
    Namespace,
    Service,
}

fn check_name(draft: &mut Draft, field: &str, name: &str, form: Form) {
    let (fits, words) = match form {
        Form::Object => (
            is_name(name),
            "must hold only lower case letters, digits, '-' and '.', and begin and end with a letter or digit",
        ),
        Form::Namespace => (
            is_label(name),
            "must hold only lower case letters, digits and '-', at most 63, and begin and end with a letter or digit",
        ),
        Form::Service => (
            is_label(name),
            "must be the name of a Service: at most 63 lower case letters, digits and '-', a letter or digit at both ends; a namespace goes into the field of that name",
        ),
    };
    if !fits {
        draft.refuse(field, &format!("{} {words}", shown(name)));
    }
}

/// A user's text in quotes, without line ends and not at any length.
fn shown(text: &str) -> String {
    // Somebody put a PEM block where a name belongs: it may be a key, and findings are printed and stored.
    if text.contains("-----") || text.contains('\n') {
        return "the text".to_owned();
    }
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
