//! `helm` of both lines, and the chart as it renders: the objects, to be looked at one by one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::kubernetes::namespace::Namespace;
use crate::process::{Output, run_to_end, target_folder};
use crate::tools::{Tool, require};

/// Longest run of one command; each takes about a second on an idle machine.
const LIMIT: Duration = Duration::from_mins(2);

/// The name and the namespace that the documentation gives a release.
pub const RELEASE: &str = "ws-ingress";
pub const NAMESPACE: &str = "ws-ingress";

/// The lowest Kubernetes that is supported. Rendering asks for a version: helm 3.17's own default is older.
pub const LOWEST_KUBERNETES: &str = "1.33.0";
pub const NEWEST_KUBERNETES: &str = "1.37.0";

/// The folder of the chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/ws-ingress");

/// One `helm`, with its settings and caches in a folder of its own.
pub struct Helm {
    program: PathBuf,
    home: TempDir,
}

impl Helm {
    /// Helm 4, or `None` after the skip was recorded.
    pub fn four() -> Option<Self> {
        require(Tool::Helm4).map(Self::new)
    }

    /// Helm 3, likewise.
    pub fn three() -> Option<Self> {
        require(Tool::Helm3).map(Self::new)
    }

    fn new(program: PathBuf) -> Self {
        let home = TempDir::new_in(target_folder()).expect("a temporary folder");
        Self { program, home }
    }

    /// Runs it to its end; `values` are JSON, for the flag `--values -`.
    pub async fn run(&self, arguments: &[&str], values: &str) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        keep_apart(&mut command, self.home.path());
        run_to_end(&format!("helm {arguments:?}"), command, values, LIMIT).await
    }

    /// A command that must succeed; its stdout.
    pub async fn ok(&self, arguments: &[&str], values: &Value) -> String {
        let output = self.run(arguments, &values.to_string()).await;
        assert!(
            output.success,
            "helm {}: {}{}",
            arguments.join(" "),
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// `helm COMMAND ws-ingress ...` in this namespace, as admin; its stdout.
    pub async fn release(
        &self,
        command: &str,
        namespace: &Namespace,
        arguments: &[&str],
        values: &Value,
    ) -> String {
        let kubeconfig = namespace.kubectl.kubeconfig().display().to_string();
        let own = [
            command,
            RELEASE,
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            &namespace.name,
        ];
        self.ok(&[&own, arguments].concat(), values).await
    }

    /// `helm template` with these values, whatever comes of it.
    pub async fn try_template(&self, values: &Value) -> Output {
        self.template_in(NAMESPACE, values).await
    }

    async fn template_in(&self, namespace: &str, values: &Value) -> Output {
        let arguments = [
            "template",
            RELEASE,
            CHART,
            "--namespace",
            namespace,
            "--kube-version",
            LOWEST_KUBERNETES,
            "--values",
            "-",
        ];
        self.run(&arguments, &values.to_string()).await
    }

    /// The text that `helm template` prints with these values.
    pub async fn template(&self, values: &Value) -> String {
        let output = self.try_template(values).await;
        assert!(output.success, "with {values}: {}", output.stderr);
        output.stdout
    }

    /// The objects that it prints.
    pub async fn render(&self, values: &Value) -> Objects {
        self.render_in(NAMESPACE, values).await
    }

    /// Those of a release in this namespace.
    pub async fn render_in(&self, namespace: &str, values: &Value) -> Objects {
        let output = self.template_in(namespace, values).await;
        assert!(output.success, "with {values}: {}", output.stderr);
        Objects::parse(&output.stdout)
    }
}

/// Keeps a command that runs `helm` from the settings, caches and clusters of who runs the tests.
pub fn keep_apart(command: &mut Command, home: &Path) {
    for variable in [
        "HELM_CACHE_HOME",
        "HELM_CONFIG_HOME",
        "HELM_DATA_HOME",
        "KUBECACHEDIR",
    ] {
        command.env(variable, home.join(variable));
    }
    // kubectl's own preferences, where a script runs it.
    command.env("KUBERC", "off").env_remove("KUBECONFIG");
}

/// Rendered objects.
#[derive(Debug, PartialEq)]
pub struct Objects(pub Vec<Value>);

impl Objects {
    pub fn parse(text: &str) -> Self {
        let objects: Vec<Option<Value>> =
            serde_saphyr::from_multiple(text).expect("what helm prints is YAML");
        Self(objects.into_iter().flatten().collect())
    }

    /// The object of this `Kind/name`; null when there is none.
    pub fn get(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|object| object_name(object) == name);
        found.unwrap_or(&Value::Null)
    }

    /// All of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The template of the pods of `controller` or `dataplane`; null when nothing makes such pods.
    pub fn pod(&self, component: &str) -> &Value {
        let templates = self.0.iter().map(|object| &object["spec"]["template"]);
        let label = "/metadata/labels/app.kubernetes.io~1component";
        let mut found = templates.filter(|pod| {
            let of = pod.pointer(label).and_then(Value::as_str);
            of == Some(component)
        });
        let pod = found.next().unwrap_or(&Value::Null);
        assert_eq!(found.next(), None, "two workloads of {component}");
        pod
    }

    /// By name, for comparisons: the order in which helm prints is its own.
    pub fn sorted(mut self) -> Vec<Value> {
        self.0.sort_by_key(object_key);
        self.0
    }
}

/// `Kind/name`.
pub fn object_name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{}/{}",
        text(&object["kind"]),
        text(&object["metadata"]["name"])
    )
}

fn object_key(object: &Value) -> String {
    let namespace = object["metadata"]["namespace"].as_str();
    format!("{}/{}", object_name(object), namespace.unwrap_or_default())
}
