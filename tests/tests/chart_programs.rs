//! What the chart gives to the programs: their flags and variables, and the objects that these name. The rights of the controller are
//! the chart's in every test of a cluster.

use serde_json::Value;
use tests::chart_cases::cases;
use tests::helm::{CHART, Helm, LOWEST_KUBERNETES, Objects, object_name};
use tests::kubernetes::release::{CONTROLLER, DATAPLANE};
use tests::process::{program, run_to_end};
use tests::wait;
use tokio::process::Command;

/// Component, program, and the variable that may name another build of it.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("controller", CONTROLLER, "WS_INGRESS_CONTROLLER_BIN"),
    ("dataplane", DATAPLANE, "WS_INGRESS_DATAPLANE_BIN"),
];

/// A list of texts.
fn texts<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let list = list.as_array().expect("a list").iter();
    list.filter_map(|element| element.pointer(field)?.as_str())
        .collect()
}

#[tokio::test]
async fn the_programs_take_what_the_chart_gives_them() {
    let Some(helm) = Helm::four() else {
        return;
    };
    for case in cases() {
        let objects = helm.render(&case.values).await;
        for (component, name, variable) in PROGRAMS {
            let container = &objects.pod(component)["spec"]["containers"][0];
            let arguments = texts(&container["args"], "");
            let mut command = Command::new(program(name, variable));
            // Flags are read in their order; this one ends the reading, and the program, well.
            command.args(&arguments).arg("--help");
            let output = run_to_end(name, command, "", wait::LIMIT).await;
            assert!(output.success, "{}: {}", case.name, output.stderr);

            for variable in texts(&container["env"], "/name") {
                let known = output.stdout.contains(&format!("[env: {variable}="));
                assert!(known || !variable.starts_with("WS_INGRESS_"), "{variable}");
            }
            // Names of objects differ from release to release, so no such flag may be left at its default.
            for flag in named_after_the_release(&output.stdout) {
                let given = arguments.iter().any(|a| a.starts_with(&format!("{flag}=")));
                assert!(given, "{component} is not given {flag}: {arguments:?}");
            }
        }
    }
}

/// The flags whose defaults are names of our own objects.
fn named_after_the_release(help: &str) -> Vec<&str> {
    let mut flags = Vec::new();
    let mut flag = "";
    for line in help.lines().map(str::trim) {
        if line.starts_with("--") {
            flag = line.split_whitespace().next().unwrap_or_default();
        }
        if line.contains("[default: ws-ingress") {
            flags.push(flag);
        }
    }
    flags
}

/// The value of a flag.
fn flag<'a>(objects: &'a Objects, component: &str, name: &str) -> &'a str {
    let container = &objects.pod(component)["spec"]["containers"][0];
    let mut arguments = texts(&container["args"], "").into_iter();
    let value = arguments.find_map(|a| a.strip_prefix(name)?.strip_prefix('='));
    value.expect(name)
}

#[tokio::test]
async fn what_the_flags_name_is_installed() {
    let Some(helm) = Helm::four() else {
        return;
    };
    for case in cases() {
        let objects = helm.render(&case.values).await;
        let service = flag(&objects, "controller", "--dataplane-service");
        let name = service.strip_prefix("ws-ingress/").expect("our namespace");
        let front = objects.get(&format!("Service/{name}"));
        assert_eq!(texts(&front["spec"]["ports"], "/name"), ["https", "http"]);
        for port in ["https", "http"] {
            let address = flag(&objects, "dataplane", &format!("--{port}-address"));
            let ports = &objects.pod("dataplane")["spec"]["containers"][0]["ports"];
            let mut ports = ports.as_array().expect("ports").iter();
            let listened = ports.find(|listened| listened["name"] == port);
            let listened = &listened.expect(port)["containerPort"];
            assert!(address.ends_with(&format!("]:{listened}")), "{address}");
        }

        let controllers = flag(&objects, "dataplane", "--controller");
        let name = controllers.strip_suffix(".ws-ingress.svc:9443");
        let name = name.expect("a Service of our namespace, and the port of the push");
        let headless = &objects.get(&format!("Service/{name}"))["spec"];
        assert_eq!(headless["clusterIP"], "None");
        // A leader that is not ready has the table all the same.
        assert_eq!(headless["publishNotReadyAddresses"], true);

        let account = flag(&objects, "controller", "--dataplane-service-account");
        assert_eq!(
            objects.pod("dataplane")["spec"]["serviceAccountName"],
            account
        );
    }
}

#[tokio::test]
async fn every_selector_selects_the_pods_of_its_component() {
    let Some(helm) = Helm::four() else {
        return;
    };
    for case in cases() {
        let objects = helm.render(&case.values).await;
        for (kind, selector) in [
            ("Service", "/spec/selector"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
            ("NetworkPolicy", "/spec/podSelector/matchLabels"),
            ("Deployment", "/spec/selector/matchLabels"),
            ("DaemonSet", "/spec/selector/matchLabels"),
        ] {
            for object in objects.of_kind(kind) {
                let what = format!("{}: {}", case.name, object_name(object));
                let selector = object.pointer(selector).and_then(Value::as_object);
                let selector = selector.expect(&what);
                let selected = |component: &&str| {
                    let labels = &objects.pod(component)["metadata"]["labels"];
                    selector.iter().all(|(name, value)| labels[name] == *value)
                };
                let selected: Vec<_> = ["controller", "dataplane"]
                    .into_iter()
                    .filter(selected)
                    .collect();
                let own = &object["metadata"]["labels"]["app.kubernetes.io/component"];
                assert_eq!(selected, [own.as_str().expect(&what)], "{what}");
            }
        }
    }
}

#[tokio::test]
async fn the_longest_name_of_a_release_makes_names_that_kubernetes_takes() {
    let Some(helm) = Helm::four() else {
        return;
    };
    // Helm's own limit.
    let release = format!("{}-edge", "a".repeat(48));
    let flags = ["--namespace", "edge", "--kube-version", LOWEST_KUBERNETES];
    let arguments = [&["template", &release, CHART][..], &flags].concat();
    let objects = Objects::parse(&helm.ok(&arguments, &Value::Null).await);
    assert!(objects.0.len() > 10);
    for object in &objects.0 {
        let name = object["metadata"]["name"].as_str().expect("a name");
        // RFC 1035 labels for Services, subdomains for roles; labels have the same limit as the former.
        let limit = if object["kind"] == "Service" { 63 } else { 253 };
        assert!(name.len() <= limit && !name.contains("--"), "{name}");
        let labels = object["metadata"]["labels"].as_object().expect("labels");
        for (label, value) in labels {
            let length = value.as_str().map_or(0, str::len);
            assert!((1..=63).contains(&length), "{label}: {value}");
        }
    }
}
