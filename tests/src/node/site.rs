//! The product as its chart installs it, an echo backend of two pods, and one host that leads there.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::helm::{CHART, Helm, WAIT};
use super::objects::Deployment;
use super::{Node, ROLLOUT, image};
use crate::certificate::{Authority, Issued};
use crate::client::{Dial, talk};
use crate::manifests::{Rule, Tls, route, secret};
use crate::scene::{HOST, SECRET, SERVICE};
use crate::wait::{until, until_limit};

/// The release and its namespace.
pub const RELEASE: &str = "ws-ingress";

/// The node port of TLS, also in the port mappings of `tests/kind.yaml`.
pub const HTTPS_PORT: u16 = 30443;

pub const CONTROLLER: Deployment = Deployment {
    namespace: RELEASE,
    name: "ws-ingress-controller",
};
pub const DATAPLANE: Deployment = Deployment {
    namespace: RELEASE,
    name: "ws-ingress-dataplane",
};
pub const BACKEND: Deployment = Deployment {
    namespace: CHAT,
    name: "echo",
};

/// Where the route and its backend are.
pub const CHAT: &str = "chat";

/// Pods of each Deployment while nothing happens.
pub const REPLICAS: u32 = 2;

/// A short drain: node ports change up to a second late, and these clients answer a Close at once. No policies: strangers
/// shall be refused by the product, also where the network would stop them.
const VALUES: &str = "dataplane.service.type=NodePort,dataplane.service.nodePorts.https=30443,\
    dataplane.service.nodePorts.http=30080,dataplane.drain.delaySeconds=3,dataplane.drain.timeoutSeconds=8,\
    networkPolicy.enabled=false";

/// Handshakes in a row that show that each pod serves.
const IN_A_ROW: u32 = 10;

/// Longest handshake, and longest echo, of a pod that serves.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The authority that clients trust, and the certificate of the host: the same for all tests of a run, so that what one
/// leaves behind serves the next.
static CERTIFICATE: LazyLock<(Authority, Issued)> = LazyLock::new(|| {
    let authority = Authority::new();
    let issued = authority.issue(&[HOST]);
    (authority, issued)
});

/// Whether the release has the usual values: helm takes seconds to find out.
static AS_USUAL: AtomicBool = AtomicBool::new(false);

/// What serves.
pub struct Site {
    pub node: Node,
}

impl Site {
    /// Installs whatever of it is not there, and puts back what another test left changed.
    pub async fn serving(node: Node) -> Self {
        let site = Self { node };
        // Before helm: it does not take a field back that `kubectl scale` has changed.
        for deployment in [CONTROLLER, DATAPLANE] {
            let found = deployment.find(&site.node).await;
            if found.is_some_and(|found| found["kind"] == "Deployment") {
                deployment.scale(&site.node, REPLICAS).await;
            }
        }
        if !AS_USUAL.load(Ordering::SeqCst) {
            site.upgrade(Helm::Four, "").await;
        }
        site.serve().await;
        site
    }

    /// `helm uninstall`; the namespace stays.
    pub async fn uninstall(node: &Node, helm: Helm) {
        AS_USUAL.store(false, Ordering::SeqCst);
        let release = ["uninstall", RELEASE, "--namespace", RELEASE];
        let flags = ["--ignore-not-found", "--wait", WAIT];
        helm.ok(node, &[&release[..], &flags].concat()).await;
    }

    /// `helm upgrade --install` with these values beside the usual ones.
    pub async fn upgrade(&self, helm: Helm, values: &str) {
        AS_USUAL.store(false, Ordering::SeqCst);
        let arguments = [
            "upgrade",
            "--install",
            RELEASE,
            CHART,
            "--namespace",
            RELEASE,
            "--create-namespace",
            "--set",
            VALUES,
            "--set",
            values,
            "--wait",
            WAIT,
        ];
        helm.ok(&self.node, &arguments).await;
        AS_USUAL.store(values.is_empty(), Ordering::SeqCst);
    }

    /// The backend and the route, until a client hears its echo.
    pub async fn serve(&self) {
        let routes = route(
            SERVICE,
            &[HOST],
            &Tls::Terminate(SECRET),
            &[Rule::to(SERVICE)],
        );
        let manifests = [
            format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{ name: {CHAT} }}\n"),
            in_chat(&secret(SECRET, &CERTIFICATE.1)),
            backend(),
            in_chat(&routes),
        ];
        self.node.kubectl.apply(&manifests.concat()).await;
        self.settled().await;
        self.echoes().await;
    }

    /// Waits until each Deployment has settled.
    pub async fn settled(&self) {
        for deployment in [CONTROLLER, DATAPLANE, BACKEND] {
            deployment.settled(&self.node).await;
        }
    }

    /// Waits until new sockets are taken, each at once, and hear their echo. A connection to a pod that hangs hangs too, as
    /// long as the node still sends some there: not heard at once is not taken, and another one is tried.
    pub async fn echoes(&self) {
        let dial = self.client();
        until_limit("new sockets are taken", ROLLOUT, async || {
            for _ in 0..IN_A_ROW {
                let (mut socket, _) = timeout(AT_ONCE, dial.try_connect()).await.ok()?.ok()?;
                timeout(AT_ONCE, talk(&mut socket, "hello")).await.ok()?;
            }
            Some(())
        })
        .await;
    }

    /// A wss client of the host, through the node port.
    pub fn client(&self) -> Dial {
        let address = SocketAddr::new(self.node.address, HTTPS_PORT);
        Dial::wss(address, HOST, CERTIFICATE.0.root())
    }

    /// The route as it stands in the API.
    pub async fn route(&self) -> Value {
        let path =
            format!("/apis/ws-ingress.dev/v1alpha1/namespaces/{CHAT}/websocketroutes/{SERVICE}");
        until("the route can be read", async || self.node.get(&path).await).await
    }
}

fn in_chat(manifest: &str) -> String {
    manifest.replace("metadata:\n", &format!("metadata:\n  namespace: {CHAT}\n"))
}

/// Serves three seconds after SIGTERM, then says Close 1001: what a backend should do.
fn backend() -> String {
    let image = image("echo");
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: echo, namespace: {CHAT} }}
spec:
  replicas: {REPLICAS}
  selector: {{ matchLabels: {{ app: echo }} }}
  strategy: {{ rollingUpdate: {{ maxUnavailable: 0, maxSurge: 1 }} }}
  template:
    metadata: {{ labels: {{ app: echo }} }}
    spec:
      containers:
      - name: echo
        image: {image}
        args: [\"--listen=0.0.0.0:8282\", \"--name=$(NAME)\", \"--close-on-sigterm=3\"]
        env: [{{ name: NAME, valueFrom: {{ fieldRef: {{ fieldPath: metadata.name }} }} }}]
        ports: [{{ name: ws, containerPort: 8282 }}]
        readinessProbe: {{ httpGet: {{ path: /count, port: ws }}, periodSeconds: 1 }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {SERVICE}, namespace: {CHAT} }}
spec:
  selector: {{ app: echo }}
  ports: [{{ name: ws, port: 80, targetPort: ws }}]
"
    )
}
