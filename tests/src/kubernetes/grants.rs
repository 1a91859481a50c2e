//! ReferenceGrant of Gateway API: a cluster may have it or not, so a test that needs it brings it.

use super::cluster::Cluster;

/// The grants, as [`super::namespace::Namespace::path`] wants them.
pub const GRANTS: &str = "gateway.networking.k8s.io/v1beta1/referencegrants";

/// As far as it is needed here: its own schema takes whatever is applied.
const DEFINITION: &str = r#"---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: referencegrants.gateway.networking.k8s.io
  annotations: { "api-approved.kubernetes.io": "unapproved, for a test" }
spec:
  group: gateway.networking.k8s.io
  scope: Namespaced
  names: { kind: ReferenceGrant, listKind: ReferenceGrantList, plural: referencegrants, singular: referencegrant }
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: { openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true } }
"#;

/// Defines the kind.
pub async fn define(cluster: &Cluster) {
    // By the server: another test may be defining it at the same time, and a client that saw nothing would insist on creating it.
    let arguments = ["apply", "--server-side", "-f", "-"];
    let applied = cluster.kubectl.run(&arguments, DEFINITION).await;
    assert!(applied.success, "{}", applied.stderr);
    let definition = "crd/referencegrants.gateway.networking.k8s.io";
    cluster
        .kubectl
        .wait(definition, "condition=Established")
        .await;
}
