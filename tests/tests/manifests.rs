//! Files as the reader meets them: half-written by people, replaced by tools, mounted by Kubernetes. A file with a
//! mistake keeps what it said before; the others apply; nothing secret is printed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tests::certificate::Authority;
use tests::client::talk;
use tests::echo_process::EchoProcess;
use tests::gateway::{Gateway, Settings};
use tests::manifests::{Manifests, Rule, Tls, endpoints, route, secret, service};
use tests::scene::{
    CERTIFICATE_FILE, ENDPOINTS_FILE, HOST, ROUTE_FILE, SECRET, SERVICE, SERVICE_FILE, Scene,
};
use tests::wait;

async fn status_becomes(scene: &Scene, path: &str, expected: u16) {
    let what = format!("{expected} for {path}");
    wait::until(&what, async || {
        (scene.client().path(path).status().await == Some(expected)).then_some(())
    })
    .await;
}

fn chat(rules: &[Rule]) -> String {
    route("chat", &[HOST], &Tls::Terminate(SECRET), rules)
}

/// Writes a mistake into the route's file, and sees that it is told and that the old route serves on.
async fn a_mistake_is_told(text: &str, expected: &[&str]) {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    scene.manifests.write(ROUTE_FILE, text);
    let line = scene.gateway.log().with("manifest: ").await;
    for part in expected.iter().chain(&[ROUTE_FILE]) {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    let (_, mend) = line.split_once("; ").unwrap_or_default();
    assert!(!mend.is_empty(), "no mend in {line:?}");
    assert_eq!(
        scene.client().status().await,
        Some(101),
        "the file keeps its earlier objects"
    );

    scene.write_route(&[Rule::to(SERVICE).exact("/mended")]);
    scene.gateway.log().with("manifest mended: ").await;
    status_becomes(&scene, "/", 404).await;
    assert_eq!(scene.client().path("/mended").status().await, Some(101));
    let told = scene
        .gateway
        .log()
        .all()
        .iter()
        .filter(|line| line.contains("manifest: "))
        .count();
    assert_eq!(told, 1, "a mistake is told once");
}

#[tokio::test]
async fn a_document_that_does_not_parse_is_told_with_file_document_and_line() {
    let text = format!(
        "{}---\napiVersion: v1\nkind: Service\nmetadata: {{ name: x\n",
        chat(&[Rule::to(SERVICE)])
    );
    a_mistake_is_told(&text, &["document 2", "line "]).await;
}

#[tokio::test]
async fn an_unknown_field_is_told_with_its_place() {
    let text = chat(&[Rule::to(SERVICE)])
        .replace("    - name: chat\n", "    - name: chat\n      wieght: 3\n");
    assert!(text.contains("wieght"));
    a_mistake_is_told(
        &text,
        &["document 1", "spec.rules[0].backendRefs[0]", "wieght"],
    )
    .await;
}

#[tokio::test]
async fn a_wrong_type_is_told_with_field_and_line() {
    let text = chat(&[Rule::to(SERVICE)]).replace("port: 80", "port: eighty");
    a_mistake_is_told(
        &text,
        &["document 1", "line ", "spec.rules[0].backendRefs[0].port"],
    )
    .await;
}

#[tokio::test]
async fn a_number_in_quotes_is_a_wrong_type() {
    let text = chat(&[Rule::to(SERVICE)]).replace("port: 80", "port: \"80\"");
    a_mistake_is_told(&text, &["spec.rules[0].backendRefs[0].port"]).await;
}

#[tokio::test]
async fn a_document_of_another_kind_is_named_and_left_out() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    // One file often holds a Deployment beside its Service.
    let text = chat(&[Rule::to(SERVICE).exact("/beside")])
        + "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n";
    scene.manifests.write(ROUTE_FILE, &text);
    scene.gateway.log().with("Pod").await;
    status_becomes(&scene, "/", 404).await;
    status_becomes(&scene, "/beside", 101).await;
}

#[tokio::test]
async fn other_files_apply_while_one_has_a_mistake() {
    let (one, two) = (
        EchoProcess::start("one").await,
        EchoProcess::start("two").await,
    );
    let scene = Scene::in_front_of(one.address).await;
    scene.manifests.write(ROUTE_FILE, "kind: [");
    scene.gateway.log().with("manifest: ").await;
    scene
        .manifests
        .write(ENDPOINTS_FILE, &endpoints(SERVICE, &[two.address]));
    wait::until("new sockets reach the second endpoint", async || {
        let before = two.handshakes().await;
        let status = scene.client().status().await;
        (status == Some(101) && two.handshakes().await > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn deleting_a_file_with_a_mistake_takes_its_objects_away() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    scene.manifests.write(ROUTE_FILE, "kind: [");
    scene.gateway.log().with("manifest: ").await;
    scene.manifests.remove(ROUTE_FILE);
    wait::until("the route is gone", async || {
        scene.raw_as(HOST).await.is_err().then_some(())
    })
    .await;
    scene.gateway.log().with("manifest mended: ").await;
}

#[tokio::test]
async fn a_private_key_is_never_printed() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let issued = scene.authority.issue(&[HOST]);
    let good = secret(SECRET, &issued);
    let keys: Vec<_> = issued
        .key_pem
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    let route = chat(&[Rule::to(SERVICE)]);
    let inline = format!("{:?}", issued.key_pem);
    let misplaced = |from: &str, to: &str| {
        assert!(route.contains(from), "{from} is not in the route");
        (
            ROUTE_FILE,
            route.replacen(from, &to.replace("KEY", &inline), 1),
            &route,
        )
    };
    let service = service(SERVICE);
    let (above, _) = service.split_once("  ports:").expect("a Service has ports");
    let ports = format!("{above}  ports: {inline}\n");
    // Mistakes right beside the key: in its indentation, its quoting, its field name, its type.
    let beside = [
        good.replace("  tls.key: |\n    ", "  tls.key: |\n    x\n  "),
        good.replace("  tls.key: |", "  tls.key: \""),
        good.replace("  tls.key: |", "  tls.key: ["),
        good.replace("stringData:", "stringDate:"),
        good.replace("stringData:", "data:"),
        format!("{good}  tls.key: again\n"),
        format!("{good}more: 1\n"),
    ];
    let beside = beside.map(|text| (CERTIFICATE_FILE, text, &good));
    // And the key itself where a name, a number or a block belongs.
    let inside = [
        misplaced("  tls:\n", "  tls: KEY\n  ignored:\n"),
        misplaced("certificateRefs:", "certificateRefs: [KEY]\n    ignored:"),
        misplaced("- name: chat-tls", "- name: KEY"),
        misplaced("port: 80", "port: KEY"),
        (SERVICE_FILE, ports, &service),
    ];
    let count = |words: &[&str]| {
        let lines = scene.gateway.log().all();
        let told = lines
            .iter()
            .filter(|line| words.iter().any(|word| line.contains(word)));
        told.count()
    };
    for (number, (file, text, good)) in beside.iter().chain(&inside).enumerate() {
        let (begun, ended) = (&["manifest: ", "finding: "], &["ended: "]);
        let before = (count(begun), count(ended));
        scene.manifests.write(file, text);
        let what = format!("mistake {number} is told");
        wait::until(&what, async || (count(begun) > before.0).then_some(())).await;
        // Between two mistakes the file is good, so that each is told by itself.
        scene.manifests.write(file, good);
        let what = format!("mistake {number} is mended");
        wait::until(&what, async || (count(ended) > before.1).then_some(())).await;
    }
    for line in scene.gateway.log().all() {
        assert!(
            !keys.iter().any(|key| line.contains(key)),
            "a private key in the log: {line}"
        );
    }
    status_becomes(&scene, "/", 101).await;
}

#[tokio::test]
async fn an_emptied_file_keeps_what_it_held() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    // As `kubectl create secret ... > certificate.yaml` does until it has something to write.
    scene.manifests.write(CERTIFICATE_FILE, "");
    let line = scene.gateway.log().with("is empty").await;
    assert!(line.contains(CERTIFICATE_FILE), "{line}");
    assert_eq!(scene.client().status().await, Some(101));
    let renewed = secret(SECRET, &scene.authority.issue(&[HOST]));
    scene.manifests.write(CERTIFICATE_FILE, &renewed);
    scene.gateway.log().with("manifest mended: ").await;
    assert_eq!(scene.client().status().await, Some(101));
}

#[tokio::test]
async fn a_finding_is_printed_once_when_it_appears_and_once_when_it_ends() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let finding = "finding: WebSocketRoute default/chat: ResolvedRefs=False BackendNotFound: ";
    scene.write_route(&[Rule::to("nowhere")]);
    let line = scene.gateway.log().with(finding).await;
    assert!(line.contains("nowhere"), "{line}");
    // Another change while the finding stands does not repeat it.
    scene.write_route(&[Rule::to("nowhere").exact("/x")]);
    status_becomes(&scene, "/", 404).await;
    scene.write_route(&[Rule::to(SERVICE)]);
    scene
        .gateway
        .log()
        .with("ended: WebSocketRoute default/chat: ResolvedRefs=False BackendNotFound: ")
        .await;
    let printed = scene
        .gateway
        .log()
        .all()
        .iter()
        .filter(|line| line.contains(finding))
        .count();
    assert_eq!(printed, 1);
    status_becomes(&scene, "/", 101).await;
}

#[tokio::test]
async fn a_broken_route_changes_no_other() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let broken = route(
        "broken",
        &["broken.example.com"],
        &Tls::Terminate("no-such-secret"),
        &[Rule::to("nowhere")],
    );
    scene.manifests.write("broken.yaml", &broken);
    scene
        .gateway
        .log()
        .with("finding: WebSocketRoute default/broken: ResolvedRefs=False")
        .await;
    let mut socket = scene.client().connect().await;
    talk(&mut socket, "untouched").await;
    assert!(
        scene.raw_as("broken.example.com").await.is_err(),
        "no certificate, no handshake"
    );
}

#[tokio::test]
async fn what_a_broken_route_would_take_reaches_no_other() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let admin = |origin: &str| {
        let origins = format!("allowedOrigins: [\"{origin}\"]");
        let rule = Rule::to(SERVICE).prefix("/admin").with(&origins);
        route("admin", &[HOST], &Tls::Terminate(SECRET), &[rule])
    };
    scene
        .manifests
        .write("admin.yaml", &admin("https://app.example.com:99999"));
    // The route for / has another list of origins: none.
    status_becomes(&scene, "/admin/x", 503).await;
    assert_eq!(scene.client().path("/").status().await, Some(101));
    scene
        .manifests
        .write("admin.yaml", &admin("https://app.example.com"));
    status_becomes(&scene, "/admin/x", 101).await;
}

#[tokio::test]
async fn a_reference_into_another_namespace_needs_a_grant_there() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let elsewhere = |text: &str| text.replace("metadata:\n", "metadata:\n  namespace: team\n");
    scene
        .manifests
        .write(SERVICE_FILE, &elsewhere(&service(SERVICE)));
    let slices = elsewhere(&endpoints(SERVICE, &[echo.address]));
    scene.manifests.write(ENDPOINTS_FILE, &slices);
    let into_team = chat(&[Rule::to(SERVICE)]).replace(
        "    - name: chat\n",
        "    - name: chat\n      namespace: team\n",
    );
    scene.manifests.write(ROUTE_FILE, &into_team);
    let finding = "WebSocketRoute default/chat: ResolvedRefs=False RefNotPermitted: ";
    let log = scene.gateway.log();
    log.with(&format!("finding: {finding}")).await;
    status_becomes(&scene, "/", 503).await;

    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: { name: routes, namespace: team }\nspec:\n  from: [{ group: ws-ingress.dev, kind: WebSocketRoute, namespace: default }]\n  to: [{ group: \"\", kind: Service }]\n";
    scene.manifests.write("grant.yaml", grant);
    log.with(&format!("ended: {finding}")).await;
    status_becomes(&scene, "/", 101).await;
    let mut socket = scene.client().connect().await;
    talk(&mut socket, "permitted").await;

    scene.manifests.remove("grant.yaml");
    status_becomes(&scene, "/", 503).await;
    talk(&mut socket, "open sockets do not notice").await;
}

/// Writes the objects of one host as Kubernetes mounts a `ConfigMap`: files are links into `..data`, and `..data` is a
/// link that is moved to a new folder.
fn mount(folder: &Path, generation: u32, files: &[(&str, String)]) {
    let fresh = folder.join(format!("..generation-{generation}"));
    fs::create_dir(&fresh).expect("a fresh folder");
    for (name, text) in files {
        fs::write(fresh.join(name), text).expect("a file");
        let link = folder.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link).expect("a link");
        }
    }
    let moved = folder.join("..data_tmp");
    symlink(fresh.file_name().expect("a folder has a name"), &moved).expect("a link");
    fs::rename(moved, folder.join("..data")).expect("the link is moved");
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_when_its_link_moves() {
    let echo = EchoProcess::start("echo").await;
    let (manifests, authority) = (Manifests::new(), Authority::new());
    let files = |rule: Rule| {
        [
            (CERTIFICATE_FILE, secret(SECRET, &authority.issue(&[HOST]))),
            (ROUTE_FILE, chat(&[rule])),
            (SERVICE_FILE, service(SERVICE)),
            (ENDPOINTS_FILE, endpoints(SERVICE, &[echo.address])),
        ]
    };
    mount(manifests.path(), 1, &files(Rule::to(SERVICE).exact("/one")));
    let after = files(Rule::to(SERVICE).exact("/two"));
    let gateway = Gateway::start(&[manifests.path()], &Settings::default()).await;
    let scene = Scene {
        manifests,
        authority,
        gateway,
    };
    status_becomes(&scene, "/one", 101).await;
    mount(scene.manifests.path(), 2, &after);
    status_becomes(&scene, "/two", 101).await;
    assert_eq!(scene.client().path("/one").status().await, Some(404));
}

#[tokio::test]
async fn a_single_file_may_be_given_and_hidden_files_are_not_read() {
    let echo = EchoProcess::start("echo").await;
    let (folder, authority) = (Manifests::new(), Authority::new());
    let mut all = secret(SECRET, &authority.issue(&[HOST]));
    all += &chat(&[Rule::to(SERVICE)]);
    all += &service(SERVICE);
    all += &endpoints(SERVICE, &[echo.address]);
    let file = folder.write("all.yaml", &all);
    let empty = Manifests::new();
    fs::write(empty.path().join(".hidden.yaml"), "kind: [").expect("a file");
    fs::write(empty.path().join("notes.txt"), "kind: [").expect("a file");
    let gateway = Gateway::start(&[&file, empty.path()], &Settings::default()).await;
    let scene = Scene {
        manifests: folder,
        authority,
        gateway,
    };
    status_becomes(&scene, "/", 101).await;
    // The file is followed through a rename, which a watch on the file itself would not see twice.
    for path in ["/second", "/third"] {
        scene.manifests.write(
            "all.yaml",
            &all.replace(
                "  - backendRefs:",
                &format!(
                    "  - matches:\n    - path: {{ type: Exact, value: {path} }}\n    backendRefs:"
                ),
            ),
        );
        status_becomes(&scene, path, 101).await;
    }
    assert_eq!(scene.gateway.log().find("manifest: "), None);
}
