//! One installation of the product in a cluster: its namespace, its accounts with their rights, the dataplane's Service.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::audit::{self, Refusal};
use super::cluster::{BoundPod, Cluster};
use super::names::{CONTROLLER_ACCOUNT, DATAPLANE_ACCOUNT, DATAPLANE_SERVICE, POD_NAME, POD_UID};
use super::namespace::Namespace;
use super::request::Patch;
use super::rights::{Account, Right, roles};
use crate::helm::Helm;

pub const CONTROLLER: &str = "ws-ingress-controller";
pub const DATAPLANE: &str = "ws-ingress-dataplane";

/// Where every pod of a dataplane stands in its Service. For documentation (RFC 5737): nothing dials it.
pub const POD_ADDRESS: &str = "203.0.113.1";

/// Which namespaces its controller watches.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All.
    Cluster,
    /// These.
    Namespaces(Vec<String>),
}

/// An installation.
pub struct Release {
    pub namespace: Namespace,
    class: String,
    pub scope: Scope,
    /// What a test took from the controller, on purpose.
    taken: Mutex<Vec<Right>>,
}

/// A pod that exists as an object only.
pub struct Pod {
    pub name: String,
    pub uid: String,
}

/// What a pod of the Service says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    Ready,
    NotReady,
    Terminating,
}

impl Release {
    /// All its objects; the processes come from [`super::controller`] and [`super::dataplane`]. Its class is the name of its
    /// namespace, so that several share an API server without noticing.
    pub async fn install(cluster: &Arc<Cluster>, scope: Scope) -> Self {
        let namespace = cluster.namespace().await;
        let class = namespace.name.clone();
        Self::install_in(namespace, scope, class).await
    }

    /// The same with this class.
    pub async fn install_class(cluster: &Arc<Cluster>, scope: Scope, class: &str) -> Self {
        Self::install_in(cluster.namespace().await, scope, class.to_owned()).await
    }

    async fn install_in(namespace: Namespace, scope: Scope, class: String) -> Self {
        let release = Self {
            namespace,
            class,
            scope,
            taken: Mutex::default(),
        };
        let manifests = release.rights_of_the_chart().await + &dataplane_service();
        release.namespace.kubectl.apply(&manifests).await;
        release.rights_hold().await;
        release
    }

    /// The accounts, roles and bindings that the chart installs, as manifests.
    async fn rights_of_the_chart(&self) -> String {
        let helm = Helm::four().expect("helm lies beside kubectl");
        let watched = match &self.scope {
            Scope::Cluster => &[][..],
            Scope::Namespaces(watched) => watched,
        };
        let values = json!({ "className": self.class, "watchNamespaces": watched });
        let mut objects = helm.render_in(&self.namespace.name, &values).await.0;
        objects.retain(|object| {
            let kind = object["kind"].as_str().unwrap_or_default();
            kind == "ServiceAccount" || kind.contains("Role")
        });
        let manifests = objects.iter().map(|object| format!("---\n{object}\n"));
        manifests.collect()
    }

    /// Waits until the API server knows the roles and who has them: a controller that starts sooner is refused for a moment.
    async fn rights_hold(&self) {
        let account = Account::of(self).await;
        for role in roles(self).await {
            let right = role.rights.first().expect("a role of no right");
            account.comes_to(right, true).await;
        }
    }

    /// Notes what a test is about to take from the controller.
    pub(super) fn takes(&self, rights: impl Iterator<Item = Right>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.extend(rights);
    }

    /// What the API server has refused to the controller so far.
    pub fn refusals(&self) -> Vec<Refusal> {
        let namespace = &self.namespace.name;
        audit::refusals(&self.cluster().server, namespace, CONTROLLER_ACCOUNT)
    }

    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.namespace.cluster
    }

    /// The class that its routes name.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The `ClusterRole` that marks the class as its own.
    pub fn mark_path(&self) -> String {
        let name = &self.namespace.name;
        format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}-ws-ingress-review")
    }

    /// Makes a pod object of the controller.
    pub async fn controller_pod(&self, name: &str) -> Pod {
        self.pod(name, CONTROLLER_ACCOUNT).await
    }

    /// Makes a pod object of the dataplane.
    pub async fn dataplane_pod(&self, name: &str) -> Pod {
        self.pod(name, DATAPLANE_ACCOUNT).await
    }

    /// Makes a pod object of any account.
    pub async fn pod(&self, name: &str, account: &str) -> Pod {
        let object = json!({
            "metadata": { "name": name },
            "spec": {
                "serviceAccountName": account,
                "automountServiceAccountToken": false,
                "containers": [{ "name": "main", "image": "never-pulled" }],
            },
        });
        let path = self.namespace.collection("v1/pods");
        let pod = self.cluster().api().create(&path, &object).await;
        let uid = pod.pointer("/metadata/uid").and_then(Value::as_str);
        Pod {
            name: name.to_owned(),
            uid: uid.expect("a pod has a uid").to_owned(),
        }
    }

    /// A token of the dataplane's account for this audience, bound to that pod.
    pub async fn dataplane_token(&self, pod: &Pod, audience: &str) -> String {
        let bound = BoundPod {
            name: &pod.name,
            uid: &pod.uid,
        };
        let namespace = &self.namespace.name;
        self.cluster()
            .token(namespace, DATAPLANE_ACCOUNT, &[audience], Some(bound))
            .await
    }

    /// Writes the `EndpointSlice` that has this pod of the dataplane alone: what kubelet and controller-manager would do.
    pub async fn publish(&self, pod: &Pod, https_port: u16, state: PodState) {
        let name = format!("{DATAPLANE_SERVICE}-{}", pod.name);
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "labels": { "kubernetes.io/service-name": DATAPLANE_SERVICE },
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": [POD_ADDRESS],
                "conditions": {
                    "ready": state == PodState::Ready,
                    "serving": state != PodState::NotReady,
                    "terminating": state == PodState::Terminating,
                },
                "targetRef": {
                    "kind": "Pod",
                    "namespace": self.namespace.name,
                    "name": pod.name,
                    "uid": pod.uid,
                },
            }],
            "ports": [{ "name": "https", "port": https_port, "protocol": "TCP" }],
        });
        let path = self
            .namespace
            .path("discovery.k8s.io/v1/endpointslices", &name);
        let api = self.cluster().api();
        let (code, answer) = api.patch(&path, Patch::Apply("kubelet"), &slice).await;
        assert!(code.is_success(), "the slice of a pod: {code} {answer}");
    }

    /// What a pod learns of itself.
    pub(super) fn pod_environment(pod: &Pod) -> [(&'static str, &str); 2] {
        [(POD_NAME, &pod.name), (POD_UID, &pod.uid)]
    }
}

impl Drop for Release {
    /// With the rights of the chart a controller asks for nothing that it is refused, in any test.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut refusals = self.refusals();
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|refusal| {
            let is_it = |right: &Right| right.verb == refusal.verb && right.what == refusal.what;
            !taken.iter().any(is_it)
        });
        assert!(refusals.is_empty(), "403 to the controller: {refusals:#?}");
    }
}

fn dataplane_service() -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {DATAPLANE_SERVICE}\nspec:\n  ports:\n  - name: https\n    port: 443\n  - name: http\n    port: 80\n"
    )
}
