//! What of the schema the derived one cannot say: the forms of texts, and the CEL rules that one object can be checked with.
//!
//! Every rule has a message that names the field and the mend: it is what a person reads whose object was refused.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema as _, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use crate::definition::validations;
use crate::rule::MAX_ALLOWED_ORIGINS;
use crate::websocketroute::{MAX_HOSTNAMES, MAX_NAME};

/// Longest path value of a match, in bytes (Gateway API `HTTPPathMatch`).
const MAX_PATH: usize = 1024;
/// Longest origin: a DNS name, a port, and more for the scheme than any has.
const MAX_ORIGIN: usize = 320;
/// Longest label of a DNS name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// RFC 1123 labels joined by dots.
pub(crate) const SUBDOMAIN: &str =
    "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

pub(crate) fn hostnames_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_HOSTNAMES,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME,
            "x-kubernetes-validations": validations(&[
                (
                    &format!("self.matches('^(\\\\*\\\\.)?{SUBDOMAIN}$')"),
                    "must be a DNS name in lower case such as chat.example.com, or *.example.com; write other names in their xn-- form, without a port",
                ),
                (
                    "!self.matches('(^|\\\\.)[0-9]+$')",
                    "must not be an IP address; a route needs a DNS name",
                ),
                (
                    "self.split('.').all(label, size(label) < 64)",
                    "must have no label of more than 63 characters between its dots",
                ),
            ]),
        },
    })
}

/// A DNS name that is looked up: no wildcard, no address.
pub(crate) fn external_host_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME,
        "x-kubernetes-validations": validations(&[
            (
                &format!("self.matches('^{SUBDOMAIN}$')"),
                "must be a DNS name in lower case such as inner.example.com, without a scheme, port or path; the port goes into the field of that name",
            ),
            (
                "!self.matches('(^|\\\\.)[0-9]+$')",
                "must not be an IP address; for addresses use a Service without a selector and an EndpointSlice",
            ),
            (
                "self.split('.').all(label, size(label) < 64)",
                "must have no label of more than 63 characters between its dots",
            ),
        ]),
    })
}

/// Which kinds a backend may be of, and which need a port.
pub(crate) fn backend_ref_rules() -> serde_json::Value {
    json!([
        {
            "rule": "(self.group == '' && self.kind == 'Service') || (self.group == 'ws-ingress.dev' && self.kind == 'ExternalBackend')",
            "message": "group and kind must be left out for a Service, or be ws-ingress.dev and ExternalBackend",
        },
        {
            "rule": "self.kind != 'Service' || has(self.port)",
            "message": "port must be given for a Service; write the number of one of its ports",
        },
    ])
}

/// A name in the form that Kubernetes objects have.
pub(crate) fn name_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME,
        "x-kubernetes-validations": validations(&[(
            &format!("self.matches('^{SUBDOMAIN}$')"),
            "must hold only lower case letters, digits, '-' and '.', and begin and end with a letter or digit",
        )]),
    })
}

/// A namespace: one RFC 1123 label.
pub(crate) fn namespace_schema(_: &mut SchemaGenerator) -> Schema {
    label_schema(
        "must hold only lower case letters, digits and '-', and begin and end with a letter or digit",
    )
}

/// A Service: one RFC 1123 label. Until Kubernetes 1.34 a Service's name also had to begin with a letter (RFC 1035); what the
/// API server of either takes is taken.
pub(crate) fn service_schema(_: &mut SchemaGenerator) -> Schema {
    label_schema(
        "must be the name of a Service or ExternalBackend: lower case letters, digits and '-' only, a letter or digit at both ends; a namespace goes into the field of that name",
    )
}

fn label_schema(message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_LABEL,
        "x-kubernetes-validations":
            validations(&[("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", message)]),
    })
}

/// On the list: a rule cannot see its neighbours. The message does not say which name it is, because whatever picks it out of the
/// list costs more than the API server's CEL budget allows: that a text taken from a filtered list is bounded, it does not know.
pub(crate) fn rule_names() -> serde_json::Value {
    validations(&[(
        "self.all(a, !has(a.name) || self.exists_one(b, has(b.name) && a.name == b.name))",
        "spec.rules[].name must be unique in the route; give each rule a name of its own, or none",
    )])
}

pub(crate) fn tls_rules() -> serde_json::Value {
    let field = ".certificateRefs";
    json!([
        {
            "rule": "self.mode != 'Terminate' || (has(self.certificateRefs) && size(self.certificateRefs) > 0)",
            "message": "must name at least one Secret when tls.mode is Terminate; to serve without TLS set tls.mode to None",
            "fieldPath": field,
        },
        {
            "rule": "self.mode != 'None' || !has(self.certificateRefs) || size(self.certificateRefs) == 0",
            "message": "must be left out when tls.mode is None; to end TLS here set tls.mode to Terminate",
            "fieldPath": field,
        },
        {
            "rule": "self.mode != 'None' || self.plain == 'Redirect'",
            "message": "must be left out when tls.mode is None, which is served on the plain listener and nowhere else",
            "fieldPath": ".plain",
        },
    ])
}

/// The value of a path match. The rules stand on the value itself, so that a refusal names it.
pub(crate) fn path_value_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_PATH,
        "x-kubernetes-validations": validations(&[
            ("self.startsWith('/')", "must begin with '/'"),
            (
                "!self.contains('//')",
                "must not hold an empty element ('//'), which no request is matched to; remove the second '/'",
            ),
            (
                "!self.matches('(^|/)[.]{1,2}(/|$)')",
                "must not hold '.' or '..' as an element; write the path that they lead to",
            ),
            (
                "!self.matches('%2[fFeE]')",
                "must not hold %2F or %2E, which servers read in different ways; write '/' or '.'",
            ),
            (
                "!self.matches('%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)')",
                "must have two hexadecimal digits behind each '%'; write the character '%' itself as %25",
            ),
            (
                "self.matches('^[A-Za-z0-9/._~!$&\\'()*+,;=:@%\\\\[\\\\]-]*$')",
                "holds a character that a request path cannot; percent-encode it, and leave out '?' and '#'",
            ),
        ]),
    })
}

/// Origins that a rule takes requests from. The compile is stricter about labels, addresses and the number of a port.
pub(crate) fn origins_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_ALLOWED_ORIGINS,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ORIGIN,
            "x-kubernetes-validations": validations(&[
                (
                    "self.matches('^[A-Za-z][A-Za-z0-9+.-]*://([*][.])?([A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?$')",
                    "must be an origin as browsers send it, such as https://app.example.com, https://*.example.com or http://localhost:3000; leave out a path and a '/' at the end",
                ),
                (
                    "!self.matches('^([wW][sS]|[wW][sS][sS])://')",
                    "must be the origin of the page that opens the WebSocket: write https:// for wss://, and http:// for ws://",
                ),
            ]),
        },
    })
}

pub(crate) fn time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 64 })
}

/// The schema of metav1.Condition with the bounds that Gateway API gives it.
pub(crate) fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut item = Condition::json_schema(generator);
    let bounds = [
        ("type", json!({ "maxLength": 316 })),
        ("status", json!({ "enum": ["True", "False", "Unknown"] })),
        ("reason", json!({ "minLength": 1, "maxLength": 1024 })),
        ("message", json!({ "maxLength": 32768 })),
        (
            "lastTransitionTime",
            json!({ "type": "string", "format": "date-time", "maxLength": 64 }),
        ),
        ("observedGeneration", json!({ "minimum": 0 })),
    ];
    for (field, bound) in bounds {
        let field = item.pointer_mut(&format!("/properties/{field}"));
        if let (Some(field), Some(bound)) = (
            field.and_then(|field| field.as_object_mut()),
            bound.as_object(),
        ) {
            field.remove("$ref");
            field.extend(bound.clone());
        }
    }
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": item,
    })
}
