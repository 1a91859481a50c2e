//! A rule of a route, field by field.

use std::num::NonZeroU16;
use std::sync::Arc;

use crds::{BackendRef, MAX_BACKEND_REFS, MAX_WEIGHT, RouteRule, RouteTimeouts};
use route_table::{
    BackendKey, Destination, ExternalKey, NonUpgrade, ProxyProtocol, Rule, Timeouts,
    WeightedBackend,
};

use super::filters::{read_filters, redirects};
use super::forms::{Form, check_name, namespace_of, shown};
use super::matches::read_matches;
use super::origins::read_origins;
use crate::compile::draft::{Draft, ExternalRef};

/// Reads one rule; `field` is its place in the spec.
pub(super) fn read_rule(draft: &mut Draft, field: &str, index: usize, rule: &RouteRule) -> Rule {
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
        origins: read_origins(draft, field, rule),
        filters: read_filters(draft, field, rule),
        backends: read_backends(draft, field, index, rule),
        timeouts: read_timeouts(draft, &format!("{field}.timeouts"), &rule.timeouts),
    }
}

fn read_backends(
    draft: &mut Draft,
    field: &str,
    rule_index: usize,
    rule: &RouteRule,
) -> Vec<WeightedBackend> {
    let field = format!("{field}.backendRefs");
    let mut backends = Vec::new();
    if rule.backend_refs.is_empty() && redirects(rule) {
        return backends;
    }
    let listed = draft.bounded(&field, &rule.backend_refs, MAX_BACKEND_REFS);
    for (index, reference) in listed.iter().enumerate() {
        let BackendRef {
            group,
            kind,
            name,
            namespace,
            port,
            weight,
            proxy_protocol,
        } = reference;
        let field = format!("{field}[{index}]");
        let before = draft.findings.len();
        check_name(draft, &format!("{field}.name"), name, Form::Service);
        let namespace = namespace_of(draft, &field, namespace.as_deref());
        let kind = read_kind(draft, &field, group, kind);
        let port = read_port(draft, &field, *port, kind);
        let share = u32::try_from(*weight)
            .ok()
            .filter(|_| *weight <= MAX_WEIGHT);
        if share.is_none() {
            draft.refuse(
                &format!("{field}.weight"),
                &format!("{weight} must be from 0 to {MAX_WEIGHT}; 0 takes no new connections"),
            );
        }
        let (Some(kind), Some(weight)) = (kind, share) else {
            continue;
        };
        if draft.findings.len() > before {
            continue;
        }
        let name: Arc<str> = name.as_str().into();
        let backend = match (kind, port) {
            (Kind::Service, Some(port)) => {
                let service = name;
                let key = BackendKey {
                    namespace,
                    service,
                    port,
                };
                draft.backend_refs.push((field, key.clone()));
                Destination::Service(key)
            }
            // Refused above.
            (Kind::Service, None) => continue,
            (Kind::External, port) => {
                let key = ExternalKey { namespace, name };
                draft.external_refs.push(ExternalRef {
                    field,
                    rule: rule_index,
                    key: key.clone(),
                    port,
                });
                Destination::External(key)
            }
        };
        backends.push(WeightedBackend {
            backend,
            weight,
            proxy_protocol: proxy_protocol.map(|version| match version {
                crds::ProxyProtocol::V1 => ProxyProtocol::V1,
                crds::ProxyProtocol::V2 => ProxyProtocol::V2,
            }),
        });
    }
    backends
}

/// What a reference leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service,
    External,
}

fn read_kind(draft: &mut Draft, field: &str, group: &str, kind: &str) -> Option<Kind> {
    match (group, kind) {
        ("", crds::SERVICE) => Some(Kind::Service),
        (crds::GROUP, crds::EXTERNAL_BACKEND) => Some(Kind::External),
        _ => {
            let text = format!(
                "{} of group {} is not served: group and kind must be left out for a Service, or be ws-ingress.dev and ExternalBackend",
                shown(kind),
                shown(group)
            );
            draft.refuse(field, &text);
            None
        }
    }
}

fn read_port(
    draft: &mut Draft,
    field: &str,
    port: Option<i32>,
    kind: Option<Kind>,
) -> Option<NonZeroU16> {
    let field = format!("{field}.port");
    let Some(port) = port else {
        if kind == Some(Kind::Service) {
            let text = "must be given for a Service; write the number of one of its ports";
            draft.refuse(&field, text);
        }
        return None;
    };
    let number = u16::try_from(port).ok().and_then(NonZeroU16::new);
    if number.is_none() {
        let text = format!("{port} must be a port of the backend, from 1 to 65535");
        draft.refuse(&field, &text);
    }
    number
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
