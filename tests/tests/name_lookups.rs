//! Name servers that answer half, late or never: whom that may keep waiting, and whom not.

use std::net::IpAddr;
use std::time::Duration;

use tests::client::Dial;
use tests::dns::{Dns, Says};
use tests::echo_process::EchoProcess;
use tests::gateway::{Gateway, Settings};
use tests::manifests::{Manifests, Rule, Security, Tls, endpoints, external, route, service};
use tests::wait;
use tokio::time::Instant;

const HOST: &str = "outer.example.com";
const NAME: &str = "inner.example.com";
const BACKEND: &str = "inner";

/// Longest time that counts as at once: a name server here answers in milliseconds, and waits in the product are of two seconds and more.
const AT_ONCE: Duration = Duration::from_millis(1500);

struct Scene {
    dns: Dns,
    manifests: Manifests,
    gateway: Gateway,
    backend: EchoProcess,
}

impl Scene {
    async fn start(says: Says, rule: Rule) -> Self {
        let backend = EchoProcess::start("only").await;
        let dns = Dns::start().await;
        dns.says(NAME, says);
        let manifests = Manifests::new();
        let port = backend.address.port();
        let text = [
            external(BACKEND, NAME, port, &Security::Plain),
            route("outer", &[HOST], &Tls::Plain, &[rule]),
            service("chat"),
            endpoints("chat", &[backend.address]),
        ];
        manifests.write("all.yaml", &text.concat());
        let settings = Settings::with(&["--resolver", &dns.address.to_string()]);
        let gateway = Gateway::start(&[manifests.path()], &settings).await;
        Self {
            dns,
            manifests,
            gateway,
            backend,
        }
    }

    fn client(&self) -> Dial {
        Dial::ws(self.gateway.http, HOST)
    }

    async fn lookups(&self, outcome: &str) -> u64 {
        let metrics = self.gateway.metrics().await;
        metrics.sum("ws_ingress_name_lookups_total", &[("outcome", outcome)])
    }
}

fn leads(address: &str) -> Says {
    let address: IpAddr = address.parse().expect("an address");
    Says::Addresses(vec![address], 1)
}

fn by_family(v4: Says, v6: Says) -> Says {
    Says::ByFamily(Box::new(v4), Box::new(v6))
}

#[tokio::test]
async fn a_family_that_nobody_speaks_of_does_not_keep_the_other_waiting() {
    let says = by_family(leads("127.0.0.1"), Says::Nothing);
    let scene = Scene::start(says, Rule::to_external(BACKEND)).await;
    let begun = Instant::now();
    assert_eq!(scene.client().status().await, Some(101));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(scene.lookups("failed").await, 0);
}

#[tokio::test]
async fn half_an_answer_takes_nothing_from_the_other_half() {
    let scene = Scene::start(leads("127.0.0.1"), Rule::to_external(BACKEND)).await;
    assert_eq!(scene.client().status().await, Some(101));
    for failing in [Says::Failure, Says::Nothing] {
        // Nobody may be led to the address of the other family.
        scene.dns.says(NAME, by_family(failing, leads("fe80::1")));
        let asked = scene.dns.asked(NAME);
        wait::until("the name is looked up again, and again", async || {
            (scene.dns.asked(NAME) > asked + 4).then_some(())
        })
        .await;
        assert_eq!(scene.client().status().await, Some(101));
        scene.dns.says(NAME, leads("127.0.0.1"));
    }
    // What is said, and not only left out, counts.
    let nothing = Says::Addresses(Vec::new(), 1);
    scene.dns.says(NAME, by_family(nothing, Says::Failure));
    wait::until("the address is withdrawn", async || {
        (scene.client().status().await? == 503).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_name_without_an_answer_does_not_keep_the_other_backends_of_a_rule_waiting() {
    let rule = Rule::to_external(BACKEND).and("chat", 1);
    let scene = Scene::start(Says::Nothing, rule).await;
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(scene.client().status().await, Some(101));
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn names_that_nobody_answers_do_not_keep_other_names_waiting() {
    let scene = Scene::start(leads("127.0.0.1"), Rule::to_external(BACKEND)).await;
    let port = scene.backend.address.port();
    let silent = |number: usize| format!("silent-{number}.example.com");
    let mut text = String::new();
    for number in 0..40 {
        let name = format!("silent-{number}");
        scene.dns.says(&silent(number), Says::Nothing);
        text += &external(&name, &silent(number), port, &Security::Plain);
        let host = format!("{name}.example.org");
        text += &route(&name, &[&host], &Tls::Plain, &[Rule::to_external(&name)]);
    }
    scene.manifests.write("silent.yaml", &text);
    wait::until_limit(
        "all have failed once",
        Duration::from_secs(40),
        async || (scene.lookups("failed").await >= 40).then_some(()),
    )
    .await;
    for number in 0..3 {
        let (name, host) = (format!("new-{number}"), format!("new-{number}.example.org"));
        let dns_name = format!("{name}.example.com");
        scene.dns.leads(&dns_name, &["127.0.0.1"], 60);
        let text = external(&name, &dns_name, port, &Security::Plain)
            + &route(&name, &[&host], &Tls::Plain, &[Rule::to_external(&name)]);
        scene.manifests.write(&format!("{name}.yaml"), &text);
        let begun = Instant::now();
        wait::until("the new name is looked up", async || {
            (scene.dns.asked(&dns_name) > 0).then_some(())
        })
        .await;
        // The files are looked at every second.
        assert!(begun.elapsed() < AT_ONCE * 2, "{:?}", begun.elapsed());
        let client = Dial::ws(scene.gateway.http, &host);
        assert_eq!(client.status().await, Some(101));
    }
}

#[tokio::test]
async fn a_handshake_waits_for_a_name_no_longer_than_it_may_take() {
    let rule = Rule::to_external(BACKEND).timeout("handshake", "300ms");
    let scene = Scene::start(Says::Nothing, rule).await;
    let begun = Instant::now();
    assert_eq!(scene.client().status().await, Some(503));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}
