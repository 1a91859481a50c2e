//! The product as its chart installs it, an echo backend of two pods, and one host that leads there.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::helm::{CHART, Helm, WAIT};
use super::installation::{Installation, RELEASE};
use super::objects::{Deployment, Home};
use super::{Node, eventually, image};
use crate::certificate::{Authority, Issued};
use crate::client::{Dial, talk};
use crate::manifests::{Rule, Tls, in_class, route, secret};
use crate::scene::{HOST, SECRET, SERVICE};
use crate::wait::until;

pub const CONTROLLER: Deployment = Deployment {
    home: Home::Release,
    name: "ws-ingress-controller",
};
pub const DATAPLANE: Deployment = Deployment {
    home: Home::Release,
    name: "ws-ingress-dataplane",
};
pub const BACKEND: Deployment = Deployment {
    home: Home::Chat,
    name: "echo",
};

/// Pods of each Deployment while nothing happens.
pub const REPLICAS: u32 = 2;

/// A short drain: node ports change up to a second late, and these clients answer a Close at once. No policies: strangers
/// shall be refused by the product, also where the network would stop them.
const VALUES: &str = "dataplane.service.type=NodePort,dataplane.drain.delaySeconds=3,dataplane.drain.timeoutSeconds=8,\
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
        if !site.node.installation.as_usual.load(Ordering::SeqCst) {
            site.upgrade(Helm::Four, "").await;
        }
        site.serve().await;
        site
    }

    /// `helm uninstall`, until the pods are gone; the namespace stays.
    pub async fn uninstall(node: &Node, helm: Helm) {
        let Installation {
            namespace,
            as_usual,
            ..
        } = node.installation;
        as_usual.store(false, Ordering::SeqCst);
        let release = ["uninstall", RELEASE, "--namespace", namespace];
        let flags = ["--ignore-not-found", "--cascade=foreground", "--wait", WAIT];
        helm.ok(node, &[&release[..], &flags].concat()).await;
    }

    /// `helm upgrade --install` with these values beside the usual ones.
    pub async fn upgrade(&self, helm: Helm, values: &str) {
        let Installation {
            namespace,
            as_usual,
            owns_crds,
            ..
        } = self.node.installation;
        as_usual.store(false, Ordering::SeqCst);
        if !owns_crds {
            self.kinds_are_known().await;
        }
        let own = own_values(self.node.installation);
        let arguments = [
            "upgrade",
            "--install",
            RELEASE,
            CHART,
            "--namespace",
            namespace,
            "--create-namespace",
            "--set",
            VALUES,
            "--set",
            &own,
            "--set",
            values,
            "--wait",
            WAIT,
        ];
        helm.ok(&self.node, &arguments).await;
        as_usual.store(values.is_empty(), Ordering::SeqCst);
    }

    /// Waits until another installation has brought the CRDs.
    async fn kinds_are_known(&self) {
        eventually("the kinds of routes and backends are known", async || {
            for plural in ["websocketroutes", "externalbackends"] {
                let path = format!("/apis/ws-ingress.dev/v1alpha1/{plural}?limit=1");
                self.node.get(&path).await?;
            }
            Some(())
        })
        .await;
    }

    /// The backend and the route, until a client hears its echo.
    pub async fn serve(&self) {
        let routes = route(
            SERVICE,
            &[HOST],
            &Tls::Terminate(SECRET),
            &[Rule::to(SERVICE)],
        );
        let Installation {
            namespace, chat, ..
        } = self.node.installation;
        let manifests = [
            format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{ name: {chat} }}\n"),
            in_namespace(chat, &secret(SECRET, &CERTIFICATE.1)),
            backend(chat),
            in_namespace(chat, &in_class(namespace, &routes)),
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
        eventually("new sockets are taken", async || {
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
        let address = SocketAddr::new(self.node.address, self.node.installation.https_port);
        Dial::wss(address, HOST, CERTIFICATE.0.root())
    }

    /// The route as it stands in the API.
    pub async fn route(&self) -> Value {
        let chat = self.node.installation.chat;
        let path =
            format!("/apis/ws-ingress.dev/v1alpha1/namespaces/{chat}/websocketroutes/{SERVICE}");
        until("the route can be read", async || self.node.get(&path).await).await
    }
}

/// What sets an installation apart from the others.
fn own_values(installation: &Installation) -> String {
    let Installation {
        namespace,
        https_port,
        http_port,
        owns_crds,
        ..
    } = installation;
    format!(
        "className={namespace},crds.enabled={owns_crds},\
        dataplane.service.nodePorts.https={https_port},dataplane.service.nodePorts.http={http_port}"
    )
}

fn in_namespace(namespace: &str, manifest: &str) -> String {
    manifest.replace(
        "metadata:\n",
        &format!("metadata:\n  namespace: {namespace}\n"),
    )
}

/// Serves three seconds after SIGTERM, then says Close 1001: what a backend should do.
fn backend(namespace: &str) -> String {
    let image = image("echo");
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: echo, namespace: {namespace} }}
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
metadata: {{ name: {SERVICE}, namespace: {namespace} }}
spec:
  selector: {{ app: echo }}
  ports: [{{ name: ws, port: 80, targetPort: ws }}]
"
    )
}
