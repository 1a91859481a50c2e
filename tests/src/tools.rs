//! Programs that are not Rust: found, or the test is skipped and says so.
//!
//! `tests/tools/install` puts them under `target/tools`. What ran and what was skipped is written to
//! `target/test-report/`, which `make test` prints; with CI=true a missing program fails its test.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::process::{Process, target_folder};

/// How long a script may take; each finishes in 20 seconds on two cores that all of them share.
const SCRIPT_LIMIT: Duration = Duration::from_mins(2);

/// A program that a test needs.
#[derive(Clone, Copy, Debug)]
pub enum Tool {
    /// The Python environment with `websockets` and `playwright`.
    Python,
    /// Node with the packages `ws`, Socket.IO and SockJS.
    Node,
    /// `chromium-headless-shell`.
    Browser,
    /// The folder of `kube-apiserver` and `etcd`.
    Kubernetes,
    /// `kubectl`.
    Kubectl,
    /// `helm` 4.
    Helm4,
    /// `helm` 3.
    Helm3,
    /// The Python environment with `kubernetes-validate`.
    Schemas,
    /// `nginx`, as Debian builds it.
    Nginx,
    /// The client in Go, with `coder/websocket`.
    Go,
    /// Java with its compiler.
    Java,
    /// `openssl`, the program.
    OpenSsl,
}

impl Tool {
    fn find(self) -> Option<PathBuf> {
        let tools = target_folder().join("tools");
        match self {
            Self::Python => file(tools.join("python/bin/python")),
            Self::Node => on_path("node").filter(|_| {
                let packages = tools.join("node/node_modules");
                packages.join("ws").is_dir() && packages.join("sockjs-client").is_dir()
            }),
            Self::Browser => on_path("chromium-headless-shell"),
            Self::Kubernetes => Some(tools.join("kubernetes"))
                .filter(|folder| folder.join("kube-apiserver").is_file()),
            Self::Kubectl => file(tools.join("kubectl/kubectl")),
            Self::Helm4 => file(tools.join("kubectl/helm")),
            Self::Helm3 => file(tools.join("helm3/helm")),
            Self::Schemas => file(tools.join("schemas/bin/kubernetes-validate")),
            Self::Nginx => file(tools.join("nginx/usr/sbin/nginx"))
                .or_else(|| on_path("nginx"))
                .or_else(|| file(PathBuf::from("/usr/sbin/nginx"))),
            Self::Go => file(tools.join("go/client")),
            Self::Java => on_path("javac").and_then(|_| on_path("java")),
            Self::OpenSsl => on_path("openssl"),
        }
    }
}

/// The path of a program, or `None` after the skip was recorded.
pub fn require(tool: Tool) -> Option<PathBuf> {
    let found = tool.find();
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(
        found.is_some() || !in_ci,
        "{tool:?} is missing and CI=true: run tests/tools/install, or install it as .ci/run does"
    );
    record(
        if found.is_some() {
            "ran.txt"
        } else {
            "skipped.txt"
        },
        &format!("{tool:?}"),
    );
    found
}

/// A command that runs one of `tests/clients/`.
pub fn script(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("clients")
            .join(name),
    );
    // `require` finds packages there; unlike `import`, which looks beside the script only.
    command.env("NODE_PATH", target_folder().join("tools/node/node_modules"));
    command.env("PYTHONUNBUFFERED", "1");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a script to its end and returns what it printed; panics when it fails.
pub async fn run(name: &str, command: Command) -> Vec<String> {
    let mut process = Process::spawn(name, command);
    let status = process.exit(SCRIPT_LIMIT).await;
    assert!(status.success(), "{name} ended with {status}");
    process.stdout.all()
}

fn file(path: PathBuf) -> Option<PathBuf> {
    Some(path).filter(|path| path.is_file())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

pub(crate) fn record(file: &str, what: &str) {
    let folder = target_folder().join("test-report");
    fs::create_dir_all(&folder).expect("a folder for the report");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(file))
        .expect("a report");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // One write, so that tests in parallel do not mix their lines.
    file.write_all(format!("{test}: {what}\n").as_bytes())
        .expect("a line in the report");
}
