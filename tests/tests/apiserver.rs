//! What the tests in a cluster rely on: the API server of the harness knows who somebody is, what he may do, and keeps
//! what it was told when it is stopped.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tests::certificate::Authority;
use tests::echo_process::EchoProcess;
use tests::kubernetes::cluster::{own, shared};
use tests::kubernetes::credentials::Identity;
use tests::kubernetes::names::{
    AUDIENCE, AUTHORITY_CONFIG_MAP, CONTROLLER_ACCOUNT, DATAPLANE_ACCOUNT, DATAPLANE_SERVICE, LEASE,
};
use tests::kubernetes::release::{PodState, Release, Scope};
use tests::kubernetes::request::{Api, Patch};
use tests::kubernetes::rights::Account;
use tests::manifests::{Rule, Tls, endpoints, in_class, route, secret, service};
use tests::process::guarded;
use tests::scene::{HOST, SECRET, SERVICE};
use tests::wait;

/// The API server answers from memory for 10 s when it has accepted a token once.
const REMEMBERED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_roles_of_the_controller_allow_their_part_and_no_more() {
    let Some(cluster) = shared().await else {
        return;
    };
    let stranger = cluster.namespace().await.name;
    let watched = cluster.namespace().await.name;
    let everywhere = Release::install(&cluster, Scope::Cluster).await;
    let scope = Scope::Namespaces(vec![watched.clone()]);
    let in_one = Release::install(&cluster, scope).await;

    let routes = "ws-ingress.dev/websocketroutes";
    let status = "ws-ingress.dev/websocketroutes/status";
    let slices = "discovery.k8s.io/endpointslices";
    let externals = "ws-ingress.dev/externalbackends";
    let grants = "gateway.networking.k8s.io/referencegrants";
    // Verb, kind, name; in a watched namespace; in the release's own; in one that only a controller of all sees.
    let expected = [
        ("list", routes, "", true, false, false),
        ("watch", routes, "", true, false, false),
        ("list", externals, "", true, false, false),
        ("watch", externals, "", true, false, false),
        ("watch", grants, "", true, false, false),
        ("watch", "/secrets", "", true, false, false),
        ("get", "/secrets", "any", true, false, false),
        ("patch", status, "any", true, false, false),
        ("create", "events.k8s.io/events", "", true, true, false),
        ("watch", slices, "", true, true, false),
        ("watch", "/services", "", true, true, false),
        // Never, anywhere.
        ("patch", routes, "any", false, false, false),
        ("patch", externals, "any", false, false, false),
        ("update", "/secrets", "any", false, false, false),
        ("delete", "/secrets", "any", false, false, false),
        ("list", "/pods", "", false, false, false),
        ("get", "/configmaps", "any", false, false, false),
    ];
    let (everywhere_may, in_one_may) = (Account::of(&everywhere).await, Account::of(&in_one).await);
    let mut wrong = Vec::new();
    for (verb, what, name, in_watched, in_own, in_foreign) in expected {
        let places = [
            (&watched, in_watched),
            (&in_one.namespace.name, in_own),
            (&stranger, in_foreign),
        ];
        for (namespace, allowed) in places {
            if in_one_may.may(verb, what, name, namespace).await != allowed {
                wrong.push(format!("namespaced: {verb} {what} in {namespace}"));
            }
        }
        if everywhere_may.may(verb, what, name, &stranger).await != in_watched {
            wrong.push(format!("cluster-wide: {verb} {what}"));
        }
    }
    assert!(wrong.is_empty(), "not as expected: {wrong:#?}");

    // What both have in their own namespace, and in no other.
    for (release, rights) in [(&everywhere, &everywhere_may), (&in_one, &in_one_may)] {
        for (verb, what, name) in [
            ("create", "coordination.k8s.io/leases", ""),
            ("update", "coordination.k8s.io/leases", LEASE),
            ("update", "/secrets", "ws-ingress-push"),
            ("update", "/configmaps", AUTHORITY_CONFIG_MAP),
        ] {
            let own = &release.namespace.name;
            assert!(rights.may(verb, what, name, own).await, "{verb} {what}");
            let foreign = rights.may(verb, what, name, &stranger).await;
            assert!(!foreign, "{verb} {what} in another namespace");
        }
        let reviews = "authentication.k8s.io/tokenreviews";
        assert!(rights.may("create", reviews, "", "").await);
    }
}

#[tokio::test]
async fn a_dataplanes_token_tells_its_pod_and_opens_nothing() {
    let Some(cluster) = shared().await else {
        return;
    };
    let release = Release::install(&cluster, Scope::Cluster).await;
    let pod = release.dataplane_pod("dataplane-0").await;
    let token = release.dataplane_token(&pod, AUDIENCE).await;

    // Reviewed by the controller, with its own rights.
    let namespace = &release.namespace.name;
    let access = cluster.account(namespace, CONTROLLER_ACCOUNT).await;
    let controller = Api::new(access);
    let review = async |audience: &str| {
        let object = json!({ "spec": { "token": token, "audiences": [audience] } });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        controller.create(path, &object).await["status"].clone()
    };
    let status = review(AUDIENCE).await;
    assert_eq!(status["authenticated"], true, "{status}");
    let user = format!("system:serviceaccount:{namespace}:{DATAPLANE_ACCOUNT}");
    assert_eq!(status["user"]["username"], *user);
    let uid = &status["user"]["extra"]["authentication.kubernetes.io/pod-uid"];
    assert_eq!(*uid, json!([pod.uid]));
    assert_ne!(review("somebody-else").await["authenticated"], true);

    // For the API server itself it is nobody's.
    let access = cluster.server.access(Identity::Token(token.clone()));
    let (code, _) = Api::new(access).get("/api/v1/namespaces").await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);

    // A pod that is gone takes its token with it.
    let path = release.namespace.path("v1/pods", &pod.name);
    let (code, _) = cluster.api().delete(&path).await;
    assert!(code.is_success(), "{code}");
    let what = "the token of a deleted pod is refused";
    wait::until_limit(what, REMEMBERED * 2, async || {
        (review(AUDIENCE).await["authenticated"] != true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_objects_that_tests_write_are_taken() {
    let Some(cluster) = shared().await else {
        return;
    };
    let release = Release::install(&cluster, Scope::Cluster).await;
    let kubectl = &release.namespace.kubectl;
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
    let route = kubectl.get("wsr", "chat").await;
    assert_eq!(route["spec"]["className"], *release.class());

    // Why the backends of these tests listen on the machine's own address.
    let loopback = SocketAddr::from(([127, 0, 0, 1], 80));
    let output = kubectl.try_apply(&endpoints("loopback", &[loopback])).await;
    assert!(output.stderr.contains("loopback range"), "{output:?}");

    let pod = release.dataplane_pod("dataplane-0").await;
    for (state, ready, terminating) in [
        (PodState::NotReady, false, false),
        (PodState::Ready, true, false),
        (PodState::Terminating, false, true),
    ] {
        release.publish(&pod, 443, state).await;
        let name = format!("{DATAPLANE_SERVICE}-dataplane-0");
        let slice = kubectl.get("endpointslice", &name).await;
        let endpoint = &slice["endpoints"][0];
        assert_eq!(endpoint["targetRef"]["uid"], *pod.uid);
        assert_eq!(endpoint["conditions"]["ready"], ready, "{state:?}");
        assert_eq!(
            endpoint["conditions"]["terminating"], terminating,
            "{state:?}"
        );
    }
}

#[tokio::test]
async fn the_version_is_the_one_that_was_asked_for() {
    let Some(cluster) = shared().await else {
        return;
    };
    let (_, version) = cluster.api().get("/version").await;
    let version = version["gitVersion"].as_str().expect("a version");
    match std::env::var("KUBERNETES") {
        Ok(asked) => assert_eq!(version, format!("v{asked}")),
        Err(_) => assert!(version.starts_with("v1."), "{version}"),
    }
}

#[tokio::test]
async fn a_user_by_certificate_may_do_what_his_roles_say() {
    let Some(cluster) = shared().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    let author = cluster.server.user("author", &["authors"]);
    let path = namespace.collection("ws-ingress.dev/v1alpha1/websocketroutes");
    let api = Api::new(author);
    assert_eq!(api.get(&path).await.0, StatusCode::FORBIDDEN);
    let admin = &namespace.kubectl;
    admin
        .ok(&[
            "create",
            "role",
            "author",
            "--verb=list",
            "--resource=websocketroutes",
        ])
        .await;
    admin
        .ok(&[
            "create",
            "rolebinding",
            "author",
            "--role=author",
            "--group=authors",
        ])
        .await;
    wait::until("the role is bound", async || {
        (api.get(&path).await.0 == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stopped_api_server_comes_back_on_its_port_with_its_data() {
    let Some(cluster) = own().await else {
        return;
    };
    let namespace = cluster.namespace().await;
    let path = namespace.path("v1/configmaps", "kept");
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "kept" },
        "data": { "key": "value" },
    });
    let (code, _) = cluster
        .api()
        .patch(&path, Patch::Apply("test"), &object)
        .await;
    assert_eq!(code, StatusCode::CREATED);
    cluster.server.stop_api().await;
    let asked = cluster.api().try_send(http::Method::GET, &path, None).await;
    assert!(asked.is_err(), "a stopped server answers: {asked:?}");
    cluster.server.start_api().await;
    let (_, kept) = cluster.api().get(&path).await;
    assert_eq!(kept["data"]["key"], "value");
    // kubectl finds it with the same kubeconfig.
    let shown: Value = namespace.kubectl.get("configmap", "kept").await;
    assert_eq!(shown["data"]["key"], "value");
}

#[tokio::test]
async fn what_the_harness_starts_ends_with_the_thread_that_started_it() {
    let (started, told) = mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let mut command = guarded(Path::new("sleep")).into_std();
        let child = command.arg("60").spawn().expect("a child");
        // `guard` is `sleep` once it has asked the kernel to follow this thread.
        let name = PathBuf::from(format!("/proc/{}/comm", child.id()));
        while fs::read_to_string(&name).expect("it runs") != "sleep\n" {
            std::thread::yield_now();
        }
        started.send(child).expect("the test waits");
    });
    let mut child = told.recv().expect("the thread starts it");
    thread.join().expect("the thread ends");
    let status = wait::until("it is killed", async || {
        child.try_wait().expect("a child can be asked")
    });
    assert_eq!(status.await.signal(), Some(9));
}
