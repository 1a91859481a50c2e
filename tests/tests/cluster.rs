//! The product in a cluster: objects that people apply, a controller with its own rights, a dataplane that is another
//! process.

use tests::certificate::Authority;
use tests::client::{Dial, talk};
use tests::echo_process::EchoProcess;
use tests::kubernetes::controller::Controller;
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::installed::cluster;
use tests::kubernetes::release::{POD_ADDRESS, Release, Scope};
use tests::manifests::{Rule, Tls, endpoints, in_class, route, secret, service};
use tests::scene::{HOST, SECRET, SERVICE};

/// Applies the objects of one route in this namespace, and talks to its backend once the route says that it is programmed.
async fn apply_wait_and_talk(release: &Release, namespace: &str) {
    let controller = Controller::start(release, "controller-0", &[]).await;
    let dataplane = Dataplane::start(release, "dataplane-0", controller.push).await;
    dataplane.ready(release).await;

    let cluster = release.cluster();
    let kubectl = cluster.kubectl_as(&cluster.server.admin(), namespace);
    let (echo, authority) = (EchoProcess::start_reachable("echo").await, Authority::new());
    let routes = route(
        "chat",
        &[HOST],
        &Tls::Terminate(SECRET),
        &[Rule::to(SERVICE)],
    );
    let manifests = [
        secret(SECRET, &authority.issue(&[HOST])),
        service(SERVICE),
        endpoints(SERVICE, &[echo.address]),
        in_class(release.class(), &routes),
    ];
    kubectl.apply(&manifests.concat()).await;
    for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
        kubectl
            .wait("websocketroute/chat", &format!("condition={condition}"))
            .await;
    }
    // What a person sees of it: name, hostnames, Accepted, Programmed, age.
    let row = kubectl.ok(&["get", "wsr", "chat", "--no-headers"]).await;
    let row: Vec<_> = row.split_whitespace().collect();
    let hosts = format!(r#"["{HOST}"]"#);
    assert_eq!(row[..4], ["chat", &hosts, "True", "True"]);
    let mut socket = Dial::wss(dataplane.https, HOST, authority.root())
        .connect()
        .await;
    talk(&mut socket, "through the cluster").await;
}

#[tokio::test]
async fn an_applied_route_becomes_programmed_and_carries_wss() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let release = Release::install(&cluster, Scope::Cluster).await;
    let elsewhere = cluster.namespace().await;
    apply_wait_and_talk(&release, &elsewhere.name).await;
}

/// A slice of the author's own leads to the address that `Dataplane` stands at in its Service.
#[tokio::test]
async fn no_route_leads_to_our_own_pods_in_whatever_namespace_they_are() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let watched = cluster.namespace().await;
    let scope = Scope::Namespaces(vec![watched.name.clone()]);
    let release = Release::install(&cluster, scope).await;
    let controller = Controller::start(&release, "controller-0", &[]).await;
    let dataplane = Dataplane::start(&release, "dataplane-0", controller.push).await;
    dataplane.ready(&release).await;

    let kubectl = cluster.kubectl_as(&cluster.server.admin(), &watched.name);
    let rules = [Rule::to(SERVICE)];
    let own = format!("{POD_ADDRESS}:9901").parse().expect("an address");
    let manifests = [
        service(SERVICE),
        endpoints(SERVICE, &[own]),
        in_class(
            release.class(),
            &route("loop", &[HOST], &Tls::Plain, &rules),
        ),
    ];
    kubectl.apply(&manifests.concat()).await;
    kubectl
        .wait("websocketroute/loop", "condition=ResolvedRefs=False")
        .await;
    let route = kubectl.get("websocketroute", "loop").await;
    let message = route["status"]["conditions"].to_string();
    for part in [
        "EndpointNotPermitted",
        POD_ADDRESS,
        "pods or Services of ws-ingress itself",
        "refer to",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

#[tokio::test]
async fn a_controller_of_one_namespace_needs_no_more_than_its_rights_there() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let watched = cluster.namespace().await;
    let scope = Scope::Namespaces(vec![watched.name.clone()]);
    let release = Release::install(&cluster, scope).await;
    apply_wait_and_talk(&release, &watched.name).await;
}
