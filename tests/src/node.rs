//! A cluster with a node that runs pods: that of `tests/kubernetes/node`, kind, or any other that holds the images.
//!
//! All that is known of it comes from the environment: a kubeconfig (admin), and an address at which the node ports
//! answer. `make node-test` and `make kind-test` set both and run `tests/node`.
//!
//! | part | what it holds |
//! |---|---|
//! | [`installation`] | which installation of the product a test has for its own |
//! | [`helm`], [`objects`] | the two ways to change it and to look at it |
//! | [`site`] | the product installed by its chart, an echo backend, a route, a client |
//! | [`crowd`], [`newcomers`] | sockets whose fate is known each, and new handshakes all along |
//! | [`faults`] | programs in pods killed or stopped |

pub mod crowd;
pub mod faults;
pub mod helm;
pub mod installation;
pub mod newcomers;
pub mod objects;
pub mod site;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::kubernetes::credentials::{Access, Identity, Pair};
use crate::kubernetes::kubectl::Kubectl;
use crate::kubernetes::request::Api;
use crate::tools::{Tool, require};
use crate::wait::until_every;

use installation::{Installation, Turn};

/// Longest wait for pods to come, change or go. A rollout of three pods with their drain is under 30 s on an idle machine.
const ROLLOUT: Duration = Duration::from_mins(3);

/// Time between two looks at pods. Each is a few requests to an API server that has the processors of the pods: more often, and it
/// would use most of what there is.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for what pods do, within the time of a rollout.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    until_every(LOOK, what, ROLLOUT, probe).await
}

/// The cluster, and the installation in it that a test has for its own.
pub struct Node {
    pub installation: &'static Installation,
    /// For what a person would do.
    pub kubectl: Kubectl,
    /// For what is asked again and again: a process each time would take the processor from what is tested.
    api: Api,
    /// Where node ports answer.
    pub address: IpAddr,
    folder: TempDir,
    since: Instant,
    _turn: Turn,
}

/// The cluster of the environment with an installation, once one is free.
pub async fn take() -> Node {
    with(installation::any().await).await
}

/// The same with the installation that the documents make.
pub async fn take_first() -> Node {
    with(installation::first().await).await
}

async fn with((installation, turn): (&'static Installation, Turn)) -> Node {
    let since = Instant::now();
    let variable = |name| {
        let value = std::env::var(name).ok();
        value.unwrap_or_else(|| panic!("{name} is not set: `make node-test` runs these tests"))
    };
    let folder = TempDir::with_prefix("ws-ingress-node-").expect("a temporary folder");
    let kubectl = Kubectl {
        program: require(Tool::Kubectl).expect("kubectl: run tests/tools/install"),
        kubeconfig: PathBuf::from(variable("KUBECONFIG")),
        cache: folder.path().join("kubectl-cache"),
    };
    Node {
        installation,
        api: Api::new(access(&kubectl).await),
        kubectl,
        address: variable("WS_INGRESS_ADDRESS")
            .parse()
            .expect("WS_INGRESS_ADDRESS is an address"),
        folder,
        since,
        _turn: turn,
    }
}

/// Says where the time of a run goes.
impl Drop for Node {
    #[expect(clippy::print_stdout, reason = "who runs the tests wants to know")]
    fn drop(&mut self) {
        let thread = std::thread::current();
        let (test, namespace) = (
            thread.name().unwrap_or_default(),
            self.installation.namespace,
        );
        println!("{test}: had {namespace} for {:.1?}", self.since.elapsed());
    }
}

impl Node {
    /// What a GET answers with 200.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.api.try_send(Method::GET, path, None).await;
        let (status, value) = answer.ok()?;
        status.is_success().then_some(value)
    }
}

/// How kubectl reaches the API server; by a certificate, as a node of the tests and kind have it.
async fn access(kubectl: &Kubectl) -> Access {
    let arguments = ["config", "view", "--raw", "--minify", "-o", "json"];
    let config: Value = kubectl.ok(&arguments).await.parse().expect("JSON");
    let text = |path| config.pointer(path).and_then(Value::as_str).expect(path);
    let pem = |path| {
        let bytes = STANDARD.decode(text(path)).expect("base64");
        String::from_utf8(bytes).expect("PEM")
    };
    let server = text("/clusters/0/cluster/server").trim_start_matches("https://");
    Access {
        server: server.parse().expect("the address of the API server"),
        root_pem: pem("/clusters/0/cluster/certificate-authority-data"),
        identity: Identity::Certificate(Pair {
            certificate: pem("/users/0/user/client-certificate-data"),
            key: pem("/users/0/user/client-key-data"),
        }),
    }
}

/// The top of the repository.
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the repository")
}

/// The image of this name, as `.ci/images` tags it.
pub fn image(name: &str) -> String {
    format!("docker.io/ws-ingress/{name}:{}", env!("CARGO_PKG_VERSION"))
}
