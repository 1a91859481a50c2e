//! What a match asks of a request beside its path: header fields and query parameters, in Gateway API's words.
//!
//! As in `websocketroute.rs`, doc comments are what `kubectl explain` prints.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::definition::validations;

/// Most headers, query parameters or subprotocols of one match. Gateway API has 16; the API server counts what a rule could cost over
/// all of them at once.
pub const MAX_CONDITIONS: usize = 8;
/// Longest name of a header, a query parameter or a subprotocol.
const MAX_NAME: usize = 64;
/// Longest value.
const MAX_VALUE: usize = 256;

/// Names of fields that no rule may ask for, with '_' like '-': see `route_table::HeaderMatch`, which has the same. Of one connection
/// and of the handshake, then those that the proxy writes: in one expression they cost more than the API server allows.
const OF_CONNECTION: &str = "^(?i)((connection|content[-_]length|host|keep[-_]alive|te|trailer|transfer[-_]encoding|upgrade)$|proxy[-_]|sec[-_]websocket[-_])";
const OF_PROXY: &str = "^(?i)((forwarded|x[-_]real[-_]ip|x[-_]request[-_]id)$|x[-_]forwarded[-_]|x[-_]ws[-_]ingress[-_])";

/// A header that a request must have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteHeaderMatch {
    /// How the value is compared. Exact: the whole value, letter for letter. Default: Exact.
    #[serde(rename = "type", default)]
    pub match_type: MatchType,

    /// Name of the header, in any case, at most 64 characters. Not Host (see hostnames), Sec-WebSocket-* (see subprotocols), headers of
    /// one connection such as Connection, or headers that the proxy writes such as X-Forwarded-For and X-Request-ID. A header that the
    /// client names in Connection is not seen.
    #[schemars(schema_with = "header_name_schema")]
    pub name: String,

    /// The whole value: at most 256 visible ASCII characters, with spaces only between them. A header that a client sends on several
    /// lines is one value, the lines joined by a comma and a space.
    #[schemars(schema_with = "header_value_schema")]
    pub value: String,
}

/// A query parameter that a request must have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteQueryParamMatch {
    /// How the value is compared. Exact: the whole value, letter for letter. Default: Exact.
    #[serde(rename = "type", default)]
    pub match_type: MatchType,

    /// Name of the parameter, letter for letter, at most 64 characters. Of a name that a request repeats the first counts.
    #[schemars(schema_with = "query_name_schema")]
    pub name: String,

    /// The whole value, decoded, at most 256 characters: + in a request is a space, % with two hexadecimal digits is a byte.
    #[schemars(schema_with = "query_value_schema")]
    pub value: String,
}

/// How a value is compared. There are no regular expressions: nobody could say what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MatchType {
    #[default]
    Exact,
}

/// Subprotocols, each once.
pub(crate) fn subprotocols_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_CONDITIONS,
        "x-kubernetes-list-type": "set",
        "items": token(&[]),
    })
}

fn header_name_schema(_: &mut SchemaGenerator) -> Schema {
    token(&[
        (
            &format!("!self.matches('{OF_CONNECTION}')"),
            "must not be a header of one connection or of the handshake; match hostnames, subprotocols or another header",
        ),
        (
            &format!("!self.matches('{OF_PROXY}')"),
            "must not be one that the proxy writes, which anybody could forge; match another header",
        ),
    ])
}

fn query_name_schema(_: &mut SchemaGenerator) -> Schema {
    token(&[])
}

/// A token of RFC 9110 §5.6.2.
fn token(more: &[(&str, &str)]) -> Schema {
    let mut rules = vec![(
        "self.matches('^[-A-Za-z0-9!#$%&\\'*+.^_`|~]*$')",
        "must hold only letters, digits and !#$%&'*+-.^_`|~",
    )];
    rules.extend(more);
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME,
        "x-kubernetes-validations": validations(&rules),
    })
}

fn header_value_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_VALUE,
        "x-kubernetes-validations": validations(&[(
            "self.matches('^[!-~]([ -~]*[!-~])?$')",
            "must be visible ASCII characters, with spaces only between them",
        )]),
    })
}

fn query_value_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_VALUE,
        "x-kubernetes-validations": validations(&[(
            "!self.matches('\\\\p{Cc}')",
            "must hold no control characters; write it decoded, not percent-encoded",
        )]),
    })
}
