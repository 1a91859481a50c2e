//! Who may have the push: everybody but a dataplane of the installation is turned away, told why, and counted; a dataplane
//! that is there already notices nothing.

mod cases;

use std::sync::Arc;
use std::time::Duration;

use rustls::version::TLS12;
use tests::certificate::Authority;
use tests::kubernetes::cluster::{Cluster, shared};
use tests::kubernetes::controller::{Controller, authority_bundle};
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::impostor::{Impostor, material_for};
use tests::kubernetes::names::AUDIENCE;
use tests::kubernetes::release::Pod;
use tests::kubernetes::site::{RECOVERY, Site, counts};
use tests::kubernetes::stranger::Stranger;
use tests::kubernetes::token::signed;
use tests::kubernetes::traffic::Traffic;
use tests::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use cases::{
    Attempt, Case, ENDED, Family, PREFACE, REFUSED, conversations, seconds_from_now, tokens,
};

/// The host that has traffic all the time.
const NAME: &str = "chat";

/// How long a token lives that ends while it is in use: long enough to connect with it on a loaded machine.
const SHORT_LIFE: Duration = Duration::from_secs(20);

/// A controller, a dataplane, and clients that talk through it.
struct Scene {
    site: Site,
    controller: Controller,
    dataplane: Dataplane,
    traffic: Traffic,
    bundle: String,
}

impl Scene {
    async fn start() -> Option<Self> {
        let site = Site::install(&shared().await?).await;
        let controller = site.leader("controller-0").await;
        let dataplane = site.dataplane("dataplane-0").await;
        site.serves_new(&dataplane, NAME).await;
        Some(Self {
            traffic: Traffic::start(&site.client(&dataplane, NAME)).await,
            bundle: authority_bundle(&site.release).await,
            site,
            controller,
            dataplane,
        })
    }

    fn cluster(&self) -> &Arc<Cluster> {
        self.site.release.cluster()
    }

    /// A token that is good, of another pod of the dataplane.
    async fn good_token(&self, pod: &str) -> (Pod, String) {
        let release = &self.site.release;
        let pod = release.dataplane_pod(pod).await;
        let token = release.dataplane_token(&pod, AUDIENCE).await;
        (pod, token)
    }

    /// How often the controller has counted this, and all of its family.
    async fn counted(&self, (family, label): (Family, &str)) -> [u64; 2] {
        let counts = counts(&self.controller).await;
        let (name, key) = family;
        [counts.sum(name, &[(key, label)]), counts.sum(name, &[])]
    }

    /// Waits until it has counted it once more than before, and nothing else of its family.
    async fn counts_one_more(&self, counted: (Family, &str), before: [u64; 2]) {
        let expected = before.map(|count| count + 1);
        let mut seen = before;
        let what = format!("{counted:?} is counted once");
        wait::until(&what, async || {
            seen = self.counted(counted).await;
            (seen[0] >= expected[0]).then_some(())
        })
        .await;
        assert_eq!(seen, expected, "{what}, and nothing else");
    }

    /// The dataplane that was there is where it was, alone, on the stream that it had, and new clients get in.
    async fn dataplane_notices_nothing(&self) {
        wait::until("one dataplane is connected", async || {
            let counts = counts(&self.controller).await;
            let connected = counts.sum("ws_ingress_controller_dataplanes_connected", &[]);
            (connected == 1).then_some(())
        })
        .await;
        let metrics = self.dataplane.metrics().await;
        assert_eq!(metrics.sum("ws_ingress_push_following", &[]), 1);
        assert_eq!(self.dataplane.log().count("following the leader"), 1);
        let client = self.site.client(&self.dataplane, NAME);
        assert_eq!(client.status().await, Some(101));
    }

    /// Does it, and returns what it hears.
    async fn heard(&self, attempt: &Attempt, good_token: &str) -> String {
        let mut dataplane = Stranger::new(self.controller.push, &self.bundle);
        let other = Authority::new().root_pem();
        let no_tls = match attempt {
            Attempt::Token(token) => {
                let refused = dataplane.call(token.as_deref()).await.err();
                return refused.expect("it is not let in").to_string();
            }
            Attempt::Says(messages) => {
                let mut messages = messages.iter().cloned();
                let first = messages.next().expect("something is said");
                let stream = dataplane.call_with(Some(good_token), first).await;
                let mut stream = stream.expect("it is let in");
                for message in messages {
                    stream.send(message).await;
                }
                return stream.end().await.message().to_owned();
            }
            Attempt::Bytes(bytes) => {
                let status = dataplane.call_with_bytes(good_token, bytes.clone()).await;
                return status.expect("a last word").message().to_owned();
            }
            Attempt::PlainText => {
                let mut tcp = dataplane.tcp().await.expect("a connection");
                return talks_to_the_end(&mut tcp, PREFACE).await;
            }
            Attempt::Nonsense(bytes) => {
                let mut tls = dataplane.tls().await.expect("a TLS connection");
                return talks_to_the_end(&mut tls, bytes).await;
            }
            Attempt::Tls12 => Stranger::with_tls(self.controller.push, &self.bundle, &TLS12),
            Attempt::OtherAuthority => Stranger::new(self.controller.push, &other),
            Attempt::OtherName => {
                dataplane.name = "localhost";
                dataplane
            }
        };
        let error = no_tls.tls().await.expect_err("no TLS");
        error.to_string()
    }
}

/// Says this and reads to the end; what came last.
async fn talks_to_the_end(io: &mut (impl tests::client::Io + ?Sized), bytes: &[u8]) -> String {
    /// The first byte of a TLS record that is an alert (RFC 8446 §5.1), and the type of the frame in HTTP/2 that says why a
    /// connection ends (RFC 9113 §6.8).
    const ALERT: u8 = 21;
    const GOAWAY: u8 = 7;
    const FRAME_HEAD: usize = 9;
    io.write_all(bytes).await.expect("it is read");
    let mut answer = Vec::new();
    // However it ends, it must.
    let _ = wait::within("the end of a connection", io.read_to_end(&mut answer)).await;
    if answer.first() == Some(&ALERT) {
        return "an alert".to_owned();
    }
    let mut frames = &answer[..];
    while frames.len() >= FRAME_HEAD {
        let length = u32::from_be_bytes([0, frames[0], frames[1], frames[2]]);
        if frames[3] == GOAWAY {
            return "GOAWAY".to_owned();
        }
        let length = FRAME_HEAD + usize::try_from(length).expect("24 bits");
        frames = frames.get(length..).unwrap_or_default();
    }
    "the end".to_owned()
}

#[tokio::test]
async fn each_stranger_is_told_why_and_counted_and_the_dataplane_notices_nothing() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let (_, good_token) = scene.good_token("insider").await;
    let cases = tokens(&scene, &good_token).await;
    for Case {
        attempt,
        hears,
        counted,
    } in cases.into_iter().chain(conversations())
    {
        let before = scene.counted(counted).await;
        let heard = wait::within(hears, scene.heard(&attempt, &good_token)).await;
        assert!(heard.contains(hears), "{heard:?} instead of {hears:?}");
        scene.counts_one_more(counted, before).await;
        scene.dataplane_notices_nothing().await;
    }
    scene.traffic.undisturbed().await;
}

/// The same from the other end: what the operator reads at a dataplane that is not let in, or does not trust.
#[tokio::test]
async fn a_dataplane_that_is_not_let_in_says_why_and_never_gets_ready() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let release = &scene.site.release;
    let refused = "the controller refused this dataplane";
    let other = Authority::new().root_pem();
    let cases = [
        (
            "for-another",
            "somebody-else",
            &scene.bundle,
            "the token is for another audience than ws-ingress-controller",
            refused,
            "token_audience",
        ),
        (
            "distrusts",
            AUDIENCE,
            &other,
            "UnknownIssuer",
            "no controller can be reached",
            "certificate_not_accepted",
        ),
    ];
    for (name, audience, bundle, logs, says, label) in cases {
        let before = scene.counted((REFUSED, label)).await;
        let pod = release.dataplane_pod(name).await;
        let token = release.dataplane_token(&pod, audience).await;
        let push = scene.controller.push;
        let newcomer = Dataplane::start_with(release, pod, push, bundle, &token, &[]).await;
        newcomer.log().with(logs).await;
        let (status, page) = newcomer.readiness().await.expect("it answers");
        assert_eq!(status, 503, "{page}");
        assert!(
            page.contains("no route table yet") && page.contains(says),
            "{page}"
        );
        let after = scene.counted((REFUSED, label)).await;
        assert!(after[0] > before[0], "{label} is not counted");
        drop(newcomer);
        scene.dataplane_notices_nothing().await;
    }
    scene.traffic.undisturbed().await;
}

/// The authority of the controllers signs for them alone; if it were made to sign for another name, that would be nobody.
#[tokio::test]
async fn a_dataplane_follows_no_server_of_another_name() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let release = &scene.site.release;
    let pair = material_for(release, "other.controller.ws-ingress.internal").await;
    let other = Impostor::start(&pair).await;
    let (pod, token) = scene.good_token("misled").await;
    let misled =
        Dataplane::start_with(release, pod, other.address, &scene.bundle, &token, &[]).await;
    misled.log().with("not valid for name").await;
    let (status, page) = misled.readiness().await.expect("it answers");
    assert_eq!(status, 503, "{page}");
    assert!(page.contains("no controller can be reached"), "{page}");
    scene.dataplane_notices_nothing().await;
    scene.traffic.undisturbed().await;
}

#[tokio::test]
async fn the_end_of_a_token_ends_its_stream_and_the_next_token_begins_another() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let (site, cluster) = (&scene.site, scene.cluster());
    let (pod, token) = scene.good_token("short-lived").await;
    let life = i64::try_from(SHORT_LIFE.as_secs()).expect("seconds");
    let short = signed(&token, &cluster.server.token_key(), |claims| {
        claims["exp"] = seconds_from_now(life);
    });
    let before = scene.counted((ENDED, "token_expired")).await;
    let push = scene.controller.push;
    let dataplane =
        Dataplane::start_with(&site.release, pod, push, &scene.bundle, &short, &[]).await;
    dataplane.ready(&site.release).await;
    site.serves(&dataplane, NAME).await;
    let following = async || {
        let metrics = dataplane.metrics().await;
        metrics.sum("ws_ingress_push_following", &[]) == 1
    };
    assert!(following().await, "it is on its stream");

    let last_word = "the token has expired; dial again with the next one";
    wait::until_limit(last_word, SHORT_LIFE * 2, async || {
        dataplane.log().find(last_word)
    })
    .await;
    scene
        .counts_one_more((ENDED, "token_expired"), before)
        .await;
    // The same token is not taken again, and what was served is served on.
    dataplane
        .log()
        .with("this dataplane: the token has expired")
        .await;
    let (status, page) = dataplane.readiness().await.expect("it answers");
    assert!(
        status == 200 && page.contains("the controller refused this dataplane"),
        "{status} {page}"
    );
    site.serves(&dataplane, NAME).await;

    std::fs::write(&dataplane.token_file, &token).expect("write a token");
    wait::until_limit("it follows with the next token", RECOVERY, async || {
        following().await.then_some(())
    })
    .await;
    site.serves_new(&dataplane, "after").await;
    scene.traffic.undisturbed().await;
}
