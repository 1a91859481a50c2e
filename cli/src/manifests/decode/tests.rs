//! What is taken, and the exact line for everything that is not.

use super::*;

pub(super) fn lines(text: &str) -> Vec<String> {
    decode(text).map_or_else(
        |problems| problems.iter().map(ToString::to_string).collect(),
        |_| Vec::new(),
    )
}

#[track_caller]
pub(super) fn check(text: &str, expected: &[&str]) {
    assert_eq!(lines(text), expected);
}

#[track_caller]
fn check_taken(text: &str, expected: &[&str]) {
    let decoded = decode(text).unwrap_or_else(|problems| panic!("{problems:?}"));
    let found: Vec<_> = decoded
        .objects
        .iter()
        .map(|(number, object)| format!("{number} {}", object.reference()))
        .collect();
    assert_eq!(found, expected);
}

pub(super) const ROUTE: &str = "\
apiVersion: ws-ingress.dev/v1alpha1
kind: WebSocketRoute
metadata:
  name: chat
spec:
  hostnames: [chat.example.com]
  tls:
    certificateRefs:
    - name: chat-tls
  rules:
  - name: all
    matches:
    - path: { type: PathPrefix, value: / }
    nonUpgrade: Forward
    backendRefs:
    - name: chat
      port: 80
    timeouts:
      read: 1h
";

const SLICE: &str = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: chat-1
  namespace: apps
  labels: { kubernetes.io/service-name: chat }
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
  conditions: { ready: true }
ports:
- { name: ws, port: 8080 }
";

pub(super) const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: { name: chat }
spec:
  ports:
  - { name: ws, port: 80, targetPort: ws }
";

#[test]
fn the_five_kinds_are_taken() {
    let text = format!(
        "# all of them\n---\n{ROUTE}---\n{SLICE}---\n\n---\n{SERVICE}---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: s }}\n---\n{GRANT}"
    );
    check_taken(
        &text,
        &[
            "1 WebSocketRoute default/chat",
            "2 EndpointSlice apps/chat-1",
            "3 Service default/chat",
            "4 Secret default/s",
            "5 ReferenceGrant apps/routes",
        ],
    );
}

const GRANT: &str = "\
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: { name: routes, namespace: apps }
spec:
  from:
  - { group: ws-ingress.dev, kind: WebSocketRoute, namespace: default }
  to:
  - { group: \"\", kind: Service, name: chat }
";

#[test]
fn a_grant_of_either_version_is_taken_and_a_slip_in_it_is_told() {
    let grant = ["1 ReferenceGrant apps/routes"];
    check_taken(GRANT, &grant);
    check_taken(&GRANT.replace("v1beta1", "v1"), &grant);
    check(
        &GRANT.replace("name: chat }", "nmae: chat }"),
        &[
            "document 1, line 8: spec.to[0].nmae: a ReferenceGrant has no such field; mend its spelling or its indentation, or remove it",
        ],
    );
    check(
        &GRANT.replace("group: \"\", ", ""),
        &["document 1, line 8: spec.to[0]: missing field `group`; add it"],
    );
}

#[test]
fn a_list_is_taken_apart() {
    let item = |text: &str| format!("- {}", text.trim_end().replace('\n', "\n  "));
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}\n{}\n",
        item(ROUTE),
        item(SERVICE)
    );
    check_taken(
        &list,
        &["1 WebSocketRoute default/chat", "1 Service default/chat"],
    );
    check(
        &list.replace("- name: chat\n        port", "- nmae: chat\n        port"),
        &[
            "document 1, line 19: items[0].spec.rules[0].backendRefs[0].nmae: a WebSocketRoute has no such field; mend its spelling or its indentation, or remove it",
            "document 1, line 19: items[0].spec.rules[0].backendRefs[0]: missing field `name`; add it",
        ],
    );
    check(
        "apiVersion: v1\nkind: List\n",
        &["document 1, line 1: a List without items; write items, or the objects one a document"],
    );
}

#[test]
fn what_kubectl_exports_is_taken() {
    let exported = SERVICE.replace(
        "{ name: chat }",
        "\n  name: chat\n  creationTimestamp: null\n  resourceVersion: \"12\"\n  uid: 6f1c\n  managedFields:\n  - { manager: kubectl, operation: Update, apiVersion: v1, time: \"2026-11-22T10:00:00Z\", fieldsType: FieldsV1, fieldsV1: { \"f:spec\": { \"f:ports\": {} } } }",
    );
    check_taken(
        &format!("{exported}status:\n  loadBalancer: {{}}\n"),
        &["1 Service default/chat"],
    );
}

#[test]
fn kinds_of_others_are_ignored_and_named() {
    let decoded = decode("apiVersion: apps/v1\nkind: Deployment\nspec: { anything: 1 }\n---\napiVersion: serving.knative.dev/v1\nkind: Service\n").unwrap();
    assert!(decoded.objects.is_empty());
    assert_eq!(
        Vec::from_iter(decoded.ignored),
        ["apps/v1 Deployment", "serving.knative.dev/v1 Service"]
    );
}

#[test]
fn our_kinds_misspelt_are_not_ignored() {
    let check_kind = |version: &str, kind: &str, expected: &str| {
        check(
            &format!("apiVersion: {version}\nkind: {kind}\n"),
            &[expected],
        );
    };
    let route = "write apiVersion: ws-ingress.dev/v1alpha1 and kind: WebSocketRoute";
    check_kind(
        "ws-ingress.dev/v1alpha1",
        "WebsocketRoute",
        &format!(
            "document 1, line 1: unknown kind WebsocketRoute of ws-ingress.dev/v1alpha1; {route}"
        ),
    );
    check_kind(
        "ws-ingress.dev/v1",
        "WebSocketRoute",
        &format!("document 1, line 1: unknown kind WebSocketRoute of ws-ingress.dev/v1; {route}"),
    );
    check_kind(
        "ws-ingress.io/v1alpha1",
        "WebSocketRoute",
        &format!(
            "document 1, line 1: unknown kind WebSocketRoute of ws-ingress.io/v1alpha1; {route}"
        ),
    );
    check_kind(
        "discovery.k8s.io/v1beta1",
        "EndpointSlice",
        "document 1, line 1: unknown kind EndpointSlice of discovery.k8s.io/v1beta1; write apiVersion: discovery.k8s.io/v1 and kind: EndpointSlice",
    );
    check_kind(
        "gateway.networking.k8s.io/v1alpha2",
        "ReferenceGrant",
        "document 1, line 1: unknown kind ReferenceGrant of gateway.networking.k8s.io/v1alpha2; write apiVersion: gateway.networking.k8s.io/v1beta1 and kind: ReferenceGrant",
    );
    check_kind(
        "v1",
        "service",
        "document 1, line 1: unknown kind service of v1; write apiVersion: v1 and kind: Service",
    );
}

#[test]
fn what_every_object_needs() {
    let supported = "what is read: WebSocketRoute (ws-ingress.dev/v1alpha1), ExternalBackend (ws-ingress.dev/v1alpha1), Secret (v1), Service (v1), EndpointSlice (discovery.k8s.io/v1), ReferenceGrant (gateway.networking.k8s.io/v1beta1)";
    check(
        "kind: Service\n",
        &[&format!(
            "document 1, line 1: apiVersion: missing, or not text; write apiVersion; {supported}"
        )],
    );
    check(
        "apiVersion: v1\n",
        &[&format!(
            "document 1, line 1: kind: missing, or not text; write kind; {supported}"
        )],
    );
    check(
        "- a\n",
        &["document 1, line 1: not a Kubernetes object; begin it with apiVersion and kind"],
    );
    check(
        "# only\n---\njust text\n",
        &["document 1, line 3: not a Kubernetes object; begin it with apiVersion and kind"],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata:\n  namespace: a\n",
        &["document 1, line 3: metadata.name: missing, or not text; give the object a name"],
    );
    check(
        "apiVersion: v1\nkind: Service\n",
        &["document 1, line 1: metadata.name: missing, or not text; give the object a name"],
    );
}

/// One slip in a good route, behind another document, so that numbers and lines count.
#[track_caller]
fn check_route(from: &str, to: &str, expected: &str) {
    assert!(ROUTE.contains(from), "{from} is not in the route");
    check(
        &format!("{SERVICE}---\n{}", ROUTE.replacen(from, to, 1)),
        &[expected],
    );
}

#[test]
fn slips_in_a_route_name_line_field_and_mend() {
    check_route(
        "name: all",
        "nmae: all",
        "document 2, line 18: spec.rules[0].nmae: a WebSocketRoute has no such field; mend its spelling or its indentation, or remove it",
    );
    check_route(
        "metadata:",
        "metdata: {}\nmetadata:",
        "document 2, line 10: metdata: a WebSocketRoute has no such field; mend its spelling or its indentation, or remove it",
    );
    check_route(
        "port: 80",
        "port: \"80\"",
        "document 2, line 24: spec.rules[0].backendRefs[0].port: invalid type: string \"80\", expected i32; write the number without quotes",
    );
    check_route(
        "port: 80",
        "port: http",
        "document 2, line 24: spec.rules[0].backendRefs[0].port: invalid type: string \"http\", expected i32; write a whole number",
    );
    check_route(
        "Forward",
        "forward",
        "document 2, line 21: spec.rules[0].nonUpgrade: unknown variant `forward`, expected `Reject` or `Forward`; write one of those",
    );
    check_route(
        "hostnames: [chat.example.com]",
        "hostnames: chat.example.com",
        "document 2, line 13: spec.hostnames: invalid type: string \"chat.example.com\", expected a sequence; write a list: put it in [ ], or behind `- `",
    );
    check_route(
        "    - name: chat-tls",
        "      name: chat-tls",
        "document 2, line 15: spec.tls.certificateRefs: invalid type: map, expected a sequence; begin each entry with `- `",
    );
    check_route(
        "  hostnames: [chat.example.com]\n",
        "",
        "document 2, line 12: spec: missing field `hostnames`; add it",
    );
    check_route(
        "read: 1h",
        "read: 60",
        "document 2, line 26: spec.rules[0].timeouts.read: invalid type: integer `60`, expected a string; write it with its unit, such as 60s",
    );
    check_route(
        "read: 1h",
        "read: 1 hour",
        "document 2, line 26: spec.rules[0].timeouts.read: \"1 hour\" is not a duration; write one to four whole numbers of at most five digits, each with its unit h, m, s or ms, such as 30s, 1h30m or 250ms",
    );
    check_route(
        "name: chat\n",
        "name: 5\n",
        "document 2, line 11: metadata.name: missing, or not text; give the object a name",
    );
}

#[test]
fn a_value_where_fields_belong_is_told_in_words_of_yaml() {
    check_route(
        "path: { type: PathPrefix, value: / }",
        "path: /chat",
        "document 2, line 20: spec.rules[0].matches[0].path: invalid type: string \"/chat\", expected a map; write { value: /chat }",
    );
    check_route(
        "- name: chat-tls",
        "- chat-tls",
        "document 2, line 16: spec.tls.certificateRefs[0]: invalid type: string \"chat-tls\", expected a map; write { name: chat-tls }",
    );
    check_route(
        "- name: chat\n      port: 80",
        "- chat:80",
        "document 2, line 23: spec.rules[0].backendRefs[0]: invalid type: string \"chat:80\", expected a map; write { name: chat, port: 80 }",
    );
    check_route(
        "timeouts:\n      read: 1h",
        "timeouts: 1h",
        "document 2, line 25: spec.rules[0].timeouts: invalid type: string \"1h\", expected a map; write its fields below it, each as name: value",
    );
    check(
        &SERVICE.replace("{ name: ws, port: 80, targetPort: ws }", "80"),
        &[
            "document 1, line 6: spec.ports[0]: invalid type: integer `80`, expected a map; write its fields below it, each as name: value",
        ],
    );
}

#[test]
fn a_field_without_a_value_is_told_as_that() {
    let mend = "no value; write one, or remove the field";
    check_route(
        "tls:\n",
        "tls:\n    mode: ~\n",
        &format!("document 2, line 15: spec.tls.mode: {mend}"),
    );
    check_route(
        "- name: chat\n      port",
        "- name:\n      port",
        &format!("document 2, line 23: spec.rules[0].backendRefs[0].name: {mend}"),
    );
    check_route(
        "Forward",
        "5",
        "document 2, line 21: spec.rules[0].nonUpgrade: invalid type: integer `5`, expected one word",
    );
}

#[test]
fn names_are_those_that_the_api_server_takes() {
    let subdomain = "not a name of an object; write lower case letters, digits, '-' and '.', begin and end with a letter or digit, 253 characters at most";
    let label = "not a name of an object; write lower case letters, digits and '-', begin and end with a letter or digit, 63 characters at most";
    for name in ["Chat", "\"a\\nforged: line\"", "\"\\e[31m\"", "a..b", "-a"] {
        check_route(
            "name: chat\n",
            &format!("name: {name}\n"),
            &format!("document 2, line 11: metadata.name: {subdomain}"),
        );
    }
    check_route(
        "name: chat\n",
        "name: chat\n  namespace: a.b\n",
        &format!(
            "document 2, line 12: metadata.namespace: {}",
            label.replace("an object", "a namespace")
        ),
    );
    check(
        &SERVICE.replace("chat", "chat.two"),
        &[&format!("document 1, line 3: metadata.name: {label}")],
    );
    check_taken(
        &ROUTE.replacen("name: chat\n", "name: chat.two\n  namespace: \"\"\n", 1),
        &["1 WebSocketRoute default/chat.two"],
    );
}

#[test]
fn booleans_are_true_and_false_only() {
    check(
        &SLICE.replace("ready: true", "ready: yes"),
        &[
            "document 1, line 10: endpoints[0].conditions.ready: invalid type: string \"yes\", expected a boolean; write true or false, without quotes",
        ],
    );
}

#[test]
fn unknown_fields_of_kubernetes_kinds_are_found() {
    check(
        &SERVICE.replace("targetPort", "targetport"),
        &[
            "document 1, line 6: spec.ports[0].targetport: a Service has no such field; mend its spelling or its indentation, or remove it",
        ],
    );
}

#[test]
fn every_bad_document_is_reported() {
    let text = format!(
        "{SERVICE}---\na: [\n---\n{}",
        ROUTE.replace("spec:", "spce:")
    );
    check(
        &text,
        &[
            "document 2, line 8: unclosed bracket '['; mend the YAML at or shortly before this line",
            "document 3, line 14: spce: a WebSocketRoute has no such field; mend its spelling or its indentation, or remove it",
            "document 3, line 10: missing field `spec`; add it",
        ],
    );
}
