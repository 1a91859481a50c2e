//! Pods and Deployments, as `kubectl` shows them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Node, eventually};
use crate::metrics::Metrics;
use crate::wait::until;

/// A pod, at the moment it was read.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub ip: String,
    pub ready: bool,
    /// Since when it has been ready, or not.
    pub ready_since: String,
    pub restarts: u64,
}

/// A Deployment, or a `DaemonSet` in its place.
#[derive(Clone, Copy, Debug)]
pub struct Deployment {
    pub home: Home,
    pub name: &'static str,
}

/// In which namespace of a test's installation.
#[derive(Clone, Copy, Debug)]
pub enum Home {
    Release,
    Chat,
}

impl Deployment {
    pub fn namespace(self, node: &Node) -> &'static str {
        match self.home {
            Home::Release => node.installation.namespace,
            Home::Chat => node.installation.chat,
        }
    }

    /// As it stands; nothing when it is not there.
    pub async fn find(self, node: &Node) -> Option<Value> {
        let namespace = self.namespace(node);
        for plural in ["deployments", "daemonsets"] {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/{plural}");
            let found = node.get(&format!("{path}/{}", self.name)).await;
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// As it stands.
    pub async fn read(self, node: &Node) -> Value {
        let what = format!("{} can be read", self.name);
        until(&what, async || self.find(node).await).await
    }

    /// Its pods, those that end among them.
    pub async fn pods(self, node: &Node) -> Vec<Pod> {
        let deployment = self.read(node).await;
        let labels = deployment["spec"]["selector"]["matchLabels"].as_object();
        let selector: Vec<_> = labels
            .expect("a selector")
            .iter()
            .map(|(key, value)| format!("{key}%3D{}", value.as_str().unwrap_or_default()))
            .collect();
        let path = format!(
            "/api/v1/namespaces/{}/pods?labelSelector={}",
            self.namespace(node),
            selector.join("%2C")
        );
        let list = until("pods can be listed", async || node.get(&path).await).await;
        let items = list["items"].as_array().expect("a list");
        items.iter().map(pod).collect()
    }

    /// The uids of its pods.
    pub async fn uids(self, node: &Node) -> BTreeSet<String> {
        let pods = self.pods(node).await;
        pods.into_iter().map(|pod| pod.uid).collect()
    }

    /// Waits until it has what it asks for: that many pods, all of the newest template, all ready, and no other.
    pub async fn settled(self, node: &Node) {
        let what = format!("{} has settled", self.name);
        eventually(&what, async || {
            let deployment = self.read(node).await;
            let status = &deployment["status"];
            let newest = status["observedGeneration"] == deployment["metadata"]["generation"];
            let count = |field: &str| status[field].as_u64().unwrap_or(0);
            let (wanted, counts) = if deployment["kind"] == "DaemonSet" {
                let counts = ["updatedNumberScheduled", "numberAvailable"];
                (count("desiredNumberScheduled"), counts)
            } else {
                let wanted = deployment["spec"]["replicas"].as_u64()?;
                (wanted, ["updatedReplicas", "availableReplicas"])
            };
            let pods = self.pods(node).await;
            let settled = newest
                && counts.iter().all(|field| count(field) == wanted)
                && pods.len() as u64 == wanted
                && pods.iter().all(|pod| pod.ready);
            settled.then_some(())
        })
        .await;
    }

    pub async fn scale(self, node: &Node, replicas: u32) {
        let replicas = format!("--replicas={replicas}");
        self.kubectl(node, &["scale", "deployment", self.name, &replicas])
            .await;
    }

    pub async fn restart(self, node: &Node) {
        self.kubectl(node, &["rollout", "restart", "deployment", self.name])
            .await;
    }

    /// The pod of this name, if it is there.
    pub async fn pod(self, node: &Node, name: &str) -> Option<Pod> {
        let pods = self.pods(node).await;
        pods.into_iter().find(|pod| pod.name == name)
    }

    /// What `path` of a pod's port answers; `None` when nobody does, or not with 200. By the API server, so that it does not
    /// matter from where pods can be reached.
    pub async fn ask(self, node: &Node, pod: &Pod, port: u16, path: &str) -> Option<String> {
        let (namespace, name) = (self.namespace(node), &pod.name);
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy{path}");
        match node.get(&path).await? {
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }
    }

    /// The metrics of a pod.
    pub async fn metrics(self, node: &Node, pod: &Pod) -> Metrics {
        let what = format!("{} shows metrics", pod.name);
        let text = eventually(&what, async || self.ask(node, pod, 9901, "/metrics").await);
        Metrics::parse(&text.await)
    }

    async fn kubectl(self, node: &Node, arguments: &[&str]) -> String {
        let mut all = vec!["--namespace", self.namespace(node)];
        all.extend(arguments);
        node.kubectl.ok(&all).await
    }
}

fn pod(object: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let conditions = status["conditions"].as_array();
    let ready = conditions.and_then(|conditions| {
        conditions
            .iter()
            .find(|condition| condition["type"] == "Ready")
    });
    Pod {
        name: text(&metadata["name"]),
        uid: text(&metadata["uid"]),
        ip: text(&status["podIP"]),
        ready: ready.is_some_and(|ready| ready["status"] == "True"),
        ready_since: ready.map_or_else(String::new, |ready| text(&ready["lastTransitionTime"])),
        restarts: status
            .pointer("/containerStatuses/0/restartCount")
            .and_then(Value::as_u64)
            .unwrap_or(0),
    }
}
