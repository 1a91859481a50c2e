//! What of the schema of filters the derived one cannot say: forms of texts, and CEL rules.
//!
//! Every rule has a message that names the mend: it is what a person reads whose object was refused.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::definition::validations;
use crate::filters::MAX_HEADER_FIELDS;
use crate::schema::{SUBDOMAIN, path_value_schema};
use crate::websocketroute::MAX_NAME;

/// Longest name of a header field (Gateway API `HTTPHeaderName`).
const MAX_FIELD_NAME: usize = 256;
/// Longest value of a header field (Gateway API `HTTPHeader`).
const MAX_FIELD_VALUE: usize = 4096;

/// Names that filters may not change, with '_' like '-': see `route_table::FieldName`, which has the same.
const RESERVED: &str = "^(?i)((cdn[-_]loop|connection|content[-_]length|expect|forwarded|host|keep[-_]alive|proxy[-_](authenticate|authorization|connection)|te|trailer|transfer[-_]encoding|upgrade|x[-_]real[-_]ip|x[-_]request[-_]id)$|sec[-_]websocket[-_]|x[-_]forwarded[-_]|x[-_]ws[-_]ingress[-_])";

pub(crate) fn field_name_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_FIELD_NAME,
        "x-kubernetes-validations": validations(&[
            (
                "self.matches('^[A-Za-z0-9!#$%&\\'*+.^_`|~-]+$')",
                "must be the name of a header field: letters, digits and characters of !#$%&'*+-.^_`|~",
            ),
            (
                &format!("!self.matches('{RESERVED}')"),
                "must not be a field of one hop, of the handshake or of the proxy itself, which filters cannot change; for Host use urlRewrite.hostname",
            ),
        ]),
    })
}

pub(crate) fn field_names_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_HEADER_FIELDS,
        "x-kubernetes-list-type": "set",
        "items": field_name_schema(generator),
    })
}

pub(crate) fn field_value_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_FIELD_VALUE,
        // Not CEL: over so many texts of this length it would use up a third of what the API server allows for all rules.
        "pattern": "^[!-~]([\\t -~]*[!-~])?$",
    })
}

pub(crate) fn hostname_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME,
        "x-kubernetes-validations": validations(&[
            (
                &format!("self.matches('^{SUBDOMAIN}$')"),
                "must be a DNS name in lower case such as chat.example.com, without a wildcard and without a port",
            ),
            ("!self.matches('(^|[.])[0-9]+$')", "must not be an IP address; write a DNS name"),
            (
                "self.split('.').all(label, size(label) < 64)",
                "must have no label of more than 63 characters between its dots",
            ),
        ]),
    })
}

/// A path as in a match, or nothing.
pub(crate) fn replace_prefix_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = path_value_schema(generator);
    schema.insert("minLength".to_owned(), json!(0));
    if let Some(first) = schema.pointer_mut("/x-kubernetes-validations/0") {
        *first = json!({
            "rule": "self == '' || self.startsWith('/')",
            "message": "must begin with '/', or be empty",
        });
    }
    schema
}

pub(crate) fn status_code_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "format": "int32",
        "minimum": 301,
        "maximum": 308,
        "enum": [301, 302, 303, 307, 308],
    })
}

/// A filter says what its type needs, and nothing else.
pub(crate) fn needed_fields() -> Value {
    let types = [
        ("RequestHeaderModifier", "requestHeaderModifier"),
        ("ResponseHeaderModifier", "responseHeaderModifier"),
        ("URLRewrite", "urlRewrite"),
        ("RequestRedirect", "requestRedirect"),
    ];
    let rules = types.map(|(name, field)| {
        json!({
            "rule": format!("(self.type == '{name}') == has(self.{field})"),
            "message": format!("must be given for type {name}, and for no other type"),
            "fieldPath": format!(".{field}"),
        })
    });
    rules.to_vec().into()
}

/// The filters of one rule beside each other.
pub(crate) fn each_filter_once() -> Value {
    validations(&[
        (
            "self.all(a, self.exists_one(b, a.type == b.type))",
            "must hold each type of filter once at most; put the changes of one type into one filter",
        ),
        (
            "!(self.exists(f, f.type == 'RequestRedirect') && self.exists(f, f.type == 'URLRewrite'))",
            "must not hold URLRewrite beside RequestRedirect, which has a path and a hostname of its own",
        ),
    ])
}

/// The filters of a rule beside its matches and backends.
pub(crate) fn rule_filters() -> Value {
    let redirects = "has(self.filters) && self.filters.exists(f, f.type == 'RequestRedirect')";
    let backends = "has(self.backendRefs) && size(self.backendRefs) > 0";
    let replaces = |field: &str| {
        format!(
            "has(f.{field}) && has(f.{field}.path) && f.{field}.path.type == 'ReplacePrefixMatch'"
        )
    };
    let (rewrite, redirect) = (replaces("urlRewrite"), replaces("requestRedirect"));
    json!([
        {
            "rule": format!("({redirects}) || ({backends})"),
            "message": "must name at least one Service; only a rule with a filter RequestRedirect has none",
            "fieldPath": ".backendRefs",
        },
        {
            "rule": format!("!({redirects}) || !({backends})"),
            "message": "must be left out beside a filter RequestRedirect, which answers by itself",
            "fieldPath": ".backendRefs",
        },
        {
            "rule": format!("!has(self.filters) || !self.filters.exists(f, ({rewrite}) || ({redirect})) || (size(self.matches) == 1 && self.matches[0].path.type == 'PathPrefix')"),
            "message": "must not use ReplacePrefixMatch unless the rule has exactly one match, of type PathPrefix; give each prefix a rule of its own",
            "fieldPath": ".filters",
        },
    ])
}

pub(crate) fn rewrite_changes() -> Value {
    validations(&[(
        "has(self.hostname) || has(self.path)",
        "must say what is rewritten: hostname or path",
    )])
}

pub(crate) fn redirect_changes() -> Value {
    validations(&[(
        "has(self.scheme) || has(self.hostname) || has(self.port) || has(self.path)",
        "must say where it leads: scheme, hostname, port or path; a redirect to itself never ends",
    )])
}

pub(crate) fn path_fields() -> Value {
    let types = [
        ("ReplaceFullPath", "replaceFullPath"),
        ("ReplacePrefixMatch", "replacePrefixMatch"),
    ];
    let rules = types.map(|(name, field)| {
        json!({
            "rule": format!("(self.type == '{name}') == has(self.{field})"),
            "message": format!("must be given for type {name}, and for no other type"),
            "fieldPath": format!(".{field}"),
        })
    });
    rules.to_vec().into()
}
