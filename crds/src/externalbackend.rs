//! `ExternalBackend`: a DNS name outside the cluster, or of another ingress, that rules may lead to.
//!
//! As in `websocketroute.rs`, doc comments are what `kubectl explain` prints, and texts and numbers are as wide as JSON has them.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::definition::validations;
use crate::schema::external_host_schema;

/// Longest text of private authorities: a few certificates of about 2 KB.
pub const MAX_CA_CERTIFICATES: usize = 65_536;

/// Leads WebSocket connections to a DNS name and a port.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "ws-ingress.dev",
    version = "v1alpha1",
    kind = "ExternalBackend",
    plural = "externalbackends",
    shortname = "xb",
    category = "ws",
    namespaced,
    derive = "PartialEq",
    doc = "Leads WebSocket connections to a DNS name and a port, named by backendRefs of WebSocketRoutes.",
    printcolumn = r#"{"name":"Host","type":"string","jsonPath":".spec.host"}"#,
    printcolumn = r#"{"name":"Port","type":"integer","jsonPath":".spec.port"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ExternalBackendSpec {
    /// The DNS name, in lower case and complete: no search domain is put behind it. The dataplane looks it up, again by its TTL (from
    /// 1s to 5m); each address is an endpoint. Addresses that no route may reach (loopback, link-local, multicast, metadata, denied by
    /// the operator) are left out. It is also the name in Host, with the port if that is not 80 (443 with tls).
    #[schemars(schema_with = "external_host_schema")]
    pub host: String,

    /// TCP port, from 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// TLS to the backend. Present: the host is asked for (SNI), and its certificate is verified; there is no way to leave that out.
    /// Absent: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalBackendTls>,
}

/// TLS to an external backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalBackendTls {
    /// Certificates, in PEM, of the authorities that may have signed the backend's certificate; these alone then count. No private
    /// key belongs here. Default: the authorities that the dataplane's image, or system, trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_certificates_schema")]
    pub ca_certificates: Option<String>,
}

fn ca_certificates_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": MAX_CA_CERTIFICATES,
        "x-kubernetes-validations": validations(&[
            (
                "self.contains('-----BEGIN CERTIFICATE-----')",
                "must hold certificates in PEM, as text that begins with -----BEGIN CERTIFICATE-----; for the system's authorities leave it out",
            ),
            (
                "!self.contains('PRIVATE KEY-----')",
                "must hold certificates only; take the private key out, and make a new one, because this one was stored in the clear",
            ),
        ]),
    })
}
