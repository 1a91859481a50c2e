//! What a route says of itself in the Kubernetes API: the right condition and reason, nothing foreign, and no write
//! without news.

use serde_json::{Value, json};
use tests::client::talk;
use tests::echo_process::EchoProcess;
use tests::kubernetes::controller::Controller;
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::installed::{
    Installed, ROUTE, ROUTES, a_later_second, cluster, condition, is_programmed, read_route, says,
};
use tests::kubernetes::names::DATAPLANE_SERVICE;
use tests::kubernetes::namespace::Namespace;
use tests::kubernetes::release::{Release, Scope};
use tests::kubernetes::request::Patch;
use tests::manifests::{Rule, Tls, in_class, route, secret, secret_of, service};
use tests::scene::{HOST, SECRET, SERVICE};
use tests::wait;

/// The condition types of the product, in no order.
const TYPES: [&str; 3] = ["Accepted", "ResolvedRefs", "Programmed"];

/// The installation with the usual route in service.
async fn scene() -> Option<(Installed, EchoProcess)> {
    let installed = Installed::start(&cluster().await?).await;
    let echo = EchoProcess::start_reachable("echo").await;
    installed.serve(echo.address).await;
    Some((installed, echo))
}

/// A route of this host alone to the usual Service, and a certificate for it.
fn route_and_secret(installed: &Installed, name: &str, host: &str) -> String {
    let secret_name = format!("{name}-tls");
    let text = route(
        name,
        &[host],
        &Tls::Terminate(&secret_name),
        &[Rule::to(SERVICE)],
    );
    secret(&secret_name, &installed.authority.issue(&[host])) + &installed.routes(&text)
}

/// Waits until this route, applied last, is programmed: by then everything before it has been compiled and compared.
async fn settle(installed: &Installed, name: &str) {
    let host = format!("{name}.example.com");
    let text = route_and_secret(installed, name, &host);
    installed.namespace.kubectl.apply(&text).await;
    is_programmed(&installed.namespace, name).await;
}

fn at<'a>(route: &'a Value, condition_type: &str, field: &str) -> &'a Value {
    let found = condition(route, condition_type);
    &found.expect("the condition")[field]
}

fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}

async fn patch(namespace: &Namespace, path: &str, kind: Patch<'_>, body: &Value) {
    let (code, answer) = namespace.cluster.api().patch(path, kind, body).await;
    assert!(code.is_success(), "PATCH {path}: {code} {answer}");
}

#[tokio::test]
async fn what_cannot_be_resolved_is_said_with_its_reason_and_disturbs_nothing_else() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let namespace = &installed.namespace;
    let mut open = installed.client().connect().await;
    let before = read_route(namespace, ROUTE).await;
    let elsewhere = namespace.cluster.namespace().await.name;

    let issue = |host| installed.authority.issue(&[host]);
    let terminate = |name: &str, secret: &str, rule: Rule| {
        let host = format!("{name}.example.com");
        installed.routes(&route(name, &[&host], &Tls::Terminate(secret), &[rule]))
    };
    let to_service = || Rule::to(SERVICE);
    let abroad = |text: String, from: &str| {
        text.replace(from, &format!("{from}\n      namespace: {elsewhere}"))
    };
    let (one, other) = (issue("foreign.example.com"), issue("foreign.example.com"));
    let manifests = [
        secret_of("foreign-tls", &one.chain_pem, &other.key_pem),
        terminate("foreign", "foreign-tls", to_service()),
        terminate("missing", "no-such-secret", to_service()),
        terminate("name", SECRET, to_service()),
        secret("nobody-tls", &issue("nobody.example.com")),
        terminate("nobody", "nobody-tls", Rule::to("no-such-service")),
        secret("port-tls", &issue("port.example.com")),
        terminate("port", "port-tls", to_service()).replace("port: 80", "port: 81"),
        secret("abroad-tls", &issue("abroad.example.com")),
        abroad(
            terminate("abroad", "abroad-tls", to_service()),
            "- name: chat",
        ),
        abroad(
            terminate("borrowed", "their-tls", to_service()),
            "- name: their-tls",
        ),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    for (name, reason, field) in [
        (
            "foreign",
            "InvalidCertificateRef",
            "spec.tls.certificateRefs[0]",
        ),
        (
            "missing",
            "InvalidCertificateRef",
            "spec.tls.certificateRefs[0]",
        ),
        ("name", "InvalidCertificateRef", "spec.tls"),
        ("nobody", "BackendNotFound", "spec.rules[0].backendRefs[0]"),
        ("port", "BackendNotFound", "spec.rules[0].backendRefs[0]"),
        ("abroad", "RefNotPermitted", "spec.rules[0].backendRefs[0]"),
        ("borrowed", "RefNotPermitted", "spec.tls.certificateRefs[0]"),
    ] {
        let route = says(namespace, name, ["ResolvedRefs", "False", reason]).await;
        let message = at(&route, "ResolvedRefs", "message").as_str();
        assert!(
            message.is_some_and(|text| text.contains(field)),
            "{name}: {message:?}"
        );
        assert_eq!(at(&route, "Accepted", "status"), "True", "{name}");
    }

    assert_eq!(before, read_route(namespace, ROUTE).await);
    talk(&mut open, "others made mistakes").await;
    let mut new = installed.client().connect().await;
    talk(&mut new, "and new sockets are served").await;

    // Each is mended by what its message asks for.
    namespace.kubectl.apply(&secret("foreign-tls", &one)).await;
    let kubectl = &namespace.kubectl;
    kubectl
        .apply(
            &(service("no-such-service")
                + &secret("no-such-secret", &issue("missing.example.com"))),
        )
        .await;
    for name in ["foreign", "missing", "nobody"] {
        let route = says(namespace, name, ["ResolvedRefs", "True", "ResolvedRefs"]).await;
        assert_eq!(at(&route, "Accepted", "status"), "True", "{name}");
    }
}

#[tokio::test]
async fn a_route_of_another_class_is_left_alone() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let namespace = &installed.namespace;
    let text = route(
        "theirs",
        &["theirs.example.com"],
        &Tls::Terminate(SECRET),
        &[Rule::to(SERVICE)],
    );
    namespace
        .kubectl
        .apply(&in_class("another-class", &text))
        .await;
    let before = read_route(namespace, "theirs").await;
    settle(&installed, "barrier").await;
    let after = read_route(namespace, "theirs").await;
    assert_eq!(before, after);
    assert_eq!(after.get("status"), None);
    assert_eq!(
        installed.client_of("theirs.example.com").status().await,
        None
    );
}

#[tokio::test]
async fn a_status_is_not_rewritten_without_news_and_its_times_stay() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let namespace = &installed.namespace;
    let usual = installed.usual_route(&[Rule::to(SERVICE)]);
    let before = read_route(namespace, ROUTE).await;
    a_later_second().await;

    namespace.kubectl.apply(&usual).await;
    settle(&installed, "barrier").await;
    let after = read_route(namespace, ROUTE).await;
    assert_eq!(version(&before), version(&after), "a write without news");

    let renamed = installed.usual_route(&[Rule::to(SERVICE).named("renamed")]);
    namespace.kubectl.apply(&renamed).await;
    let changed = is_programmed(namespace, ROUTE).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    for condition_type in TYPES {
        assert_eq!(at(&changed, condition_type, "observedGeneration"), 2);
    }
    for condition_type in ["Accepted", "ResolvedRefs"] {
        let time = |route| at(route, condition_type, "lastTransitionTime").clone();
        assert_eq!(time(&before), time(&changed), "{condition_type}");
    }
    assert_eq!(before["status"]["claims"], changed["status"]["claims"]);
    assert_eq!(changed["status"]["claims"][0]["hostname"], HOST);

    // A status that changes has a new time.
    namespace.kubectl.ok(&["delete", "service", SERVICE]).await;
    let lost = says(
        namespace,
        ROUTE,
        ["ResolvedRefs", "False", "BackendNotFound"],
    )
    .await;
    let time = |route, of| at(route, of, "lastTransitionTime").clone();
    assert_ne!(time(&changed, "ResolvedRefs"), time(&lost, "ResolvedRefs"));
    assert_eq!(time(&changed, "Accepted"), time(&lost, "Accepted"));
}

#[tokio::test]
async fn what_other_managers_say_in_a_status_stays_and_what_is_ours_comes_back() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let namespace = &installed.namespace;
    let path = namespace.path(ROUTES, ROUTE) + "/status";
    let theirs = |condition_type: &str| {
        json!({
            "apiVersion": "ws-ingress.dev/v1alpha1",
            "kind": "WebSocketRoute",
            "metadata": { "name": ROUTE },
            "status": { "conditions": [{
                "type": condition_type,
                "status": "False",
                "reason": "BecauseISay",
                "message": "theirs",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }] },
        })
    };
    patch(
        namespace,
        &path,
        Patch::Apply("theirs"),
        &theirs("example.com/Audited"),
    )
    .await;
    let renamed = installed.usual_route(&[Rule::to(SERVICE).named("renamed")]);
    namespace.kubectl.apply(&renamed).await;
    let route = is_programmed(namespace, ROUTE).await;
    assert_eq!(at(&route, "example.com/Audited", "reason"), "BecauseISay");
    let managers = route["metadata"]["managedFields"].as_array();
    let managers = managers.expect("managed fields").iter();
    let managers: Vec<_> = managers
        .filter(|entry| entry["subresource"] == "status")
        .map(|entry| entry["manager"].clone())
        .collect();
    let ours = format!(
        "ws-ingress.dev/controller/{}",
        installed.release.namespace.name
    );
    assert_eq!(managers.len(), 2, "{managers:?}");
    assert!(
        managers.contains(&json!("theirs")) && managers.contains(&json!(ours)),
        "{managers:?}"
    );

    patch(
        namespace,
        &path,
        Patch::Apply("vandal"),
        &theirs("Accepted"),
    )
    .await;
    let route = says(namespace, ROUTE, ["Accepted", "True", "Accepted"]).await;
    is_programmed(namespace, ROUTE).await;
    assert_eq!(at(&route, "Accepted", "observedGeneration"), 2);
}

#[tokio::test]
async fn addresses_are_those_of_the_dataplane_service() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let namespace = &installed.namespace;
    assert_eq!(
        read_route(namespace, ROUTE).await["status"].get("addresses"),
        None
    );
    let service = installed
        .release
        .namespace
        .path("v1/services", DATAPLANE_SERVICE);
    let balanced = json!({ "spec": { "type": "LoadBalancer" } });
    patch(namespace, &service, Patch::Merge, &balanced).await;
    for (ingress, addresses) in [
        (
            json!([{ "ip": "203.0.113.7" }, { "hostname": "lb.example.net" }]),
            json!([
                { "type": "IPAddress", "value": "203.0.113.7" },
                { "type": "Hostname", "value": "lb.example.net" },
            ]),
        ),
        (
            json!([{ "ip": "203.0.113.8" }]),
            json!([{ "type": "IPAddress", "value": "203.0.113.8" }]),
        ),
        (json!([]), Value::Null),
    ] {
        let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        patch(
            namespace,
            &format!("{service}/status"),
            Patch::Merge,
            &status,
        )
        .await;
        wait::until(&format!("the addresses {addresses}"), async || {
            let route = read_route(namespace, ROUTE).await;
            (route["status"]["addresses"] == addresses).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn without_a_dataplane_nothing_is_programmed_and_with_one_kubectl_shows_it() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let release = Release::install(&cluster, Scope::Cluster).await;
    let controller = Controller::start(&release, "controller-0", &[]).await;
    let namespace = cluster.namespace().await;
    let text = route(ROUTE, &[HOST], &Tls::Plain, &[Rule::to(SERVICE)]);
    let manifests = service(SERVICE) + &in_class(release.class(), &text);
    namespace.kubectl.apply(&manifests).await;
    says(&namespace, ROUTE, ["Programmed", "False", "NoResources"]).await;
    assert_eq!(
        columns(&namespace).await,
        [ROUTE, "[\"chat.example.com\"]", "True", "False"]
    );

    let dataplane = Dataplane::start(&release, "dataplane-0", controller.push).await;
    dataplane.ready(&release).await;
    is_programmed(&namespace, ROUTE).await;
    assert_eq!(
        columns(&namespace).await,
        [ROUTE, "[\"chat.example.com\"]", "True", "True"]
    );
}

/// What `kubectl get wsr` shows of the one route, without its age.
async fn columns(namespace: &Namespace) -> [String; 4] {
    let table = namespace.kubectl.ok(&["get", "wsr"]).await;
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        lines.next().expect("a head"),
        ["NAME", "HOSTNAMES", "ACCEPTED", "PROGRAMMED", "AGE"]
    );
    let row = lines.next().expect("a route");
    assert_eq!(row.len(), 5, "{table}");
    std::array::from_fn(|column| row[column].to_owned())
}
