//! Runs `kubectl` as one identity in one namespace, and keeps what it printed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::process::{Output, run_to_end};

/// Longest run of one command; each takes well under a second on an idle machine.
const LIMIT: Duration = Duration::from_mins(1);

/// A `kubectl` with its kubeconfig.
#[derive(Clone)]
pub struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    /// What it learned of the API; in the cluster's own folder, since the next cluster may answer on the same port.
    pub(crate) cache: PathBuf,
}

impl Kubectl {
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs it to its end, with `input` on stdin.
    pub async fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments)
            // A developer's own preferences must not change what a test sees.
            .env("KUBERC", "off");
        run_to_end(&format!("kubectl {arguments:?}"), command, input, LIMIT).await
    }

    /// A command that must succeed; its stdout.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "").await
    }

    async fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input).await;
        assert!(
            output.success,
            "kubectl {}: {}{}",
            arguments.join(" "),
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// `kubectl apply` of this text, which must be taken.
    pub async fn apply(&self, manifests: &str) -> String {
        self.ok_with(&["apply", "-f", "-"], manifests).await
    }

    /// `kubectl apply` of this text, whatever comes of it.
    pub async fn try_apply(&self, manifests: &str) -> Output {
        self.run(&["apply", "-f", "-"], manifests).await
    }

    /// `kubectl get KIND NAME -o json`.
    pub async fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.ok(&["get", kind, name, "-o", "json"]).await;
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// `kubectl wait --for=CONDITION KIND/NAME`, at most as long as any other wait here.
    pub async fn wait(&self, object: &str, condition: &str) {
        let limit = format!("--timeout={}s", crate::wait::LIMIT.as_secs());
        self.ok(&["wait", &format!("--for={condition}"), object, &limit])
            .await;
    }

    /// `kubectl explain PATH`.
    pub async fn explain(&self, path: &str) -> String {
        self.ok(&["explain", path]).await
    }
}
