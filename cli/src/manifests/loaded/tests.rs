//! Keeping, withdrawing and telling, without a disk.

use super::*;

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\n")
}

const BROKEN: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: x }\nspce: {}\n";
const BROKEN_LINE: &str = "document 1, line 4: spce: a Service has no such field; mend its spelling or its indentation, or remove it";

/// One look: `(file, text)`; `None` is a file that cannot be read.
fn scan(files: &[(&str, Option<&str>)]) -> Scan {
    let contents = |text: Option<&str>| match text {
        Some(text) => Contents::Text(text.to_owned().into()),
        None => Contents::Unreadable("permission denied".to_owned()),
    };
    Scan {
        files: files
            .iter()
            .map(|(path, text)| (path.into(), contents(*text)))
            .collect(),
        ..Scan::default()
    }
}

#[track_caller]
fn check(loaded: &mut Loaded, scan: Scan, objects: &[&str], notices: &[&str]) {
    let change = loaded.update(scan);
    let found: Vec<_> = change
        .objects
        .keys()
        .map(|name| name.name.to_string())
        .collect();
    assert_eq!(found, objects);
    let told: Vec<_> = change.notices.iter().map(ToString::to_string).collect();
    assert_eq!(told, notices);
}

#[test]
fn a_broken_file_keeps_its_objects_until_it_is_mended_or_gone() {
    let (a, b, c) = (service("a"), service("b"), service("c"));
    let two = format!("{a}---\n{b}");
    let half = format!("{a}---\n{BROKEN}");
    let half_line = format!(
        "manifest: m/1.yaml: {}",
        BROKEN_LINE.replace("document 1, line 4", "document 2, line 8")
    );
    let mut loaded = Loaded::default();
    check(
        &mut loaded,
        scan(&[("m/1.yaml", Some(&two)), ("m/2.yaml", Some(&c))]),
        &["a", "b", "c"],
        &[],
    );
    check(
        &mut loaded,
        scan(&[
            ("m/1.yaml", Some(&half)),
            ("m/2.yaml", Some("# none\n---\n")),
        ]),
        &["a", "b", "c"],
        &[
            &half_line,
            "manifest: m/2.yaml: is empty; what it held stays; delete the file to withdraw it",
        ],
    );
    check(
        &mut loaded,
        scan(&[("m/1.yaml", Some(&half)), ("m/2.yaml", Some(&c))]),
        &["a", "b", "c"],
        &["manifest mended: m/2.yaml"],
    );
    check(
        &mut loaded,
        scan(&[("m/1.yaml", Some(&a)), ("m/2.yaml", Some(&c))]),
        &["a", "c"],
        &["manifest mended: m/1.yaml"],
    );
    check(
        &mut loaded,
        scan(&[("m/1.yaml", None)]),
        &["a"],
        &["manifest: m/1.yaml: permission denied"],
    );
    check(&mut loaded, scan(&[]), &[], &["manifest mended: m/1.yaml"]);
}

#[test]
fn an_emptied_file_keeps_its_objects_until_it_is_mended_or_gone() {
    let kept = "manifest: 1.yaml: is empty; what it held stays; delete the file to withdraw it";
    let other = "apiVersion: apps/v1\nkind: Deployment\n";
    let mut loaded = Loaded::default();
    let mut check = |text: Option<&str>, objects: &[&str], notices: &[&str]| {
        let files: Vec<_> = text
            .map(|text| ("1.yaml", Some(text)))
            .into_iter()
            .collect();
        check(&mut loaded, scan(&files), objects, notices);
    };
    check(Some(""), &[], &[]);
    check(Some(&service("a")), &["a"], &[]);
    check(Some(""), &["a"], &[kept]);
    check(Some(" \n"), &["a"], &[]);
    check(Some(&service("b")), &["b"], &["manifest mended: 1.yaml"]);
    check(Some("# later\n"), &["b"], &[kept]);
    // Content without an object of ours is evidence; only nothing is none.
    check(
        Some(other),
        &[],
        &[
            "manifest: 1.yaml: ignored: apps/v1 Deployment",
            "manifest mended: 1.yaml",
        ],
    );
    check(Some(&service("c")), &["c"], &[]);
    check(Some(""), &["c"], &[kept]);
    check(None, &[], &["manifest mended: 1.yaml"]);
}

#[test]
fn a_broken_file_has_nothing_to_keep_at_first() {
    let text = format!("{}---\n{BROKEN}", service("a"));
    let line = format!(
        "manifest: 1.yaml: {}",
        BROKEN_LINE.replace("document 1, line 4", "document 2, line 8")
    );
    check(
        &mut Loaded::default(),
        scan(&[("1.yaml", Some(&text))]),
        &[],
        &[&line],
    );
}

#[test]
fn another_error_is_told_and_the_same_is_not() {
    let mut loaded = Loaded::default();
    let line = format!("manifest: 1.yaml: {BROKEN_LINE}");
    check(
        &mut loaded,
        scan(&[("1.yaml", Some(BROKEN))]),
        &[],
        &[&line],
    );
    check(&mut loaded, scan(&[("1.yaml", Some(BROKEN))]), &[], &[]);
    check(
        &mut loaded,
        scan(&[("1.yaml", None)]),
        &[],
        &["manifest: 1.yaml: permission denied"],
    );
    check(
        &mut loaded,
        scan(&[("1.yaml", Some(BROKEN))]),
        &[],
        &[&line],
    );
}

#[test]
fn a_folder_that_cannot_be_listed_withdraws_nothing() {
    let mut loaded = Loaded::default();
    check(
        &mut loaded,
        scan(&[
            ("m/sub/1.yaml", Some(&service("a"))),
            ("m/2.yaml", Some(&service("b"))),
        ]),
        &["a", "b"],
        &[],
    );
    let unlisted = Scan {
        unlisted: [("m/sub".into(), "permission denied".to_owned())].into(),
        ..Scan::default()
    };
    check(
        &mut loaded,
        unlisted,
        &["a"],
        &["manifest: m/sub: permission denied; what was read here before stays"],
    );
    check(&mut loaded, scan(&[]), &[], &["manifest mended: m/sub"]);
}

#[test]
fn a_file_of_the_command_line_that_is_gone_is_withdrawn_and_told() {
    let mut loaded = Loaded::default();
    check(
        &mut loaded,
        scan(&[("1.yaml", Some(&service("a")))]),
        &["a"],
        &[],
    );
    let gone = Scan {
        files: [("1.yaml".into(), Contents::Gone)].into(),
        ..Scan::default()
    };
    check(
        &mut loaded,
        gone,
        &[],
        &["manifest: 1.yaml: no longer there; what it held is withdrawn"],
    );
    check(
        &mut loaded,
        scan(&[("1.yaml", Some(&service("a")))]),
        &["a"],
        &["manifest mended: 1.yaml"],
    );
}

#[test]
fn the_first_of_two_definitions_counts() {
    let with_port = format!("{}spec: {{ ports: [{{ port: 80 }}] }}\n", service("a"));
    let mut loaded = Loaded::default();
    let line = "manifest: 2.yaml: document 1: Service default/a is already defined in 1.yaml, which counts; remove one of them";
    let change = loaded.update(scan(&[
        ("2.yaml", Some(&with_port)),
        ("1.yaml", Some(&service("a"))),
    ]));
    assert_eq!(
        change
            .notices
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [line]
    );
    let Some(Object::Service(first)) = change.objects.values().next() else {
        panic!("no Service")
    };
    assert!(first.spec.is_none());
    check(
        &mut loaded,
        scan(&[("2.yaml", Some(&with_port))]),
        &["a"],
        &["manifest mended: 2.yaml"],
    );
}

#[test]
fn ignored_kinds_are_told_once() {
    let text = "apiVersion: apps/v1\nkind: Deployment\n---\napiVersion: v1\nkind: ConfigMap\n";
    let mut loaded = Loaded::default();
    check(
        &mut loaded,
        scan(&[("1.yaml", Some(text))]),
        &[],
        &["manifest: 1.yaml: ignored: apps/v1 Deployment, v1 ConfigMap"],
    );
    check(&mut loaded, scan(&[("1.yaml", Some(text))]), &[], &[]);
}
