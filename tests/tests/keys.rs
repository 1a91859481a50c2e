//! Private keys are nowhere to be seen: not in logs at their loudest, not on any page, not in a status or an event. Canary
//! keys go all the ways that keys go, and everything that the programs show is searched for them.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tests::canary::{Canary, is_findable, marker};
use tests::certificate::{Authority, Issued};
use tests::client::talk;
use tests::echo_process::EchoProcess;
use tests::kubernetes::installed::{Installed, ROUTE, ROUTES, cluster, is_programmed, says};
use tests::manifests::{Rule, Tls, endpoints, route, secret, secret_of, service};
use tests::metrics::get;
use tests::scene::{HOST, SECRET, SERVICE};
use tests::wait;

/// The Secret of the push's own authority; the chart's roles name it.
const AUTHORITY_SECRET: &str = "ws-ingress-push";

const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// A certificate whose key can be found in a text.
fn issue(authority: &Authority, host: &str) -> Issued {
    let mut all = std::iter::repeat_with(|| authority.issue(&[host]));
    let found = all.find(|issued| is_findable(&issued.key_pem));
    found.expect("certificates without end")
}

fn pem_of(text: &str) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(text);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

/// Applies Secrets that are refused, each with a route that names it; the canaries in them.
async fn refused(installed: &Installed) -> Vec<Canary> {
    let chain = installed
        .authority
        .issue(&["refused.example.com"])
        .chain_pem;
    let key = || issue(&installed.authority, "refused.example.com").key_pem;
    let (foreign, swapped, twice) = (key(), key(), key());
    let (plain, broken, cut) = (marker(), marker(), key());
    let half = &cut[..cut.len() - 60];
    let secrets = [
        ("foreign", chain.clone(), foreign.clone()),
        ("swapped", swapped.clone(), chain.clone()),
        ("twice", format!("{twice}{chain}"), twice.replace('A', "B")),
        ("plain", chain.clone(), plain.clone()),
        ("broken", chain.clone(), pem_of(&broken)),
        ("half", chain.clone(), half.to_owned()),
    ];
    for (name, chain, key) in &secrets {
        let (host, secret) = (format!("{name}.example.com"), format!("{name}-tls"));
        let text = route(
            name,
            &[&host],
            &Tls::Terminate(&secret),
            &[Rule::to(SERVICE)],
        );
        let manifests = secret_of(&secret, chain, key) + &installed.routes(&text);
        installed.namespace.kubectl.apply(&manifests).await;
    }
    for (name, ..) in &secrets {
        let expected = ["ResolvedRefs", "False", "InvalidCertificateRef"];
        says(&installed.namespace, name, expected).await;
    }
    vec![
        Canary::of_key("a key of another certificate", &foreign),
        Canary::of_key("a key where the certificate belongs", &swapped),
        Canary::of_key("a key before the certificate", &twice),
        Canary::of_text("a text instead of a key", &plain),
        Canary::of_text("a PEM that is no key", &broken),
        Canary::of_key("a key without its end", &cut),
    ]
}

/// What the product itself must hide.
async fn own_secrets(installed: &Installed) -> Vec<Canary> {
    let path = installed
        .release
        .namespace
        .path("v1/secrets", AUTHORITY_SECRET);
    let (code, secret) = installed.release.cluster().api().get(&path).await;
    assert!(code.is_success(), "{path}: {code}");
    let data = secret["data"].as_object().expect("data").values();
    let texts: Vec<_> = data.filter_map(Value::as_str).map(decoded).collect();
    let keys = texts.iter().filter(|text| text.contains("PRIVATE KEY"));
    let mut canaries: Vec<_> = keys
        .map(|pem| Canary::of_key("a key of the push", &only_key(pem)))
        .collect();
    assert!(!canaries.is_empty(), "no key in {AUTHORITY_SECRET}");
    let token = std::fs::read_to_string(&installed.dataplane.token_file).expect("a token");
    let signature = token.rsplit('.').next().expect("a signature");
    canaries.push(Canary::of_text("the dataplane's token", signature));
    canaries
}

fn decoded(base64: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64);
    String::from_utf8_lossy(&bytes.expect("base64")).into_owned()
}

/// The first key of a PEM that may hold other things.
fn only_key(pem: &str) -> String {
    let start = pem.find("-----BEGIN PRIVATE KEY").expect("a PKCS#8 key");
    let (key, _) = pem[start..].split_once("-----END").expect("its end");
    key.to_owned()
}

/// Everything that the two programs show, by where.
async fn shown(installed: &Installed) -> Vec<(String, String)> {
    let Installed {
        controller,
        dataplane,
        ..
    } = installed;
    let mut shown = vec![
        (
            "the controller's output".to_owned(),
            controller.printed().join("\n"),
        ),
        (
            "the dataplane's output".to_owned(),
            dataplane.printed().join("\n"),
        ),
    ];
    for (address, path) in [
        (controller.status, "/metrics"),
        (controller.status, "/readyz"),
        (controller.status, "/healthz"),
        (dataplane.status, "/metrics"),
        (dataplane.status, "/readyz"),
        (dataplane.status, "/healthz"),
        (dataplane.admin, "/debug/table"),
        (dataplane.admin, "/"),
    ] {
        let page = wait::until(path, async || get(address, path).await).await.1;
        assert!(!page.is_empty(), "{address}{path}");
        shown.push((format!("{address}{path}"), page));
    }
    let own = &installed.release.namespace;
    for path in [
        installed.namespace.collection(ROUTES),
        installed.namespace.collection("v1/events"),
        own.collection("v1/events"),
        own.collection("v1/configmaps"),
        own.collection("coordination.k8s.io/v1/leases"),
    ] {
        let (code, list) = own.cluster.api().get(&path).await;
        assert!(code.is_success(), "{path}: {code}");
        shown.push((path, list.to_string()));
    }
    shown
}

fn found(canaries: &[Canary], text: &str) -> Vec<String> {
    let found = canaries.iter().map(|canary| canary.found_in(text));
    found.collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn no_key_is_seen_in_logs_pages_and_objects() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let mut installed = Installed::start_with(&cluster, &["--log", "trace"]).await;
    let echo = EchoProcess::start_reachable("echo").await;
    let keys = [HOST, HOST].map(|host| issue(&installed.authority, host));
    let [first, second] = &keys;
    let manifests = [
        secret(SECRET, first),
        service(SERVICE),
        endpoints(SERVICE, &[echo.address]),
        installed.usual_route(&[Rule::to(SERVICE)]),
    ];
    installed.namespace.kubectl.apply(&manifests.concat()).await;
    is_programmed(&installed.namespace, ROUTE).await;
    let mut socket = installed.client().connect().await;
    talk(&mut socket, "under the first key").await;

    let mut canaries = refused(&installed).await;
    canaries.extend(own_secrets(&installed).await);
    canaries.push(Canary::of_key("a key in service", &first.key_pem));
    canaries.push(Canary::of_key("a key in service later", &second.key_pem));

    // A good one is replaced, spoilt and mended.
    let kubectl = &installed.namespace.kubectl;
    kubectl.apply(&secret(SECRET, second)).await;
    kubectl
        .apply(&secret_of(SECRET, &first.chain_pem, &second.key_pem))
        .await;
    says(
        &installed.namespace,
        ROUTE,
        ["ResolvedRefs", "False", "InvalidCertificateRef"],
    )
    .await;
    kubectl.apply(&secret(SECRET, first)).await;
    says(
        &installed.namespace,
        ROUTE,
        ["ResolvedRefs", "True", "ResolvedRefs"],
    )
    .await;
    let mut new = installed.client().connect().await;
    talk(&mut new, "under the first key again").await;

    let mut everything = shown(&installed).await;
    drop((socket, new));
    installed.dataplane.signal(Signal::TERM);
    installed.dataplane.drained(DRAIN_LIMIT).await;
    let last = installed.dataplane.printed().join("\n");
    everything.push(("the dataplane's output to its end".to_owned(), last));

    // At their loudest, and the libraries under them too.
    for ((place, text), words) in everything
        .iter()
        .zip([["TRACE", "kube_client"], ["TRACE", "h2::"]])
    {
        for word in words {
            assert!(text.contains(word), "{place} has no {word}");
        }
    }
    let seen: Vec<_> = everything
        .iter()
        .flat_map(|(place, text)| {
            found(&canaries, text)
                .into_iter()
                .map(move |what| (place, what))
        })
        .collect();
    assert!(seen.is_empty(), "{seen:#?}");

    // The search would have found one: planted in the same text, in the midst of it.
    for planted in [
        first.key_pem.clone(),
        first.key_pem.replace('\n', "\\n"),
        format!("{:?}", first.key_pem.as_bytes()),
    ] {
        let (_, log) = &everything[0];
        let middle = log.floor_char_boundary(log.len() / 2);
        let log = format!("{}{planted}{}", &log[..middle], &log[middle..]);
        assert!(
            !found(&canaries, &log).is_empty(),
            "{planted} was not found"
        );
    }
    let bytes: usize = everything.iter().map(|(_, text)| text.len()).sum();
    println!("{} secrets, {bytes} bytes searched", canaries.len());
}
