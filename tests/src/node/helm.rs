//! Runs `helm`, of either line, and commands as the README has them.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use super::{Node, repository};
use crate::helm::keep_apart;
use crate::process::{Output, run_to_end};
use crate::tools::{Tool, require};

/// Longest run of one command; `--wait` gives up before.
const LIMIT: Duration = Duration::from_mins(5);

/// What `--wait` gets.
pub const WAIT: &str = "--timeout=4m";

/// The chart, from the top of the repository.
pub const CHART: &str = "charts/ws-ingress";

/// A `helm`.
#[derive(Clone, Copy, Debug)]
pub enum Helm {
    Four,
    Three,
}

impl Helm {
    fn program(self) -> PathBuf {
        let tool = match self {
            Self::Four => Tool::Helm4,
            Self::Three => Tool::Helm3,
        };
        require(tool).expect("helm: run tests/tools/install")
    }

    /// A command that must succeed; its stdout.
    pub async fn ok(self, node: &Node, arguments: &[&str]) -> String {
        let mut command = Command::new(self.program());
        command.args(arguments);
        self.run(node, command).await
    }

    /// A script of bash that must succeed, with this helm, kubectl and the cluster's kubeconfig; its stdout.
    pub async fn script(self, node: &Node, text: &str) -> String {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", text]);
        self.run(node, command).await
    }

    async fn run(self, node: &Node, mut command: Command) -> String {
        keep_apart(&mut command, &node.folder.path().join("helm"));
        // For scripts.
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let programs = [self.program(), node.kubectl.program.clone()];
        let folders = programs.iter().filter_map(|program| program.parent());
        let path = folders
            .map(PathBuf::from)
            .chain(std::env::split_paths(&inherited));
        let path = std::env::join_paths(path).expect("folders");
        command
            .current_dir(repository())
            .env("PATH", path)
            .env("KUBECONFIG", node.kubectl.kubeconfig());
        let what = format!("{command:?}");
        let output = run_to_end(&what, command, "", LIMIT).await;
        let Output { stdout, stderr, .. } = &output;
        assert!(output.success, "{what}: {stdout}{stderr}");
        output.stdout
    }
}
