//! A `CustomResourceDefinition` for each kind, made from the types.
//!
//! In: what kube derives. Out: the same, in the form that we want to install: without `nullable`, which schemars writes for every
//! `Option` and which would make `null` a value that the API server stores. The texts are committed as `websocketroutes.yaml` and `externalbackends.yaml`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{ExternalBackend, WebSocketRoute};

/// The definitions as they are installed.
///
/// # Panics
/// Never: it depends on constants only, and a test calls it.
pub fn custom_resource_definitions() -> [CustomResourceDefinition; 2] {
    [WebSocketRoute::crd(), ExternalBackend::crd()].map(installable)
}

fn installable(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let Some(schema) = &mut version.schema else {
            continue;
        };
        let written = serde_json::to_value(&*schema).expect("a derived schema is plain JSON");
        let stripped = serde_json::from_value(without_nullable(written));
        *schema = stripped.expect("a schema without `nullable` is still a schema");
    }
    definition
}

/// The text of `PLURAL.yaml`; nothing if there is no such kind.
///
/// # Panics
/// Never: it depends on constants only, and a test calls it.
pub fn custom_resource_definition_yaml(plural: &str) -> Option<String> {
    let definition = custom_resource_definitions()
        .into_iter()
        .find(|definition| definition.spec.names.plural == plural)?;
    let definition = serde_json::to_value(definition).expect("a derived definition is plain JSON");
    let text = serde_saphyr::to_string(&with_whole_numbers(definition));
    Some(text.expect("plain JSON can be written as YAML"))
}

/// Kubernetes keeps schema bounds as floats; a person reads `65535` better than `65535.0`.
fn with_whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the guard lets only whole numbers of 32 bits pass"
            )]
            Some(float) if float.fract() == 0.0 && float.abs() < f64::from(i32::MAX) => {
                json!(float as i64)
            }
            Some(_) | None => Value::Number(number),
        },
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, with_whole_numbers(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(with_whole_numbers).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

fn without_nullable(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, value)| !(name == "nullable" && value.is_boolean()))
            .map(|(name, value)| (name, without_nullable(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nullable).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// CEL rules with their messages, as `x-kubernetes-validations` wants them.
pub(crate) fn validations(rules: &[(&str, &str)]) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({ "rule": rule, "message": message }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: [(&str, &str); 2] = [
        ("websocketroutes", include_str!("../websocketroutes.yaml")),
        ("externalbackends", include_str!("../externalbackends.yaml")),
    ];

    /// The parts that are ours: the specs, and the status of a route.
    fn parts() -> [Value; 3] {
        let [route, external] = custom_resource_definitions()
            .map(|definition| serde_json::to_value(definition).unwrap());
        let schema = "/spec/versions/0/schema/openAPIV3Schema/properties";
        [(&route, "spec"), (&route, "status"), (&external, "spec")].map(|(definition, part)| {
            definition
                .pointer(&format!("{schema}/{part}"))
                .unwrap()
                .clone()
        })
    }

    /// Calls `visit` with the path and schema of every field and item below `schema`.
    fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, schema);
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, field) in properties {
                walk(&format!("{path}.{name}"), field, visit);
            }
        }
        if let Some(items) = schema.get("items") {
            walk(&format!("{path}[]"), items, visit);
        }
    }

    fn walk_all(mut visit: impl FnMut(&str, &Value)) {
        for (name, schema) in ["spec", "status", "external"].iter().zip(parts()) {
            walk(name, &schema, &mut visit);
        }
    }

    #[test]
    fn committed_definition_is_fresh() {
        assert_eq!(COMMITTED.len(), custom_resource_definitions().len());
        for (plural, committed) in COMMITTED {
            assert!(
                custom_resource_definition_yaml(plural).as_deref() == Some(committed),
                "crds/{plural}.yaml is stale; run `make crds` and review the diff"
            );
        }
    }

    #[test]
    fn nothing_is_nullable() {
        for (plural, committed) in COMMITTED {
            assert!(!committed.contains("nullable"), "{plural}");
        }
    }

    #[test]
    fn every_list_and_text_is_bounded() {
        walk_all(|path, schema| {
            let has = |key: &str| schema.get(key).is_some();
            match schema.get("type").and_then(Value::as_str) {
                Some("array") => assert!(has("maxItems"), "{path} has no maxItems"),
                Some("string") => {
                    assert!(has("maxLength") || has("enum"), "{path} has no maxLength");
                }
                Some("integer") => assert!(has("minimum"), "{path} has no minimum"),
                Some("object") => assert!(has("properties"), "{path} takes any field"),
                Some("boolean") => {}
                other => panic!("{path} is of type {other:?}"),
            }
        });
    }

    #[test]
    fn every_field_is_explained() {
        walk_all(|path, schema| {
            let described = schema.get("description").is_some();
            assert!(
                described || path.ends_with("[]"),
                "{path} has no description"
            );
        });
    }

    #[test]
    fn every_rule_says_what_is_wrong_and_how_to_mend_it() {
        let mut rules = 0;
        walk_all(|path, schema| {
            for rule in schema
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                rules += 1;
                let message = rule.get("message").and_then(Value::as_str).unwrap();
                assert!(
                    message.contains("must") || message.contains(';'),
                    "{path}: {message}"
                );
            }
        });
        assert!(rules > 15, "{rules} rules");
    }

    #[test]
    fn defaults_of_the_schema_are_those_of_the_types() {
        let least = json!({ "backendRefs": [{ "name": "chat", "port": 80 }] });
        let mut more = least.clone();
        more["filters"] = json!([{ "type": "RequestRedirect", "requestRedirect": {} }]);
        more["matches"] = json!([{
            "headers": [{ "name": "X-Env", "value": "beta" }],
            "queryParams": [{ "name": "v", "value": "2" }],
        }]);
        let written = [least, more].map(|rule| {
            let read = serde_json::from_value::<WebSocketRoute>(json!({
                "apiVersion": "ws-ingress.dev/v1alpha1",
                "kind": "WebSocketRoute",
                "metadata": { "name": "chat" },
                "spec": {
                    "hostnames": ["chat.example.com"],
                    "tls": { "certificateRefs": [{ "name": "chat-tls" }] },
                    "rules": [rule],
                },
            }));
            serde_json::to_value(read.unwrap()).unwrap()
        });
        let [spec, ..] = parts();
        let mut defaults = 0;
        walk("", &spec, &mut |path, schema| {
            let Some(default) = schema.get("default") else {
                return;
            };
            let pointer = path.replace("[]", "/0").replace('.', "/");
            let pointer = format!("/spec{pointer}");
            let mut written = written.iter().map(|route| route.pointer(&pointer));
            assert!(written.any(|value| value == Some(default)), "{path}");
            defaults += 1;
        });
        assert_eq!(defaults, 20);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let read = serde_json::from_value::<crate::RouteTls>(json!({ "newer": 1 }));
        assert_eq!(read.unwrap(), crate::RouteTls::default());
    }
}
