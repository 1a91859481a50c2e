//! The chart on a real API server, by both lines of helm. There is no node, so no pod ever runs: what is looked at is what the API
//! holds, and what it would let a pod be.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::chart_cases::cases;
use tests::helm::{CHART, Helm};
use tests::kubernetes::cluster::{Cluster, definition, own, shared};
use tests::kubernetes::namespace::Namespace;

const DEFINITION: &str = "websocketroutes.ws-ingress.dev";
const EXTERNALS: &str = "externalbackends.ws-ingress.dev";
const ROUTE: &str = "apiVersion: ws-ingress.dev/v1alpha1\nkind: WebSocketRoute\nmetadata: { name: chat }\nspec:\n  hostnames: [chat.example.com]\n  tls: { certificateRefs: [{ name: chat-tls }] }\n  rules: [{ backendRefs: [{ name: chat, port: 80 }] }]\n";

/// A cluster without the CRD, which every other test wants there from the beginning.
async fn bare_cluster() -> Option<Arc<Cluster>> {
    let cluster = own().await?;
    cluster
        .kubectl
        .ok(&["delete", "crd", DEFINITION, EXTERNALS])
        .await;
    Some(cluster)
}

/// A release of the chart in a namespace of its own.
struct Installation<'a> {
    helm: &'a Helm,
    namespace: Namespace,
}

impl Installation<'_> {
    /// `helm COMMAND ws-ingress ...` in its namespace.
    async fn helm(&self, command: &str, arguments: &[&str], values: &Value) {
        let release = self
            .helm
            .release(command, &self.namespace, arguments, values);
        release.await;
    }

    /// Installs or upgrades to these values.
    async fn give(&self, command: &str, values: &Value) {
        let arguments = [CHART, "--values", "-"];
        self.helm(command, &arguments, values).await;
    }

    async fn replicas(&self) -> Value {
        let dataplane = self
            .namespace
            .kubectl
            .get("deployment", "ws-ingress-dataplane");
        dataplane.await["spec"]["replicas"].clone()
    }

    /// How many objects of the release there are in its namespace.
    async fn objects(&self) -> usize {
        let kinds = "deployments,services,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets";
        let arguments = ["get", kinds, "-o", "name"];
        let listed = self.namespace.kubectl.ok(&arguments).await;
        listed.lines().count()
    }
}

async fn installs_upgrades_rolls_back_and_uninstalls(helm: &Helm) {
    let Some(cluster) = bare_cluster().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    let release = Installation { helm, namespace };
    let kubectl = &release.namespace.kubectl;

    release.give("install", &json!({})).await;
    // Two of each, but one role and one binding.
    assert_eq!(release.objects().await, 12);
    assert_eq!(release.replicas().await, 2);
    kubectl
        .wait(&format!("crd/{DEFINITION}"), "condition=Established")
        .await;
    kubectl.apply(ROUTE).await;

    // A port that moves and a list that shrinks are what a merge could get wrong.
    let values = json!({ "dataplane": {
        "replicaCount": 5,
        "service": { "type": "NodePort", "ports": { "https": 8443 } },
        "topologySpreadConstraints": [],
    } });
    release.give("upgrade", &values).await;
    assert_eq!(release.replicas().await, 5);
    let service = kubectl.get("service", "ws-ingress-dataplane").await;
    let ports = |service: &Value| {
        let ports = service["spec"]["ports"].as_array().cloned();
        let ports = ports.unwrap_or_default().into_iter();
        ports.map(|port| port["port"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ports(&service), [8443, 80]);
    let dataplane = kubectl.get("deployment", "ws-ingress-dataplane").await;
    let pod = &dataplane["spec"]["template"]["spec"];
    assert_eq!(pod.get("topologySpreadConstraints"), None);

    release.helm("rollback", &["1"], &json!({})).await;
    assert_eq!(release.replicas().await, 2);
    let service = kubectl.get("service", "ws-ingress-dataplane").await;
    assert_eq!(ports(&service), [443, 80]);

    // Who manages the definition apart from now on loses neither it nor a route.
    let apart = json!({ "crds": { "enabled": false } });
    release.give("upgrade", &apart).await;
    kubectl.get("websocketroute", "chat").await;
    let again = json!({ "crds": { "enabled": true } });
    release.give("upgrade", &again).await;
    kubectl.get("websocketroute", "chat").await;

    release.helm("uninstall", &[], &json!({})).await;
    assert_eq!(release.objects().await, 0);
    let roles = ["get", "clusterroles,clusterrolebindings", "-o", "name"];
    let roles = kubectl.ok(&roles).await;
    assert!(!roles.contains("ws-ingress"), "{roles}");
    // The route survived its release, and the next one takes the definition over.
    kubectl.get("websocketroute", "chat").await;
    let values = json!({ "crds": { "keep": false } });
    release.give("install", &values).await;
    kubectl.get("websocketroute", "chat").await;
    release.helm("uninstall", &[], &json!({})).await;
    // The API server ends routes before their definition, after helm has returned: mostly within 6 s.
    let wait = ["wait", "--for=delete", "crd", "--all", "--timeout=60s"];
    cluster.kubectl.ok(&wait).await;
    let crds = cluster.kubectl.ok(&["get", "crd", "-o", "name"]).await;
    assert_eq!(crds, "", "with crds.keep=false nothing stays");
}

#[tokio::test]
async fn helm_4_installs_upgrades_rolls_back_and_uninstalls() {
    if let Some(helm) = Helm::four() {
        installs_upgrades_rolls_back_and_uninstalls(&helm).await;
    }
}

#[tokio::test]
async fn helm_3_installs_upgrades_rolls_back_and_uninstalls() {
    if let Some(helm) = Helm::three() {
        installs_upgrades_rolls_back_and_uninstalls(&helm).await;
    }
}

#[tokio::test]
async fn helm_4_upgrades_what_helm_3_installed() {
    let (Some(old), Some(new), Some(cluster)) = (Helm::three(), Helm::four(), shared().await)
    else {
        return;
    };
    let namespace = cluster.namespace().await;
    let mut release = Installation {
        helm: &old,
        namespace,
    };
    // The CRD is there for everybody.
    let values = json!({ "crds": { "enabled": false }, "dataplane": { "log": "debug" } });
    release.give("install", &values).await;
    release.helm = &new;
    let values = json!({ "crds": { "enabled": false }, "dataplane": { "replicaCount": 5 } });
    release.give("upgrade", &values).await;
    assert_eq!(release.replicas().await, 5);
    let dataplane = release
        .namespace
        .kubectl
        .get("deployment", "ws-ingress-dataplane");
    let arguments =
        dataplane.await["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(!arguments.contains("--log"), "{arguments}");
}

#[tokio::test]
async fn without_a_number_an_autoscaler_keeps_what_it_chose() {
    let Some(cluster) = shared().await else {
        return;
    };
    for helm in [Helm::four(), Helm::three()].into_iter().flatten() {
        let namespace = cluster.namespace().await;
        let helm = &helm;
        let release = Installation { helm, namespace };
        let with = |log: &str| {
            json!({
                "crds": { "enabled": false },
                "dataplane": { "replicaCount": null, "log": log },
            })
        };
        release.give("install", &with("info")).await;
        let scale = ["scale", "deployment/ws-ingress-dataplane", "--replicas=5"];
        release.namespace.kubectl.ok(&scale).await;
        release.give("upgrade", &with("debug")).await;
        assert_eq!(release.replicas().await, 5);
        release.helm("rollback", &["1"], &json!({})).await;
        assert_eq!(release.replicas().await, 5);
    }
}

#[tokio::test]
async fn an_older_definition_that_was_applied_by_hand_is_taken_over_when_asked() {
    // Helm 3 owns what it patches without a question, and lacks the second flag.
    let ways: [(_, &[&str]); 2] = [
        (
            Helm::four(),
            &[CHART, "--take-ownership", "--force-conflicts"],
        ),
        (Helm::three(), &[CHART, "--take-ownership"]),
    ];
    for (helm, arguments) in ways {
        let (Some(helm), Some(cluster)) = (helm, own().await) else {
            return;
        };
        let helm = &helm;
        let namespace = cluster.namespace().await;
        let release = Installation { helm, namespace };
        let kubectl = &release.namespace.kubectl;
        let current = kubectl.get("crd", DEFINITION).await;
        let older = definition("websocketroutes")
            .replace("Routes WebSocket connections", "Routed connections");
        kubectl.apply(&older).await;
        let changed = kubectl.get("crd", DEFINITION).await;
        assert_ne!(changed["spec"], current["spec"]);
        kubectl.apply(ROUTE).await;
        release.helm("install", arguments, &json!({})).await;
        let taken = kubectl.get("crd", DEFINITION).await;
        assert_eq!(taken["spec"], current["spec"]);
        kubectl.get("websocketroute", "chat").await;
    }
}

#[tokio::test]
async fn every_pod_passes_the_restricted_standard() {
    let (Some(helm), Some(cluster)) = (Helm::four(), shared().await) else {
        return;
    };
    let namespace = cluster.namespace().await;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let labelled = ["label", "namespace", &namespace.name, label];
    namespace.kubectl.ok(&labelled).await;
    let path = format!("{}?dryRun=All", namespace.collection("v1/pods"));

    for case in cases() {
        let objects = helm.render(&case.values).await;
        for component in ["controller", "dataplane"] {
            let mut pod = objects.pod(component).clone();
            pod["metadata"]["name"] = json!("pod");
            // Nobody makes the built-in ones here.
            pod["spec"]
                .as_object_mut()
                .expect("a spec")
                .remove("priorityClassName");
            let (status, answer) = cluster.api().post(&path, &pod).await;
            assert!(status.is_success(), "{}: {answer}", case.name);
            // And the check is one.
            pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] =
                json!(true);
            let (status, _) = cluster.api().post(&path, &pod).await;
            assert_eq!(status, 403, "{}", case.name);
        }
    }
}

#[tokio::test]
async fn the_api_takes_every_case_without_a_warning() {
    let (Some(helm), Some(cluster)) = (Helm::four(), shared().await) else {
        return;
    };
    let namespace = cluster.namespace().await;
    for case in cases() {
        let mut objects = helm.render(&case.values).await.0;
        // It is there already, by another field manager.
        objects.retain(|object| object["kind"] != "CustomResourceDefinition");
        for object in &mut objects {
            if let Some(name) = object.pointer_mut("/metadata/namespace") {
                *name = json!(namespace.name);
            }
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let arguments = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        let output = namespace.kubectl.run(&arguments, &list.to_string()).await;
        assert!(output.success, "{}: {}", case.name, output.stderr);
        assert_eq!(output.stderr, "", "{}", case.name);
    }
}

#[tokio::test]
async fn the_example_for_a_cluster_is_taken_and_has_the_images_of_this_version() {
    let Some(cluster) = shared().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    let folder = format!("{CHART}/../../examples/kubernetes");
    let applied = namespace.kubectl.run(&["apply", "-f", &folder], "").await;
    assert!(applied.success, "{}", applied.stderr);
    assert_eq!(applied.stderr, "", "a warning of the API server");
    let echo = namespace.kubectl.get("deployment", "echo").await;
    let image = &echo["spec"]["template"]["spec"]["containers"][0]["image"];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(*image, format!("docker.io/ws-ingress/echo:{version}"));
}
