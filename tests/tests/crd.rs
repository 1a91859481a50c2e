//! The CRD on a real API server: it is taken, it fills in defaults, it explains itself, and it refuses what is wrong with
//! the field and the mend. The good and bad routes are in `data/routes.txt`.

use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tests::kubernetes::cluster::{definitions, shared};
use tests::kubernetes::namespace::Namespace;
use tests::kubernetes::routes::{Case, Expected, cases};
use tests::wait;

const CRD: &str = "websocketroutes.ws-ingress.dev";

/// kubectl runs at a time.
const AT_A_TIME: usize = 4;

/// How server-side apply refuses what does not fit the types.
const NO_PATCH: &str = "failed to create typed patch object";

const LEAST: &str = "apiVersion: ws-ingress.dev/v1alpha1\nkind: WebSocketRoute\nmetadata: { name: least }\nspec:\n  hostnames: [chat.example.com]\n  tls: { certificateRefs: [{ name: chat-tls }] }\n  rules: [{ backendRefs: [{ name: chat, port: 80 }] }]\n";

/// Applies one case, both ways; what was wrong about it.
async fn verdict(namespace: &Namespace, number: usize, case: &Case) -> Vec<String> {
    let mut wrong = Vec::new();
    for (way, flags) in [
        ("client", &["apply", "-f", "-"][..]),
        ("server", &["apply", "--server-side", "-f", "-"]),
    ] {
        // Each way has an object of its own: what one applied the other would have to take over.
        let manifest = case.manifest(&format!("route-{number}-{way}"));
        let output = namespace.kubectl.run(flags, &manifest).await;
        let said = &output.stderr;
        let mut say = |what: &str| {
            wrong.push(format!("{}: {way}-side: {what}: {said}", case.name));
        };
        match &case.expected {
            Expected::Taken if !output.success => say("was refused"),
            Expected::Refused(_) if output.success => say("was taken"),
            Expected::Taken => {}
            // Kubernetes' own words for a wrong type, which come before the schema is asked.
            Expected::Refused(fragments) if said.contains(NO_PATCH) => {
                let field = fragments.first().map_or("", |field| plain(field));
                if !said.contains(field) {
                    say(&format!("{field:?} is not said"));
                }
            }
            Expected::Refused(fragments) => {
                for fragment in fragments.iter().filter(|part| !said.contains(*part)) {
                    say(&format!("{fragment:?} is not said"));
                }
            }
        }
    }
    wrong
}

/// A field without its last index and without what comes after it.
fn plain(fragment: &str) -> &str {
    let field = fragment.split(':').next().unwrap_or_default();
    match field.rfind('[') {
        Some(index) if field.ends_with(']') => &field[..index],
        _ => field,
    }
}

#[tokio::test]
async fn good_routes_are_taken_and_bad_ones_refused_with_field_and_mend() {
    let Some(cluster) = shared().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    let cases = cases();
    let verdicts = stream::iter(cases.iter().enumerate())
        .map(|(number, case)| verdict(&namespace, number, case))
        .buffered(AT_A_TIME);
    let wrong: Vec<String> = verdicts.collect::<Vec<_>>().await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The API server counts what its rules cost and refuses what costs too much, whatever it says.
#[tokio::test]
async fn the_longest_route_does_not_cost_too_much() {
    let Some(cluster) = shared().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    let path = format!("{{ path: {{ value: /{} }} }},", "%20".repeat(341));
    let letters = "ABCDEFGH".chars();
    let headers = letters.clone().map(|letter| {
        let name = format!("{letter}{}", "A".repeat(30));
        format!("{{ name: {name}, value: {} }},", "a".repeat(30))
    });
    let subprotocols = letters.map(|letter| format!("{letter}{},", "a".repeat(30)));
    let (headers, subprotocols) = (
        headers.collect::<String>(),
        subprotocols.collect::<String>(),
    );
    let headers = format!("{{ headers: [{headers}], subprotocols: [{subprotocols}] }},");
    let params = headers.replace("headers", "queryParams");
    let name = "a".repeat(63);
    let backend = format!("{{ name: {name}, namespace: {name}, port: 80 }},");
    for (kind, match_of_rule) in [("path", path), ("headers", headers), ("params", params)] {
        let rules = (0..16).map(|index| {
            let name = format!("{}{index}", "a.".repeat(125));
            let (matches, backends) = (match_of_rule.repeat(64), backend.repeat(16));
            let fields = (10..18)
                .map(|index| format!("{{ name: {}{index}, value: {} }},", "a".repeat(254), "b".repeat(100)));
            let filters = format!(
                "{{ type: RequestHeaderModifier, requestHeaderModifier: {{ set: [{}] }} }}",
                fields.collect::<String>()
            );
            let origins = format!("\"https://{}.test:65535\",", "a".repeat(250)).repeat(64);
            format!("{{ name: {name}, matches: [{matches}], allowedOrigins: [{origins}], filters: [{filters}], backendRefs: [{backends}] }},")
        });
        let rules = rules.collect::<String>();
        let longest = LEAST
            .replace("name: least", &format!("name: {kind}"))
            .replace(
                "rules: [{ backendRefs: [{ name: chat, port: 80 }] }]",
                &format!("rules: [{rules}]"),
            );
        assert!(longest.len() > 1_000_000, "{} bytes", longest.len());
        // `apply` would keep the whole text in an annotation, which is too long for one.
        let output = namespace
            .kubectl
            .run(&["create", "-f", "-"], &longest)
            .await;
        assert!(output.success, "{kind}: {}", output.stderr);
    }
}

#[tokio::test]
async fn the_committed_definition_is_taken_without_a_warning() {
    let Some(cluster) = shared().await else {
        return;
    };
    let output = cluster.kubectl.try_apply(&definitions()).await;
    assert!(output.success, "{}", output.stderr);
    assert_eq!(output.stderr, "", "a warning of the API server");
    let crd = cluster.kubectl.get("crd", CRD).await;
    let conditions = crd["status"]["conditions"].as_array().expect("conditions");
    // NonStructuralSchema and Terminating would be here with True.
    for condition in conditions {
        let expected = matches!(
            condition["type"].as_str(),
            Some("Established" | "NamesAccepted")
        );
        let holds = condition["status"] == "True";
        assert_eq!(holds, expected, "{condition}");
    }
    for condition in ["Established", "NamesAccepted"] {
        let named = |found: &&Value| found["type"] == condition;
        assert!(conditions.iter().any(|c| named(&c)), "no {condition}");
    }
}

#[tokio::test]
async fn no_field_is_nullable() {
    let Some(cluster) = shared().await else {
        return;
    };
    assert!(!definitions().contains("nullable"), "in the committed file");
    let crd = cluster.kubectl.get("crd", CRD).await;
    assert!(!crd.to_string().contains("nullable"), "in the API");
}

#[tokio::test]
async fn defaults_are_filled_in() {
    let Some(cluster) = shared().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    namespace.kubectl.apply(LEAST).await;
    let route = namespace.kubectl.get("websocketroute", "least").await;
    let expected = json!({
        "className": "ws-ingress",
        "hostnames": ["chat.example.com"],
        "tls": { "mode": "Terminate", "certificateRefs": [{ "name": "chat-tls" }], "plain": "Redirect" },
        "rules": [{
            "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
            "nonUpgrade": "Reject",
            "allowMissingOrigin": true,
            "backendRefs": [{ "group": "", "kind": "Service", "name": "chat", "port": 80, "weight": 1 }],
            "timeouts": { "connect": "5s", "handshake": "10s", "read": "1h", "send": "60s" },
        }],
    });
    assert_eq!(route["spec"], expected);
    assert_eq!(route.get("status"), None, "a status that nobody wrote");
}

#[tokio::test]
async fn defaults_are_filled_in_beside_what_a_block_says() {
    let Some(cluster) = shared().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    let partly = LEAST.replace(
        "rules: [{ ",
        "rules: [{ matches: [{}, { path: { type: Exact } }], timeouts: { read: 5m }, ",
    );
    namespace.kubectl.apply(&partly).await;
    let route = namespace.kubectl.get("websocketroute", "least").await;
    let rule = &route["spec"]["rules"][0];
    assert_eq!(
        rule["matches"],
        json!([
            { "path": { "type": "PathPrefix", "value": "/" } },
            { "path": { "type": "Exact", "value": "/" } },
        ])
    );
    assert_eq!(
        rule["timeouts"],
        json!({ "connect": "5s", "handshake": "10s", "read": "5m", "send": "60s" })
    );
}

/// Text without its line breaks: `kubectl explain` breaks lines where they fit.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All objects of a schema that have fields, by path, with their fields.
fn objects(path: &str, schema: &Value, found: &mut Vec<(String, Value)>) {
    let schema = schema.get("items").unwrap_or(schema);
    let Some(fields) = schema.get("properties") else {
        return;
    };
    found.push((path.to_owned(), fields.clone()));
    for (name, field) in fields.as_object().expect("fields have names") {
        objects(&format!("{path}.{name}"), field, found);
    }
}

#[tokio::test]
async fn explain_shows_every_fields_words() {
    let Some(cluster) = shared().await else {
        return;
    };
    let crd = cluster.kubectl.get("crd", CRD).await;
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut found = Vec::new();
    objects("websocketroutes", schema, &mut found);
    assert!(found.len() > 8, "{} objects with fields", found.len());
    // The API server publishes the schema a moment after the CRD is established.
    wait::until("kubectl explains", async || {
        let explain = cluster.kubectl.run(&["explain", "websocketroutes"], "");
        explain.await.success.then_some(())
    })
    .await;
    let mut missing = Vec::new();
    for (path, fields) in found {
        let shown = words(&cluster.kubectl.explain(&path).await);
        for (name, field) in fields.as_object().expect("fields have names") {
            // Those of Kubernetes itself carry theirs in the API server.
            if path == "websocketroutes" && ["apiVersion", "kind", "metadata"].contains(&&**name) {
                continue;
            }
            match field["description"].as_str() {
                Some(description) if shown.contains(&words(description)) => {}
                Some(_) => missing.push(format!("{path}.{name} is not explained")),
                None => missing.push(format!("{path}.{name} has no words")),
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[tokio::test]
async fn get_shows_the_columns_that_a_person_looks_for() {
    let Some(cluster) = shared().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    let kubectl = &namespace.kubectl;
    kubectl.apply(LEAST).await;
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind,
            "status": status,
            "reason": "Test",
            "message": "",
            "lastTransitionTime": "2026-11-22T10:00:00Z",
        })
    };
    let conditions = [
        condition("Accepted", "True"),
        condition("Programmed", "False"),
    ];
    let status = json!({ "status": { "conditions": conditions } });
    kubectl
        .ok(&[
            "patch",
            "wsr/least",
            "--subresource=status",
            "--type=merge",
            "--patch",
            &status.to_string(),
        ])
        .await;
    // By the short name and by the category, which has other kinds too.
    for (name, shown) in [
        ("wsr", "least"),
        ("ws", "websocketroute.ws-ingress.dev/least"),
    ] {
        let table = kubectl.ok(&["get", name]).await;
        let mut lines = table.lines().map(|line| line.split_whitespace());
        let header: Vec<_> = lines.next().expect("a header").collect();
        let row: Vec<_> = lines.next().expect("a row").collect();
        let columns = ["NAME", "HOSTNAMES", "ACCEPTED", "PROGRAMMED", "AGE"];
        assert_eq!(header, columns);
        let shown = [shown, r#"["chat.example.com"]"#, "True", "False"];
        assert_eq!(row[..shown.len()], shown);
    }
}

/// What an external backend may say; a word of the refusal where it may not.
const EXTERNALS: [(&str, Option<&str>); 12] = [
    ("{ host: inner.example.com, port: 80 }", None),
    ("{ host: inner, port: 65535, tls: {} }", None),
    (
        "{ host: a.example.com, port: 443, tls: { caCertificates: \"-----BEGIN CERTIFICATE-----\" } }",
        None,
    ),
    ("{ port: 80 }", Some("spec.host: Required value")),
    ("{ host: a.example.com }", Some("spec.port: Required value")),
    (
        "{ host: a.example.com, port: 0 }",
        Some("spec.port in body should be greater than or equal to 1"),
    ),
    (
        "{ host: 10.0.0.1, port: 80 }",
        Some("must not be an IP address; for addresses use a Service"),
    ),
    (
        "{ host: \"*.example.com\", port: 80 }",
        Some("must be a DNS name in lower case"),
    ),
    (
        "{ host: \"https://a.example.com\", port: 80 }",
        Some("without a scheme, port or path"),
    ),
    (
        "{ host: a.example.com, port: 80, tls: { insecure: true } }",
        Some("unknown field"),
    ),
    (
        "{ host: a.example.com, port: 443, tls: { caCertificates: LS0tLS1C } }",
        Some("must hold certificates in PEM"),
    ),
    (
        "{ host: a.example.com, port: 443, tls: { caCertificates: \"-----BEGIN CERTIFICATE-----  -----BEGIN EC PRIVATE KEY-----\" } }",
        Some("take the private key out"),
    ),
];

#[tokio::test]
async fn good_external_backends_are_taken_and_bad_ones_refused_with_the_mend() {
    let Some(cluster) = shared().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    for (number, (spec, refused)) in EXTERNALS.iter().enumerate() {
        let manifest = format!(
            "apiVersion: ws-ingress.dev/v1alpha1\nkind: ExternalBackend\nmetadata: {{ name: inner-{number} }}\nspec: {spec}\n"
        );
        let flags = ["apply", "--server-side", "--validate=strict", "-f", "-"];
        let output = namespace.kubectl.run(&flags, &manifest).await;
        match refused {
            None => assert!(output.success, "{spec}: {}", output.stderr),
            Some(words) => {
                assert!(!output.success, "{spec} was taken");
                // Server-side apply has words of its own for a field that is not there.
                let unknown = *words == "unknown field" && output.stderr.contains(NO_PATCH);
                let said = unknown || output.stderr.contains(words);
                assert!(said, "{spec}: {}", output.stderr);
            }
        }
    }
    let shown = namespace.kubectl.ok(&["get", "xb"]).await;
    let columns = shown.lines().next().unwrap_or_default();
    let columns = columns.split_whitespace().collect::<Vec<_>>();
    assert_eq!(columns, ["NAME", "HOST", "PORT", "AGE"]);
}
