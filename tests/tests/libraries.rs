//! Libraries that speak ordinary HTTP before, or instead of, a WebSocket: Socket.IO and SockJS, their real servers and clients. What
//! a client sees through the proxy is what it sees from the server itself.
//!
//! There is one server behind each route: all requests of a client must reach the same, and nothing ties a client to an endpoint yet.

use std::io::Write as _;
use std::net::SocketAddr;

use tempfile::NamedTempFile;
use tests::manifests::Rule;
use tests::process::Process;
use tests::scene::{HOST, SERVICE, Scene};
use tests::tools::{Tool, require, run, script};

/// A server of one of the libraries, and where it listens; `None` where Node is missing.
async fn server(name: &str) -> Option<(Process, SocketAddr)> {
    let mut command = script(&require(Tool::Node)?, name);
    command.arg("127.0.0.1");
    let process = Process::spawn(name, command);
    let line = process.stdout.with("listening on ").await;
    let address = line.rsplit(' ').next();
    let address = address.and_then(|address| address.parse().ok());
    Some((process, address.expect("an address at the end of the line")))
}

/// Runs a client at the server itself and through the proxy, and compares what it printed.
async fn compare(name: &str, server: SocketAddr, scene: &Scene) -> Option<Vec<String>> {
    let program = require(Tool::Node)?;
    let mut root = NamedTempFile::new().expect("a temporary file");
    root.write_all(scene.authority.root_pem().as_bytes())
        .expect("the root certificate");

    let mut direct = script(&program, name);
    direct.arg(format!("http://{HOST}:{}/", server.port()));
    let mut proxied = script(&program, name);
    proxied.arg(format!("https://{HOST}:{}/", scene.gateway.https.port()));
    proxied.env("NODE_EXTRA_CA_CERTS", root.path());

    let direct = run("the client, directly", direct).await;
    let proxied = run("the client, through the proxy", proxied).await;
    assert!(
        direct.last().is_some_and(|line| line.contains("done")),
        "the client did not finish: {direct:#?}"
    );
    let lost = direct.iter().find(|line| line.contains("\"same\":false"));
    assert_eq!(lost, None);
    assert_eq!(direct, proxied, "the proxy can be seen");
    scene.gateway.assert_quiet_log();
    Some(proxied)
}

async fn scene(server: SocketAddr) -> Scene {
    let rules = [Rule::to(SERVICE).forward()];
    Scene::with_rules(&rules, &[(SERVICE, &[server])]).await
}

#[tokio::test]
async fn a_socket_io_client_polls_and_upgrades_through_the_proxy() {
    let Some((process, address)) = server("node/socketio-server.js").await else {
        return;
    };
    let scene = scene(address).await;
    let Some(lines) = compare("node/socketio-client.js", address, &scene).await else {
        return;
    };
    let said = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(said("\"upgraded\"") && said("\"transport\":\"websocket\""));
    assert!(said("\"name\":\"polling alone\",\"transport\":\"polling\""));
    // Twice, directly and through the proxy; a second client of each run may leave before it has upgraded.
    for (part, least) in [
        ("began with polling", 8),
        ("upgraded to websocket", 2),
        ("began with websocket", 4),
    ] {
        let count = process.stdout.count(part);
        assert!(count >= least, "{part}: {count} times");
    }
    let metrics = scene.gateway.metrics().await;
    let reused = metrics.sum(
        "ws_ingress_upstream_requests_total",
        &[("connection", "reused")],
    );
    assert!(reused > 0, "polling makes many requests");
}

#[tokio::test]
async fn a_sockjs_client_talks_over_each_of_its_transports_through_the_proxy() {
    let Some((process, address)) = server("node/sockjs-server.js").await else {
        return;
    };
    let scene = scene(address).await;
    let Some(lines) = compare("node/sockjs-client.js", address, &scene).await else {
        return;
    };
    for transport in ["websocket", "xhr-streaming", "eventsource", "xhr-polling"] {
        let closed = format!("\"closed\",\"transport\":\"{transport}\",\"code\":4001");
        assert!(
            lines.iter().any(|line| line.contains(&closed)),
            "{lines:#?}"
        );
        assert_eq!(process.stdout.count(&format!("began with {transport}")), 2);
    }
}
