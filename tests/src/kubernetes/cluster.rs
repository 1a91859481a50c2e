//! A cluster for tests: shared by all tests of a file, or one of their own that they may disturb.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime;
use tokio::sync::{OnceCell, oneshot};

use super::credentials::{Access, Identity};
use super::kubectl::Kubectl;
use super::namespace::Namespace;
use super::request::Api;
use super::server::Server;
use crate::process::target_folder;
use crate::tools::{Tool, require};

/// Longest name of a namespace that tests make; the API allows 63.
const NAME_LENGTH: usize = 50;

/// An API server with the CRD in it.
pub struct Cluster {
    pub server: Server,
    /// As admin, in the namespace `default`.
    pub kubectl: Kubectl,
    api: Api,
    files: AtomicU32,
    /// Removed after the processes that write into it were killed.
    folder: TempDir,
}

/// A pod that a token is bound to.
#[derive(Clone, Copy)]
pub struct BoundPod<'a> {
    pub name: &'a str,
    pub uid: &'a str,
}

/// The one API server of this test program; `None` after the skip was recorded. It ends with the program.
pub async fn shared() -> Option<Arc<Cluster>> {
    static SHARED: OnceCell<Arc<Cluster>> = OnceCell::const_new();
    let programs = Programs::find()?;
    let cluster = SHARED
        .get_or_init(|| on_a_thread_of_its_own(programs))
        .await;
    Some(Arc::clone(cluster))
}

/// An API server for one test, which ends with it.
pub async fn own() -> Option<Arc<Cluster>> {
    let programs = Programs::find()?;
    Some(Arc::new(Cluster::start(&programs).await))
}

/// Where the programs are.
struct Programs {
    server: PathBuf,
    kubectl: PathBuf,
}

impl Programs {
    fn find() -> Option<Self> {
        let (server, kubectl) = (require(Tool::Kubernetes), require(Tool::Kubectl));
        Some(Self {
            server: server?,
            kubectl: kubectl?,
        })
    }
}

/// Every test has a runtime and a thread that end with it, and with them the children and the tasks that read what the
/// children print. What is shared needs a thread that stays.
async fn on_a_thread_of_its_own(programs: Programs) -> Arc<Cluster> {
    let (ready, started) = oneshot::channel();
    let stay = move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let cluster = Arc::new(Cluster::start(&programs).await);
            let _ = ready.send(cluster);
            std::future::pending::<()>().await;
        });
    };
    std::thread::Builder::new()
        .name("shared cluster".to_owned())
        .spawn(stay)
        .expect("a thread");
    started.await.expect("the shared API server starts")
}

impl Cluster {
    async fn start(programs: &Programs) -> Self {
        let folder = folder();
        let server = Server::start(&programs.server, folder.path()).await;
        let access = server.admin();
        let kubeconfig = folder.path().join("admin.kubeconfig");
        fs::write(&kubeconfig, access.kubeconfig("default")).expect("write a kubeconfig");
        let cluster = Self {
            server,
            kubectl: Kubectl {
                program: programs.kubectl.clone(),
                kubeconfig,
                cache: folder.path().join("kubectl-cache"),
            },
            api: Api::new(access),
            files: AtomicU32::new(0),
            folder,
        };
        cluster.kubectl.apply(&definitions()).await;
        cluster
            .kubectl
            .wait(
                "crd/websocketroutes.ws-ingress.dev",
                "condition=Established",
            )
            .await;
        cluster
            .kubectl
            .wait(
                "crd/externalbackends.ws-ingress.dev",
                "condition=Established",
            )
            .await;
        cluster
    }

    /// As admin.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// A fresh namespace, named after the test. It stays until the cluster ends.
    pub async fn namespace(self: &Arc<Self>) -> Namespace {
        let test = std::thread::current().name().unwrap_or("test").to_owned();
        let words = test.rsplit("::").next().unwrap_or_default();
        let mut name: String = words
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(NAME_LENGTH)
            .collect();
        name.make_ascii_lowercase();
        let name = format!("{}-{}", name.trim_matches('-'), self.number());
        let object = json!({ "metadata": { "name": name } });
        self.api.create("/api/v1/namespaces", &object).await;
        let kubectl = self.kubectl_as(&self.server.admin(), &name);
        Namespace {
            cluster: Arc::clone(self),
            name,
            kubectl,
        }
    }

    /// `kubectl` as somebody, in a namespace.
    pub fn kubectl_as(&self, access: &Access, namespace: &str) -> Kubectl {
        let kubeconfig = self.new_file("kubeconfig", &access.kubeconfig(namespace));
        Kubectl {
            kubeconfig,
            ..self.kubectl.clone()
        }
    }

    /// How a `ServiceAccount` reaches the API server.
    pub async fn account(&self, namespace: &str, name: &str) -> Access {
        let token = self.token(namespace, name, &[], None).await;
        self.server.access(Identity::Token(token))
    }

    /// A token of a `ServiceAccount` by `TokenRequest`; for the API server itself when there is no audience.
    pub async fn token(
        &self,
        namespace: &str,
        account: &str,
        audiences: &[&str],
        pod: Option<BoundPod<'_>>,
    ) -> String {
        let mut spec = json!({ "audiences": audiences, "expirationSeconds": 3600 });
        if let Some(BoundPod { name, uid }) = pod {
            spec["boundObjectRef"] =
                json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid });
        }
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.api.create(&path, &json!({ "spec": spec })).await;
        let token = answer.pointer("/status/token").and_then(Value::as_str);
        token.expect("a token").to_owned()
    }

    /// This token, but for its end: `TokenRequest` gives none for less than ten minutes.
    pub fn token_for(&self, token: &str, time: Duration) -> String {
        let payload = token.split('.').nth(1).expect("three parts");
        let payload = BASE64.decode(payload).expect("base64");
        let mut payload: Value = serde_json::from_slice(&payload).expect("claims");
        let ends = SystemTime::now() + time;
        let ends = ends.duration_since(UNIX_EPOCH).expect("after 1970");
        payload["exp"] = json!(ends.as_secs());
        self.server.signed_token(&payload)
    }

    /// A file with this content, in the cluster's folder; its name ends as given.
    pub fn new_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.new_path(name);
        fs::write(&path, content).expect("write a file");
        path
    }

    /// A path in the cluster's folder that nobody else has.
    pub fn new_path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{name}", self.number()))
    }

    fn number(&self) -> u32 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }
}

/// The kinds of ours, as their definitions are named.
pub const KINDS: [&str; 2] = ["websocketroutes", "externalbackends"];

/// A committed CRD, by its kind in the plural.
pub fn definition(plural: &str) -> String {
    let path = format!("../crds/{plural}.yaml");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("the committed CRD")
}

/// All of them.
pub fn definitions() -> String {
    KINDS.map(definition).join("---\n")
}

/// A folder that is named after this process. What a killed process left behind is removed by the next one: etcd writes
/// more than 100 MB.
fn folder() -> TempDir {
    let clusters = target_folder().join("test-clusters");
    fs::create_dir_all(&clusters).expect("a folder for clusters");
    for entry in fs::read_dir(&clusters).expect("a folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str());
        let process = name.and_then(|name| name.split_once('-')).map(|(id, _)| id);
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another test program may be removing the same.
            let _ = fs::remove_dir_all(path);
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{}-", std::process::id()))
        .tempdir_in(clusters)
        .expect("a temporary folder")
}
