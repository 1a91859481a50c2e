//! Every `testdata/*.in.yaml` through the real Store and `compile`, compared with its `.out.yaml`.
//!
//! In: Kubernetes objects, decoded strictly, after an optional document `kind: Case` with settings and requests to look up. A text
//! `${chat.crt}` stands for a file of `testdata/certificates`. Out: resources, statuses, and the rule that takes each request.
//! `UPDATE_GOLDEN=1` (`make golden`) rewrites; review the diff. Two tests see to it that every Reason and every step of precedence
//! occurs in some case.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use route_table::{Invalid, RouteTable};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{CompileConfig, Compiled, Reason, compile};
use crate::store::{Object, ObjectKey, Snapshot, Store, UnlistedSecrets};

mod precedence;
mod view;

/// The time of every compile here.
const NOW: &str = "2026-11-22T12:00:00Z";

/// What a case sets besides its objects.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default, rename = "unlistedSecrets")]
    unlisted_secrets: Unlisted,
    #[serde(default)]
    loopback: Loopback,
    /// Namespace and name.
    #[serde(default, rename = "ownServices")]
    own_services: Vec<String>,
    /// Host and path.
    #[serde(default)]
    requests: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum Unlisted {
    #[default]
    Absent,
    NotYetRead,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum Loopback {
    #[default]
    Refuse,
    Allow,
}

/// A case, read and compiled.
struct Run {
    name: String,
    snapshot: Snapshot,
    compiled: Compiled,
    table: RouteTable,
    requests: Vec<String>,
    output: PathBuf,
}

#[test]
fn every_case_compiles_to_its_golden_output() {
    let mut wrong = Vec::new();
    let mut outputs = BTreeSet::new();
    for run in runs() {
        let text = view::render(&run);
        outputs.insert(run.output.clone());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&run.output, text).unwrap();
        } else if fs::read_to_string(&run.output).unwrap_or_default() != text {
            wrong.push(format!("--- {} is now:\n{text}", run.name));
        }
    }
    let advice = "run `make golden` and review the diff";
    assert!(wrong.is_empty(), "{}\n{advice}", wrong.join("\n"));
    let left = files(".out.yaml")
        .into_iter()
        .filter(|file| !outputs.contains(file));
    assert_eq!(
        left.collect::<Vec<_>>(),
        Vec::<PathBuf>::new(),
        "outputs without an input"
    );
}

#[test]
fn every_reason_occurs_in_some_case() {
    let runs = runs();
    let findings = runs
        .iter()
        .flat_map(|run| run.compiled.statuses.values())
        .flat_map(|status| &status.findings);
    let seen = findings
        .map(|finding| finding.reason)
        .collect::<BTreeSet<_>>();
    // It takes 10,000 endpoints; `backends/tests.rs` makes them.
    let elsewhere = [Reason::TooManyEndpoints];
    let expected = Reason::ALL.into_iter();
    let expected = expected.filter(|reason| !elsewhere.contains(reason));
    assert_eq!(seen, expected.collect::<BTreeSet<_>>());
}

#[test]
fn every_step_of_precedence_occurs_in_some_case() {
    let runs = runs();
    let seen = runs
        .iter()
        .flat_map(precedence::steps)
        .collect::<BTreeSet<_>>();
    assert_eq!(seen, BTreeSet::from(precedence::Step::ALL));
}

fn runs() -> Vec<Run> {
    let inputs = files(".in.yaml");
    assert!(inputs.len() > 20, "{} cases", inputs.len());
    inputs.iter().map(|input| run(input)).collect()
}

fn run(input: &Path) -> Run {
    let file = input.file_name().unwrap().to_str().unwrap();
    let name = file.strip_suffix(".in.yaml").unwrap().to_owned();
    let text = fs::read_to_string(input).unwrap();
    let mut case = Case {
        unlisted_secrets: Unlisted::Absent,
        loopback: Loopback::Refuse,
        own_services: Vec::new(),
        requests: Vec::new(),
    };
    let mut objects = Vec::new();
    for document in format!("\n{text}").split("\n---\n") {
        let read = serde_saphyr::from_str::<Option<Value>>(document);
        let value = read.unwrap_or_else(|error| panic!("{name}: {error}"));
        let Some(mut value) = value else {
            continue;
        };
        fill_in(&mut value);
        let kind = value
            .get("kind")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        match kind.as_deref() {
            Some("Case") => {
                value.as_object_mut().unwrap().remove("kind");
                case = strict(&name, value);
            }
            kind => objects.push(object(&name, kind, value)),
        }
    }
    let mut store = Store::new(match case.unlisted_secrets {
        Unlisted::Absent => UnlistedSecrets::Absent,
        Unlisted::NotYetRead => UnlistedSecrets::NotYetRead,
    });
    for object in objects {
        assert!(
            store.apply(object.clone()),
            "{name}: {} is there twice",
            object.reference()
        );
    }
    let config = CompileConfig {
        class: "ws-ingress".to_owned(),
        loopback_endpoints: match case.loopback {
            Loopback::Refuse => route_table::Loopback::Refuse,
            Loopback::Allow => route_table::Loopback::Allow,
        },
        denied_backends: Vec::new(),
        own_services: case.own_services.iter().map(|name| own(name)).collect(),
    };
    let snapshot = store.snapshot();
    let compiled = compile(&snapshot, &config, NOW.parse::<Timestamp>().unwrap());
    let (table, mut rejected) = RouteTable::build(&compiled.resources, &RouteTable::empty());
    // The first table has nothing to hold on to, which is not the compile's doing.
    rejected.retain(|rejected| rejected.reason != Invalid::NothingToHold);
    assert_eq!(rejected, [], "{name}: compile made what the table refuses");
    Run {
        output: input.with_file_name(format!("{name}.out.yaml")),
        name,
        snapshot,
        compiled,
        table,
        requests: case.requests,
    }
}

fn own(service: &str) -> ObjectKey {
    let (namespace, name) = service.split_once('/').unwrap();
    ObjectKey {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn object(case: &str, kind: Option<&str>, value: Value) -> Object {
    match kind {
        Some("WebSocketRoute") => {
            let version = value.get("apiVersion").and_then(Value::as_str);
            assert_eq!(version, Some("ws-ingress.dev/v1alpha1"), "{case}");
            strict::<crds::WebSocketRoute>(case, value).into()
        }
        Some("ExternalBackend") => strict::<crds::ExternalBackend>(case, value).into(),
        Some("Secret") => strict::<k8s_openapi::api::core::v1::Secret>(case, value).into(),
        Some("Service") => strict::<k8s_openapi::api::core::v1::Service>(case, value).into(),
        Some("EndpointSlice") => {
            strict::<k8s_openapi::api::discovery::v1::EndpointSlice>(case, value).into()
        }
        Some("ReferenceGrant") => strict::<crate::store::ReferenceGrant>(case, value).into(),
        other => panic!("{case}: kind {other:?}"),
    }
}

/// Decodes, and fails on fields that the type does not know: a typing error in a case would make it show nothing.
fn strict<T: DeserializeOwned>(case: &str, value: Value) -> T {
    let mut unknown = Vec::new();
    let read = serde_ignored::deserialize(value, |path| unknown.push(path.to_string()));
    // kube's types do not read these two; `object` did.
    unknown.retain(|field| field != "apiVersion" && field != "kind");
    assert_eq!(unknown, Vec::<String>::new(), "{case}: unknown fields");
    read.unwrap_or_else(|error| panic!("{case}: {error}"))
}

/// Replaces `${file}` by the content of that test certificate.
fn fill_in(value: &mut Value) {
    match value {
        Value::String(text) => {
            let file = text
                .strip_prefix("${")
                .and_then(|rest| rest.strip_suffix('}'));
            if let Some(file) = file {
                *text = fs::read_to_string(testdata().join("certificates").join(file)).unwrap();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(fill_in),
        Value::Object(fields) => fields.values_mut().for_each(fill_in),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn files(suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(testdata()).unwrap();
    let mut files = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .collect::<Vec<_>>();
    files.sort();
    files
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}
