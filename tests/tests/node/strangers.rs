//! Who is not a dataplane of the installation gets no table: pods play it, and each is refused by name, on both sides.

use serde_json::{Value, json};
use tests::kubernetes::names::AUTHORITY_CONFIG_MAP;
use tests::node::objects::{Deployment, Pod};
use tests::node::site::{CONTROLLER, DATAPLANE, Site};
use tests::node::{Node, eventually, take};

/// Another namespace, where the account and the authority have the names that they have at home.
const ELSEWHERE: &str = "elsewhere";

/// A pod that is like one of the dataplane, but for what `change` does to it; no Service selects it.
async fn impostor(node: &Node, name: &str, namespace: &str, change: impl FnOnce(&mut Value)) {
    let mut pod = DATAPLANE.read(node).await["spec"]["template"].take();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"] = json!({ "name": name, "namespace": namespace });
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    change(&mut pod["spec"]);
    node.kubectl.apply(&pod.to_string()).await;
}

/// Waits until the pod says that it was refused for `reason`, and the leader counts it under `label`. It is not ready, and
/// as many dataplanes as before have a stream.
async fn is_refused(node: &Node, name: &str, namespace: &str, reason: &str, label: &str) {
    let get = |what: &[&str]| {
        let all = [&["--namespace", namespace][..], what].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |what: &[&str]| {
        let all = get(what);
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        node.kubectl.run(&all, "").await.stdout
    };
    eventually(&format!("{name} is told: {reason}"), async || {
        let log = run(&["logs", name]).await;
        log.contains(reason).then_some(())
    })
    .await;
    eventually(&format!("the leader counts {label}"), async || {
        let [refused, connected] = leader_counts(node, label).await?;
        (refused > 0 && connected == 2).then_some(())
    })
    .await;
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    assert_eq!(run(&["get", "pod", name, "-o", path]).await, "False");
    run(&["delete", "pod", name]).await;
}

/// Refusals under this label, and dataplanes that have a stream.
async fn leader_counts(node: &Node, label: &str) -> Option<[u64; 2]> {
    for pod in CONTROLLER.pods(node).await {
        let metrics = CONTROLLER.metrics(node, &pod).await;
        if metrics.sum("ws_ingress_controller_leader", &[]) == 1 {
            let refused = metrics.sum(
                "ws_ingress_controller_push_refusals_total",
                &[("reason", label)],
            );
            return Some([
                refused,
                metrics.sum("ws_ingress_controller_dataplanes_connected", &[]),
            ]);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_another_account_gets_no_table() {
    let site = Site::serving(take().await).await;
    let node = &site.node;
    let home = DATAPLANE.namespace(node);
    node.kubectl
        .apply(&account("stranger", home).to_string())
        .await;
    impostor(node, "other-account", home, |pod| {
        pod["serviceAccountName"] = json!("stranger");
    })
    .await;
    let reason = "the token is of another ServiceAccount";
    is_refused(node, "other-account", home, reason, "token_service_account").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_in_another_namespace_gets_no_table() {
    let site = Site::serving(take().await).await;
    let node = &site.node;
    let map = [
        "get",
        "configmap",
        "--namespace",
        DATAPLANE.namespace(node),
        AUTHORITY_CONFIG_MAP,
        "-o",
        "json",
    ];
    let map: Value = node.kubectl.ok(&map).await.parse().expect("JSON");
    let copy = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": AUTHORITY_CONFIG_MAP, "namespace": ELSEWHERE },
        "data": map["data"],
    });
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ELSEWHERE } });
    let objects = [namespace, account("ws-ingress-dataplane", ELSEWHERE), copy];
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    node.kubectl.apply(&list.to_string()).await;
    impostor(node, "same-account", ELSEWHERE, |_| {}).await;
    let reason = "the token is of a ServiceAccount in another namespace";
    is_refused(node, "same-account", ELSEWHERE, reason, "token_namespace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_the_api_server_gets_no_table() {
    let site = Site::serving(take().await).await;
    let node = &site.node;
    let home = DATAPLANE.namespace(node);
    impostor(node, "other-audience", home, |pod| {
        let token = &mut pod["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(token["audience"], "ws-ingress-controller");
        token
            .as_object_mut()
            .expect("a projected token")
            .remove("audience");
    })
    .await;
    let reason = "the token is for another audience";
    is_refused(node, "other-audience", home, reason, "token_audience").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_without_tls_is_counted_and_hung_up_on() {
    let site = Site::serving(take().await).await;
    let node = &site.node;
    let controllers: Vec<(Deployment, Pod)> = CONTROLLER
        .pods(node)
        .await
        .into_iter()
        .map(|pod| (CONTROLLER, pod))
        .collect();
    for (deployment, pod) in controllers {
        // The API server's proxy plays it: plain HTTP to the port of the push.
        let answer = deployment.ask(node, &pod, 9443, "/").await;
        assert_eq!(answer, None, "a stranger was answered");
        let metrics = deployment.metrics(node, &pod).await;
        let refused = metrics.sum(
            "ws_ingress_controller_push_refusals_total",
            &[("reason", "not_tls")],
        );
        assert!(refused > 0, "{}", pod.name);
    }
}

fn account(name: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": name, "namespace": namespace },
    })
}
