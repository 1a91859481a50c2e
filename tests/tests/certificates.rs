//! Which certificate is served while references and Secrets change: a good one always, and where there is none, the route
//! says so.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use serde_json::json;
use tests::client::certificate_shown;
use tests::echo_process::EchoProcess;
use tests::kubernetes::installed::{
    Installed, ROUTE, ROUTES, cluster, condition, is_programmed, says,
};
use tests::kubernetes::request::Patch;
use tests::kubernetes::site::{Site, host};
use tests::manifests::{secret, secret_of};
use tests::scene::{HOST, SECRET};
use tests::wait;
use tokio::task::JoinSet;

/// Clients that begin one handshake after the other, so that one falls into every moment of a change.
const NEWCOMERS: usize = 4;
/// Times that the route goes from one Secret to the other.
const CHANGES: usize = 20;

/// New handshakes all along: what they were shown, and how many failed, by error.
#[derive(Default)]
struct Handshakes {
    stop: AtomicBool,
    succeeded: AtomicUsize,
    failed: Mutex<BTreeMap<String, usize>>,
    shown: Mutex<HashSet<CertificateDer<'static>>>,
}

impl Handshakes {
    fn start(self: &Arc<Self>, installed: &Installed) -> JoinSet<()> {
        let mut newcomers = JoinSet::new();
        for _ in 0..NEWCOMERS {
            let (all, address) = (Arc::clone(self), installed.dataplane.https);
            let root = installed.authority.root();
            newcomers.spawn(async move {
                while !all.stop.load(Ordering::SeqCst) {
                    match certificate_shown(address, HOST, root.clone()).await {
                        Ok(shown) => {
                            all.succeeded.fetch_add(1, Ordering::SeqCst);
                            all.shown.lock().expect("no panic").insert(shown);
                        }
                        Err(error) => {
                            let mut failed = all.failed.lock().expect("no panic");
                            *failed.entry(error.to_string()).or_default() += 1;
                        }
                    }
                }
            });
        }
        newcomers
    }
}

async fn refer_to(installed: &Installed, secret: &str) {
    let object = json!({ "spec": { "tls": { "certificateRefs": [{ "name": secret }] } } });
    let path = installed.namespace.path(ROUTES, ROUTE);
    let api = installed.namespace.cluster.api();
    let (code, answer) = api.patch(&path, Patch::Merge, &object).await;
    assert!(code.is_success(), "{path}: {code} {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_goes_from_one_good_certificate_to_another_fails_no_handshake() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let installed = Installed::start(&cluster).await;
    let echo = EchoProcess::start_reachable("echo").await;
    installed.serve(echo.address).await;
    let certificates = [HOST, HOST].map(|host| installed.authority.issue(&[host]));
    let [one, two] = &certificates;
    let kubectl = &installed.namespace.kubectl;
    let manifests = [secret(SECRET, one), secret("second-tls", two)];
    kubectl.apply(&manifests.concat()).await;
    let root = installed.authority.root();
    let becomes = async |leaf: &CertificateDer<'static>| {
        wait::until("the certificate that the route refers to", async || {
            let shown = certificate_shown(installed.dataplane.https, HOST, root.clone()).await;
            (shown.ok()? == *leaf).then_some(())
        })
        .await;
    };
    becomes(&one.leaf).await;

    let handshakes = Arc::<Handshakes>::default();
    let mut newcomers = handshakes.start(&installed);
    for change in 0..CHANGES {
        let (name, issued) = if change % 2 == 0 {
            ("second-tls", two)
        } else {
            (SECRET, one)
        };
        refer_to(&installed, name).await;
        becomes(&issued.leaf).await;
    }
    handshakes.stop.store(true, Ordering::SeqCst);
    while let Some(ended) = newcomers.join_next().await {
        ended.expect("a newcomer");
    }
    is_programmed(&installed.namespace, ROUTE).await;
    let failed = handshakes.failed.lock().expect("no panic");
    let succeeded = handshakes.succeeded.load(Ordering::SeqCst);
    println!("{succeeded} handshakes succeeded");
    assert!(failed.is_empty(), "of {succeeded} and more: {failed:?}");
    let shown = handshakes.shown.lock().expect("no panic");
    assert_eq!(*shown, HashSet::from([one.leaf.clone(), two.leaf.clone()]));
}

#[tokio::test]
async fn a_dataplane_that_never_had_a_good_certificate_says_so_and_one_that_had_serves_on() {
    const NAME: &str = "chat";
    let Some(cluster) = cluster().await else {
        return;
    };
    let site = Site::install(&cluster).await;
    let _controller = site.leader("controller-0").await;
    let first = site.dataplane("dataplane-0").await;
    site.serves_new(&first, NAME).await;
    let namespace = &site.namespace;

    let [good, foreign] = [(); 2].map(|()| site.authority.issue(&[&host(NAME)]));
    let broken = secret_of(NAME, &good.chain_pem, &foreign.key_pem);
    namespace.kubectl.apply(&broken).await;
    says(
        namespace,
        NAME,
        ["ResolvedRefs", "False", "InvalidCertificateRef"],
    )
    .await;
    // A later set than the one that the mistake led to.
    let other = site.manifests("other", &[site.echo.address]);
    namespace.kubectl.apply(&other).await;
    site.serves(&first, "other").await;
    is_programmed(namespace, "other").await;
    is_programmed(namespace, NAME).await;
    site.serves(&first, NAME).await;

    // As if it were restarted: it comes with nothing.
    let second = site.dataplane("dataplane-1").await;
    let route = says(namespace, NAME, ["Programmed", "False", "Rejected"]).await;
    let message = condition(&route, "Programmed").expect("the condition")["message"].to_string();
    for part in [
        &format!("certificate {}/{NAME}", namespace.name),
        "no usable form of it was received yet",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let root = site.authority.root();
    let refused = certificate_shown(second.https, &host(NAME), root).await;
    assert!(refused.is_err(), "no certificate can be shown");
    site.serves(&second, "other").await;
    is_programmed(namespace, "other").await;
    site.serves(&first, NAME).await;

    namespace.kubectl.apply(&secret(NAME, &good)).await;
    site.statuses_are_right().await;
    site.serves(&second, NAME).await;
    site.serves(&first, NAME).await;
}
