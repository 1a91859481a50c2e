//! Dataplanes and controllers of different ages: what a dataplane does not know fails closed, and its route says so.
//!
//! There is one build of each side here. So the test plays the other: a controller of tomorrow, with the certificate of the real one,
//! or a dataplane of the first version, which has no feature at all.

use tests::certificate::Authority;
use tests::client::{alert, talk};
use tests::echo_process::EchoProcess;
use tests::kubernetes::controller::{Controller, authority_bundle};
use tests::kubernetes::installed::{ROUTE, cluster, condition, is_programmed, says};
use tests::kubernetes::names::AUDIENCE;
use tests::kubernetes::played::{BACKEND, Played, host};
use tests::kubernetes::push::{certificate, certificate_key, route, route_key};
use tests::kubernetes::release::{PodState, Release, Scope};
use tests::kubernetes::stranger::Stranger;
use tests::manifests::{Rule, Tls, endpoints, in_class, route as manifest, secret, service};
use tests::scene::{HOST, SECRET, SERVICE};

fn lacks(feature: &str) -> String {
    format!(
        "requires {feature}, which this dataplane's version does not have; upgrade the dataplane"
    )
}

#[tokio::test]
async fn what_a_dataplane_does_not_know_is_closed_and_everything_else_is_served() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let (played, mut stream) = Played::start(&cluster).await;
    let names = ["chat", "requests", "handshakes", "unnamed", "sealed"];
    let known = played.hosts(&names);
    let rejected = stream.taken(known.full()).await;
    assert_eq!(rejected, [], "all of it is known");
    let mut open = Vec::new();
    for name in names {
        open.push(played.client(name).connect().await);
    }

    // Each of these was served until now: an earlier form admits more than is asked.
    let requires = |name, feature| route(name, &host(name), &[feature], BACKEND);
    let mut sealed = certificate("sealed", &played.issue("sealed"));
    sealed.requires = vec!["host/sealed".to_owned()];
    let tomorrow = known
        .clone()
        .with(requires("requests", "route/something-new"))
        .with(requires("handshakes", "host/something-new"))
        .with(requires("unnamed", "something-new"))
        .with(sealed);
    let rejected = stream.taken(tomorrow.since(&known)).await;
    let expected = [
        (certificate_key("sealed"), lacks("host/sealed")),
        (route_key("handshakes"), lacks("host/something-new")),
        (route_key("requests"), lacks("route/something-new")),
        (route_key("unnamed"), lacks("something-new")),
    ];
    assert_eq!(rejected, expected);
    assert_eq!(played.count("push_rejected_resources").await, 4);
    let (status, page) = played.dataplane.readiness().await.expect("it answers");
    assert_eq!(status, 200, "{page}");

    played.serves("chat").await;
    assert_eq!(played.client("requests").status().await, Some(503));
    for name in ["handshakes", "unnamed", "sealed"] {
        let error = played.shown(name).await.expect_err("a handshake");
        assert!(alert(&error).is_some(), "{name}: {error}");
    }
    // What was open when it came goes on: a new table touches new handshakes only.
    for socket in &mut open {
        talk(socket, "and me?").await;
    }

    // A newer dataplane is not needed when the need is gone.
    let rejected = stream.taken(known.since(&tomorrow)).await;
    assert_eq!(rejected, []);
    for name in names {
        played.serves(name).await;
    }
    assert_eq!(played.count("push_rejected_resources").await, 0);
}

/// It is for the dataplane to decide: the controller sends what there is, and the route says what came of it.
#[tokio::test]
async fn a_route_that_an_older_dataplane_rejects_says_so() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let release = Release::install(&cluster, Scope::Cluster).await;
    let controller = Controller::start(&release, "controller-0", &[]).await;
    let bundle = authority_bundle(&release).await;
    let pod = release.dataplane_pod("dataplane-old").await;
    let token = release.dataplane_token(&pod, AUDIENCE).await;
    release.publish(&pod, 443, PodState::Ready).await;
    let (namespace, authority) = (cluster.namespace().await, Authority::new());
    let echo = EchoProcess::start_reachable("echo").await;
    // A dataplane that does not know the condition would take every client.
    let beta = || Rule::to(SERVICE).asking("headers: [{ name: X-Env, value: beta }]");
    let one = |name: &str, host: &str, tls: &str| {
        let rule = if name == ROUTE {
            beta()
        } else {
            Rule::to(SERVICE)
        };
        let text = manifest(name, &[host], &Tls::Terminate(tls), &[rule]);
        secret(tls, &authority.issue(&[host])) + &in_class(release.class(), &text)
    };
    let manifests = [
        service(SERVICE),
        endpoints(SERVICE, &[echo.address]),
        one(ROUTE, HOST, SECRET),
        one("plain", "plain.example.com", "plain-tls"),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    says(&namespace, ROUTE, ["Programmed", "Unknown", "Pending"]).await;

    // Its Hello names no feature at all.
    let dataplane = Stranger::new(controller.push, &bundle);
    let stream = tests::wait::until("the controller leads", async || {
        dataplane.call(Some(&token)).await.ok()
    });
    let mut stream = stream.await;
    stream.welcome().await;
    let both_say = async {
        let route = says(&namespace, ROUTE, ["Programmed", "False", "Rejected"]).await;
        // Only that one.
        is_programmed(&namespace, "plain").await;
        route
    };
    let route = tokio::select! {
        route = both_say => route,
        never = stream.take_as_one_with(&[]) => match never {},
    };
    let programmed = condition(&route, "Programmed").expect("the condition");
    let message = programmed["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("requires route/match-headers"),
        "{message}"
    );

    // The dataplane is upgraded: the next update is taken whole.
    let late = one("late", "late.example.com", "late-tls");
    namespace.kubectl.apply(&late).await;
    let programmed = async {
        for name in [ROUTE, "plain", "late"] {
            is_programmed(&namespace, name).await;
        }
    };
    tokio::select! {
        () = programmed => {}
        never = stream.take_as_one_with(&["route/match-headers"]) => match never {},
    }
}
