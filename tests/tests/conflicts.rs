//! Routes that ask for the same, and references into other namespaces: who gets it, and what the others learn.

use serde_json::{Value, json};
use tests::client::{next, talk};
use tests::echo_process::EchoProcess;
use tests::kubernetes::grants::{self, GRANTS};
use tests::kubernetes::installed::{
    Installed, ROUTE, ROUTES, cluster, condition, is_programmed, read_route, says,
};
use tests::kubernetes::request::Patch;
use tests::manifests::{Rule, Tls, endpoints, route, secret, service};
use tests::scene::{HOST, SECRET, SERVICE};
use tests::wait;

/// The installation with the usual route in service.
async fn scene() -> Option<(Installed, EchoProcess)> {
    let installed = Installed::start(&cluster().await?).await;
    let echo = EchoProcess::start_reachable("echo").await;
    installed.serve(echo.address).await;
    Some((installed, echo))
}

fn at<'a>(route: &'a Value, condition_type: &str, field: &str) -> &'a Value {
    let found = condition(route, condition_type);
    &found.expect("the condition")[field]
}

#[tokio::test]
async fn of_two_routes_on_one_host_and_path_the_first_serves_and_the_other_follows() {
    let Some((installed, first)) = scene().await else {
        return;
    };
    let second = EchoProcess::start_reachable("second").await;
    let namespace = &installed.namespace;
    let text = route(
        "later",
        &[HOST],
        &Tls::Terminate(SECRET),
        &[Rule::to("second")],
    );
    let manifests = [
        service("second"),
        endpoints("second", &[second.address]),
        installed.routes(&text),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    for name in [ROUTE, "later"] {
        let route = is_programmed(namespace, name).await;
        assert_eq!(at(&route, "Accepted", "status"), "True", "{name}");
    }
    let greeted = async || {
        let mut socket = installed.client().path("/").connect().await;
        next(&mut socket).await.to_string()
    };
    for _ in 0..5 {
        let hello = greeted().await;
        assert!(hello.contains(&first.address.to_string()), "{hello}");
    }
    namespace.kubectl.ok(&["delete", "wsr", ROUTE]).await;
    wait::until("the second route serves", async || {
        greeted()
            .await
            .contains(&second.address.to_string())
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn tls_belongs_to_the_first_route_of_a_host_and_others_may_not_differ() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let namespace = &installed.namespace;
    let differs = route(
        "differs",
        &[HOST],
        &Tls::Terminate("mine"),
        &[Rule::to(SERVICE).exact("/a")],
    );
    let same = route(
        "same",
        &[HOST],
        &Tls::Terminate(SECRET),
        &[Rule::to(SERVICE).exact("/b")],
    );
    let manifests = [
        secret("mine", &installed.authority.issue(&[HOST])),
        installed.routes(&differs),
        installed.routes(&same),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    let route = says(namespace, "differs", ["Accepted", "False", "TLSConflict"]).await;
    assert_eq!(at(&route, "Programmed", "status"), "False");
    assert_eq!(at(&route, "Programmed", "reason"), "Invalid");
    is_programmed(namespace, "same").await;
    assert_eq!(installed.client().path("/b").status().await, Some(101));
    assert_eq!(
        installed.client().path("/a").status().await,
        Some(101),
        "the usual route takes it"
    );
}

#[tokio::test]
async fn a_hostname_stays_with_the_namespace_that_claimed_it_and_the_loser_learns_nothing() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let (winner, loser) = (
        &installed.namespace,
        installed.release.cluster().namespace().await,
    );
    let hosts = ["own.example.com", HOST];
    let text = route(
        "latecomer",
        &hosts,
        &Tls::Terminate("late-tls"),
        &[Rule::to("late")],
    );
    let echo = EchoProcess::start_reachable("late").await;
    let manifests = [
        secret("late-tls", &installed.authority.issue(&hosts)),
        service("late"),
        endpoints("late", &[echo.address]),
        installed.routes(&text),
    ];
    loser.kubectl.apply(&manifests.concat()).await;
    let lost = says(
        &loser,
        "latecomer",
        ["Accepted", "False", "HostnameConflict"],
    )
    .await;
    is_programmed(&loser, "latecomer").await;
    let status = lost["status"].to_string();
    let winners = read_route(winner, ROUTE).await;
    let uid = winners["metadata"]["uid"].as_str().expect("a uid");
    for foreign in [&winner.name, SECRET, uid, "route chat", "chat/"] {
        assert!(!status.contains(foreign), "{foreign} in {status}");
    }
    installed.takes("own.example.com", "/").await;
    let mut served = installed.client_of("own.example.com").connect().await;
    talk(&mut served, "the other hostname is served").await;
    let mut socket = installed.client().path("/").connect().await;
    let hello = next(&mut socket).await.to_string();
    assert!(!hello.contains(&echo.address.to_string()), "{hello}");

    // Given up by the one, it is the other's.
    winner.kubectl.ok(&["delete", "wsr", ROUTE]).await;
    says(&loser, "latecomer", ["Accepted", "True", "Accepted"]).await;
}

#[tokio::test]
async fn a_grant_permits_a_reference_and_takes_it_back_at_once() {
    let Some(cluster) = cluster().await else {
        return;
    };
    grants::define(&cluster).await;
    let Some((installed, echo)) = scene().await else {
        return;
    };
    let (here, there) = (&installed.namespace, cluster.namespace().await);
    let host = "borrowed.example.com";
    let theirs = [
        secret("their-tls", &installed.authority.issue(&[host])),
        service("theirs"),
        endpoints("theirs", &[echo.address]),
    ];
    there.kubectl.apply(&theirs.concat()).await;
    let own = route(
        "borrowed",
        &[host],
        &Tls::Terminate("their-tls"),
        &[Rule::to("theirs")],
    );
    let own = own.replace(
        "- name: their-tls",
        &format!("- name: their-tls\n      namespace: {}", there.name),
    );
    let own = own.replace(
        "- name: theirs",
        &format!("- name: theirs\n      namespace: {}", there.name),
    );
    here.kubectl.apply(&installed.routes(&own)).await;
    let refused = ["ResolvedRefs", "False", "RefNotPermitted"];
    let before = says(here, "borrowed", refused).await;

    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": { "name": "lent" },
        "spec": {
            "from": [{ "group": "ws-ingress.dev", "kind": "WebSocketRoute", "namespace": here.name }],
            "to": [{ "group": "", "kind": "Secret", "name": "their-tls" }, { "group": "", "kind": "Service" }],
        },
    });
    let path = there.path(GRANTS, "lent");
    let api = cluster.api();
    let (code, answer) = api.patch(&path, Patch::Apply("test"), &grant).await;
    assert!(code.is_success(), "{code} {answer}");
    says(here, "borrowed", ["ResolvedRefs", "True", "ResolvedRefs"]).await;
    installed.takes(host, "/").await;
    let mut open = installed.client_of(host).connect().await;
    talk(&mut open, "with what was lent").await;

    let (code, answer) = api.delete(&path).await;
    assert!(code.is_success(), "{code} {answer}");
    let after = says(here, "borrowed", refused).await;
    // Not even whether the objects are there.
    assert_eq!(
        at(&before, "ResolvedRefs", "message"),
        at(&after, "ResolvedRefs", "message")
    );
    wait::until("no new handshake with what was taken back", async || {
        installed
            .client_of(host)
            .status()
            .await
            .is_none()
            .then_some(())
    })
    .await;
    talk(&mut open, "the socket that is open lives").await;
}

fn claimed(route: &Value) -> Vec<&str> {
    let claims = route["status"]["claims"].as_array().into_iter().flatten();
    claims
        .filter_map(|claim| claim["hostname"].as_str())
        .collect()
}

/// Whoever may write a route may write its `managedFields`, and so name another owner for what the controller wrote: an apply by
/// the controller alone would then leave a claim that it gives up, and a name that was let go could be taken back at any time.
#[tokio::test]
async fn a_claim_ends_with_its_hostname_whoever_is_made_its_owner() {
    let Some((installed, _echo)) = scene().await else {
        return;
    };
    let (namespace, cluster) = (&installed.namespace, installed.release.cluster());
    let name = "squatted.example.com";
    let lists = |hosts: &[&str]| {
        installed.routes(&route(
            ROUTE,
            hosts,
            &Tls::Terminate(SECRET),
            &[Rule::to(SERVICE)],
        ))
    };
    namespace.kubectl.apply(&lists(&[HOST, name])).await;
    let route_now = is_programmed(namespace, ROUTE).await;
    assert_eq!(claimed(&route_now), [HOST, name]);

    let mut owners = route_now["metadata"]["managedFields"].clone();
    let planted = json!({
        "manager": "squatter",
        "operation": "Apply",
        "subresource": "status",
        "apiVersion": route_now["apiVersion"],
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": { "f:status": { "f:claims": {
            format!(r#"k:{{"hostname":"{name}"}}"#): { ".": {}, "f:hostname": {}, "f:since": {} },
        } } },
    });
    owners.as_array_mut().expect("managed fields").push(planted);
    let path = namespace.path(ROUTES, ROUTE);
    let plant = json!({ "metadata": { "managedFields": owners } });
    let (code, answer) = cluster.api().patch(&path, Patch::Merge, &plant).await;
    assert!(code.is_success(), "{code} {answer}");
    let owners = answer["metadata"]["managedFields"].as_array();
    assert!(
        owners.is_some_and(|owners| owners.iter().any(|owner| owner["manager"] == "squatter")),
        "{answer}"
    );

    namespace.kubectl.apply(&lists(&[HOST])).await;
    wait::until("the claim ends", async || {
        let route = read_route(namespace, ROUTE).await;
        (claimed(&route) == [HOST]).then_some(())
    })
    .await;
    is_programmed(namespace, ROUTE).await;

    let other = cluster.namespace().await;
    let text = route("heir", &[name], &Tls::Plain, &[Rule::to("heir")]);
    let echo = EchoProcess::start_reachable("heir").await;
    let manifests = [
        service("heir"),
        endpoints("heir", &[echo.address]),
        installed.routes(&text),
    ];
    other.kubectl.apply(&manifests.concat()).await;
    says(&other, "heir", ["Accepted", "True", "Accepted"]).await;
    is_programmed(&other, "heir").await;

    namespace.kubectl.apply(&lists(&[HOST, name])).await;
    let lost = ["Accepted", "False", "HostnameConflict"];
    let lost = says(namespace, ROUTE, lost).await;
    assert!(!lost["status"].to_string().contains(&other.name), "{lost}");
    says(&other, "heir", ["Accepted", "True", "Accepted"]).await;
}
