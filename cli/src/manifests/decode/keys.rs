//! What errors repeat of a file: never a private key, wherever its author put it, and never much.

use super::tests::{ROUTE, SERVICE, check, lines};

/// Any 12 bytes of this in an error are a leak.
const CANARY: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCanary";

fn pem() -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n{CANARY}\n-----END PRIVATE KEY-----\n")
}

#[track_caller]
fn check_silent(text: &str) {
    let lines = lines(text);
    assert!(!lines.is_empty(), "taken: {text}");
    for line in lines {
        for start in 0..CANARY.len() - 12 {
            assert!(!line.contains(&CANARY[start..start + 12]), "{line}");
        }
    }
}

/// Every slip here puts key bytes where the decoder trips over them.
#[test]
fn no_error_about_a_secret_repeats_a_private_key() {
    let pem = pem();
    let indented = |by: usize| {
        format!(
            "{0}{1}\n",
            " ".repeat(by),
            pem.trim_end()
                .replace('\n', &format!("\n{}", " ".repeat(by)))
        )
    };
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n";
    let slips = [
        format!("{secret}stringData:\n  tls.key: |\n{pem}"),
        format!("{secret}stringData:\n  tls.key: |\n{}", indented(1)),
        format!("{secret}stringData:\n{}", indented(2)),
        format!("{secret}stringData: |\n{}", indented(2)),
        format!("{secret}stringData: [{CANARY}]\n"),
        format!("{secret}stringData: {{ {CANARY} }}\n"),
        format!("{secret}stringData: {{ {CANARY}: {CANARY} }}\n{CANARY}: 5\n"),
        format!("{secret}data:\n  tls.key: {CANARY}!\n"),
        format!("{secret}data: {{ tls.key: [{CANARY}] }}\n"),
        format!("{secret}data:\n  tls.key: {CANARY}\n  tls.key: {CANARY}\n"),
        format!("{secret}data:\n  {CANARY}: a\n  {CANARY}: b\n"),
        format!("{secret}data: {CANARY}\n"),
        format!("{secret}type: [{CANARY}]\n"),
        format!("{secret}immutable: {CANARY}\n"),
        format!("{secret}{CANARY}\n"),
        format!("{secret}{CANARY}: {CANARY}\n"),
        format!("{secret}  labels: {CANARY}\n"),
        format!("{secret}  annotations: {{ {CANARY}: [1] }}\n"),
        format!("{secret}data: !{CANARY} x\n"),
        format!("{secret}data: *{CANARY}\n"),
        format!("{secret}data: \"{CANARY}\n"),
        format!("{secret}stringData:\n  tls.key: |\n---\n{CANARY}: [\n"),
        format!("{secret}stringData:\n  tls.key: |\n---\n{CANARY}\n"),
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {{ name: s }}\n  data: {CANARY}\n"
        ),
        format!("apiVersion: v1\nkind: Secret\nmetadata: {CANARY}\n"),
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{ name: [{CANARY}] }}\n"),
    ];
    for slip in slips {
        check_silent(&slip);
    }
}

/// A key in a field of another kind, whole or one line of it, as text, as the name of a field, in a block or in quotes.
#[test]
fn no_error_about_another_kind_repeats_a_private_key() {
    let escaped = pem().replace('\n', "\\n");
    for key in [
        format!("\"{escaped}\""),
        CANARY.to_owned(),
        format!("x, expected {CANARY}"),
    ] {
        let route = |from: &str, to: &str| {
            assert!(ROUTE.contains(from), "{from} is not in the route");
            check_silent(&ROUTE.replacen(from, &to.replace("KEY", &key), 1));
        };
        route(
            "  tls:\n    certificateRefs:\n    - name: chat-tls\n",
            "  tls: KEY\n",
        );
        route(
            "certificateRefs:\n    - name: chat-tls",
            "certificateRefs: KEY",
        );
        route("- name: chat-tls", "- KEY");
        route(
            "    certificateRefs:\n",
            "    mode: KEY\n    certificateRefs:\n",
        );
        route(
            "    certificateRefs:\n",
            "    mode: { KEY: 1 }\n    certificateRefs:\n",
        );
        route(
            "    certificateRefs:\n",
            "    KEY: 1\n    certificateRefs:\n",
        );
        route("port: 80", "port: KEY");
        route("port: 80", "port: { KEY: KEY }");
        route("read: 1h", "read: KEY");
        route("Forward", "KEY");
        route("  name: chat\n", "  name: KEY\n");
        route("  name: chat\n", "  name: chat\n  namespace: KEY\n");
        route("  name: chat\n", "  name: chat\n  creationTimestamp: KEY\n");
        route("  name: chat\n", "  name: chat\n  labels: { KEY: [KEY] }\n");
        route(
            "kind: WebSocketRoute",
            "kind: WebSocketRoute\nKEY: 1\nKEY: 2",
        );
        route("kind: WebSocketRoute", "kind: KEY");
        route("v1alpha1", "v1alpha1 KEY");
        let service = |to: &str| {
            let (from, to) = (
                "\n  - { name: ws, port: 80, targetPort: ws }",
                to.replace("KEY", &key),
            );
            check_silent(&SERVICE.replace(from, &to));
        };
        service(" KEY");
        service(" [KEY]");
        service(" [{ port: KEY }]");
        service(" [{ port: 80, targetPort: [KEY] }]");
        service(" [{ port: 80, nodePort: KEY }]\n  KEY: KEY");
    }
    let block = pem().trim_end().replace('\n', "\n    ");
    check_silent(&SERVICE.replace(
        "\n  - { name: ws, port: 80, targetPort: ws }",
        &format!(" |\n    {block}"),
    ));
}

#[test]
fn a_file_with_a_secret_shows_no_text_of_any_document() {
    check(
        &format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{ name: s }}\n---\n{}",
            SERVICE.replace("port: 80", "port: http")
        ),
        &[
            "document 2, line 10: spec.ports[0].port: invalid type: a string, expected i32; write a whole number",
        ],
    );
}

#[test]
fn a_slip_in_a_secret_still_names_its_line_and_field() {
    check(
        "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\ndata:\n  tls.crt: AAAA\n  tls.key: not base64\n",
        &[
            "document 1, line 6: data[tls.key]: an unknown field, or a value of the wrong type (left out, because this is a Secret); data holds base64, stringData holds text; check the indentation",
        ],
    );
}

#[test]
fn an_error_is_one_short_line() {
    let long = "x".repeat(10_000);
    let text = ROUTE.replace("Forward", &format!("\"\\e[31m\\n{long}\""));
    let lines = lines(&text);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].len() < 400 && !lines[0].contains(char::is_control),
        "{}",
        lines[0]
    );
}
