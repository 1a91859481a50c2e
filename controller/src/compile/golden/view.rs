//! A compiled case as the text of its `.out.yaml`: short lines that a reviewer can read, and no key.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::{HeaderMap, HeaderName};
use route_table::{
    Authorities, CertificateResource, External, Filters, HostTls, Hostname, NonUpgrade, OnPlain,
    OriginPolicy, RequestParts, Route, RouteTable, Rule, WeightedBackend,
};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use serde::Serialize;

use super::{Compiled, Run};
use crate::compile::{Condition, RouteStatus};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    routes: BTreeMap<String, RouteView>,
    backends: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    externals: BTreeMap<String, String>,
    certificates: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    requests: BTreeMap<String, String>,
    statuses: BTreeMap<String, StatusView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recheck_at: Option<String>,
}

#[derive(Serialize)]
struct RouteView {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<i64>,
    hostnames: Vec<String>,
    rules: Vec<RuleView>,
    #[serde(skip_serializing_if = "is_open")]
    closed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_open(closed: &bool) -> bool {
    !closed
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleView {
    name: String,
    matches: Vec<String>,
    non_upgrade: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    origins: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filters: Option<String>,
    backends: Vec<String>,
    timeouts: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_generation: Option<i64>,
    conditions: Vec<String>,
    claims: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
}

pub(super) fn render(run: &Run) -> String {
    let Compiled {
        resources,
        statuses,
        references: _,
        recheck_at,
    } = &run.compiled;
    let view = View {
        routes: text_keys(&resources.routes, |route| route_view(route)),
        backends: text_keys(&resources.backends, |backend| {
            let endpoints = backend.endpoints.iter();
            endpoints
                .map(|endpoint| format!("{} {:?}", endpoint.address, endpoint.state))
                .collect()
        }),
        externals: text_keys(&resources.externals, |external| external_view(external)),
        certificates: text_keys(&resources.certificates, |certificate| {
            certificate_view(certificate)
        }),
        requests: run
            .requests
            .iter()
            .map(|request| (request.clone(), answer(&run.table, request)))
            .collect(),
        statuses: text_keys(statuses, status_view),
        recheck_at: recheck_at.map(|time| time.to_string()),
    };
    serde_saphyr::to_string(&view).unwrap()
}

fn text_keys<K: ToString, V, W>(
    map: &BTreeMap<K, V>,
    view: impl Fn(&V) -> W,
) -> BTreeMap<String, W> {
    map.iter()
        .map(|(key, value)| (key.to_string(), view(value)))
        .collect()
}

fn route_view(route: &Route) -> RouteView {
    let hostnames = route.hostnames.iter().map(|hostname| {
        let tls = match &hostname.tls {
            HostTls::Terminate {
                certificates,
                plain,
            } => match plain {
                OnPlain::Redirect => format!("Terminate {certificates:?}"),
                OnPlain::Refuse | OnPlain::Serve => {
                    format!("Terminate {certificates:?}, plain {plain:?}")
                }
            },
            HostTls::None => "None".to_owned(),
        };
        format!("{} {tls}", hostname.pattern)
    });
    RouteView {
        created: route.created,
        hostnames: hostnames.collect(),
        rules: route.rules.iter().map(rule_view).collect(),
        closed: route.closed,
    }
}

fn rule_view(rule: &Rule) -> RuleView {
    let backend = |weighted: &WeightedBackend| {
        let WeightedBackend {
            backend,
            weight,
            proxy_protocol,
        } = weighted;
        let proxy =
            proxy_protocol.map_or_else(String::new, |version| format!(" PROXY {version:?}"));
        format!("{backend} weight {weight}{proxy}")
    };
    let timeouts = rule.timeouts;
    RuleView {
        name: rule.name.to_string(),
        matches: rule
            .matches
            .iter()
            .map(|found| format!("{found:?}"))
            .collect(),
        non_upgrade: match rule.non_upgrade {
            NonUpgrade::Reject => "Reject",
            NonUpgrade::Forward => "Forward",
        },
        origins: origins_view(&rule.origins),
        filters: (*rule.filters != Filters::default()).then(|| format!("{:?}", rule.filters)),
        backends: rule.backends.iter().map(backend).collect(),
        timeouts: format!(
            "connect {:?}, handshake {:?}, read {:?}, send {:?}",
            timeouts.connect, timeouts.handshake, timeouts.read, timeouts.send
        ),
    }
}

fn origins_view(policy: &OriginPolicy) -> Vec<String> {
    let OriginPolicy {
        allowed,
        refuse_missing,
    } = policy;
    let missing = refuse_missing.then(|| "not without one".to_owned());
    let allowed = allowed.iter().map(ToString::to_string);
    allowed.chain(missing).collect()
}

fn external_view(external: &External) -> String {
    let tls = match external.tls.as_ref().map(|tls| &tls.authorities) {
        None => "plain".to_owned(),
        Some(Authorities::System) => "TLS by the system's authorities".to_owned(),
        Some(Authorities::These(listed)) => format!("TLS by {} authorities", listed.len()),
    };
    let denied = external.denied.iter().map(ToString::to_string);
    let denied = denied.collect::<Vec<_>>().join(", ");
    format!("{} {tls}, denied [{denied}]", external.authority())
}

fn certificate_view(certificate: &CertificateResource) -> String {
    match certificate {
        CertificateResource::Serve { chain, key } => {
            let mut text = format!("{} in chain, key {key:?}, leaf sha256 ", chain.len());
            let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
            for byte in suite.common.hash_provider.hash(&chain[0]).as_ref() {
                write!(text, "{byte:02x}").unwrap();
            }
            text
        }
        CertificateResource::Hold => "Hold".to_owned(),
    }
}

fn status_view(status: &RouteStatus) -> StatusView {
    let RouteStatus {
        observed_generation,
        conditions,
        claims,
        findings,
    } = status;
    // Their messages are the findings again; `status` tests how.
    let condition = |condition: &Condition| {
        let Condition {
            condition_type,
            status,
            reason,
            message: _,
        } = condition;
        format!("{condition_type}={status} {reason}")
    };
    StatusView {
        observed_generation: *observed_generation,
        conditions: conditions.iter().map(condition).collect(),
        claims: claims
            .iter()
            .map(|claim| format!("{} since {}", claim.hostname, claim.since.0))
            .collect(),
        findings: findings.iter().map(ToString::to_string).collect(),
    }
}

fn answer(table: &RouteTable, request: &str) -> String {
    let request = Request::read(request);
    let host = table.host(&request.host);
    match host.map(|host| host.find(&request.parts())) {
        None => "no such host".to_owned(),
        Some(None) => "no such rule".to_owned(),
        Some(Some(matched)) if matched.closed => format!("refused by {}", matched.key),
        Some(Some(matched)) => format!("{} rule {}", matched.key, matched.rule.name),
    }
}

/// `chat.example.com/path?query | Name: value | Name: value` in its parts.
pub(super) struct Request<'a> {
    pub(super) host: Hostname,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: HeaderMap,
    pub(super) offered: Vec<&'a str>,
}

impl<'a> Request<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        let mut parts = text.split(" | ");
        let target = parts.next().unwrap();
        let (host, target) = target.split_at(target.find('/').unwrap());
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut headers = HeaderMap::new();
        let mut offered = Vec::new();
        for (name, value) in parts.map(|field| field.split_once(": ").unwrap()) {
            if name == "Sec-WebSocket-Protocol" {
                offered.extend(value.split(", "));
            }
            let name = name.parse::<HeaderName>().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        Self {
            host: Hostname::parse(host).unwrap(),
            path,
            query,
            headers,
            offered,
        }
    }

    pub(super) fn parts(&self) -> RequestParts<'_> {
        let offered = self.offered.iter().copied();
        RequestParts::new(self.path, self.query, &self.headers, offered)
    }
}
