//! Who of our own kind wrote a status before this installation: one that was moved to another namespace, or had the class before.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::{Value, json};

use super::MANAGER;

/// Most managers that are ended at one write; there is one after a move. Authors of routes can make up more.
const MOST: usize = 4;

/// The managers of other installations that own something in the status.
pub(super) fn former_managers(metadata: &ObjectMeta, ours: &str) -> Vec<String> {
    let is_former = |entry: &&ManagedFieldsEntry| {
        let manager = entry.manager.as_deref().unwrap_or_default();
        manager.starts_with(MANAGER)
            && manager != ours
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref() == Some("status")
    };
    let entries = metadata.managed_fields.iter().flatten();
    let former = entries.filter(is_former).take(MOST);
    former.filter_map(|entry| entry.manager.clone()).collect()
}

/// For server-side apply: nothing at all, of this very version.
pub(super) fn nothing(metadata: &ObjectMeta) -> Value {
    json!({
        "apiVersion": format!("{}/{}", crds::GROUP, crds::VERSION),
        "kind": "WebSocketRoute",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_installations_that_applied_a_status_are_former() {
        let entry =
            |manager: &str, operation: &str, subresource: Option<&str>| ManagedFieldsEntry {
                manager: Some(manager.to_owned()),
                operation: Some(operation.to_owned()),
                subresource: subresource.map(ToOwned::to_owned),
                ..ManagedFieldsEntry::default()
            };
        let metadata = ObjectMeta {
            managed_fields: Some(vec![
                entry("ws-ingress.dev/controller/ours", "Apply", Some("status")),
                entry("ws-ingress.dev/controller/theirs", "Apply", Some("status")),
                entry("ws-ingress.dev/controller/author", "Update", Some("status")),
                entry("ws-ingress.dev/controller/author", "Apply", None),
                entry("kubectl", "Apply", Some("status")),
            ]),
            ..ObjectMeta::default()
        };
        let former = former_managers(&metadata, "ws-ingress.dev/controller/ours");
        assert_eq!(former, ["ws-ingress.dev/controller/theirs"]);
    }
}
