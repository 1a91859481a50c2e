//! From `helm install` to an echo over wss, with the commands and manifests that the documents show; and an upgrade while
//! sockets talk. With both lines of helm.

use std::fs;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tests::client::{Dial, talk};
use tests::node::helm::Helm;
use tests::node::installation::Installation;
use tests::node::site::{CONTROLLER, DATAPLANE, Site};
use tests::node::{Node, eventually, repository, take_first};

use crate::rollouts::while_it_serves;

/// Documents that show an installation, and the marks around what is run of them.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/kind.md"];
const BEGIN: &str = "<!-- test: install -->";
const END: &str = "<!-- test: end -->";

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_lead_to_an_echo_with_helm_4() {
    from_nothing_to_an_upgrade(Helm::Four).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_lead_to_an_echo_with_helm_3() {
    from_nothing_to_an_upgrade(Helm::Three).await;
}

async fn from_nothing_to_an_upgrade(helm: Helm) {
    let node = take_first().await;
    for document in DOCUMENTS {
        nothing_is_installed(helm, &node).await;
        helm.script(&node, &commands(document)).await;
        echoes(&node).await;
        println!("{document}: installed with {helm:?}, and the route echoes");
    }

    // The same release with the values that the other tests have, and a change of all its pods.
    let site = Site { node };
    tokio::join!(no_route_is_left(&site.node), site.upgrade(helm, ""));
    site.serve().await;
    let what = format!("helm upgrade ({helm:?})");
    let told = while_it_serves(&site, &what, async |_| {
        let values =
            "dataplane.podAnnotations.revision=next,controller.podAnnotations.revision=next";
        site.upgrade(helm, values).await;
    })
    .await;
    assert!(told > 0, "the pods were replaced");
    // The next test may come with the other helm.
    nothing_is_installed(helm, &site.node).await;
}

/// Removes every route with all that is behind it, and the release with its namespace.
async fn nothing_is_installed(helm: Helm, node: &Node) {
    tokio::join!(no_route_is_left(node), no_release_is_left(helm, node));
}

async fn no_release_is_left(helm: Helm, node: &Node) {
    // Otherwise the controllers would ask on for a moment without the roles that helm has deleted.
    if CONTROLLER.find(node).await.is_some() {
        CONTROLLER.scale(node, 0).await;
        CONTROLLER.settled(node).await;
    }
    Site::uninstall(node, helm).await;
    remove(node, node.installation.namespace).await;
}

/// Removes the namespaces of the installation's routes.
async fn no_route_is_left(node: &Node) {
    // Before the first install there is no such kind.
    let routes = node
        .get("/apis/ws-ingress.dev/v1alpha1/websocketroutes")
        .await;
    let routes = routes.unwrap_or_default();
    for route in routes["items"].as_array().into_iter().flatten() {
        if route["spec"]["className"] == node.installation.namespace {
            let namespace = route["metadata"]["namespace"].as_str();
            remove(node, namespace.expect("a route is in a namespace")).await;
        }
    }
}

/// Removes a namespace, its pods first: at a namespace with pods Kubernetes looks again only after half of their grace period.
async fn remove(node: &Node, namespace: &str) {
    let at_once = ["--ignore-not-found", "--wait=false"];
    let delete = async |what: &[&str]| {
        let arguments = [&["delete"], what, &at_once].concat();
        node.kubectl.ok(&arguments).await;
    };
    let path = format!("/api/v1/namespaces/{namespace}");
    delete(&["deployments", "--all", "--namespace", namespace]).await;
    eventually(&format!("{namespace} has no pods"), async || {
        let pods = node.get(&format!("{path}/pods")).await?;
        pods["items"].as_array()?.is_empty().then_some(())
    })
    .await;
    delete(&["namespace", namespace]).await;
    eventually(&format!("{namespace} is gone"), async || {
        node.get(&path).await.is_none().then_some(())
    })
    .await;
}

/// The commands of a document's marked part, without what they are indented by.
fn commands(document: &str) -> String {
    let text = fs::read_to_string(repository().join(document)).expect("a document");
    let (_, rest) = text.split_once(BEGIN).expect("a mark before what is run");
    let (marked, _) = rest.split_once(END).expect("a mark after what is run");
    let mut commands = String::new();
    for line in marked.lines() {
        match line.strip_prefix("    ") {
            Some(command) => commands.extend([command, "\n"]),
            None if line.is_empty() => commands.push('\n'),
            None => {}
        }
    }
    commands
}

/// Waits until the one route that there is echoes, at the node port of the Service, with the certificate of its Secret.
async fn echoes(node: &Node) {
    let json = async |arguments: &[&str]| {
        let all = [arguments, &["-o", "json"]].concat();
        let text = node.kubectl.ok(&all).await;
        text.parse::<Value>().expect("kubectl prints JSON")
    };
    let Installation {
        namespace: home,
        https_port,
        ..
    } = node.installation;
    let routes = json(&["get", "wsr", "--all-namespaces"]).await;
    let mut routes = routes["items"].as_array().into_iter().flatten();
    let route = routes.find(|route| route["spec"]["className"] == *home);
    let route = route.expect("a route");
    let text = |path: &str| route.pointer(path).and_then(Value::as_str).expect(path);
    let (namespace, host) = (text("/metadata/namespace"), text("/spec/hostnames/0"));
    let secret = text("/spec/tls/certificateRefs/0/name");
    let pem = "jsonpath={.data.tls\\.crt}";
    let pem = ["get", "secret", "--namespace", namespace, secret, "-o", pem];
    let pem = STANDARD.decode(node.kubectl.ok(&pem).await);
    let certificates = CertificateDer::pem_slice_iter(&pem.expect("base64"))
        .collect::<Result<Vec<_>, _>>()
        .expect("certificates");
    let root = certificates.last().expect("a certificate").clone();

    // Whatever node port it was given, from now on it is the one that can be reached on kind, too.
    let port = format!(
        "[{{\"op\": \"add\", \"path\": \"/spec/ports/0/nodePort\", \"value\": {https_port}}}]"
    );
    let service = ["--namespace", home, "service", DATAPLANE.name];
    let patch = [&["patch"][..], &service, &["--type=json", "-p", &port]].concat();
    node.kubectl.ok(&patch).await;
    let dial = Dial::wss(SocketAddr::new(node.address, *https_port), host, root);
    let mut socket = eventually("the route of the document echoes", async || {
        dial.try_connect().await.ok().map(|(socket, _)| socket)
    })
    .await;
    talk(&mut socket, "as it is written").await;
}
