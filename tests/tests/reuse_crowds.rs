//! Many requests of ordinary HTTP at once: how many upstream connections wait after them, and that there are files for all of it.

use std::fs;

use tests::backend::Backend;
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::scene::{HOST, SERVICE, Scene};

const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";

async fn sum(scene: &Scene, name: &str, labels: &[(&str, &str)]) -> u64 {
    scene.gateway.metrics().await.sum(name, labels)
}

fn open_files(scene: &Scene) -> usize {
    let folder = format!("/proc/{}/fd", scene.gateway.id());
    fs::read_dir(folder).expect("a process").count()
}

/// So many clients ask at once; so many connections may wait after them.
async fn check(files: u32, crowd: usize, idle: usize) {
    let mut backend = Backend::played();
    let settings = Settings {
        open_files: Some(files),
        ..Settings::default()
    };
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::start(&rules, &[(SERVICE, &[backend.address])], &settings).await;
    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut open = Vec::new();
    for _ in 0..crowd {
        let (client, server, _) = scene.asked(&mut backend, &get).await;
        open.push((client, server));
    }
    assert!(open_files(&scene) <= files as usize);
    for (client, server) in &mut open {
        server.send(WELL).await.expect("the proxy listens");
        let answer = client.response("GET").await.expect("an answer");
        assert_eq!(answer.text(), "well");
    }
    scene.gateway.idle_upstreams(idle as u64).await;

    let answered = [("connection", "fresh")];
    let fresh = sum(&scene, "ws_ingress_upstream_requests_total", &answered).await;
    assert_eq!(fresh, crowd as u64);
    assert_eq!(sum(&scene, "ws_ingress_accept_errors_total", &[]).await, 0);
    scene.gateway.assert_quiet_log();
}

/// (200 - 128 - 8) / 2 connections, one of which the plain listener keeps for whoever comes, and the least that may wait.
#[tokio::test]
async fn as_many_ask_at_once_as_there_are_files_for_and_few_connections_wait_after_them() {
    check(200, 31, 8).await;
}

#[tokio::test]
async fn no_more_than_32_connections_of_an_endpoint_wait() {
    check(2000, 40, 32).await;
}
