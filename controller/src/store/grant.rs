//! `ReferenceGrant` of Gateway API, as far as it is read: who may refer to what in the grant's own namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// Served by every release of Gateway API that has the kind; its `v1` is the same.
pub const API_VERSION: &str = "gateway.networking.k8s.io/v1beta1";

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantSpec {
    /// Any one of these may refer.
    pub from: Vec<GrantFrom>,
    /// To any one of these.
    pub to: Vec<GrantTo>,
}

/// Objects of a kind in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

/// Objects of a kind in the grant's namespace; all of them if no name is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantTo {
    pub group: String,
    pub kind: String,
    pub name: Option<String>,
}

/// The object as the API server has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ReferenceGrant {
    pub metadata: ObjectMeta,
    pub spec: GrantSpec,
}
