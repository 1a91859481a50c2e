//! Which certificate is served while references and Secrets change: a good one always, and where there is none, the route
//! says so.

use tests::client::certificate_shown;
use tests::kubernetes::installed::{cluster, condition, is_programmed, says};
use tests::kubernetes::site::{Site, host};
use tests::manifests::{secret, secret_of};

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
