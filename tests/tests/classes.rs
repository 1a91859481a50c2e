//! Two installations of one class: the second says so and touches nothing, until the first is uninstalled; then it takes over all
//! that the first left behind. What a tenant can write decides nothing about that.

use serde_json::{Value, json};
use tests::kubernetes::cluster::shared;
use tests::kubernetes::controller::Controller;
use tests::kubernetes::release::{Release, Scope};
use tests::kubernetes::site::{RECOVERY, Site, TAKEOVER, counts, host, leads};
use tests::manifests::{Rule, Tls, in_class, route};
use tests::wait;

const NAME: &str = "chat";
const OTHER: &str = "other";

/// A first installation that serves, and a controller of a second one with its class.
struct Scene {
    site: Site,
    first: Controller,
    second: Controller,
    theirs: Release,
}

impl Scene {
    async fn start() -> Option<Self> {
        let cluster = shared().await?;
        let site = Site::install(&cluster).await;
        let first = site.leader("controller-0").await;
        let dataplane = site.dataplane("dataplane-0").await;
        site.serves_new(&dataplane, NAME).await;
        let class = site.release.class();
        let theirs = Release::install_class(&cluster, Scope::Cluster, class).await;
        let second = Controller::start(&theirs, "controller-0", &[]).await;
        let scene = Self {
            site,
            first,
            second,
            theirs,
        };
        let words = format!(
            "class {} is served by the installation in namespace {}",
            scene.site.release.class(),
            scene.site.release.namespace.name
        );
        wait::until_limit(&words, RECOVERY, async || {
            let (status, body) = scene.second.readiness().await?;
            (status == 503 && body.contains(&words) && body.contains("another --class"))
                .then_some(())
        })
        .await;
        // And what is applied from now on is the first one's.
        site_serves(&scene.site, &dataplane).await;
        Some(scene)
    }

    async fn second_leads(&self) {
        wait::until_limit("the second leads", TAKEOVER, async || {
            let (status, body) = self.second.readiness().await?;
            (status == 200 && body.contains("ready, leads")).then_some(())
        })
        .await;
    }

    /// Waits until only this installation owns anything in the status of a route.
    async fn only_manager(&self, name: &str, release: &Release) -> Value {
        let ours = format!("ws-ingress.dev/controller/{}", release.namespace.name);
        wait::until_limit(&format!("{ours} alone"), RECOVERY, async || {
            let route = self.site.route(name).await;
            (managers(&route) == [ours.as_str()]).then_some(route)
        })
        .await
    }
}

async fn site_serves(site: &Site, dataplane: &tests::kubernetes::dataplane::Dataplane) {
    site.serves_new(dataplane, OTHER).await;
}

fn managers(route: &Value) -> Vec<&str> {
    let entries = route["metadata"]["managedFields"].as_array();
    let entries = entries.into_iter().flatten();
    let entries = entries.filter(|entry| entry["subresource"] == "status");
    entries
        .filter_map(|entry| entry["manager"].as_str())
        .collect()
}

fn claimed(route: &Value) -> Vec<&str> {
    let claims = route["status"]["claims"].as_array().into_iter().flatten();
    claims
        .filter_map(|claim| claim["hostname"].as_str())
        .collect()
}

#[tokio::test]
async fn the_second_says_so_and_writes_nothing_until_the_first_has_ended() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let written = counts(&scene.second).await;
    for family in ["status_writes", "push_updates"] {
        let family = format!("ws_ingress_controller_{family}_total");
        assert_eq!(written.sum(&family, &[]), 0, "{family}");
    }
    for name in [NAME, OTHER] {
        scene.only_manager(name, &scene.site.release).await;
    }
    let path = scene.theirs.namespace.collection("events.k8s.io/v1/events");
    wait::until_limit("an event about it", RECOVERY, async || {
        let (_, events) = scene.theirs.cluster().api().get(&path).await;
        let events = events["items"].as_array()?;
        let told = events
            .iter()
            .any(|event| event["reason"] == "ClassHeld" && event["regarding"]["kind"] == "Lease");
        told.then_some(())
    })
    .await;
    assert!(scene.first.readiness().await.expect("it answers").0 == 200);
}

/// What only the first owns must not come back for ever: a claim, above all, keeps a hostname from everybody else.
#[tokio::test]
async fn when_the_first_was_uninstalled_the_second_takes_its_statuses_over() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let since = scene.site.route(NAME).await["status"]["claims"][0]["since"].clone();
    let next = Controller::start(&scene.theirs, "controller-1", &[]).await;
    std::mem::replace(&mut scene.first, next).kill().await;
    let api = scene.theirs.cluster().api();
    let (code, answer) = api.delete(&scene.site.release.mark_path()).await;
    assert!(code.is_success(), "{code} {answer}");
    scene.second_leads().await;
    let route = scene.only_manager(NAME, &scene.theirs).await;
    assert_eq!(claimed(&route), [host(NAME)]);
    assert_eq!(route["status"]["claims"][0]["since"], since);

    let moved = route_of(&scene.site, "moved.example.com");
    scene.site.namespace.kubectl.apply(&moved).await;
    wait::until_limit("the old claim is given up", RECOVERY, async || {
        let route = scene.site.route(NAME).await;
        (claimed(&route) == ["moved.example.com"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn installations_of_one_class_in_different_namespaces_lead_both() {
    let Some(cluster) = shared().await else {
        return;
    };
    let [one, other] = [cluster.namespace().await, cluster.namespace().await];
    let class = "shared-by-namespaces";
    let mut controllers = Vec::new();
    for namespace in [one, other] {
        let scope = Scope::Namespaces(vec![namespace.name.clone()]);
        let release = Release::install_class(&cluster, scope, class).await;
        let controller = Controller::start(&release, "controller-0", &[]).await;
        controllers.push((controller, release, namespace));
    }
    for (controller, _, _) in &controllers {
        leads(controller).await;
    }
}

/// What the owner of a namespace can make in it: an older Lease and a Role, both of which say what a mark says.
#[tokio::test]
async fn what_a_tenant_writes_takes_the_class_from_nobody() {
    let Some(cluster) = shared().await else {
        return;
    };
    let tenant = cluster.namespace().await;
    let class = tenant.name.clone();
    let metadata = json!({
        "name": "forged",
        "labels": { "ws-ingress.dev/mark": "true", "ws-ingress.dev/lease": "controller" },
        "annotations": {
            "ws-ingress.dev/class": class,
            "ws-ingress.dev/lease": format!("{class}/forged"),
            "ws-ingress.dev/watch-namespaces": "",
        },
    });
    let lease = json!({
        "metadata": metadata,
        "spec": { "holderIdentity": "tenant", "leaseDurationSeconds": 3600 },
    });
    let leases = tenant.collection("coordination.k8s.io/v1/leases");
    cluster.api().create(&leases, &lease).await;
    let role = json!({ "metadata": metadata, "rules": [] });
    let roles = tenant.collection("rbac.authorization.k8s.io/v1/roles");
    cluster.api().create(&roles, &role).await;

    let release = Release::install_class(&cluster, Scope::Cluster, &class).await;
    let site = Site::of_release(release).await;
    let _leader = site.leader("controller-0").await;
    let dataplane = site.dataplane("dataplane-0").await;
    site.serves_new(&dataplane, NAME).await;
}

/// The usual route with another hostname.
fn route_of(site: &Site, hostname: &str) -> String {
    let text = route(NAME, &[hostname], &Tls::Terminate(NAME), &[Rule::to(NAME)]);
    in_class(site.release.class(), &text)
}
