//! A rule of a route, field by field.

use std::num::NonZeroU16;

use crds::{BackendRef, MAX_BACKEND_REFS, MAX_WEIGHT, RouteRule, RouteTimeouts};
use route_table::{BackendKey, NonUpgrade, ProxyProtocol, Rule, Timeouts, WeightedBackend};

use super::filters::{read_filters, redirects};
use super::forms::{Form, check_name, namespace_of};
use super::matches::read_matches;
use super::origins::read_origins;
use crate::compile::draft::Draft;

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
        backends: read_backends(draft, field, rule),
        timeouts: read_timeouts(draft, &format!("{field}.timeouts"), &rule.timeouts),
    }
}

fn read_backends(draft: &mut Draft, field: &str, rule: &RouteRule) -> Vec<WeightedBackend> {
    let field = format!("{field}.backendRefs");
    let mut backends = Vec::new();
    if rule.backend_refs.is_empty() && redirects(rule) {
        return backends;
    }
    let listed = draft.bounded(&field, &rule.backend_refs, MAX_BACKEND_REFS);
    for (index, reference) in listed.iter().enumerate() {
        let BackendRef {
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
