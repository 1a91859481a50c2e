//! What the chart renders, without a cluster: the committed cases, what Kubernetes' schemas say of them, and the promises that hold
//! for all of them.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tests::chart::{file, values};
use tests::chart_cases::cases;
use tests::helm::{CHART, Helm, LOWEST_KUBERNETES, NEWEST_KUBERNETES, Objects};
use tests::kubernetes::cluster::{KINDS, definition};
use tests::process::run_to_end;
use tests::tools::{Tool, require};
use tests::wait;
use tokio::process::Command;

/// Renderings at a time.
const AT_A_TIME: usize = 4;

/// Both lines of helm; what is missing is recorded.
fn both() -> Vec<Helm> {
    [Helm::four(), Helm::three()]
        .into_iter()
        .flatten()
        .collect()
}

/// What `helm template` printed, without the CRD: that has a test of its own, and is long.
fn without_definition(text: &str) -> String {
    let documents = text.split_inclusive("\n---\n");
    documents
        .filter(|document| !document.contains("\nkind: CustomResourceDefinition\n"))
        .collect()
}

#[tokio::test]
async fn lint_finds_nothing() {
    for helm in both() {
        let output = helm.run(&["lint", "--strict", CHART], "").await;
        assert!(output.success, "{}{}", output.stdout, output.stderr);
    }
}

#[tokio::test]
async fn every_case_renders_as_committed() {
    let Some(helm) = Helm::four() else {
        return;
    };
    let mut wrong = Vec::new();
    for case in cases() {
        let text = without_definition(&helm.template(&case.values).await);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&case.rendered, text).expect("write a case");
        } else if fs::read_to_string(&case.rendered).unwrap_or_default() != text {
            wrong.push(case.name);
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong:?} render otherwise: run `make chart-snapshots` and review the diff"
    );
}

#[tokio::test]
async fn helm_3_renders_the_same() {
    let Some(helm) = Helm::three() else {
        return;
    };
    for case in cases() {
        let text = without_definition(&helm.template(&case.values).await);
        let committed = fs::read_to_string(&case.rendered).expect("a committed case");
        assert_eq!(
            Objects::parse(&text).sorted(),
            Objects::parse(&committed).sorted(),
            "{}",
            case.name
        );
    }
}

#[tokio::test]
async fn the_oldest_and_the_newest_kubernetes_know_every_field() {
    let (Some(helm), Some(validate)) = (Helm::four(), require(Tool::Schemas)) else {
        return;
    };
    for case in cases() {
        let text = helm.template(&case.values).await;
        let rendered = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(rendered.path(), text).expect("write a file");
        let mut command = Command::new(&validate);
        command.args(["--strict", "--quiet"]);
        for version in [LOWEST_KUBERNETES, NEWEST_KUBERNETES] {
            command.args(["--kubernetes-version", version]);
        }
        command.arg(rendered.path());
        let output = run_to_end("kubernetes-validate", command, "", wait::LIMIT * 6).await;
        assert!(output.success, "{}: {}", case.name, output.stderr);
    }
}

#[tokio::test]
async fn no_pod_of_the_dataplane_can_ask_the_api_or_see_a_secret() {
    let Some(helm) = Helm::four() else {
        return;
    };
    for case in cases() {
        let objects = helm.render(&case.values).await;
        let pod = &objects.pod("dataplane")["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        let push = json!({ "sources": [
            { "serviceAccountToken": {
                "audience": "ws-ingress-controller",
                "expirationSeconds": 3600,
                "path": "token",
            } },
            { "configMap": {
                "name": "ws-ingress-push-ca",
                "items": [{ "key": "ca.crt", "path": "ca.crt" }],
                "optional": false,
            } },
        ] });
        assert_eq!(pod["volumes"][0]["projected"], push);
        // Those of a user's own may be anything; none is in a case.
        let text = pod.to_string();
        for word in ["\"secret\"", "secretKeyRef", "secretRef"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
        let account = pod["serviceAccountName"].as_str().expect("an account");
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            for binding in objects.of_kind(kind) {
                let bound = binding["subjects"].to_string();
                assert!(!bound.contains(&format!("\"{account}\"")), "{binding}");
            }
        }
        assert_eq!(objects.of_kind("Secret").count(), 0);
    }
}

#[tokio::test]
async fn a_typo_is_refused_with_its_name() {
    for helm in both() {
        for (values, said) in [
            (json!({ "controler": {} }), "controler"),
            (json!({ "dataplane": { "replicas": 3 } }), "replicas"),
            (
                json!({ "dataplane": { "service": { "typ": "NodePort" } } }),
                "typ",
            ),
            (json!({ "dataplane": { "kind": "StatefulSet" } }), "kind"),
            (json!({ "className": 1 }), "className"),
            (json!({ "watchNamespaces": ["a/b"] }), "watchNamespaces"),
            (
                json!({ "controller": { "extraArgs": "--log=debug" } }),
                "extraArgs",
            ),
            (
                json!({ "controller": { "image": { "digest": "abc" } } }),
                "digest",
            ),
        ] {
            let output = helm.try_template(&values).await;
            assert!(!output.success, "{values} was taken");
            assert!(output.stderr.contains(said), "{values}: {}", output.stderr);
        }
    }
}

#[tokio::test]
async fn a_grace_period_that_would_cut_sockets_is_refused() {
    let Some(helm) = Helm::four() else {
        return;
    };
    let with = |grace: u32| {
        json!({ "dataplane": {
            "drain": { "delaySeconds": 10, "timeoutSeconds": 100 },
            "terminationGracePeriodSeconds": grace,
        } })
    };
    for short in [0, 114] {
        let output = helm.try_template(&with(short)).await;
        assert!(!output.success, "{short}");
        assert!(output.stderr.contains("are 115"), "{}", output.stderr);
    }
    let objects = helm.render(&with(115)).await;
    let pod = &objects.pod("dataplane")["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 115);
}

#[tokio::test]
async fn an_empty_value_is_refused_with_its_name_or_means_none() {
    for helm in both() {
        let render = async |path: String| {
            // As in `className:` with nothing behind it.
            let mut values = json!({});
            let mut place = &mut values;
            for name in path.split('.') {
                place = &mut place[name];
            }
            *place = Value::Null;
            (path, helm.try_template(&values).await)
        };
        let paths = values().into_iter().map(|value| value.path);
        let sections = ["crds", "controller", "dataplane.service"].map(str::to_owned);
        let rendered = stream::iter(paths.chain(sections)).map(render);
        let rendered: Vec<_> = rendered.buffered(AT_A_TIME).collect().await;
        for (path, output) in rendered {
            if output.success {
                Objects::parse(&output.stdout);
            } else {
                let name = path.rsplit('.').next().unwrap_or_default();
                let said = output.stderr.contains("specifications of the schema")
                    && output.stderr.contains(name);
                assert!(said, "{path}: {}", output.stderr);
            }
            assert!(path != "className" || !output.success, "no class is served");
        }
    }
}

#[tokio::test]
async fn labels_of_a_user_do_not_replace_those_of_the_chart() {
    let Some(helm) = Helm::four() else {
        return;
    };
    let labels = json!({ "app.kubernetes.io/component": "edge", "app.kubernetes.io/name": "edge" });
    let values = json!({
        "commonLabels": labels,
        "controller": { "podLabels": labels },
        "dataplane": { "podLabels": labels },
    });
    let render = async |values| {
        // The definition is of no component.
        let text = helm.template(values).await;
        Objects::parse(&without_definition(&text))
    };
    assert_eq!(render(&values).await, render(&json!({})).await);
}

#[tokio::test]
async fn a_pod_of_the_dataplane_is_ready_before_an_old_one_ends() {
    let Some(helm) = Helm::four() else {
        return;
    };
    for (kind, field) in [("Deployment", "strategy"), ("DaemonSet", "updateStrategy")] {
        let objects = helm.render(&json!({ "dataplane": { "kind": kind } })).await;
        let workload = objects.get(&format!("{kind}/ws-ingress-dataplane"));
        let rolling = &workload["spec"][field]["rollingUpdate"];
        assert_eq!(rolling["maxUnavailable"], 0, "{workload}");
    }
}

#[tokio::test]
async fn the_definition_is_that_of_the_types() {
    let Some(helm) = Helm::four() else {
        return;
    };
    let objects = helm.render(&json!({})).await;
    for kind in KINDS {
        let committed = definition(kind);
        assert!(
            file(&format!("files/{kind}.yaml")) == committed,
            "the chart's copy of {kind} is stale: run `make crds`"
        );
        let name = format!("CustomResourceDefinition/{kind}.ws-ingress.dev");
        let plain = Objects::parse(&committed);
        assert_eq!(objects.get(&name)["spec"], plain.0[0]["spec"]);
    }
}

#[tokio::test]
async fn a_new_version_of_the_chart_alone_replaces_no_pod() {
    let Some(helm) = Helm::four() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = copy_chart(folder.path());
    let description = file("Chart.yaml").replace("\nversion: ", "\nversion: 9");
    fs::write(copy.join("Chart.yaml"), description).expect("write Chart.yaml");
    let arguments = [
        "template",
        "ws-ingress",
        copy.to_str().expect("UTF-8"),
        "--namespace",
        "ws-ingress",
    ];
    let newer = Objects::parse(&helm.ok(&arguments, &json!({})).await);
    let objects = helm.render(&json!({})).await;
    for component in ["controller", "dataplane"] {
        assert_eq!(objects.pod(component), newer.pod(component));
    }
    assert_ne!(objects, newer);
}

/// Copies the chart into a folder.
fn copy_chart(folder: &Path) -> PathBuf {
    let copy = folder.join("ws-ingress");
    let mut command = std::process::Command::new("cp");
    let copied = command.arg("-r").args([Path::new(CHART), &copy]).status();
    assert!(copied.expect("cp runs").success());
    copy
}

#[tokio::test]
async fn another_chart_may_depend_on_this_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let version = env!("CARGO_PKG_VERSION");
    let description = format!(
        "apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies:\n- name: ws-ingress\n  version: {version}\n  condition: ws-ingress.enabled\n"
    );
    fs::write(folder.path().join("Chart.yaml"), description).expect("write Chart.yaml");
    let dependencies = folder.path().join("charts");
    fs::create_dir(&dependencies).expect("a folder");
    copy_chart(&dependencies);
    let parent = folder.path().to_str().expect("UTF-8");
    let kubernetes = ["--kube-version", LOWEST_KUBERNETES, "--values", "-"];
    let arguments = [&["template", "gate", parent], &kubernetes[..]].concat();
    for helm in both() {
        for (enabled, deployments) in [(true, 2), (false, 0)] {
            // What others put into `global` and into the condition is no typo.
            let values = json!({
                "global": { "storageClass": "fast" },
                "ws-ingress": { "enabled": enabled, "className": "gate" },
            });
            let objects = Objects::parse(&helm.ok(&arguments, &values).await);
            assert_eq!(objects.of_kind("Deployment").count(), deployments);
        }
    }
}

#[test]
fn nothing_depends_on_chance_or_on_the_cluster() {
    let templates = texts(&Path::new(CHART).join("templates"));
    assert!(templates.len() > 10);
    for text in templates {
        // With these, GitOps tools that render apart would never see a stable result.
        for word in [
            "lookup ",
            "rand",
            "genCA",
            "genSelf",
            "genSigned",
            "uuidv4",
            "now ",
        ] {
            assert!(!text.contains(word), "{word:?} in {text}");
        }
    }
}

/// The texts of all files below a folder.
fn texts(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let text = |path: &Path| {
        if path.is_dir() {
            texts(path)
        } else {
            vec![fs::read_to_string(path).expect("a template")]
        }
    };
    entries
        .flat_map(|entry| text(&entry.expect("an entry").path()))
        .collect()
}

#[test]
fn the_versions_are_those_of_the_workspace() {
    let description: Value = serde_saphyr::from_str(&file("Chart.yaml")).expect("YAML");
    for field in ["version", "appVersion"] {
        assert_eq!(description[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
}

#[tokio::test]
async fn notes_name_the_next_commands() {
    let Some(helm) = Helm::four() else {
        return;
    };
    let arguments = [
        "install",
        "gate",
        CHART,
        "--namespace",
        "edge",
        "--dry-run=client",
        "--values",
        "-",
    ];
    let values = json!({ "dataplane": { "kind": "DaemonSet" } });
    let printed = helm.ok(&arguments, &values).await;
    let (_, notes) = printed.split_once("NOTES:").expect("notes");
    for command in [
        "kubectl --namespace edge rollout status daemonset/gate-ws-ingress-dataplane",
        "kubectl --namespace edge get service gate-ws-ingress-dataplane",
    ] {
        assert!(notes.contains(command), "{notes}");
    }
}
