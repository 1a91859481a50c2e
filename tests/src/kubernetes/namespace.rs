//! A test's own namespace.

use std::sync::Arc;

use super::cluster::Cluster;
use super::kubectl::Kubectl;

pub struct Namespace {
    pub cluster: Arc<Cluster>,
    pub name: String,
    /// As admin, in this namespace.
    pub kubectl: Kubectl,
}

impl Namespace {
    /// The path of one object in it; `resource` is the plural, with its group and version: `v1/secrets`,
    /// `ws-ingress.dev/v1alpha1/websocketroutes`.
    pub fn path(&self, resource: &str, name: &str) -> String {
        format!("{}/{name}", self.collection(resource))
    }

    /// The path of all objects of a kind in it.
    pub fn collection(&self, resource: &str) -> String {
        let (version, plural) = resource.rsplit_once('/').expect("a version and a plural");
        // Only the oldest group has no name, and a root of its own.
        let root = if version == "v1" { "api" } else { "apis" };
        format!("/{root}/{version}/namespaces/{}/{plural}", self.name)
    }
}
